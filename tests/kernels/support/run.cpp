// tests/kernels/support/run.cpp: a case into the CPU kernel's run on every target and thread count, checked against float64
#include "tests/kernels/support/run.hpp"

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "kernels/common/half.hpp"
#include "kernels/reference/attention.hpp"
#include "tests/kernels/support/plain.hpp"

namespace kernels::test {
namespace {

void run_on_threads(void* self, int64_t count, void (*body)(void*, int64_t, int32_t), void* arg) {
  const int32_t thread_count = static_cast<int32_t>(reinterpret_cast<intptr_t>(self));
  std::atomic<int64_t> next{0};
  const auto work = [&](int32_t worker) {
    for (int64_t index = next++; index < count; index = next++) body(arg, index, worker);
  };
  std::vector<std::thread> others;
  for (int32_t worker = 1; worker < thread_count; ++worker) others.emplace_back(work, worker);
  work(0);
  for (std::thread& other : others) other.join();
}

struct Exact {
  std::vector<double> out;
  std::vector<double> lse;  // [batch, heads, seq] as the reference writes it
};

Exact reference_of(const Case& c) {
  Exact exact{std::vector<double>(static_cast<size_t>(c.dense_rows() * c.problem.head_dim_v)),
              std::vector<double>(static_cast<size_t>(c.dense_rows()))};
  reference::attention(c.problem, c.args, exact.out.data(), exact.lse.data());
  return exact;
}

// One quantity's errors, of the kernel and of the plain evaluation.
struct Errors {
  double plain_max = 0, plain_sum = 0, kernel_sum = 0, floor_sum = 0;
  int64_t count = 0;

  void expect_mean(const char* what) const {
    if (count == 0) return;
    const double n = static_cast<double>(count);
    EXPECT_LE(kernel_sum / n, 1.5 * plain_sum / n + 0.25 * floor_sum / n) << what << ": mean error";
  }
};

int64_t dense_lse(const Case& c, int64_t b, const Sequence& s, int64_t i, int64_t head) {
  if (c.problem.varlen) return head * c.args.q.shape[0] + s.q_first + i;
  return (b * c.problem.heads_q + head) * c.args.q.shape[1] + i;
}

void expect_accurate(const Case& c, const Exact& exact, const Plain& plain) {
  const Problem& p = c.problem;
  Errors out, lse;
  c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t row) {
    for (int64_t n = row * p.head_dim_v; n < (row + 1) * p.head_dim_v; ++n) {
      const size_t at = static_cast<size_t>(n);
      out.plain_max = std::max(out.plain_max, std::abs(double{plain.out[at]} - exact.out[at]));
    }
    const double want = exact.lse[static_cast<size_t>(dense_lse(c, b, s, i, head))];
    if (!std::isinf(want))
      lse.plain_max = std::max(lse.plain_max, std::abs(double{plain.lse[static_cast<size_t>(row)]} - want));
  });

  int64_t reported = 0;
  c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t row) {
    const size_t r = static_cast<size_t>(row);
    const int64_t offset = query_row(p, c.args.out, s, b, i, head);
    for (int64_t x = 0; x < p.head_dim_v; ++x) {
      const size_t at = static_cast<size_t>(row * p.head_dim_v + x);
      const double got = load_float(p.dtype, c.args.out.data, offset + x);
      const double error = std::abs(got - exact.out[at]);
      out.kernel_sum += error;
      out.plain_sum += std::abs(double{plain.out[at]} - exact.out[at]);
      out.floor_sum += plain.out_floor[r];
      ++out.count;
      if (!(error <= 2 * out.plain_max + plain.out_floor[r]) && reported++ < 3) {
        ADD_FAILURE() << "out[b " << b << ", i " << i << ", head " << head << ", " << x << "]: " << got << ", exact "
                      << exact.out[at] << ", error " << error << ", plain error " << out.plain_max << ", floor "
                      << plain.out_floor[r];
      }
    }
    if (!p.lse) return;
    const double want = exact.lse[static_cast<size_t>(dense_lse(c, b, s, i, head))];
    const double got = static_cast<const float*>(c.args.lse.data)[lse_element(p, c.args.lse, s, b, i, head)];
    if (std::isinf(want)) {
      if (got != want && reported++ < 3)
        ADD_FAILURE() << "lse[b " << b << ", head " << head << ", i " << i << "]: " << got;
      return;
    }
    lse.kernel_sum += std::abs(got - want);
    lse.plain_sum += std::abs(double{plain.lse[r]} - want);
    lse.floor_sum += plain.lse_floor[r];
    ++lse.count;
    if (!(std::abs(got - want) <= 2 * lse.plain_max + plain.lse_floor[r]) && reported++ < 3) {
      ADD_FAILURE() << "lse[b " << b << ", head " << head << ", i " << i << "]: " << got << ", exact " << want
                    << ", plain error " << lse.plain_max << ", floor " << plain.lse_floor[r];
    }
  });
  out.expect_mean("out");
  lse.expect_mean("lse");
}

}  // namespace

cpu::Workers threads(int32_t count) {
  return {reinterpret_cast<void*>(static_cast<intptr_t>(count)), count, run_on_threads};
}

cpu::Status run_once(const Case& c, int32_t thread_count, cpu::Error* error) {
  const int64_t bytes = cpu::workspace_bytes(c.problem, thread_count);
  const std::unique_ptr<void, void (*)(void*)> workspace(
      std::aligned_alloc(cpu::kWorkspaceAlignment, static_cast<size_t>(bytes)), std::free);
  memset(workspace.get(), 0xFF, static_cast<size_t>(bytes));
  return cpu::run(c.problem, c.args, threads(thread_count), workspace.get(), bytes, error);
}

std::vector<int64_t> targets() { return hwy::SupportedAndGeneratedTargets(); }

OnTarget::OnTarget(int64_t target) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

OnTarget::~OnTarget() {
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

void expect_right(const Recipe& recipe) {
  SCOPED_TRACE(describe(recipe));
  Case c(recipe);
  const Exact exact = reference_of(c);
  const Plain plain = plain_attention(c);
  for (const int64_t target : targets()) {
    const OnTarget on_target(target);
    SCOPED_TRACE(hwy::TargetName(target));
    ASSERT_STREQ(cpu::target_name(), hwy::TargetName(target));
    std::string bits;
    for (const int32_t thread_count : {1, 2, 3}) {
      c.poison_outputs();
      cpu::Error error;
      ASSERT_EQ(run_once(c, thread_count, &error), cpu::Status::ok) << error.message;
      EXPECT_TRUE(c.outside_untouched()) << "wrote outside the rows";
      if (thread_count == 1) {
        expect_accurate(c, exact, plain);
        bits = c.output_bytes();
      } else {
        EXPECT_TRUE(bits == c.output_bytes()) << "other bits with " << thread_count << " threads";
      }
    }
  }
}

}  // namespace kernels::test
