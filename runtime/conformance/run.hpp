// runtime/conformance/run.hpp: runs one case on the plugin, and checks what it did to memory
//
// A run goes through these steps, and ends at the first one that fails:
//     plan the problem -> check what it asks for -> write the tensors' images and a workspace
//     -> build a schedule, if one is asked for -> run -> wait -> read everything back -> compare
//     guards, inputs and gaps with the images
// Whether the values are right is decided elsewhere: judge.hpp.
#pragma once

#include <attnrt/plugin.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conformance/guarded_memory.hpp"
#include "conformance/subject.hpp"
#include "conformance/tensors.hpp"

namespace attnrt::conformance {

// A plan of the plugin under test. The destructor destroys it.
class PluginPlan {
 public:
  // growth: bytes that are added to each struct, as if a newer host had larger ones.
  PluginPlan(Subject& subject, const core::Problem& problem, int32_t growth = 0);
  PluginPlan(const PluginPlan&) = delete;
  PluginPlan& operator=(const PluginPlan&) = delete;
  ~PluginPlan();

  attnrt_status run(const attnrt_args& args, std::string* message);
  // Both REQUIRE that the plugin offers attnrt.schedule/1.
  attnrt_status schedule_bytes(int64_t* bytes, std::string* message);
  attnrt_status build(const attnrt_args& args, std::string* message);

  attnrt_status status = ATTNRT_OK;  // of plan
  std::string message;               // of plan, if it failed
  attnrt_plan_info info{};

 private:
  const attnrt_problem* problem() const {
    return reinterpret_cast<const attnrt_problem*>(problem_.data());
  }
  Subject& subject_;
  const attnrt_plugin* table_;
  std::vector<std::byte> problem_;  // as large as growth says
  int32_t growth_;
  void* plan_ = nullptr;
};

// A stream of the device under test. On the cpu there is none: get() is NULL.
class DeviceStream {
 public:
  explicit DeviceStream(Subject& subject);
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;
  ~DeviceStream();

  void* get() const { return stream_; }
  const std::string& error() const { return error_; }  // why it could not be created, or ""
  std::string synchronize();                           // RETURNS "" or what failed

 private:
  Subject& subject_;
  void* stream_ = nullptr;
  std::string error_;
};

// A case's tensors in memory of the device, and a stream that they were written on. Each has an
// allocation of its own, but k and v may share one (Tensors::v_after_k).
class DeviceTensors {
 public:
  DeviceTensors(Subject& subject, const Tensors& tensors);
  DeviceTensors(const DeviceTensors&) = delete;
  DeviceTensors& operator=(const DeviceTensors&) = delete;

  const std::string& error() const { return error_; }  // why attnrt.memory/1 failed, or ""
  attnrt_args& args() { return args_; }
  // Both return "" or what failed.
  std::string synchronize() { return stream_.synchronize(); }
  std::string read(TensorName name, std::vector<std::byte>* image);

 private:
  bool shares_kv(TensorName name) const;  // whether it is k or v, and they share memory
  void place(Subject& subject, TensorName name, const std::vector<std::byte>& image,
             int64_t alignment);
  std::string read_shared(TensorName name, std::vector<std::byte>* image);

  const Tensors& tensors_;
  DeviceStream stream_;              // outlives the memory
  std::vector<std::byte> kv_image_;  // of k and v, if they share memory, which then is that of k
  std::array<std::optional<GuardedMemory>, kTensorNames.size()> memory_;
  attnrt_args args_{};
  std::string error_;
};

struct RunResult {
  attnrt_status status = ATTNRT_OK;  // of plan, else of run
  std::string message;               // "plan: unsupported: ...", "run: ..."; "": both succeeded
  // The rest of the texts say what is wrong, or are "".
  std::string workspace;            // its size or alignment, or a write outside of it
  std::string schedule;             // a write beside it while it was built
  std::string inputs;               // a write to an input
  std::string outside;              // a write beside the elements of an output
  std::string unwritten;            // elements of an output that were not written
  std::vector<std::byte> out, lse;  // images after the run; empty: there was no run
  int64_t workspace_bytes = 0;      // as many as plan asked for
  bool ok() const { return message.empty(); }
};

struct RunOptions {
  std::byte workspace_fill{0xA5};
  int32_t growth = 0;                      // see PluginPlan
  const core::Problem* problem = nullptr;  // planned instead of the case's: other bounds
  // A schedule is built for each of these, one after another in the same memory, and the run uses
  // it. Empty: the run has none.
  std::vector<const Tensors*> schedules{};
};

// Compares an image with what it was before the run. Notes in the result the first byte that
// changed although it must not, and how many elements of an output were not written.
void compare_image(std::string_view name, bool output, const Image& image,
                   const std::vector<std::byte>& after, RunResult& result);

RunResult run_case(Subject& subject, const Case& drawn, const Tensors& tensors,
                   const RunOptions& options = {});

}  // namespace attnrt::conformance
