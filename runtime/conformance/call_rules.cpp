// runtime/conformance/call_rules.cpp: checks calls that are repeated, concurrent or unusual
#include <fmt/format.h>

#include <utility>

#include "conformance/rule_checks.hpp"
#include "conformance/samples.hpp"
#include "conformance/subject.hpp"

namespace attnrt::conformance {

Outcome check_unknown_option(Subject& subject) {
  if (subject.table()->open == nullptr) return skipped("it has no open");
  const Instance opened = subject.open({{"no_such_option", "1"}});
  if (opened.status == ATTNRT_OK) return failed("open accepts the option no_such_option");
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
    if (auto drawn = draw_case(subject.manifest(), subject.device(), subject.settings.seed + n))
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
      return failed(fmt::format("supports gave two answers for the same problem ({})",
                                core::describe(cases[n / 2].problem)));
    }
  }
  if (answers() != first) return failed("supports gave other answers when asked again");
  std::vector<decltype(answers())> answers_of(4);
  on_threads(4, [&](int n) { answers_of[static_cast<size_t>(n)] = answers(); });
  for (const auto& other : answers_of) {
    if (other != first) return failed("supports gave other answers from several threads");
  }
  return passed();
}

Outcome check_many_plans(Subject& subject) {
  if (subject.table()->plan == nullptr) return skipped("it has no plan");
  const auto samples = draw_samples(subject, 2, any_case);
  if (samples.empty()) return no_sample();
  for (int n = 0; n < 200; ++n) {
    const PluginPlan plan(subject, samples[static_cast<size_t>(n) % samples.size()].drawn.problem);
    if (plan.status != ATTNRT_OK)
      return failed(fmt::format("plan {} of the same problems: {}", n + 1, plan.message));
  }
  std::vector<std::string> troubles(4);
  on_threads(4, [&](int thread) {
    for (int n = 0; n < 50; ++n) {
      const PluginPlan plan(subject,
                            samples[static_cast<size_t>(n) % samples.size()].drawn.problem);
      if (plan.status != ATTNRT_OK) troubles[static_cast<size_t>(thread)] = plan.message;
    }
  });
  for (const std::string& trouble : troubles) {
    if (!trouble.empty()) return failed("from several threads: " + trouble);
  }
  return run_again(subject, samples[0], {}, "after 400 plans");
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
  const auto samples = draw_samples(subject, 1, any_case);
  if (samples.empty()) return no_sample();
  void* plan = nullptr;
  attnrt_plan_info info{};
  info.struct_size = sizeof info;
  // A problem that nobody can plan. The call may fail or not, but it must return.
  core::Problem huge = samples[0].drawn.problem;
  huge.head_dim = huge.head_dim_v = int64_t{1} << 40;
  for (const core::Problem& asked : {samples[0].drawn.problem, huge}) {
    const attnrt_status status = table.plan(subject.instance(), &asked, &info, &plan, nullptr);
    if (status < ATTNRT_OK || status > ATTNRT_DEVICE_LOST)
      return failed(fmt::format("plan returns status {}, which does not exist", status));
    const bool destroys =
        ATTNRT_HAS(&table, attnrt_plugin, plan_destroy) && table.plan_destroy != nullptr;
    if (status == ATTNRT_OK && destroys) table.plan_destroy(subject.instance(), plan);
  }
  return passed();
}

}  // namespace attnrt::conformance
