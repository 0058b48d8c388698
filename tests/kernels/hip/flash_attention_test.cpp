// tests/kernels/hip/flash_attention_test.cpp: the shapes and values where attention kernels go wrong, into the fused GPU kernel
#include <gtest/gtest.h>

#include <climits>
#include <cmath>

#include "kernels/common/half.hpp"
#include "kernels/hip/family.hpp"
#include "tests/kernels/hip/expect.hpp"

namespace kernels::test {
namespace {

// Every tile that a GPU can run: f32 is computed by the same tile on several of them.
struct Target {
  const char* arch;
  DType dtype;
};
constexpr Target kTargets[] = {
    {"sm_80", DType::f16},   {"sm_80", DType::bf16},   {"gfx1100", DType::f16}, {"gfx1100", DType::bf16},
    {"gfx1200", DType::f16}, {"gfx1200", DType::bf16}, {"gfx942", DType::f16},  {"gfx942", DType::bf16},
    {"gfx1030", DType::f16}, {"gfx1030", DType::bf16}, {"gfx906", DType::f16},  {"gfx906", DType::bf16},
    {"gfx1030", DType::f32}, {"gfx906", DType::f32},   {"sm_80", DType::f32},
};

std::string name_of(const Target& t) {
  return std::string(t.arch) + (t.dtype == DType::f32 ? "_f32" : t.dtype == DType::f16 ? "_f16" : "_bf16");
}
void PrintTo(const Target& t, std::ostream* out) { *out << name_of(t); }

class OnTarget : public testing::TestWithParam<Target> {
 protected:
  static Recipe recipe(int64_t seq_q, int64_t seq_kv, int64_t head_dim = 64) {
    Recipe r;
    r.problem.dtype = GetParam().dtype;
    r.problem.heads_q = r.problem.heads_kv = 1;
    r.problem.head_dim = r.problem.head_dim_v = head_dim;
    r.problem.lse = true;
    r.seq_q = seq_q;
    r.seq_kv = seq_kv;
    r.gap = 8;
    return r;
  }
  static hip::TileFacts tile(int head_dim = 64) {
    return hip::tile_facts(hip::family_of(GetParam().arch), GetParam().dtype, head_dim);
  }
  static void expect_right(const Recipe& r, uint32_t seed = 0) { expect_right_on(GetParam().arch, r, seed); }
};
INSTANTIATE_TEST_SUITE_P(, OnTarget, testing::ValuesIn(kTargets), [](const auto& target) { return name_of(target.param); });

TEST_P(OnTarget, HeadDims) {
  for (const int64_t d : {32, 40, 64, 72, 80, 96, 128, 136, 192, 256}) {
    Recipe r = recipe(19, 70, d);
    r.layout = static_cast<Layout>(d / 8 % 3);
    expect_right(r);
  }
}

}  // namespace
}  // namespace kernels::test
