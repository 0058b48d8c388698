// runtime/cli/doctor/self_test.cpp: runs one small attention on a backend, and compares it
#include "cli/doctor/self_test.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/text.hpp"
#include "kernels/reference/expectation.hpp"
#include "kernels/reference/lengths.hpp"
#include "plan.hpp"
#include "plugins/common/translate.hpp"
#include "run.hpp"

namespace attnrt::cli::doctor {
namespace {

using core::Problem;

// Tensors of f32 for the problem, with random numbers from -1 to 1; out holds NaN.
struct Tensors {
  explicit Tensors(const Problem& p)
      : q(static_cast<size_t>(p.seq_q * p.heads_q * p.head_dim)),
        k(static_cast<size_t>(p.seq_kv * p.heads_kv * p.head_dim)),
        v(k.size()),
        out(q.size(), std::numeric_limits<float>::quiet_NaN()) {
    kernels::reference::Random random(1);
    constexpr int64_t kSteps = 1 << 20;
    for (auto* values : {&q, &k, &v}) {
      for (float& value : *values) {
        value = static_cast<float>(kernels::reference::between(random, -kSteps, kSteps)) /
                static_cast<float>(kSteps);
      }
    }
    args.struct_size = sizeof args;
    args.q = view(q, p.seq_q, p.heads_q, p.head_dim);
    args.k = view(k, p.seq_kv, p.heads_kv, p.head_dim);
    args.v = view(v, p.seq_kv, p.heads_kv, p.head_dim);
    args.out = view(out, p.seq_q, p.heads_q, p.head_dim);
  }

  static attnrt_tensor view(std::vector<float>& values, int64_t seq, int64_t heads, int64_t dim) {
    attnrt_tensor tensor{};
    tensor.data = values.data();
    tensor.dtype = {ATTNRT_DTYPE_FLOAT, 32, 1};
    tensor.ndim = 4;
    const int64_t shape[] = {1, seq, heads, dim};
    int64_t stride = 1;
    for (int d = 3; d >= 0; --d) {
      tensor.shape[d] = shape[d];
      tensor.stride[d] = stride;
      stride *= shape[d];
    }
    return tensor;
  }

  std::vector<float> q, k, v, out;
  attnrt_args args{};
};

Problem small_problem() {
  Problem problem = ATTNRT_PROBLEM_INIT;
  problem.device_type = ATTNRT_DEVICE_CPU;
  problem.dtype = {ATTNRT_DTYPE_FLOAT, 32, 1};
  problem.heads_q = 4;
  problem.heads_kv = 2;
  problem.seq_q = 40;
  problem.seq_kv = 100;
  problem.head_dim = problem.head_dim_v = 64;
  problem.causal = 1;
  problem.alignment_bytes = 4;
  return core::check_problem(&problem).value();
}

// Returns the first value that is off by more than rounding explains, or "".
std::string mistake(const Problem& problem, const Tensors& tensors) {
  kernels::Problem asked;
  kernels::Args args;
  attnrt_error error = ATTNRT_ERROR_INIT;
  if (attnrt_plugins::translate(problem, problem.device_type, &asked, &error) != ATTNRT_OK ||
      attnrt_plugins::translate(tensors.args, &args, &error) != ATTNRT_OK)
    return error.message;
  const auto expected = kernels::reference::expect(asked, args);
  for (const auto& row : expected.rows) {
    const double bound = expected.out_bound(row);
    for (int64_t x = 0; x < problem.head_dim_v; ++x) {
      const auto at = static_cast<size_t>(row.out_at + x);
      const double found = tensors.out[at], exact = expected.out[at];
      if (std::abs(found - exact) <= bound) continue;
      return fmt::format("out at query {}, head {}, {} is {:.8g}, expected {:.8g} within {:.2g}",
                         row.i, row.head, x, found, exact, bound);
    }
  }
  return "";
}

}  // namespace

const char* name_of(SelfTest::State state) {
  static constexpr const char* kNames[] = {"right", "unsupported", "failed", "wrong"};
  return kNames[static_cast<size_t>(state)];
}

SelfTest self_test(const std::shared_ptr<const core::FoundPlugin>& plugin,
                   const std::shared_ptr<const core::Backend>& backend,
                   const core::Device& device) {
  SelfTest test{backend->manifest().name, backend->manifest().version_text, device};
  const auto ends = [&test](SelfTest::State state, std::string reason) {
    test.state = state;
    test.reason = std::move(reason);
    return test;
  };
  const Problem problem = small_problem();
  const Problem on_device = core::problem_on(device, problem);
  std::vector<std::string> reasons = plugin->manifest->refusals(on_device, device.arch);
  if (reasons.empty()) (void)backend->supports(on_device, &reasons);
  if (!reasons.empty()) return ends(SelfTest::State::unsupported, core::joined(reasons));
  auto decision = std::make_shared<core::Decision>();
  decision->problem = problem;
  decision->status = ATTNRT_OK;
  core::Verdict& verdict = decision->verdicts.emplace_back();
  verdict.candidate = {plugin, backend, device, ""};
  verdict.answer = core::Answer::yes;
  verdict.staged = device.type != ATTNRT_DEVICE_CPU;
  const auto plan = core::make_plan(decision, problem);
  if (!plan) return ends(SelfTest::State::failed, plan.error().message);
  test.kernel = (*plan)->kernel();
  const Tensors tensors(problem);
  attnrt_error error = ATTNRT_ERROR_INIT;
  if (core::run(**plan, tensors.args, &error) != ATTNRT_OK)
    return ends(SelfTest::State::failed, error.message);
  std::string wrong = mistake(problem, tensors);
  return wrong.empty() ? test : ends(SelfTest::State::wrong, std::move(wrong));
}

}  // namespace attnrt::cli::doctor
