// runtime/conformance/schedule_rules.cpp: checks the rules ACC-13 to ACC-15 on attnrt.schedule/1
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>

#include "conformance/parts.hpp"
#include "conformance/rule_checks.hpp"
#include "conformance/samples.hpp"
#include "conformance/subject.hpp"

namespace attnrt::conformance {
namespace {

constexpr size_t kSamples = 8;
constexpr std::byte kPoison{0x7B};  // a number in each dtype of an output

bool has_lengths(const Case& drawn) {
  const core::Problem& p = drawn.problem;
  return p.kv_lengths != 0 || p.page_size > 0 || p.varlen != 0;
}

// Says why there is nothing to check, or what is wrong with the extension. passed: it is there.
Outcome find_extension(Subject& subject) {
  if (subject.extension(ATTNRT_SCHEDULE) == nullptr)
    return skipped(fmt::format("it does not offer {}", ATTNRT_SCHEDULE));
  if (subject.on_cpu()) return skipped("it works on the cpu, where nothing is scheduled");
  if (subject.scheduling() != nullptr) return passed();
  return failed(
      fmt::format("{} has a call that is NULL or beyond its struct_size", ATTNRT_SCHEDULE));
}

// Returns cases whose plans ask for a schedule.
std::vector<Sample> draw_scheduled(Subject& subject,
                                   const std::function<bool(const Case&)>& wanted) {
  std::vector<Sample> samples = draw_samples(subject, kSamples, wanted);
  std::erase_if(samples, [&subject](const Sample& sample) {
    PluginPlan plan(subject, sample.drawn.problem);
    int64_t bytes = 0;
    std::string message;
    return plan.status == ATTNRT_OK && plan.schedule_bytes(&bytes, &message) == ATTNRT_OK &&
           bytes == 0;
  });
  return samples;
}

Outcome nothing_scheduled() { return skipped("no plan of the tried cases asks for a schedule"); }

// Returns what a run did wrong beside its values, or "".
std::string trouble_of(const RunResult& result) {
  for (const std::string* text : {&result.message, &result.schedule, &result.workspace,
                                  &result.inputs, &result.outside, &result.unwritten}) {
    if (!text->empty()) return *text;
  }
  return {};
}

// Returns how the results of two runs of the sample differ, or "". They have the same bits if the
// problem is deterministic.
std::string compare(const Sample& sample, const RunResult& expected, const RunResult& found) {
  if (sample.drawn.problem.deterministic == 0)
    return difference(sample.drawn, sample.tensors, sample.expectation, expected, found);
  return expected.out == found.out && expected.lse == found.lse ? "" : "other bits";
}

Outcome failed_on(const Case& drawn, const char* how, const std::string& text) {
  return failed(fmt::format("{}: {} ({})", how, text, describe(drawn)), drawn.seed);
}

// A case, one of whose sequences has one key less.
struct Shortened {
  Case drawn;
  Tensors tensors;
  int64_t sequence = 0;
};

void add_to(Image& image, int64_t at, int32_t added) {
  int32_t number = 0;
  std::byte* const place = image.first() + static_cast<size_t>(at) * sizeof number;
  std::memcpy(&number, place, sizeof number);
  number += added;
  std::memcpy(place, &number, sizeof number);
}

// Takes the last key away from a sequence that has queries and keys: the last one of all, if only
// offsets say where it ends. nullopt: there is none.
std::optional<Shortened> shortened(const Sample& sample) {
  Shortened shorter{sample.drawn, sample.tensors};
  Case& drawn = shorter.drawn;
  const bool lengths = drawn.problem.kv_lengths != 0 || drawn.problem.page_size > 0;
  const auto suits = [&](int64_t b) {
    const auto at = static_cast<size_t>(b);
    return drawn.q_lengths[at] > 0 && drawn.kv_lengths[at] > 0;
  };
  int64_t b = lengths ? 0 : drawn.batch - 1;
  while (b < drawn.batch && b >= 0 && !suits(b)) ++b;
  if (b < 0 || b >= drawn.batch) return {};
  add_to(shorter.tensors[lengths ? TensorName::kv_lengths : TensorName::offsets_kv],
         lengths ? b : b + 1, -1);
  --drawn.kv_lengths[static_cast<size_t>(b)];
  shorter.sequence = b;
  for (const TensorName name : {TensorName::out, TensorName::lse}) {
    Image& image = shorter.tensors[name];  // NaN is expected, so it cannot be the poison
    for (size_t n = 0; n < image.bytes.size(); ++n) {
      if (image.must_write[n]) image.bytes[n] = kPoison;
    }
    image.poison = kPoison;
  }
  return shorter;
}

// Returns what is wrong with a run whose schedule was built before the sequence was shortened, or
// "". right: with a schedule that was built afterwards.
std::string compare_shortened(const Shortened& shorter, const RunResult& right,
                              const RunResult& found) {
  const core::Problem& p = shorter.drawn.problem;
  const OutputReader reader(shorter.drawn, shorter.tensors);
  ExpectedRow row{};
  for (row.b = 0; row.b < shorter.drawn.batch; ++row.b) {
    const bool changed = row.b == shorter.sequence;
    if (!changed && p.deterministic == 0) continue;
    const auto wrong = [&](double expected, double value) {
      if (changed) return !std::isnan(value);
      return std::bit_cast<uint64_t>(expected) != std::bit_cast<uint64_t>(value);
    };
    const auto text = [&](const char* name, double expected, double value) {
      return fmt::format("{} of sequence {}, query {}, head {} is {:.9g}, expected {:.9g}", name,
                         row.b, row.i, row.head, value, changed ? NAN : expected);
    };
    for (row.i = 0; row.i < shorter.drawn.q_lengths[static_cast<size_t>(row.b)]; ++row.i) {
      for (row.head = 0; row.head < p.heads_q; ++row.head) {
        for (int64_t x = 0; x < p.head_dim_v; ++x) {
          const double a = reader.out(right.out, row, x), b = reader.out(found.out, row, x);
          if (wrong(a, b)) return text("out", a, b);
        }
        if (p.lse == 0) continue;
        const double a = reader.lse(right.lse, row), b = reader.lse(found.lse, row);
        if (wrong(a, b)) return text("lse", a, b);
      }
    }
  }
  return {};
}

}  // namespace

Outcome check_schedule(Subject& subject) {
  if (Outcome outcome = find_extension(subject); outcome.state != State::passed) return outcome;
  const auto samples = draw_scheduled(subject, any_case);
  for (const Sample& sample : samples) {
    const RunResult result =
        run_case(subject, sample.drawn, sample.tensors, {.schedules = {&sample.tensors}});
    std::string text = trouble_of(result);
    if (text.empty()) text = compare(sample, sample.alone, result);
    if (!text.empty()) return failed_on(sample.drawn, "with a schedule", text);
  }
  return samples.empty() ? nothing_scheduled() : passed();
}

Outcome check_rebuilt_schedule(Subject& subject) {
  if (subject.scheduling() == nullptr) return skipped("it needs ACC-13");
  int64_t tried = 0;
  for (const Sample& sample : draw_scheduled(subject, has_lengths)) {
    const auto shorter = shortened(sample);
    if (!shorter) continue;
    ++tried;
    const RunResult fresh =
        run_case(subject, sample.drawn, sample.tensors, {.schedules = {&sample.tensors}});
    const RunResult rebuilt = run_case(subject, sample.drawn, sample.tensors,
                                       {.schedules = {&shorter->tensors, &sample.tensors}});
    if (!fresh.ok()) return skipped("it needs ACC-13");
    std::string text = rebuilt.message;
    if (text.empty()) text = compare(sample, fresh, rebuilt);
    if (!text.empty()) return failed_on(sample.drawn, "with a schedule that is built again", text);
  }
  return tried > 0 ? passed() : nothing_scheduled();
}

Outcome check_other_lengths(Subject& subject) {
  if (subject.scheduling() == nullptr) return skipped("it needs ACC-13");
  int64_t tried = 0;
  for (const Sample& sample : draw_scheduled(subject, has_lengths)) {
    const auto shorter = shortened(sample);
    if (!shorter) continue;
    ++tried;
    const RunResult right =
        run_case(subject, shorter->drawn, shorter->tensors, {.schedules = {&shorter->tensors}});
    const RunResult found =
        run_case(subject, shorter->drawn, shorter->tensors, {.schedules = {&sample.tensors}});
    if (!right.ok()) return skipped("it needs ACC-13");
    std::string text = found.message;
    if (text.empty()) text = found.outside;
    if (text.empty()) text = found.unwritten;
    if (text.empty()) text = compare_shortened(*shorter, right, found);
    if (!text.empty()) return failed_on(shorter->drawn, "with the schedule of other lengths", text);
  }
  return tried > 0 ? passed() : nothing_scheduled();
}

}  // namespace attnrt::conformance
