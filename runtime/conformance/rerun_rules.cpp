// runtime/conformance/rerun_rules.cpp: checks cases that are run again in another way
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <cstring>

#include "conformance/parts.hpp"
#include "conformance/rule_checks.hpp"
#include "conformance/samples.hpp"
#include "conformance/subject.hpp"
#include "conformance/trials.hpp"

namespace attnrt::conformance {
namespace {

bool is_dense(const Case& drawn) { return !drawn.problem.varlen && drawn.problem.page_size == 0; }

bool has_indices(const Case& drawn) {
  const core::Problem& p = drawn.problem;
  return p.varlen != 0 || p.kv_lengths != 0 || p.page_size > 0;
}

// Whether the plugin serves the problem by the sample's entry of the manifest.
bool is_served(Subject& subject, const Sample& sample, const core::Problem& problem) {
  std::vector<std::string> reasons;
  const auto& entry = subject.manifest().entries[static_cast<size_t>(sample.drawn.entry)];
  return fits(entry, problem, subject.device().arch) &&
         subject.supports(problem, &reasons) == ATTNRT_OK;
}

// Limits of the sequences that crowd a case: multiplications, and elements of k and v that are not
// packed.
constexpr int64_t kCrowdWork = 10'000'000, kCrowdElements = 4'000'000;

// Returns the case with more sequences: a long one before its own, and `more` behind them, which
// are short as far as the problem lets lengths differ. What may decide how a plugin splits its work
// (the number of sequences, the longest of them) then differs from that of a sequence alone.
Case crowded(const Case& drawn, int64_t more) {
  const core::Problem& p = drawn.problem;
  const bool lengths_differ = has_indices(drawn), packed = p.varlen || p.page_size > 0;
  const int64_t rows = p.varlen ? 1 : std::max<int64_t>(1, drawn.seq_q);  // of one more sequence
  const int64_t width = p.head_dim + p.head_dim_v;
  const int64_t most_keys = std::max<int64_t>(1, kCrowdWork / (rows * p.heads_q * width));
  std::vector<int64_t> q_lengths, kv_lengths;
  const auto add = [&](int64_t keys) {
    q_lengths.push_back(p.varlen ? 1 : drawn.seq_q);
    kv_lengths.push_back(lengths_differ ? std::min(most_keys, keys) : drawn.seq_kv);
  };
  add(packed ? 2000 : 600);
  q_lengths.insert(q_lengths.end(), drawn.q_lengths.begin(), drawn.q_lengths.end());
  kv_lengths.insert(kv_lengths.end(), drawn.kv_lengths.begin(), drawn.kv_lengths.end());
  const int64_t longest = *std::max_element(kv_lengths.begin(), kv_lengths.end());
  const int64_t each = std::max<int64_t>(1, longest) * p.heads_kv * width;
  const int64_t affordable =
      packed           ? more
      : lengths_differ ? kCrowdElements / each
                       : std::min(kCrowdElements / each, most_keys / std::max<int64_t>(1, longest));
  for (int64_t n = 0; n < std::min(more, affordable); ++n) add(1 + n % 5);
  Case crowd = drawn;
  crowd.style = Style::plain;
  set_extents(crowd, std::move(q_lengths), std::move(kv_lengths));
  if (p.varlen) crowd.seq_kv = 0;
  if (p.page_size > 0) set_pages(crowd, 1);
  return crowd;
}

// Returns the first value of sequence b whose bits are not those of the sequence alone, or "".
std::string other_bits(const Case& crowd, const Tensors& tensors, const RunResult& result,
                       int64_t b, const Part& alone, const RunResult& result_alone) {
  const OutputReader reader(crowd, tensors), reader_alone(alone.drawn, alone.tensors);
  const auto differ = [](double x, double y) {
    return std::bit_cast<uint64_t>(x) != std::bit_cast<uint64_t>(y);
  };
  ExpectedRow row{}, row_alone{};
  row.b = b;
  for (int64_t i = 0; i < crowd.q_lengths[static_cast<size_t>(b)]; ++i) {
    for (int64_t head = 0; head < crowd.problem.heads_q; ++head) {
      row.i = row_alone.i = i, row.head = row_alone.head = head;
      const std::string place =
          fmt::format("sequence {} of {}, query {}, head {}", b, crowd.batch, i, head);
      for (int64_t x = 0; x < crowd.problem.head_dim_v; ++x) {
        const double one = reader.out(result.out, row, x),
                     two = reader_alone.out(result_alone.out, row_alone, x);
        if (differ(one, two))
          return fmt::format("out at {}, {} is {:.9g}, and {:.9g} alone", place, x, one, two);
      }
      if (!crowd.problem.lse) continue;
      const double one = reader.lse(result.lse, row),
                   two = reader_alone.lse(result_alone.lse, row_alone);
      if (differ(one, two))
        return fmt::format("lse at {} is {:.9g}, and {:.9g} alone", place, one, two);
    }
  }
  return {};
}

// Runs a batch, then its first `count` sequences alone: with the bounds of the batch, and with the
// least. RETURNS failed if bits differ.
Outcome compare_alone(Subject& subject, const Case& crowd, int64_t count) {
  const Tensors tensors = make_tensors(crowd);
  const RunResult result = run_case(subject, crowd, tensors);
  if (result.status == ATTNRT_OUT_OF_MEMORY) return passed();  // the contract allows it
  if (!result.ok() || result.out.empty()) {
    return failed(fmt::format("in a larger batch: {} ({})", result.message, describe(crowd)),
                  crowd.seed);
  }
  for (int64_t b = 0; b < count; ++b) {
    const Part alone = sequence_alone(crowd, tensors, b);
    for (const core::Problem* bounds : {&crowd.problem, &alone.drawn.problem}) {
      const RunResult again = run_case(subject, alone.drawn, alone.tensors, {.problem = bounds});
      std::string text = again.message;
      if (text.empty()) text = other_bits(crowd, tensors, result, b, alone, again);
      if (!text.empty()) return failed(fmt::format("{} ({})", text, describe(crowd)), crowd.seed);
    }
  }
  return passed();
}

enum class Empty { batch, queries, keys };

const char* label_of(Empty what) {
  return what == Empty::batch ? "batch 0" : what == Empty::queries ? "seq_q 0" : "seq_kv 0";
}

// Returns the case with one extent set to 0 and its bounds unchanged.
Case without(const Case& drawn, Empty what) {
  Case empty = drawn;
  empty.style = Style::plain;
  const size_t batch = what == Empty::batch ? 0 : drawn.q_lengths.size();
  const int64_t seq_q = what == Empty::queries ? 0 : drawn.seq_q,
                seq_kv = what == Empty::keys ? 0 : drawn.seq_kv;
  set_extents(empty, std::vector<int64_t>(batch, seq_q), std::vector<int64_t>(batch, seq_kv));
  empty.seq_q = seq_q, empty.seq_kv = seq_kv;
  empty.problem = drawn.problem;
  return empty;
}

// Runs the sample with a bad number in an index array, with a schedule that is built for it if the
// plugin offers one. RETURNS failed if the plugin does not notice it (on the cpu), or writes where
// it must not.
Outcome run_with_bad_index(Subject& subject, const Sample& sample, TensorName name, int32_t bad,
                           bool scheduled) {
  Tensors tensors = sample.tensors;
  // Overwrites an index that is always used: the second of the offsets, or the first of the others.
  const bool offsets = name == TensorName::offsets_q || name == TensorName::offsets_kv;
  std::memcpy(tensors[name].first() + (offsets ? sizeof bad : 0), &bad, sizeof bad);
  // Up to a large offset a sequence may own every row, also those past the sample's last one.
  for (const TensorName written : {TensorName::out, TensorName::lse}) {
    Image& image = tensors[written];
    if (name == TensorName::offsets_q && bad > 0 && !image.absent()) make_output(image, image.view);
  }
  RunOptions options;
  if (scheduled) options.schedules = {&tensors};
  const RunResult result = run_case(subject, sample.drawn, tensors, options);
  const std::string what = fmt::format("{} with {}", text_of(name), bad);
  if (subject.on_cpu() && result.status != ATTNRT_INVALID_ARGUMENT) {
    return failed(fmt::format("{}: {}; expected invalid argument ({})", what,
                              result.ok() ? "ok" : result.message, describe(sample.drawn)),
                  sample.drawn.seed);
  }
  const auto& known = subject.trials().findings;  // harm that good indices do as well
  std::string harm;
  if (!known.contains("ROB-8")) harm = result.inputs;
  if (!known.contains("ROB-9") && !result.outside.empty()) harm = result.outside;
  if (!result.schedule.empty()) harm = result.schedule;
  if (harm.empty()) return passed();
  return failed(fmt::format("{}: {} ({})", what, harm, describe(sample.drawn)), sample.drawn.seed);
}

}  // namespace

Outcome check_runs_at_once(Subject& subject) {
  auto samples = draw_samples(subject, 4, any_case);
  if (samples.empty()) return no_sample();
  std::vector<Outcome> outcomes(samples.size());
  on_threads(static_cast<int>(samples.size()), [&](int n) {
    const auto at = static_cast<size_t>(n);
    for (int repeat = 0; repeat < 4 && outcomes[at].state == State::passed; ++repeat) {
      outcomes[at] = run_again(subject, samples[at], {}, "at the same time as others");
    }
  });
  for (Outcome& outcome : outcomes) {
    if (outcome.state != State::passed) return std::move(outcome);
  }
  return passed();
}

Outcome check_smaller_runs(Subject& subject) {
  auto samples = draw_samples(subject, 6, any_case);
  if (samples.empty()) return no_sample();
  int tried = 0;
  for (Sample& sample : samples) {
    core::Problem larger = sample.drawn.problem;
    larger.batch += 2;
    larger.seq_q = larger.seq_q * 3 + 5;
    larger.seq_kv = larger.seq_kv * 3 + 17;
    if (!is_served(subject, sample, larger)) continue;
    ++tried;
    Outcome outcome = run_again(subject, sample, {.problem = &larger}, "with larger bounds");
    if (outcome.state != State::passed) return outcome;
  }
  return tried > 0 ? passed() : skipped("it serves none of the tried cases with larger bounds");
}

Outcome check_zero_rows(Subject& subject) {
  const auto samples = draw_samples(subject, 3, is_dense);
  if (samples.empty()) return no_sample();
  for (const Sample& sample : samples) {
    for (const Empty what : {Empty::batch, Empty::queries, Empty::keys}) {
      const Case empty = without(sample.drawn, what);
      const Tensors tensors = make_tensors(empty);
      const RunResult result = run_case(subject, empty, tensors);
      const auto fail = [&](const std::string& text) {
        return failed(fmt::format("{}: {} ({})", label_of(what), text, describe(empty)),
                      empty.seed);
      };
      if (!result.ok()) return fail(result.message);
      const Expectation expectation = expect(empty, tensors, subject.life());
      for (const Finding& finding : judge(empty, tensors, expectation, result)) {
        const bool known = subject.trials().findings.contains(finding.rule);
        if (!known) return fail(finding.text);  // a known one does not come from the extent of 0
      }
    }
  }
  return passed();
}

Outcome check_bad_indices(Subject& subject) {
  int64_t tried = 0;
  for (const Sample& sample : draw_samples(subject, 6, has_indices)) {
    for (const TensorName name : {TensorName::kv_lengths, TensorName::offsets_q,
                                  TensorName::offsets_kv, TensorName::page_table}) {
      if (sample.tensors[name].bytes.size() <= 2 * Image::kGuard) continue;  // absent or empty
      if (name == TensorName::page_table && sample.drawn.kv_lengths[0] == 0)
        continue;  // its first entry is not used
      for (const int32_t bad : {-1, 1'000'000'000, INT32_MIN, INT32_MAX}) {
        ++tried;
        Outcome outcome = run_with_bad_index(subject, sample, name, bad, false);
        if (outcome.state == State::passed && subject.scheduling() != nullptr)
          outcome = run_with_bad_index(subject, sample, name, bad, true);
        if (outcome.state != State::passed) return outcome;
      }
    }
  }
  return tried > 0 ? passed() : skipped("no suitable case with index arrays ran");
}

Outcome check_newer_host(Subject& subject) {
  auto samples = draw_samples(subject, 3, any_case);
  if (samples.empty()) return no_sample();
  for (Sample& sample : samples) {
    Outcome outcome = run_again(subject, sample, {.growth = 64}, "from a host with larger structs");
    if (outcome.state != State::passed) return outcome;
  }
  return passed();
}

Outcome check_dirty_workspace(Subject& subject) {
  auto samples = draw_samples(subject, 4, any_case);
  if (samples.empty()) return no_sample();
  std::erase_if(samples, [](const Sample& sample) { return sample.alone.workspace_bytes == 0; });
  if (samples.empty()) return skipped("no plan of the tried cases asks for a workspace");
  for (Sample& sample : samples) {
    for (const uint8_t fill : {0x00, 0xFF, 0x7F}) {
      Outcome outcome = run_again(subject, sample, {.workspace_fill = std::byte{fill}},
                                  "with other bytes in the workspace");
      if (outcome.state != State::passed) return outcome;
    }
  }
  return passed();
}

Outcome check_deterministic(Subject& subject) {
  if (subject.trials().findings.contains("ACC-10")) return subject.trials().outcome("ACC-10");
  const auto samples =
      draw_samples(subject, 4, [](const Case& drawn) { return drawn.problem.deterministic != 0; });
  if (samples.empty()) return skipped("no suitable case with deterministic ran");
  for (const Sample& sample : samples) {
    for (int repeat = 0; repeat < 4; ++repeat) {
      const RunResult result = run_case(subject, sample.drawn, sample.tensors);
      if (result.ok() && result.out == sample.alone.out && result.lse == sample.alone.lse) continue;
      return failed(fmt::format("run {} gives other bits than the first ({})", repeat + 2,
                                describe(sample.drawn)),
                    sample.drawn.seed);
    }
  }
  return passed();
}

Outcome check_batch_invariant(Subject& subject) {
  const auto samples = draw_samples(
      subject, 8, [](const Case& drawn) { return drawn.problem.batch_invariant != 0; });
  if (samples.empty()) return skipped("no suitable case with batch_invariant ran");
  for (const Sample& sample : samples) {
    Case crowd = sample.drawn;
    for (const int64_t more : {48, 4}) {  // the manifest may bound the batch
      Case larger = crowded(sample.drawn, more);
      if (!is_served(subject, sample, larger.problem)) continue;
      crowd = std::move(larger);
      break;
    }
    const int64_t count = std::min(crowd.batch, sample.drawn.batch + 1);
    Outcome outcome = compare_alone(subject, crowd, count);
    if (outcome.state != State::passed) return outcome;
  }
  return passed();
}

}  // namespace attnrt::conformance
