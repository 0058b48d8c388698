// tests/bench/runtime_bench.cpp: what the runtime itself costs: selecting, one-shot calls and plans on a problem of one key
//
// Bars: a problem seen before is selected in less than 200 ns, a new one among ten plugins in less than 20 us.
#include <benchmark/benchmark.h>

#include "fakes/tiny.hpp"
#include "run.hpp"
#include "support/world.hpp"

namespace attnrt::core {
namespace {

using fakes::Tiny;
using support::World;

const std::vector<std::string>& ten_plugins() {
  static const std::vector<std::string> names = {"fake_full",       "fake_minimal", "fake_newer",    "fake_older",
                                                 "fake_slow",       "fake_bad_gap", "fake_bad_leak", "fake_bad_rough",
                                                 "fake_bad_masked", "fake_rocm"};
  return names;
}

// Priorities, rules and conditions as an operator would write them.
const std::string kPolicy =
    "rules:\n"
    "  - {name: tiny queries, when: {device: cpu, seq_q: {max: 4}}, prefer: [fake_minimal]}\n"
    "  - {name: wide heads, when: {head_dim: {min: 129}}, deny: [fake_full]}\n"
    "  - {name: halves, when: {dtype: [f16, bf16], head_dim_v: {equals: head_dim}}, deny: [fake_slow]}\n";

void Decide_ProblemSeenBefore(benchmark::State& state) {
  const World world(ten_plugins(), kPolicy);
  const Problem problem = support::checked(Tiny().problem);
  (void)world->decide(problem, {});
  for (auto _ : state) benchmark::DoNotOptimize(world->decide(problem, {}));
}
BENCHMARK(Decide_ProblemSeenBefore);

void Decide_NewProblemAmongTenPlugins(benchmark::State& state) {
  const World world(ten_plugins(), kPolicy);
  Problem problem = support::checked(Tiny().problem);
  problem.seq_q = 128;
  (void)world->decide(problem, {});
  for (auto _ : state) {
    ++problem.seq_kv;
    benchmark::DoNotOptimize(world->decide(problem, {}));
  }
}
BENCHMARK(Decide_NewProblemAmongTenPlugins);

// Alone: what the backend itself takes for this problem.
void Run_Backend(benchmark::State& state) {
  const World world({"fake_minimal"});
  Tiny tiny;
  const auto plan = world->plan(support::checked(tiny.problem), {});
  const Plan& made = **plan;
  for (auto _ : state) {
    benchmark::DoNotOptimize(made.backend().run(made.plugin_plan(), made.device_problem(), tiny.args, nullptr));
  }
}
BENCHMARK(Run_Backend);

void Run_PlanReuse(benchmark::State& state) {
  const World world({"fake_minimal"});
  Tiny tiny;
  const auto plan = world->plan(support::checked(tiny.problem), {});
  for (auto _ : state) benchmark::DoNotOptimize(run(**plan, tiny.args, nullptr));
}
BENCHMARK(Run_PlanReuse);

void Attention_OneShot(benchmark::State& state) {
  const World world({"fake_minimal"});
  Tiny tiny;
  for (auto _ : state) benchmark::DoNotOptimize(world->attention(tiny.problem, tiny.args, {}, nullptr));
}
BENCHMARK(Attention_OneShot);

// As many problems in turn as the cache of idle plans holds: the longest way through it.
void Attention_OneShotOfManyProblems(benchmark::State& state) {
  const World world({"fake_minimal"});
  Tiny tiny;
  constexpr int64_t kProblems = 64;
  int64_t step = 0;
  for (auto _ : state) {
    tiny.problem.window_left = ++step % kProblems;
    benchmark::DoNotOptimize(world->attention(tiny.problem, tiny.args, {}, nullptr));
  }
}
BENCHMARK(Attention_OneShotOfManyProblems);

void Plan_Make(benchmark::State& state) {
  const World world({"fake_minimal"});
  const Problem problem = support::checked(Tiny().problem);
  for (auto _ : state) benchmark::DoNotOptimize(world->plan(problem, {}));
}
BENCHMARK(Plan_Make);

}  // namespace
}  // namespace attnrt::core
