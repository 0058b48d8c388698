// runtime/cli/bench/contestant.hpp: one backend on one problem: prepared, found right, ready to be sampled
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/bench/bench.hpp"
#include "cli/bench/device_memory.hpp"

namespace attnrt::cli::bench {

// A backend and the device of it that takes part.
struct Candidate {
  std::string name, version;
  core::Device device;
};

// Each backend once, on its first device of a kind, in the order of the directories; or those that were asked for.
core::Result<std::vector<Candidate>> find_candidates(core::Runtime& runtime,
                                                     const std::vector<std::string>& wanted);

class Contestant {
 public:
  explicit Contestant(const Candidate& candidate) {
    m.backend = candidate.name, m.version = candidate.version, m.device = candidate.device;
  }

  // A no of the backend is State::unsupported; memory that does not suffice is such a no.
  void prepare(core::Runtime& runtime, const core::Problem& problem, const Tensors& tensors,
               bool cold);
  void poison(Tensors& tensors);  // NaN in the outputs here: what is not written is not found right
  void fetch(Tensors& tensors);   // the outputs as they are here, into `tensors`
  void run_once();
  void
  warm_up();  // finds as many runs as make a sample long enough, once caches and threads are warm
  void sample();

  void refuse(const core::Error& error);
  void refuse(State state, const std::string& reason);
  bool runs() const { return m.state == State::measured; }

  Measurement m;

 private:
  void move_outputs(Tensors& tensors, bool to_here);
  std::string reason_of(const core::Decision& decision) const;
  core::Result<double> time(int64_t runs);

  std::unique_ptr<core::Plan> plan_;
  std::unique_ptr<Place> place_;
  std::vector<attnrt_args> args_;  // several: cold, each run takes the next one's q, k and v
  size_t next_ = 0;
};

// Checks what the tensors hold against the reference, and against the first backend that was right.
class Judge {
 public:
  Judge(const core::Problem& problem, const Tensors& tensors) : checker_(problem, tensors) {}
  void judge(Contestant& contestant, Tensors& tensors);

 private:
  Checker checker_;
  const Contestant* first_ = nullptr;
  Tensor first_out_;
};

}  // namespace attnrt::cli::bench
