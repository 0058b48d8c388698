// tests/kernels/hip/stored_keys_test.cpp: K and V of 8 bits and their scales, on the kernels that
// take their work from a list
//
// A Case holds NaN (of i8: -128 and NaN scales) wherever nothing exists: behind lengths, in pages
// that belong to nobody, in keys before a window.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/common/half.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/hip/launch/launch.hpp"
#include "tests/kernels/hip/expect.hpp"
#include "tests/kernels/hip/targets.hpp"
#include "tests/kernels/support/accuracy.hpp"

namespace kernels::test {
namespace {

constexpr DType kStored[] = {DType::i8, DType::f8_e4m3fn, DType::f8_e4m3fnuz};
constexpr KvScale kScales[] = {KvScale::none, KvScale::tensor, KvScale::head, KvScale::token};

std::vector<Target> targets() {
  std::vector<Target> all{{"sm_90a", DType::f16}, {"sm_90a", DType::bf16}};
  for (const Target& target : kTargets)
    if (target.dtype != DType::f32) all.push_back(target);
  return all;
}

class StoredKeys : public testing::TestWithParam<Target> {
 protected:
  const char* arch = GetParam().arch;
  DType dtype = GetParam().dtype;
  uint32_t seed = 0;

  Recipe recipe(int64_t seq_q, int64_t seq_kv, int64_t head_dim, int64_t heads_q = 6,
                int64_t heads_kv = 2) const {
    Recipe r = recipe_of(dtype, seq_q, seq_kv, head_dim, heads_q, heads_kv);
    r.problem.kv_dtype = DType::f8_e4m3fn, r.problem.kv_scale = KvScale::token;
    r.layout = Layout::gapped, r.gap = 16;
    return r;
  }
  Recipe lengths(std::vector<int32_t> kv_lengths, int64_t seq_q, int64_t head_dim) const {
    Recipe r = recipe(seq_q, *std::max_element(kv_lengths.begin(), kv_lengths.end()), head_dim);
    r.problem.kv_lengths = true;
    r.batch = static_cast<int64_t>(kv_lengths.size());
    r.kv_lengths = std::move(kv_lengths);
    return r;
  }
  // Rows of decode and of other tiles.
  Recipe packed(int64_t head_dim) const {
    Recipe r = recipe(1, 1, head_dim);
    r.problem.varlen = true;
    r.q_lengths = {1, 0, 35, 2}, r.kv_lengths = {70, 3, 90, 0};
    return r;
  }
  void expect(const Recipe& recipe) { expect_right_on(arch, recipe, ++seed); }

