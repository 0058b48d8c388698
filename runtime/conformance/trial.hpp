// runtime/conformance/trial.hpp: a case on a plugin into what it did to memory, and how right it was
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "conformance/expect.hpp"

namespace attnrt::cli::verify {

// A plugin's plan for a problem, destroyed when it goes.
class Planned {
 public:
  // growth: bytes by which the structs of a newer host would be larger.
  Planned(Subject& subject, const core::Problem& problem, int32_t growth = 0);
  Planned(const Planned&) = delete;
  Planned& operator=(const Planned&) = delete;
  ~Planned();
  attnrt_status run(const attnrt_args& args, std::string* message);

  attnrt_status status = ATTNRT_OK;
  std::string message;
  attnrt_plan_info info{};

 private:
  Subject& subject_;
  const attnrt_plugin* table_;
  std::vector<std::byte> problem_;
  int32_t growth_;
  void* plan_ = nullptr;
};

// A case's tensors in the memory of the subject's device.
class Loaded {
 public:
  Loaded(Subject& subject, const Tensors& tensors);
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;
  ~Loaded();
  attnrt_args& args() { return args_; }
  std::string finish();  // waits for the stream
  std::string read(int name, std::vector<std::byte>* bytes);
  std::string trouble;  // of the plugin's memory; "": none
  void* stream() const { return args_.stream; }

 private:
  Subject& subject_;
  const Tensors& tensors_;
  std::array<std::optional<Place>, kTensors> places_;
  attnrt_args args_{};
};

// What one run did.
struct Ran {
  attnrt_status status = ATTNRT_OK;  // of plan, else of run
  std::string message;               // "plan: unsupported: ...", "run: ..."; "": both succeeded
  std::string workspace, inputs, outside, unwritten;  // what is wrong with each; "": nothing
  std::vector<std::byte> out, lse;                    // images
  int64_t workspace_bytes = 0;                        // that plan asked for
  bool ok() const { return message.empty(); }
};

struct RunOptions {
  std::byte workspace_fill{0xA5};
  int32_t growth = 0;
  const core::Problem* problem = nullptr;  // planned in place of the case's: other bounds
};

Ran run_case(Subject& subject, const Case& drawn, const Tensors& tensors,
             const RunOptions& options = {});

// One mistake, and the rule that it breaks.
struct Finding {
  std::string rule, text;
};

// The rules whose subject the case has: a rule of which no case had any was not checked. Ids as in verify_rules.cpp.
std::set<std::string_view> subjects(const Case& drawn, const Tensors& tensors,
                                    const Expectation& expectation, const Ran& ran);

// Compares what a run gave with what it should have given.
std::vector<Finding> judge(const Case& drawn, const Tensors& tensors,
                           const Expectation& expectation, const Ran& ran);

// The value of out at row and x.
double out_value(const Tensors& tensors, const Case& drawn, const std::vector<std::byte>& image,
                 const Row& row, int64_t x);

// Two runs of one case gave the same, as far as rounding allows: "" or the first difference.
std::string difference(const Case& drawn, const Tensors& tensors, const Expectation& expectation,
                       const Ran& a, const Ran& b);

// All random cases, run once for every rule that looks at them.
struct Trials {
  struct Sum {  // of one dtype
    double error = 0, plain = 0, floor = 0;
    int64_t values = 0, finite = 0;  // of them, those that the plugin gave a number for
  };
  explicit Trials(Subject& subject);
  // Failed if there is a finding; skipped, with what was missing, if no case that ran had the rule's subject.
  Outcome outcome(std::string_view rule) const;
  int64_t drawn = 0, ran = 0, refused = 0;
  std::map<int, int64_t> drawn_of_entry, ran_of_entry;
  std::map<std::string, Sum> sum_of_dtype;
  std::map<std::string, Outcome, std::less<>> findings;  // the first of each rule
  std::map<std::string, int64_t, std::less<>> counts;
  std::map<std::string_view, int64_t> checked;  // cases that had the rule's subject

 private:
  void add(const Finding& finding, const Case& drawn);
  void try_case(Subject& subject, uint64_t seed);
  void add_error(const Case& drawn, const Tensors& tensors, const Expectation& expectation,
                 const Ran& ran);
};

// The case in words, for details: its problem and the extents of the run.
std::string describe(const Case& drawn);

}  // namespace attnrt::cli::verify
