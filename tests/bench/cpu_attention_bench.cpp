// tests/bench/cpu_attention_bench.cpp: times the cpu kernels and a plain loop, on one thread
//
// The plain loop is what one would write first: three nested loops over rows of float, compiled
// with -O3 -march=native. FLOP are 2 seq_q seq_kv (head_dim + head_dim_v) for each head, half of it
// if causal.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cpu/attention.hpp"

namespace {

struct Shape {
  const char* name;
  int64_t heads_q, heads_kv, seq_q, seq_kv, head_dim;
  bool causal;
};

constexpr Shape kShapes[] = {
    {"512x64", 8, 8, 512, 512, 64, false},          {"2048x64", 8, 8, 2048, 2048, 64, false},
    {"2048x64_causal", 8, 8, 2048, 2048, 64, true}, {"2048x128", 8, 8, 2048, 2048, 128, false},
    {"128x80", 8, 8, 128, 128, 80, false},          {"decode_4096x128", 32, 8, 1, 4096, 128, false},
};

struct Data {
  explicit Data(const Shape& s)
      : q(static_cast<size_t>(s.heads_q * s.seq_q * s.head_dim)),
        k(static_cast<size_t>(s.heads_kv * s.seq_kv * s.head_dim)),
        v(k.size()),
        out(q.size()) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (std::vector<float>* values : {&q, &k, &v})
      std::generate(values->begin(), values->end(), [&] { return normal(random); });
  }
  std::vector<float> q, k, v, out;  // [heads, seq, head_dim]
};

// Computes attention as one would write it first. scores: room for seq_kv numbers.
void plain_attention(const Shape& s, const float* q, const float* k, const float* v, float* out,
                     float* scores) {
  const int64_t d = s.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  for (int64_t h = 0; h < s.heads_q; ++h) {
    const int64_t head_kv = h / (s.heads_q / s.heads_kv);
    const float* keys = k + head_kv * s.seq_kv * d;
    const float* values = v + head_kv * s.seq_kv * d;
    for (int64_t i = 0; i < s.seq_q; ++i) {
      const float* query = q + (h * s.seq_q + i) * d;
      float* row = out + (h * s.seq_q + i) * d;
      const int64_t visible = s.causal ? i + 1 + s.seq_kv - s.seq_q : s.seq_kv;
      float max = -INFINITY;
      for (int64_t j = 0; j < visible; ++j) {
        float dot = 0;
        for (int64_t x = 0; x < d; ++x) dot += query[x] * keys[j * d + x];
        scores[j] = dot * scale;
        max = std::max(max, scores[j]);
      }
      float sum = 0;
      for (int64_t j = 0; j < visible; ++j) {
        scores[j] = std::exp(scores[j] - max);
        sum += scores[j];
      }
      for (int64_t x = 0; x < d; ++x) row[x] = 0;
      for (int64_t j = 0; j < visible; ++j) {
        const float weight = scores[j] / sum;
        for (int64_t x = 0; x < d; ++x) row[x] += weight * values[j * d + x];
      }
    }
  }
}

// Returns the instruction set that ATTNRT_BENCH_TARGET names, or else the best one of this machine.
const kernels::cpu::Target& target() {
  static const kernels::cpu::Target* const found =
      kernels::cpu::find_target(std::getenv("ATTNRT_BENCH_TARGET"));
  if (found == nullptr) {
    std::fprintf(stderr, "ATTNRT_BENCH_TARGET: this machine has no such target\n");
    std::exit(1);
  }
  return *found;
}

void report(benchmark::State& state, const Shape& s) {
  const double flop = 4.0 * static_cast<double>(s.heads_q * s.seq_q * s.seq_kv * s.head_dim) *
                      (s.causal ? 0.5 : 1.0);
  state.counters["FLOP/s"] =
      benchmark::Counter(flop, benchmark::Counter::kIsIterationInvariantRate);
}

void plain(benchmark::State& state, const Shape& s) {
  Data data(s);
  std::vector<float> scores(static_cast<size_t>(s.seq_kv));
  for (auto _ : state) {
    plain_attention(s, data.q.data(), data.k.data(), data.v.data(), data.out.data(), scores.data());
    benchmark::ClobberMemory();
  }
  report(state, s);
}

// Returns a view of [heads, seq, head_dim] in memory. If dtype is not f32, fills `halves` with
// numbers of that dtype and views them instead of the floats.
kernels::Tensor tensor(std::vector<uint16_t>& halves, std::vector<float>& floats,
                       kernels::DType dtype, int64_t heads, int64_t seq, int64_t d) {
  kernels::Tensor t{floats.data(), dtype, 4, {1, seq, heads, d}, {heads * seq * d, d, seq * d, 1}};
  if (dtype != kernels::DType::f32) {
    // 0x3F00 to 0x3F7F is 0.5 to 1 in bf16, and 0x3800 to 0x3BFF is 0.5 to 1 in f16.
    halves.resize(floats.size());
    for (size_t n = 0; n < floats.size(); ++n)
      halves[n] = dtype == kernels::DType::bf16 ? static_cast<uint16_t>(0x3F00 + n % 128)
                                                : static_cast<uint16_t>(0x3800 + n % 1024);
    t.data = halves.data();
  }
  return t;
}

void kernel(benchmark::State& state, const Shape& s, kernels::DType dtype) {
  Data data(s);
  std::vector<uint16_t> q, k, v, out;
  kernels::Problem problem;
  problem.dtype = dtype;
  problem.heads_q = s.heads_q;
  problem.heads_kv = s.heads_kv;
  problem.seq_q = s.seq_q;
  problem.seq_kv = s.seq_kv;
  problem.head_dim = problem.head_dim_v = s.head_dim;
  problem.causal = s.causal;
  kernels::Args args;
  args.q = tensor(q, data.q, dtype, s.heads_q, s.seq_q, s.head_dim);
  args.k = tensor(k, data.k, dtype, s.heads_kv, s.seq_kv, s.head_dim);
  args.v = tensor(v, data.v, dtype, s.heads_kv, s.seq_kv, s.head_dim);
  args.out = tensor(out, data.out, dtype, s.heads_q, s.seq_q, s.head_dim);
  const int64_t bytes = kernels::cpu::workspace_bytes(problem, target(), 1);
  const std::unique_ptr<void, void (*)(void*)> workspace(
      std::aligned_alloc(kernels::cpu::kWorkspaceAlignment, static_cast<size_t>(bytes)), std::free);
  kernels::cpu::Error error;
  for (auto _ : state) {
    if (kernels::cpu::run(problem, args, target(), {}, workspace.get(), bytes, &error) !=
        kernels::cpu::Status::ok) {
      state.SkipWithError(error.message);
    }
    benchmark::ClobberMemory();
  }
  report(state, s);
}

}  // namespace

int main(int argc, char** argv) {
  for (const Shape& s : kShapes) {
    const std::string name = s.name;
    const auto add = [&](const char* what, auto function) {
      benchmark::RegisterBenchmark((std::string(what) + "/" + name).c_str(), function)
          ->Unit(benchmark::kMillisecond);
    };
    add("plain_f32", [&s](benchmark::State& state) { plain(state, s); });
    add("kernel_f32", [&s](benchmark::State& state) { kernel(state, s, kernels::DType::f32); });
    add("kernel_f16", [&s](benchmark::State& state) { kernel(state, s, kernels::DType::f16); });
    add("kernel_bf16", [&s](benchmark::State& state) { kernel(state, s, kernels::DType::bf16); });
  }
  benchmark::AddCustomContext("target", kernels::cpu::target_name(target()));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
