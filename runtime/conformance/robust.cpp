// runtime/conformance/robust.cpp: the rules ROB-n that need more than one call: calls as hosts make them
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "conformance/checks.hpp"
#include "conformance/trial.hpp"

namespace attnrt::cli::verify {
namespace {

constexpr uint64_t kMostSeeds = 400;
constexpr int kMostFailures = 8;

// A case with everything that a rule needs to compare runs of it.
struct Sample {
  Case drawn;
  Tensors tensors;
  Expectation expectation;
  Ran alone;
};

// Up to `count` cases that are wanted and that the plugin runs and writes the whole result of: poison equals poison.
template <class Wanted>
std::vector<Sample> samples(Subject& subject, size_t count, Wanted&& wanted) {
  std::vector<Sample> found;
  int failures = subject.trials().ran == 0 ? kMostFailures : 0;  // those that fail are AGR-2's
  for (uint64_t n = 0; n < kMostSeeds && found.size() < count && failures < kMostFailures; ++n) {
    const auto drawn = draw(subject.manifest(), subject.device(), subject.settings.seed + n);
    std::vector<std::string> reasons;
    if (!drawn || !wanted(*drawn) || subject.supports(drawn->problem, &reasons) != ATTNRT_OK)
      continue;
    Sample sample{*drawn, make_tensors(*drawn), {}, {}};
    sample.alone = run_case(subject, sample.drawn, sample.tensors);
    if (!sample.alone.ok() || sample.alone.out.empty() || !sample.alone.unwritten.empty()) {
      ++failures;
      continue;
    }
    sample.expectation = expect(sample.drawn, sample.tensors);
    found.push_back(std::move(sample));
  }
  return found;
}

bool any_case(const Case&) { return true; }
bool dense(const Case& drawn) { return !drawn.problem.varlen && drawn.problem.page_size == 0; }
Outcome nothing_to_try() { return skipped("no suitable case ran and wrote all of its result"); }

bool served(Subject& subject, const Case& drawn, const core::Problem& problem) {
  std::vector<std::string> reasons;
  const auto& entry = subject.manifest().entries[static_cast<size_t>(drawn.entry)];
  return fits(entry, problem, subject.device().arch) &&
         subject.supports(problem, &reasons) == ATTNRT_OK;
}

// Runs the sample again in another way; its result must be the same.
Outcome again(Subject& subject, Sample& sample, const RunOptions& options, const char* how) {
  const Ran ran = run_case(subject, sample.drawn, sample.tensors, options);
  const uint64_t seed = sample.drawn.seed;
  if (!ran.ok())
    return failed(fmt::format("{}: {} ({})", how, ran.message, describe(sample.drawn)), seed);
  const std::string text =
      difference(sample.drawn, sample.tensors, sample.expectation, sample.alone, ran);
  if (!text.empty())
    return failed(fmt::format("{}: {} ({})", how, text, describe(sample.drawn)), seed);
  if (!ran.unwritten.empty())
    return failed(fmt::format("{}: {} ({})", how, ran.unwritten, describe(sample.drawn)), seed);
  return passed();
}

template <class Body>
void on_threads(int count, Body&& body) {
  std::vector<std::jthread> threads;
  for (int n = 0; n < count; ++n) threads.emplace_back([&body, n] { body(n); });
}

}  // namespace

Outcome check_unknown_option(Subject& subject) {
  if (subject.table()->open == nullptr) return skipped("it has no open");
  const Instance opened = subject.open({{"no_such_option", "1"}});
  if (opened.status == ATTNRT_OK) return failed("open takes the option no_such_option");
  if (opened.status != ATTNRT_INVALID_ARGUMENT) {
    return failed(fmt::format("open with an unknown option: {}; expected invalid argument",
                              core::status_name(opened.status)));
  }
  if (opened.message.find("no_such_option") == std::string::npos) {
    return failed(fmt::format("the message does not name no_such_option: {}", opened.message));
  }
  return passed();
}

Outcome check_same_answer(Subject& subject) {
  if (subject.table()->supports == nullptr)
    return skipped("it has no supports: its manifest decides");
  std::vector<Case> cases;
  for (uint64_t n = 0; n < 32; ++n) {
    if (auto drawn = draw(subject.manifest(), subject.device(), subject.settings.seed + n))
      cases.push_back(*drawn);
  }
  if (cases.empty()) return skipped("no problem can be drawn from the manifest's entries");
  const auto answers = [&] {
    std::vector<std::pair<attnrt_status, std::vector<std::string>>> all;
    for (const Case& drawn : cases) {
      for (int twice = 0; twice < 2; ++twice) {
        std::vector<std::string> reasons;
        const attnrt_status status = subject.supports(drawn.problem, &reasons);
        all.emplace_back(status, std::move(reasons));
      }
    }
    return all;
  };
  const auto first = answers();
  for (size_t n = 0; n < first.size(); n += 2) {
    if (first[n] != first[n + 1]) {
      return failed(fmt::format("asked twice, it answers otherwise ({})",
                                core::describe(cases[n / 2].problem)));
    }
  }
  if (answers() != first) return failed("the second time it answers otherwise");
  std::vector<decltype(answers())> of_thread(4);
  on_threads(4, [&](int n) { of_thread[static_cast<size_t>(n)] = answers(); });
  for (const auto& other : of_thread) {
    if (other != first) return failed("from several threads at once it answers otherwise");
  }
  return passed();
}

Outcome check_many_plans(Subject& subject) {
  if (subject.table()->plan == nullptr) return skipped("it has no plan");
  auto some = samples(subject, 2, any_case);
  if (some.empty()) return nothing_to_try();
  for (int n = 0; n < 200; ++n) {
    const Planned planned(subject, some[static_cast<size_t>(n) % some.size()].drawn.problem);
    if (planned.status != ATTNRT_OK)
      return failed(fmt::format("plan number {}: {}", n + 1, planned.message));
  }
  std::vector<std::string> troubles(4);
  on_threads(4, [&](int thread) {
    for (int n = 0; n < 50; ++n) {
      const Planned planned(subject, some[static_cast<size_t>(n) % some.size()].drawn.problem);
      if (planned.status != ATTNRT_OK) troubles[static_cast<size_t>(thread)] = planned.message;
    }
  });
  for (const std::string& trouble : troubles) {
    if (!trouble.empty()) return failed("from several threads: " + trouble);
  }
  return again(subject, some[0], {}, "after 400 plans");
}

Outcome check_runs_at_once(Subject& subject) {
  auto some = samples(subject, 4, any_case);
  if (some.empty()) return nothing_to_try();
  std::vector<Outcome> outcomes(some.size());
  on_threads(static_cast<int>(some.size()), [&](int n) {
    const auto at = static_cast<size_t>(n);
    for (int repeat = 0; repeat < 4 && outcomes[at].state == State::passed; ++repeat) {
      outcomes[at] = again(subject, some[at], {}, "at once with others");
    }
  });
  for (Outcome& outcome : outcomes) {
    if (outcome.state != State::passed) return std::move(outcome);
  }
  return passed();
}

Outcome check_smaller_runs(Subject& subject) {
  auto some = samples(subject, 6, any_case);
  if (some.empty()) return nothing_to_try();
  int tried = 0;
  for (Sample& sample : some) {
    core::Problem larger = sample.drawn.problem;
    larger.batch += 2;
    larger.seq_q = larger.seq_q * 3 + 5;
    larger.seq_kv = larger.seq_kv * 3 + 17;
    if (!served(subject, sample.drawn, larger)) continue;
    ++tried;
    Outcome outcome = again(subject, sample, {.problem = &larger}, "with larger bounds");
    if (outcome.state != State::passed) return outcome;
  }
  return tried > 0 ? passed() : skipped("it serves no larger bounds of what it serves");
}

Outcome check_zero_rows(Subject& subject) {
  auto some = samples(subject, 3, dense);
  if (some.empty()) return nothing_to_try();
  for (const Sample& sample : some) {
    for (const char* what : {"batch 0", "seq_q 0", "seq_kv 0"}) {
      Case none = sample.drawn;
      none.style = Style::plain;
      const bool no_batch = std::strcmp(what, "batch 0") == 0,
                 no_q = std::strcmp(what, "seq_q 0") == 0;
      const size_t batch = no_batch ? 0 : none.q_lengths.size();
      const int64_t seq_q = no_q ? 0 : none.seq_q, seq_kv = no_batch || no_q ? none.seq_kv : 0;
      const core::Problem bounds = none.problem;
      set_extents(none, std::vector<int64_t>(batch, seq_q), std::vector<int64_t>(batch, seq_kv));
      none.seq_q = seq_q, none.seq_kv = seq_kv;
      none.problem = bounds;
      Tensors tensors = make_tensors(none);
      const Ran ran = run_case(subject, none, tensors);
      if (!ran.ok())
        return failed(fmt::format("{}: {} ({})", what, ran.message, describe(none)), none.seed);
      for (const Finding& finding : judge(none, tensors, expect(none, tensors), ran)) {
        if (subject.trials().findings.contains(finding.rule)) continue;  // not because of the zero
        return failed(fmt::format("{}: {} ({})", what, finding.text, describe(none)), none.seed);
      }
    }
  }
  return passed();
}

Outcome check_bad_indices(Subject& subject) {
  auto some = samples(subject, 6, [](const Case& drawn) {
    const core::Problem& p = drawn.problem;
    return p.varlen != 0 || p.kv_lengths != 0 || p.page_size > 0;
  });
  int64_t tried = 0;
  for (const Sample& sample : some) {
    for (const int name : {kv_lengths, offsets_q, offsets_kv, page_table}) {
      if (sample.tensors[name].bytes.size() <= 2 * Image::kGuard) continue;
      if (name == page_table && sample.drawn.kv_lengths[0] == 0)
        continue;  // its first entry is not used
      for (const int32_t bad : {-1, 1'000'000'000, INT32_MIN, INT32_MAX}) {
        Tensors tensors = sample.tensors;
        // The second of the offsets, the first of the others: both are always used.
        const int64_t at = name == offsets_q || name == offsets_kv ? 4 : 0;
        std::memcpy(tensors[name].first() + at, &bad, 4);
        const Ran ran = run_case(subject, sample.drawn, tensors);
        ++tried;
        const std::string what =
            fmt::format("{} with {}", kTensorNames[static_cast<size_t>(name)], bad);
        if (subject.on_cpu() && ran.status != ATTNRT_INVALID_ARGUMENT) {
          return failed(fmt::format("{}: {}; expected invalid argument ({})", what,
                                    ran.ok() ? "ok" : ran.message, describe(sample.drawn)),
                        sample.drawn.seed);
        }
        const auto& known = subject.trials().findings;
        const std::string harm = !ran.outside.empty() && !known.contains("ROB-9")  ? ran.outside
                                 : !ran.inputs.empty() && !known.contains("ROB-8") ? ran.inputs
                                                                                   : "";
        if (!harm.empty()) return failed(fmt::format("{}: {}", what, harm), sample.drawn.seed);
      }
    }
  }
  return tried > 0 ? passed() : skipped("no suitable case with index arrays ran");
}

Outcome check_newer_host(Subject& subject) {
  auto some = samples(subject, 3, any_case);
  if (some.empty()) return nothing_to_try();
  for (Sample& sample : some) {
    Outcome outcome = again(subject, sample, {.growth = 64}, "from a host with larger structs");
    if (outcome.state != State::passed) return outcome;
  }
  return passed();
}

Outcome check_dirty_workspace(Subject& subject) {
  auto some = samples(subject, 4, any_case);
  if (some.empty()) return nothing_to_try();
  std::erase_if(some, [](const Sample& sample) { return sample.alone.workspace_bytes == 0; });
  if (some.empty()) return skipped("no plan of the cases tried asks for a workspace");
  for (Sample& sample : some) {
    for (const uint8_t fill : {0x00, 0xFF, 0x7F}) {
      Outcome outcome =
          again(subject, sample, {.workspace_fill = std::byte{fill}}, "with another workspace");
      if (outcome.state != State::passed) return outcome;
    }
  }
  return passed();
}

Outcome check_null_error(Subject& subject) {
  const attnrt_plugin& table = *subject.table();
  if (table.open == nullptr && table.plan == nullptr)
    return skipped("it has neither open nor plan");
  if (table.open != nullptr) {
    const attnrt_option option{"no_such_option", "1"};
    Instance opened;
    opened.table = &table;
    opened.status = table.open(subject.host.get(), &option, 1, &opened.value, nullptr);
    opened.open = opened.status == ATTNRT_OK;
  }
  if (table.plan == nullptr) return passed();
  auto some = samples(subject, 1, any_case);
  if (some.empty()) return nothing_to_try();
  void* plan = nullptr;
  attnrt_plan_info info{};
  info.struct_size = sizeof info;
  // What nobody can plan: the call fails, or not, but it returns.
  core::Problem problem = some[0].drawn.problem;
  problem.head_dim = problem.head_dim_v = int64_t{1} << 40;
  for (const core::Problem& asked : {some[0].drawn.problem, problem}) {
    const attnrt_status status = table.plan(subject.instance(), &asked, &info, &plan, nullptr);
    if (status < ATTNRT_OK || status > ATTNRT_DEVICE_LOST)
      return failed(fmt::format("plan returns status {}", status));
    const bool destroys =
        ATTNRT_HAS(&table, attnrt_plugin, plan_destroy) && table.plan_destroy != nullptr;
    if (status == ATTNRT_OK && destroys) table.plan_destroy(subject.instance(), plan);
  }
  return passed();
}

Outcome check_deterministic(Subject& subject) {
  if (subject.trials().findings.contains("ACC-10")) return subject.trials().outcome("ACC-10");
  auto some =
      samples(subject, 4, [](const Case& drawn) { return drawn.problem.deterministic != 0; });
  if (some.empty()) return skipped("no suitable case with deterministic ran");
  for (const Sample& sample : some) {
    for (int repeat = 0; repeat < 4; ++repeat) {
      const Ran ran = run_case(subject, sample.drawn, sample.tensors);
      if (ran.ok() && ran.out == sample.alone.out && ran.lse == sample.alone.lse) continue;
      return failed(fmt::format("run {} differs ({})", repeat + 2, describe(sample.drawn)),
                    sample.drawn.seed);
    }
  }
  return passed();
}

}  // namespace attnrt::cli::verify
