// runtime/cli/bench/report.cpp: quantiles, limits, scaling and counts of the results
#include "cli/bench/report.hpp"

#include <algorithm>
#include <array>

namespace attnrt::cli::bench {

std::optional<double> Peak::memory() const {
  return read ? std::max(*read, copy.value_or(0)) : copy;
}

std::optional<double> Peak::compute(attnrt_dtype dtype) const {
  return amx && dtype.bits == 16 ? amx : fma;
}

const char* state_name(State state) {
  constexpr std::array kNames = {"measured", "unsupported", "failed", "wrong"};
  return kNames[static_cast<size_t>(state)];
}

double Measurement::quantile(double fraction) const {
  const double position = fraction * static_cast<double>(seconds.size() - 1);
  const auto low = static_cast<size_t>(position);
  const size_t high = std::min(low + 1, seconds.size() - 1);
  return seconds[low] + (position - static_cast<double>(low)) * (seconds[high] - seconds[low]);
}

std::vector<std::string> Report::groups() const {
  std::vector<std::string> groups;
  for (const Comparison& comparison : comparisons)
    if (std::find(groups.begin(), groups.end(), comparison.group) == groups.end())
      groups.push_back(comparison.group);
  return groups;
}

std::vector<GridProblem> Report::problems_of(const std::string& group) const {
  std::vector<GridProblem> problems;
  for (const Comparison& comparison : comparisons)
    if (comparison.group == group) problems.push_back(comparison);
  return problems;
}

const Peak* Report::peak_of(const core::Device& device, int32_t count) const {
  const auto found = std::find_if(peaks.begin(), peaks.end(), [&](const Peak& peak) {
    return peak.device.type == device.type && peak.device.id == device.id &&
           (peak.threads == 0 || peak.threads == count);
  });
  return found != peaks.end() ? &*found : nullptr;
}

std::optional<double> Report::scaling(size_t comparison, size_t measurement) const {
  const size_t first_count = comparison - comparison % threads.size();
  const Measurement& first = comparisons[first_count].measurements[measurement];
  const Measurement& here = comparisons[comparison].measurements[measurement];
  if (first.state != State::measured || here.state != State::measured) return std::nullopt;
  return first.median() / here.median();
}

int64_t Report::count(State state) const {
  int64_t sum = 0;
  for (const Comparison& comparison : comparisons)
    sum += std::count_if(comparison.measurements.begin(), comparison.measurements.end(),
                         [&](const Measurement& m) { return m.state == state; });
  return sum;
}

bool Report::has_unserved() const {
  return std::any_of(comparisons.begin(), comparisons.end(), [](const Comparison& comparison) {
    return std::all_of(comparison.measurements.begin(), comparison.measurements.end(),
                       [](const Measurement& m) { return m.state == State::unsupported; });
  });
}

}  // namespace attnrt::cli::bench
