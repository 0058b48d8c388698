// runtime/conformance/samples.cpp: cases that the plugin runs completely, to be run again
#include "conformance/samples.hpp"

#include <fmt/format.h>

#include "conformance/trials.hpp"

namespace attnrt::conformance {
namespace {

constexpr uint64_t kMostSeeds = 400;  // seeds that are looked at for samples
constexpr int kMostFailures = 8;  // failed runs after which no more are tried; AGR-2 reports them

}  // namespace

std::vector<Sample> draw_samples(Subject& subject, size_t count,
                                 const std::function<bool(const Case&)>& wanted) {
  std::vector<Sample> samples;
  if (subject.trials().ran == 0) return samples;
  int failures = 0;
  for (uint64_t n = 0; n < kMostSeeds && samples.size() < count && failures < kMostFailures; ++n) {
    subject.report_life();
    const auto drawn = draw_case(subject.manifest(), subject.device(), subject.settings.seed + n);
    std::vector<std::string> reasons;
    if (!drawn || !wanted(*drawn) || subject.supports(drawn->problem, &reasons) != ATTNRT_OK)
      continue;
    Sample sample{*drawn, make_tensors(*drawn), {}, {}};
    sample.alone = run_case(subject, sample.drawn, sample.tensors);
    if (!sample.alone.ok() || sample.alone.out.empty() || !sample.alone.unwritten.empty()) {
      ++failures;
      continue;
    }
    sample.expectation = expect(sample.drawn, sample.tensors, subject.life());
    samples.push_back(std::move(sample));
  }
  return samples;
}

Outcome no_sample() { return skipped("no suitable case ran and wrote its whole result"); }

Outcome run_again(Subject& subject, const Sample& sample, const RunOptions& options,
                  const char* how) {
  const RunResult result = run_case(subject, sample.drawn, sample.tensors, options);
  std::string text = result.message;
  if (text.empty())
    text = difference(sample.drawn, sample.tensors, sample.expectation, sample.alone, result);
  if (text.empty()) text = result.unwritten;
  if (text.empty()) return passed();
  return failed(fmt::format("{}: {} ({})", how, text, describe(sample.drawn)), sample.drawn.seed);
}

}  // namespace attnrt::conformance
