// tests/kernels/hip/listed_attention_test.cpp: the kernels that take their work from a list, on
// sequences of different lengths, paged keys, and few queries
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kernels/hip/launch/launch.hpp"
#include "tests/kernels/hip/expect.hpp"
#include "tests/kernels/hip/targets.hpp"

namespace kernels::test {
namespace {

class Listed : public testing::TestWithParam<Target> {
 protected:
  const char* arch = GetParam().arch;
  DType dtype = GetParam().dtype;
  uint32_t seed = 0;

  Recipe recipe(int64_t seq_q, int64_t seq_kv, int64_t head_dim, int64_t heads_q = 8,
                int64_t heads_kv = 2) const {
    Recipe r;
    r.problem.dtype = dtype;
    r.problem.heads_q = heads_q, r.problem.heads_kv = heads_kv;
    r.problem.head_dim = r.problem.head_dim_v = head_dim;
    r.problem.lse = true;
    r.seq_q = seq_q, r.seq_kv = seq_kv;
    r.gap = 8;
    return r;
  }
  Recipe lengths(std::vector<int32_t> kv_lengths, int64_t seq_q, int64_t head_dim,
                 int64_t heads_q = 8, int64_t heads_kv = 2) const {
    int32_t most = 1;
    for (const int32_t n : kv_lengths) most = n > most ? n : most;
    Recipe r = recipe(seq_q, most, head_dim, heads_q, heads_kv);
    r.problem.kv_lengths = true;
    r.batch = static_cast<int64_t>(kv_lengths.size());
    r.kv_lengths = std::move(kv_lengths);
    return r;
  }
  Recipe packed(std::vector<int32_t> q_lengths, std::vector<int32_t> kv_lengths,
                int64_t head_dim) const {
    Recipe r = recipe(1, 1, head_dim);
    r.problem.varlen = true;
    r.batch = static_cast<int64_t>(kv_lengths.size());
    r.q_lengths = std::move(q_lengths), r.kv_lengths = std::move(kv_lengths);
    return r;
  }
  void expect(const Recipe& recipe) { expect_right_on(arch, recipe, ++seed); }
};
INSTANTIATE_TEST_SUITE_P(, Listed, testing::ValuesIn(kTargets),
                         [](const auto& test) { return name_of(test.param); });

// Groups of 1 to 16 packed rows, and more than one tile.
TEST_P(Listed, FewQueries) {
  for (const int64_t d : {64, 128, 256}) {
    expect(recipe(1, 300, d, 8, 2));
    expect(recipe(4, 77, d, 8, 2));
  }
  expect(recipe(1, 200, 40, 6, 6));
  expect(recipe(1, 200, 96, 7, 1));
  expect(recipe(3, 200, 80, 5, 1));
  expect(recipe(5, 200, 64, 14, 2));
}

TEST_P(Listed, Lengths) {
  for (const int64_t d : {64, 128, 256}) {
    Recipe r = lengths({0, 1, 63, 64, 65, 128, 200, 2}, 1, d);
    expect(r);
    r.problem.causal = true;
    r.seq_q = 3;
    expect(r);
  }
}

TEST_P(Listed, OneLongSequenceAmongShortOnes) {
  std::vector<int32_t> lengths_of_all(20, 1);
  lengths_of_all[7] = 2000;
  expect(lengths(lengths_of_all, 1, 64, 4, 1));
  expect(lengths(lengths_of_all, 9, 64, 4, 1));
}

TEST_P(Listed, PackedSequences) {
  for (const bool causal : {false, true}) {
    Recipe r = packed({0, 1, 5, 70, 17, 1, 0}, {3, 0, 64, 130, 40, 200, 0}, 64);
    r.problem.causal = causal;
    expect(r);
    r.problem.align = Align::top_left;
    expect(r);
    r.problem.head_dim = 128, r.problem.head_dim_v = 72;
    expect(r);
  }
}

TEST_P(Listed, Pages) {
  for (const int64_t page_size : {1, 3, 16, 64, 100}) {
    const auto edge = static_cast<int32_t>(page_size);
    Recipe r = lengths({0, edge, edge + 1, 2 * edge, 3 * edge - 1, 190}, 1, 128);
    r.problem.page_size = page_size;
    expect(r);
    Recipe chunks = packed({40, 1, 0, 9}, {170, 2 * edge, edge, 90}, 64);
    chunks.problem.page_size = page_size;
    chunks.problem.causal = true;
    expect(chunks);
  }
}

// Keys before a window are NaN in a Case, and so are the pages that hold no other.
TEST_P(Listed, Windows) {
  for (const int64_t page_size : {0, 16}) {
    for (const int64_t seq_q : {1, 40}) {
      Recipe r = lengths({300, 20, 150}, seq_q, 64);
      r.problem.page_size = page_size;
      r.problem.causal = true, r.problem.window_left = 37;
      expect(r);
    }
  }
}

TEST_P(Listed, Features) {
  const auto with = [&](const auto& change) {
    for (const int64_t seq_q : {2, 30}) {
      Recipe r = lengths({150, 0, 90}, seq_q, 64);
      change(r);
      expect(r);
      r.problem.page_size = 16;
      expect(r);
    }
  };
  with([](Recipe& r) { r.problem.softcap = 3; });
  with([](Recipe& r) { r.problem.alibi = true; });
  with([](Recipe& r) { r.problem.sinks = true; });
  with([](Recipe& r) { r.problem.scale = -0.7F; });
  with([](Recipe& r) { r.problem.lse = false; });
  with([](Recipe& r) { r.magnitude = 40; });
  with([](Recipe& r) { r.problem.v_in_k = true; });
  with([](Recipe& r) { r.problem.mask = Mask::boolean; });
  with([](Recipe& r) { r.problem.mask = Mask::additive, r.problem.mask_dtype = DType::f32; });
  with([](Recipe& r) {
    r.problem.mask = Mask::additive, r.problem.mask_dtype = r.problem.dtype;
    r.problem.sinks = r.problem.alibi = r.problem.causal = true;
  });
}

}  // namespace
}  // namespace kernels::test
