// tests/kernels/hip/wide_lists_test.cpp: the kernels that take their work from a list, for head
// dimensions above 256, and for values in keys that are read in K's place
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/hip/launch/launch.hpp"
#include "tests/kernels/hip/listed.hpp"

namespace kernels::test {
namespace {

// Only sm_90a's loop serves these.
class WideLists : public OnLists {
 protected:
  Recipe latent(std::vector<int32_t> kv_lengths, int64_t seq_q, int64_t heads_q) const {
    Recipe r = lengths(std::move(kv_lengths), seq_q, 576, heads_q, 1);
    r.problem.head_dim_v = 512, r.problem.v_in_k = true;
    return r;
  }
};
INSTANTIATE_TEST_SUITE_P(Pipelined, WideLists, testing::ValuesIn(kPipelinedTargets),
                         [](const auto& test) { return name_of(test.param); });

// One step of 32 keys to several, whose ends lie within boxes of 8 rows; one tile of rows, two, and
// rows of several queries.
TEST_P(WideLists, Latent) {
  expect(latent({0, 1, 31, 32, 33, 64, 65, 97, 200, 2}, 1, 16));
  expect(latent({150, 40}, 1, 128));
  expect(latent({70, 40}, 1, 5));  // heads that cannot be packed
  Recipe r = latent({150, 0, 90}, 3, 32);
  r.problem.causal = true;
  expect(r);
  r.problem.window_left = 37;
  expect(r);
  r.problem.window_left = -1, r.problem.sinks = true, r.magnitude = 40;
  expect(r);
  r.problem.batch_invariant = true, r.magnitude = 1;
  expect(r);
}

TEST_P(WideLists, LatentPages) {
  for (const int64_t page_size : {4, 16, 64}) {
    const auto edge = static_cast<int32_t>(page_size);
    Recipe r = latent({0, edge, edge + 1, 3 * edge - 1, 190}, 2, 16);
    r.problem.page_size = page_size;
    r.problem.causal = true;
    expect(r);
  }
}

// Keys of one sequence, split over workgroups: pieces of all lengths.
TEST_P(WideLists, LatentCuts) {
  expect(latent({1200, 1, 70}, 1, 64));
  Recipe r = recipe(1, 700, 576, 16, 1);  // without lengths
  r.problem.head_dim_v = 512, r.problem.v_in_k = true;
  expect(r);
  r.seq_q = 40, r.seq_kv = 100;
  expect(r);
}

TEST_P(WideLists, LatentPacked) {
  Recipe r = packed({5, 1, 0, 70}, {64, 33, 3, 130}, 576);
  r.problem.heads_q = 4, r.problem.heads_kv = 1;
  r.problem.head_dim_v = 512, r.problem.v_in_k = r.problem.causal = true;
  expect(r);
  r.problem.head_dim = 520, r.problem.head_dim_v = 264;
  expect(r);
}

TEST_P(WideLists, Of512) {
  for (const bool v_in_k : {false, true}) {
    Recipe r = lengths({0, 1, 33, 200}, 3, 512, 8, 2);
    r.problem.causal = true, r.problem.v_in_k = v_in_k;
    expect(r);
    r.problem.page_size = 16, r.problem.head_dim = 392;
    r.problem.head_dim_v = 264;
    expect(r);
  }
}

TEST_P(WideLists, BitsDoNotDependOnTheBatch) {
  Recipe r = lengths({300, 300, 300}, 3, 512);
  r.problem.batch_invariant = r.problem.causal = true;
  expect_same_bits_alone(r, [this](const Case& c) { run_flash_on(arch, c); });
}

TEST_P(WideLists, Refused) {
  const auto reason_of = [this](const Recipe& r) {
    std::string reason;
    EXPECT_FALSE(hip::flash_supported(Case(r).problem, {arch}, &reason));
    return reason;
  };
  Recipe r = latent({40}, 1, 16);
  r.problem.v_in_k = false;
  EXPECT_EQ(reason_of(r), "head_dim 576 is not a multiple of 8 from 8 to 256");
  r = latent({40}, 1, 16);
  r.problem.softcap = 3;
  EXPECT_EQ(reason_of(r), "head_dim 576 is not a multiple of 8 from 8 to 256");
  r = latent({40}, 1, 16);
  r.problem.head_dim_v = 576;
  EXPECT_EQ(reason_of(r), "head_dim 576 is not a multiple of 8 from 8 to 256");
}

}  // namespace
}  // namespace kernels::test
