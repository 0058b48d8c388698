// tests/kernels/hip/listed.hpp: recipes of problems that take their work from a list
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "tests/kernels/hip/expect.hpp"
#include "tests/kernels/hip/targets.hpp"

namespace kernels::test {

class OnLists : public testing::TestWithParam<Target> {
 protected:
  const char* arch = GetParam().arch;
  DType dtype = GetParam().dtype;
  uint32_t seed = 0;

  Recipe recipe(int64_t seq_q, int64_t seq_kv, int64_t head_dim, int64_t heads_q = 8,
                int64_t heads_kv = 2) const {
    Recipe r = recipe_of(dtype, seq_q, seq_kv, head_dim, heads_q, heads_kv);
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

}  // namespace kernels::test
