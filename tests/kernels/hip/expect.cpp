// tests/kernels/hip/expect.cpp: runs a problem on the GPU kernels and checks it against float64
#include "tests/kernels/hip/expect.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/common/half.hpp"
#include "kernels/common/sequence.hpp"
#include "tests/kernels/support/accuracy.hpp"

namespace kernels::test {
namespace {

// Fewer than most problems have blocks of queries, so that workgroups take several.
constexpr int32_t kMultiprocessors = 3;

void set_sinks(const Case& c, float value) {
  for (int64_t head = 0; head < c.problem.heads_q; ++head)
    static_cast<float*>(c.args.sinks.data)[head * c.args.sinks.stride[0]] = value;
}

template <class Plan>
void run_with(const Plan& plan, const char* arch, const Case& c, uint32_t seed) {
  // Filled with NaN, so that a read before a write shows. On the heap, so that a sanitizer sees an
  // access past its end.
  std::vector<char> workspace(static_cast<size_t>(plan.workspace_bytes), '\xFF');
  hip::Launch launches[8];
  const int32_t count = hip::launches(plan, c.problem, c.args, workspace.data(), launches);
  ASSERT_GE(count, 0);
  for (int32_t n = 0; n < count; ++n) run_launch(arch, launches[n], seed);
}

template <class Plan>
void expect_right_with(const Plan& plan, const char* arch, const Case& c, uint32_t seed) {
  SCOPED_TRACE(std::string(arch) + " " + plan.object + " " + plan.kernel);
  run_with(plan, arch, c, seed);
  EXPECT_TRUE(c.outside_untouched()) << "wrote outside the rows";
  expect_accurate(c, reference::expect(c.problem, c.args));
}

}  // namespace

void expect_right_on(const char* arch, const Recipe& recipe, uint32_t seed) {
  SCOPED_TRACE(describe(recipe));
  Case c(recipe);
  std::string reason;
  ASSERT_TRUE(hip::flash_supported(c.problem, {arch}, &reason)) << reason;
  hip::FlashPlan plan = hip::plan_flash(c.problem, {arch, kMultiprocessors});
  expect_right_with(plan, arch, c, seed);
  if (plan.workgroups == 0 || c.problem.mask == Mask::none) return;
  const std::string bytes = c.output_bytes();
  c.poison_outputs();
  plan.always_scans_masks = true;
  expect_right_with(plan, arch, c, seed);
  EXPECT_TRUE(c.output_bytes() == bytes) << "bits depend on whether the mask's tiles are looked at";
}

void expect_unfused_right_on(const char* arch, const Recipe& recipe, uint32_t seed) {
  SCOPED_TRACE(describe(recipe));
  const Case c(recipe);
  std::string reason;
  ASSERT_TRUE(hip::unfused_supported(c.problem, {arch}, &reason)) << reason;
  expect_right_with(hip::plan_unfused(c.problem, {arch, kMultiprocessors}), arch, c, seed);
}

void run_flash_on(const char* arch, const Case& c) {
  ASSERT_TRUE(hip::flash_supported(c.problem, {arch}, nullptr));
  run_with(hip::plan_flash(c.problem, {arch, kMultiprocessors}), arch, c, 0);
}

void expect_in_each_row(const Case& c, const std::function<bool(float out, float lse)>& holds) {
  c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
    const int64_t row = query_row(c.problem, c.args.out, s, b, i, head);
    const float lse = static_cast<const float*>(
        c.args.lse.data)[lse_element(c.problem, c.args.lse, s, b, i, head)];
    for (int64_t x = 0; x < c.problem.head_dim_v; ++x) {
      const float out = load_float(c.problem.dtype, c.args.out.data, row + x);
      EXPECT_TRUE(holds(out, lse)) << "row " << i << ": out " << out << ", lse " << lse;
    }
  });
}

void expect_same_bits_alone(Recipe recipe, const std::function<void(const Case&)>& run) {
  recipe.batch = 3;
  recipe.slack = 7;
  SCOPED_TRACE(describe(recipe));
  Case c(recipe);
  const auto bits = [&c](int64_t sequence) {
    std::string all;
    c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
      if (b != 0) return;  // rows of other sequences lie as those of the first do
      const Tensor &out = c.args.out, &lse = c.args.lse;
      const int64_t row = query_row(c.problem, out, s, sequence, i, head);
      all.append(static_cast<const char*>(out.data) + row * element_bytes(out.dtype),
                 static_cast<size_t>(c.problem.head_dim_v * element_bytes(out.dtype)));
      all.append(reinterpret_cast<const char*>(static_cast<const float*>(lse.data) +
                                               lse_element(c.problem, lse, s, sequence, i, head)),
                 sizeof(float));
    });
    return all;
  };
  run(c);
  const std::string among_others = bits(1);
  for (Tensor* t : {&c.args.q, &c.args.k, &c.args.v, &c.args.out, &c.args.lse}) {
    t->data = static_cast<char*>(t->data) + t->stride[0] * element_bytes(t->dtype);
    t->shape[0] = 1;
  }
  c.problem.batch = 1;
  c.problem.seq_q -= recipe.slack, c.problem.seq_kv -= recipe.slack;
  c.poison_outputs();
  run(c);
  EXPECT_TRUE(among_others == bits(0));
}

void expect_nan_sinks(const std::function<Recipe(int64_t keys)>& recipe,
                      const std::function<void(const Case&)>& run) {
  for (const int64_t keys : {int64_t{40}, int64_t{0}}) {
    for (const Mask mask : {Mask::none, Mask::boolean}) {
      Recipe r = recipe(keys);
      r.problem.sinks = true;
      r.problem.mask = mask;
      r.problem.causal = mask == Mask::none;
      r.hidden = Hidden::rows;
      Case c(r);
      set_sinks(c, NAN);
      run(c);
      expect_in_each_row(c,
                         [](float out, float lse) { return std::isnan(out) && std::isnan(lse); });
    }
  }
}

void expect_overflow(Recipe recipe, const std::function<void(const Case&)>& run) {
  if (recipe.problem.dtype == DType::f16) return;
  for (const bool sinks : {false, true}) {
    recipe.problem.sinks = sinks;
    Case c(recipe);
    fill_rows(c.args.q, 1e30F);
    fill_rows(c.args.k, -1e30F);
    if (sinks) set_sinks(c, 0.5F);
    run(c);
    const float want = sinks ? 0.5F : -INFINITY;
    expect_in_each_row(c, [&](float out, float lse) { return out == 0 && lse == want; });
  }
}

void fill_rows(const Tensor& t, float value) {
  for (int64_t b = 0; b < t.shape[0]; ++b)
    for (int64_t i = 0; i < t.shape[1]; ++i)
      for (int64_t head = 0; head < t.shape[2]; ++head)
        for (int64_t x = 0; x < t.shape[3]; ++x)
          store_float(t.dtype, t.data, b * t.stride[0] + i * t.stride[1] + head * t.stride[2] + x,
                      value);
}

void run_unfused_on(const char* arch, const Case& c) {
  ASSERT_TRUE(hip::unfused_supported(c.problem, {arch}, nullptr));
  run_with(hip::plan_unfused(c.problem, {arch, kMultiprocessors}), arch, c, 0);
}

}  // namespace kernels::test
