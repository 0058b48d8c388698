// runtime/conformance/trials.hpp: all random cases, run once for every rule that looks at them
//
// For each case: draw it -> supports -> make its tensors -> run it -> judge the result. What is
// found is kept by rule:
//     findings      the first failure of each rule, with the seed that repeats it
//     counts        how many cases failed each rule
//     checked       how many cases each rule was tried on
//     sum_of_dtype  errors of all cases of a dtype, for the rule on the mean error
// A rule is skipped if it has no finding and was tried on no case.
// It is no failure if supports refuses a case, or if memory runs out for it.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>

#include "conformance/judge.hpp"
#include "conformance/subject.hpp"

namespace attnrt::conformance {

struct Trials {
  // Errors relative to each case's largest |out|.
  struct Sum {
    double error = 0;             // of the plugin
    double plain = 0, floor = 0;  // of the plain evaluation; of the rows' floors
    int64_t values = 0;
    int64_t finite = 0;  // values for which the plugin and the exact answer gave a number
  };

  explicit Trials(Subject& subject);

  // Returns failed if there is a finding. If the rule was tried on no case, returns skipped, with
  // what was missing.
  Outcome outcome(std::string_view rule) const;

  int64_t drawn = 0, ran = 0, refused = 0;
  std::map<int, int64_t> drawn_of_entry, ran_of_entry;
  std::map<std::string, Sum> sum_of_dtype;
  std::map<std::string, Outcome, std::less<>> findings;  // the first of each rule
  std::map<std::string, int64_t, std::less<>> counts;    // of findings
  std::map<std::string_view, int64_t> checked;

 private:
  void add(const Finding& finding, const Case& drawn);
  void try_case(Subject& subject, uint64_t seed);
  void add_errors(const Case& drawn, const Tensors& tensors, const Expectation& expectation,
                  const RunResult& result);
};

}  // namespace attnrt::conformance