  // Runs a case whose tensors the caller has changed.
  void expect_case(const Case& c) {
    run_flash_on(arch, c);
    EXPECT_TRUE(c.outside_untouched());
    expect_accurate(c, reference::expect(c.problem, c.args));
  }
};
INSTANTIATE_TEST_SUITE_P(, StoredKeys, testing::ValuesIn(targets()),
                         [](const auto& test) { return name_of(test.param); });

// One key whose score is 0 and whose value holds every code: its weight is exactly 1, so out is the
// value, which q's dtype holds exactly. A NaN stays in its column.
TEST_P(StoredKeys, EveryCodeIsConvertedExactly) {
  for (const DType stored : kStored) {
    for (const int64_t seq_q : {1, 40}) {  // decode and prefill
      SCOPED_TRACE(seq_q);
      Recipe r = recipe(seq_q, 1, 256, 1, 1);
      r.problem.kv_dtype = stored, r.problem.kv_scale = KvScale::none;
      r.layout = Layout::bshd;
      Case c(r);
      std::fill_n(static_cast<char*>(c.args.q.data), seq_q * 256 * 2, '\0');
      for (int n = 0; n < 256; ++n)
        static_cast<uint8_t*>(c.args.v.data)[n] = static_cast<uint8_t>(n);
      run_flash_on(arch, c);
      for (int64_t n = 0; n < 256 * seq_q; ++n) {
        const float want = load_float(stored, c.args.v.data, n % 256);
        const float found = load_float(dtype, c.args.out.data, n);
        if (std::isnan(want)) {
          EXPECT_TRUE(std::isnan(found)) << n % 256;
        } else {
          EXPECT_EQ(found, want) << n % 256;
        }
      }
    }
  }
}

// The codes of K: a query of zeros but for a one, and a key for each code, whose scores are lse
// where only that key is visible.
TEST_P(StoredKeys, EveryCodeOfAKeyIsConvertedExactly) {
  for (const DType stored : kStored) {
    Recipe r = recipe(256, 256, 64, 1, 1);
    r.problem.kv_dtype = stored, r.problem.kv_scale = KvScale::none;
    r.problem.scale = 1;
    r.problem.causal = true, r.problem.window_left = 0;  // query i sees key i
    r.layout = Layout::bshd;
    Case c(r);
    for (int64_t i = 0; i < 256; ++i) {
      for (int64_t x = 0; x < 64; ++x) {
        store_float(dtype, c.args.q.data, i * 64 + x, x == i % 64 ? 1 : 0);
        static_cast<uint8_t*>(c.args.k.data)[i * 64 + x] =
            static_cast<uint8_t>(x == i % 64 ? i : 0);
      }
    }
    run_flash_on(arch, c);
    for (int64_t i = 0; i < 256; ++i) {
      const float want = load_float(stored, c.args.k.data, i * 64 + i % 64);
      const float found = static_cast<const float*>(c.args.lse.data)[i];
      if (std::isnan(want)) {
        EXPECT_TRUE(std::isnan(found)) << i;
      } else {
        EXPECT_NEAR(found, want, std::abs(want) * 0x1p-22F) << i;
      }
    }
  }
}

// Each type with each kind of scale, on each layout, by both kernels.
TEST_P(StoredKeys, TypesScalesAndLayouts) {
  for (const DType stored : kStored) {
    for (const KvScale scale : kScales) {
      const auto expect_with = [&](Recipe r) {
        r.problem.kv_dtype = stored, r.problem.kv_scale = scale;
        expect(r);
      };
      expect_with(recipe(1, 100, 128));
      expect_with(recipe(37, 40, 64));  // dense, many queries
      for (const int64_t seq_q : {1, 20}) {
        expect_with(lengths({0, 1, 63, 64, 65}, seq_q, 64));
        for (const int64_t page_size : {1, 16, 64}) {
          Recipe r = lengths({0, 17, 70}, seq_q, 64);
          r.problem.page_size = page_size;
          expect_with(r);
        }
      }
      expect_with(packed(64));
    }
  }
}

TEST_P(StoredKeys, HeadDims) {
  for (const DType stored : {DType::i8, DType::f8_e4m3fn}) {
    for (const int64_t head_dim : {8, 40, 64, 96, 128, 200, 256}) {
      for (const int64_t seq_q : {1, 20}) {
        Recipe r = lengths({100, 33}, seq_q, head_dim);
        r.problem.kv_dtype = stored;
        expect(r);
        r.problem.head_dim_v = head_dim == 128 ? 72 : 64;
        r.problem.kv_scale = KvScale::head;
        r.problem.page_size = 16;
        expect(r);
      }
    }
  }
}

// More heads than a decode tile has rows, several tiles, and keys that workgroups share.
TEST_P(StoredKeys, ManyKeysAndRows) {
  for (const KvScale scale : {KvScale::head, KvScale::token}) {
    Recipe r = recipe(1, 2000, 64, 4, 1);
    r.problem.kv_scale = scale;
    expect(r);
    r.problem.batch_invariant = true;
    expect(r);
    r = recipe(1, 300, 64, 71, 1);
    r.problem.kv_scale = scale;
    expect(r);
    r = recipe(150, 200, 128, 4, 1);
    r.problem.kv_scale = scale, r.problem.causal = true;
    expect(r);
    r.problem.batch_invariant = true;
    expect(r);
  }
}

TEST_P(StoredKeys, Features) {
  for (const KvScale scale : {KvScale::tensor, KvScale::token}) {
    const auto with = [&](const auto& change) {
      for (const int64_t seq_q : {2, 30}) {
        Recipe r = lengths({80, 0, 50}, seq_q, 64);
        r.problem.kv_scale = scale;
        r.problem.page_size = scale == KvScale::token ? 16 : 0;
        change(r);
        expect(r);
      }
    };
    with([](Recipe& r) { r.problem.causal = true, r.problem.window_left = 37; });
    with([](Recipe& r) { r.problem.softcap = 3; });
    with([](Recipe& r) { r.problem.alibi = true; });
    with([](Recipe& r) { r.problem.sinks = true; });
    with([](Recipe& r) { r.problem.scale = -0.7F; });
    with([](Recipe& r) { r.problem.lse = false; });
    with([](Recipe& r) { r.problem.v_in_k = true, r.problem.head_dim_v = 40; });
    with([](Recipe& r) { r.problem.mask = Mask::boolean; });
    with([](Recipe& r) {
      r.problem.mask = Mask::additive, r.problem.mask_dtype = r.problem.dtype;
      r.problem.sinks = r.problem.alibi = r.problem.causal = true;
    });
    with([](Recipe& r) {
      r.problem.diagonal_offset = r.problem.causal = true;
      r.diagonal_offsets = {-20, 3, 5};
    });
  }
}

// Keys of which a wave takes several steps, also where workgroups share them.
constexpr int64_t kSteps = 800;

// Scales that no f16 holds, scales that grow and shrink from key to key, negative ones and zeros.
TEST_P(StoredKeys, ScalesOfAnySize) {
  for (const int64_t seq_q : {1, 20}) {
    for (const float size : {1e-12F, 1e-6F, 1.0F, 1e5F}) {
      for (const int kind : {0, 1, 2, 3}) {
        SCOPED_TRACE(std::to_string(size) + " " + std::to_string(kind));
        Recipe r = recipe(seq_q, kSteps, 64, 2, 1);
        r.layout = Layout::bshd;
        Case c(r);
        const Tensor &k = c.args.k_scale, &v = c.args.v_scale;
        for (int64_t j = 0; j < kSteps; ++j) {
          const float wave = std::exp2(static_cast<float>(j % 40 - 20));
          float factor = size;
          if (kind == 1) factor *= wave;
          if (kind == 2) factor *= j % 3 == 0 ? -1.0F : j % 3 == 1 ? 0.0F : 0.5F;
          if (kind == 3) factor *= j < 300 ? 1.0F : 1e4F;
          static_cast<float*>(v.data)[j * v.stride[1]] = factor;
          if (kind == 2) static_cast<float*>(k.data)[j * k.stride[1]] *= j % 2 == 0 ? -1.0F : 0.0F;
        }
        if (dtype == DType::f16 && size * (kind == 3 ? 1e4F : 1) > 1e4F) continue;  // out overflows
        expect_case(c);
      }
    }
  }
}

// Scores that rise from key to key while v's scales fall, so that every key counts the same, and
// the reverse: r follows the softmax reference. Values are 1, so out is known; the usual bound
// would allow for errors of the largest value.
TEST_P(StoredKeys, ScalesAgainstScores) {
  for (const int64_t seq_q : {1, 20}) {
    for (const double slope : {0.09, -0.09}) {
      SCOPED_TRACE(slope);
      Recipe r = recipe(seq_q, kSteps, 64, 2, 1);
      r.layout = Layout::bshd;
      r.problem.scale = 1;
      Case c(r);
      fill_rows(c.args.q, 0.125F);
      const Tensor &k = c.args.k_scale, &v = c.args.v_scale;
      std::fill_n(static_cast<char*>(c.args.k.data), kSteps * 64, '\x38');  // 1
      std::fill_n(static_cast<char*>(c.args.v.data), kSteps * 64, '\x38');
      const double most = slope > 0 ? slope * kSteps : 0;
      double sum = 0;
      for (int64_t j = 0; j < kSteps; ++j) {
        const double score = slope * static_cast<double>(j);
        static_cast<float*>(k.data)[j * k.stride[1]] = static_cast<float>(score / 8);
        static_cast<float*>(v.data)[j * v.stride[1]] = static_cast<float>(std::exp(most - score));
        sum += std::exp(score - most);
      }
      run_flash_on(arch, c);
      const double want = kSteps / sum;
      expect_in_each_row(c, [&](float out, float) { return std::abs(out - want) < 0.01 * want; });
    }
  }
}

// Keys before a window may be gone: their values and scales, too, are NaN.
TEST_P(StoredKeys, KeysBeforeAWindowAreNotRead) {
  for (const int64_t seq_q : {1, 20}) {
    Recipe r = recipe(seq_q, 150, 64, 2, 1);
    r.layout = Layout::bshd;
    r.problem.causal = true, r.problem.window_left = 20;
    Case c(r);
    const Tensor &k = c.args.k_scale, &v = c.args.v_scale;
    for (int64_t j = 0; j < 150 - seq_q - 20; ++j) {
      static_cast<float*>(k.data)[j * k.stride[1]] = NAN;
      static_cast<float*>(v.data)[j * v.stride[1]] = NAN;
      for (int64_t x = 0; x < 64; ++x) static_cast<uint8_t*>(c.args.v.data)[j * 64 + x] = 0x7F;
    }
    expect_case(c);
  }
}

// A value that a mask hides may have any finite scale.
TEST_P(StoredKeys, ScalesOfHiddenValues) {
  for (const int64_t seq_q : {1, 20}) {
    Recipe r = recipe(seq_q, 100, 64, 2, 1);
    r.layout = Layout::bshd;
    r.problem.mask = Mask::boolean;
    r.hides = [](int64_t, int64_t, int64_t, int64_t j) { return j % 5 == 2; };
    Case c(r);
    const Tensor& v = c.args.v_scale;
    for (int64_t j = 2; j < 100; j += 5) static_cast<float*>(v.data)[j * v.stride[1]] = 1e30F;
    expect_case(c);
  }
}

// Queries of bf16 of any size, also beside each other.
TEST_P(StoredKeys, QueriesOfAnySize) {
  if (dtype == DType::f16) return;
  for (const float size : {1e-36F, 1e-5F, 1e4F, 1e30F}) {
    Recipe r = recipe(1, 100, 64, 4, 1);
    r.layout = Layout::bshd;
    r.problem.kv_scale = KvScale::tensor;
    Case c(r);
    for (int64_t n = 0; n < 4 * 64; ++n) {
      const float q = load_float(dtype, c.args.q.data, n);
      store_float(dtype, c.args.q.data, n, n < 128 ? q * size : n % 2 == 0 ? q : q * 1e-4F);
    }
    static_cast<float*>(c.args.k_scale.data)[0] = 1 / size;
    expect_case(c);
  }
}

// What a hostile caller puts into a page table: nothing is read or written outside of tensors,
// scales among them, which AddressSanitizer watches.
TEST_P(StoredKeys, PagesOutOfRangeAreClamped) {
  for (const int32_t value : {INT32_MIN, -1, 1 << 20, INT32_MAX}) {
    for (const int64_t page_size : {1, 16}) {
      for (const int64_t seq_q : {2, 20}) {
        Recipe r = lengths({100, 3, 60}, seq_q, 64);
        r.problem.page_size = page_size;
        Case c(r);
        for (int64_t i = 0; i < c.args.page_table.shape[1]; ++i)
          static_cast<int32_t*>(c.args.page_table.data)[i * c.args.page_table.stride[1]] = value;
        run_flash_on(arch, c);
        EXPECT_TRUE(c.outside_untouched());
      }
    }
  }
}

TEST_P(StoredKeys, OthersAreRefusedWithAReason) {
  Problem p = recipe(1, 100, 64).problem;
  std::string reason;
  EXPECT_FALSE(hip::unfused_supported(p, {arch}, &reason));
  EXPECT_NE(reason.find("kv_dtype"), std::string::npos) << reason;
  p.dtype = DType::f32;
  EXPECT_FALSE(hip::flash_supported(p, {arch}, &reason));
  EXPECT_NE(reason.find("kv_dtype is not supported with f32"), std::string::npos) << reason;
  p.dtype = dtype, p.out_dtype = DType::f32;
  EXPECT_FALSE(hip::flash_supported(p, {arch}, &reason));
  EXPECT_NE(reason.find("out_dtype"), std::string::npos) << reason;
  p = recipe(100, 100, 512).problem;  // which only sm_90a's loop takes
  EXPECT_FALSE(hip::flash_supported(p, {arch}, &reason));
  EXPECT_NE(reason.find("head_dim"), std::string::npos) << reason;
}

}  // namespace
}  // namespace kernels::test
