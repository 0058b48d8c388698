// tests/bench/runtime_bench.cpp: what the runtime costs: selection, decode steps, calls and plans
//
// Limits: selecting for a problem seen before takes less than 200 ns, for a new one among ten
// plugins less than 20 us.
#include <benchmark/benchmark.h>

#include "fakes/tiny.hpp"
#include "run.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using fakes::Tiny;
using support::TestRuntime;

// All of them support the problem, so each is asked, ranked and sorted.
const std::vector<std::string>& ten_plugins() {
  static const std::vector<std::string> names = {
      "fake_full",    "fake_minimal",    "fake_newer",    "fake_older",     "fake_slow",
      "fake_bad_gap", "fake_bad_masked", "fake_bad_leak", "fake_bad_rough", "fake_bad_partial"};
  return names;
}

// Priorities, rules and conditions as an operator would write them.
const std::string kPolicy =
    "rules:\n"
    "  - {name: tiny queries, when: {device: cpu, seq_q: {max: 4}}, prefer: [fake_minimal]}\n"
    "  - {name: wide heads, when: {head_dim: {min: 129}}, deny: [fake_full]}\n"
    "  - {name: halves, when: {dtype: [f16, bf16], head_dim_v: {equals: head_dim}}, deny: "
    "[fake_slow]}\n";

bool ten_say_yes(const Decision& decision) {
  const auto& verdicts = decision.verdicts;
  return verdicts.size() == 10 && verdicts.back().answer == Answer::yes;
}

void Decide_ProblemSeenBefore(benchmark::State& state) {
  const TestRuntime runtime(ten_plugins(), kPolicy);
  const Problem problem = support::checked(Tiny().problem);
  if (!ten_say_yes(*runtime->decide(problem, {}))) state.SkipWithError("not all ten say yes");
  for (auto _ : state) benchmark::DoNotOptimize(runtime->decide(problem, {}));
}
BENCHMARK(Decide_ProblemSeenBefore);

void Decide_NewProblemAmongTenPlugins(benchmark::State& state) {
  const TestRuntime runtime(ten_plugins(), kPolicy);
  Problem problem = support::checked(Tiny().problem);
  problem.seq_q = 128;
  if (!ten_say_yes(*runtime->decide(problem, {}))) state.SkipWithError("not all ten say yes");
  for (auto _ : state) {
    ++problem.seq_kv;
    benchmark::DoNotOptimize(runtime->decide(problem, {}));
  }
}
BENCHMARK(Decide_NewProblemAmongTenPlugins);

// A decode loop on one plan, with kv_lengths. There is one key, so that the backend takes next to
// no time. DecodeStep_Plan minus DecodeStep_BackendAlone is what the runtime adds.
struct Decode {
  Decode() {
    tiny.problem.kv_lengths = 1;
    tiny.args.kv_lengths = {&length, {ATTNRT_DTYPE_INT, 32, 1}, 1, {1}, {1}};
    plan = *runtime->plan(support::checked(tiny.problem), {});
  }
  TestRuntime runtime{{"fake_minimal"}};
  Tiny tiny;
  int32_t length = 1;
  std::unique_ptr<Plan> plan;
};

void DecodeStep_BackendAlone(benchmark::State& state) {
  Decode decode;
  const Plan& plan = *decode.plan;
  for (auto _ : state) {
    const auto status =
        plan.backend().run(plan.plugin_plan(), plan.device_problem(), decode.tiny.args, nullptr);
    if (status != ATTNRT_OK) state.SkipWithError("the run failed");
  }
}
BENCHMARK(DecodeStep_BackendAlone);

void DecodeStep_Plan(benchmark::State& state) {
  Decode decode;
  for (auto _ : state) {
    if (run(*decode.plan, decode.tiny.args, nullptr) != ATTNRT_OK)
      state.SkipWithError("the run failed");
  }
}
BENCHMARK(DecodeStep_Plan);

void Attention_OneShot(benchmark::State& state) {
  const TestRuntime runtime({"fake_minimal"});
  Tiny tiny;
  for (auto _ : state)
    benchmark::DoNotOptimize(runtime->attention(tiny.problem, tiny.args, {}, nullptr));
}
BENCHMARK(Attention_OneShot);

// Uses as many problems in turn as the cache of idle plans holds: the slowest lookup.
void Attention_OneShotOfManyProblems(benchmark::State& state) {
  const TestRuntime runtime({"fake_minimal"});
  Tiny tiny;
  constexpr int64_t kProblems = 64;
  int64_t step = 0;
  for (auto _ : state) {
    tiny.problem.window_left = ++step % kProblems;
    benchmark::DoNotOptimize(runtime->attention(tiny.problem, tiny.args, {}, nullptr));
  }
}
BENCHMARK(Attention_OneShotOfManyProblems);

void Plan_Make(benchmark::State& state) {
  const TestRuntime runtime({"fake_minimal"});
  const Problem problem = support::checked(Tiny().problem);
  for (auto _ : state) benchmark::DoNotOptimize(runtime->plan(problem, {}));
}
BENCHMARK(Plan_Make);

}  // namespace
}  // namespace attnrt::core
