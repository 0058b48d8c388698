// tests/kernels/cpu/batch_invariance_test.cpp: a sequence's bits under batch_invariant
//
// They depend neither on the other sequences nor on its index nor on the plan's bounds.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "kernels/reference/store.hpp"
#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

// One sequence. The same member has the same queries, keys and values in any batch.
struct Member {
  int32_t queries, keys;
  uint32_t seed;
};

void write_row(const Tensor& t, int64_t at, int64_t n, std::mt19937& random) {
  std::normal_distribution<float> normal;
  for (int64_t x = 0; x < n; ++x)
    reference::store_nearest(t.dtype, t.data, at + x, 2 * normal(random));
}

void write_member(const Case& c, int64_t b, uint32_t seed) {
  const Problem& p = c.problem;
  std::mt19937 random(seed);
  const Sequence s = sequence(p, c.args, b);
  for (int64_t i = 0; i < s.q_length; ++i) {
    for (int64_t head = 0; head < p.heads_q; ++head)
      write_row(c.args.q, query_row(p, c.args.q, s, b, i, head), p.head_dim, random);
  }
  for (int64_t j = 0; j < s.kv_length; ++j) {
    for (int64_t head = 0; head < p.heads_kv; ++head) {
      const auto place = [&](const Tensor& t) { return key_row(p, c.args, t, s, b, j, head); };
      write_row(c.args.k, place(c.args.k), p.head_dim, random);
      write_row(c.args.v, place(c.args.v), p.head_dim_v, random);
      if (p.kv_scale == KvScale::none) continue;
      write_row(c.args.k_scale, place(c.args.k_scale), 1, random);
      write_row(c.args.v_scale, place(c.args.v_scale), 1, random);
    }
  }
}

std::string bits_of_member(const Case& c, int64_t b) {
  const Problem& p = c.problem;
  const Sequence s = sequence(p, c.args, b);
  std::string bits;
  for (int64_t i = 0; i < s.q_length; ++i) {
    for (int64_t head = 0; head < p.heads_q; ++head) {
      const int64_t bytes = element_bytes(c.args.out.dtype);
      bits.append(static_cast<const char*>(c.args.out.data) +
                      bytes * query_row(p, c.args.out, s, b, i, head),
                  static_cast<size_t>(bytes * p.head_dim_v));
      bits.append(reinterpret_cast<const char*>(static_cast<const float*>(c.args.lse.data) +
                                                lse_element(p, c.args.lse, s, b, i, head)),
                  sizeof(float));
    }
  }
  return bits;
}

// A batch, and the member in it whose bits are compared.
struct Batch {
  Case c;
  int64_t index;
  std::string name;
};

// slack: by how much the plan's bounds exceed the least.
Batch make_batch(Recipe r, const std::vector<Member>& members, size_t index, int64_t slack) {
  r.slack = slack;
  r.batch = static_cast<int64_t>(members.size());
  for (const Member& member : members) {
    r.q_lengths.push_back(member.queries);
    r.kv_lengths.push_back(member.keys);
    r.seq_q = member.queries;
    r.seq_kv = std::max<int64_t>(r.seq_kv, member.keys);
  }
  Batch batch{Case(r), static_cast<int64_t>(index),
              "index " + std::to_string(index) + " of " + std::to_string(members.size()) +
                  ", bounds larger by " + std::to_string(slack)};
  for (size_t b = 0; b < members.size(); ++b)
    write_member(batch.c, static_cast<int64_t>(b), members[b].seed);
  return batch;
}

Recipe invariant_recipe(DType dtype) {
  Recipe r;
  r.problem.dtype = dtype;
  r.problem.heads_q = 4;
  r.problem.heads_kv = 2;
  r.problem.head_dim = r.problem.head_dim_v = 16;
  r.problem.lse = r.problem.causal = r.problem.batch_invariant = true;
  return r;
}

// Without batch_invariant, a decode step's splits follow from the number of sequences and from the
// longest: 8 sequences and 5000 keys make them longer than those of a sequence alone.
void expect_invariant(const Recipe& r, const Member& member, int32_t queries,
                      int32_t more_queries) {
  const std::vector<Member> others{{queries, 5000, 11}, {more_queries, 40, 12},  {queries, 1, 13},
                                   {queries, 0, 15},    {more_queries, 300, 14}, {queries, 70, 17},
                                   {queries, 700, 16}};
  std::vector<Batch> batches;
  for (const int64_t slack : {0, 1, 7, 64}) batches.push_back(make_batch(r, {member}, 0, slack));
  for (const size_t index : {size_t{0}, size_t{2}, others.size()}) {
    std::vector<Member> members = others;
    members.insert(members.begin() + static_cast<std::ptrdiff_t>(index), member);
    batches.push_back(make_batch(r, members, index, 7));
  }
  for (const cpu::Target* target : targets()) {
    for (const int32_t thread_count : {1, 3}) {
      SCOPED_TRACE(std::string(cpu::target_name(*target)) + ", threads " +
                   std::to_string(thread_count) + ", keys " + std::to_string(member.keys));
      std::string alone;
      for (Batch& batch : batches) {
        batch.c.poison_outputs();
        cpu::Error error;
        ASSERT_EQ(run_once(batch.c, *target, thread_count, &error), cpu::Status::ok)
            << error.message;
        const std::string bits = bits_of_member(batch.c, batch.index);
        if (alone.empty()) alone = bits;
        EXPECT_TRUE(alone == bits) << "other bits at " << batch.name;
      }
    }
  }
}

class CpuBatchInvariance : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(, CpuBatchInvariance,
                         testing::Values(DType::f32, DType::f16, DType::bf16));

TEST_P(CpuBatchInvariance, Packed) {
  Recipe r = invariant_recipe(GetParam());
  r.problem.varlen = true;
  for (const Member& member : {Member{1, 1000, 1}, Member{3, 200, 2}, Member{40, 700, 3}})
    expect_invariant(r, member, 1, 50);
}

TEST_P(CpuBatchInvariance, PagedWithScales) {
  Recipe r = invariant_recipe(GetParam());
  r.problem.varlen = r.problem.kv_lengths = true;
  r.problem.page_size = 16;
  r.problem.kv_dtype = DType::f8_e4m3fn;
  r.problem.kv_scale = KvScale::token;
  for (const Member& member : {Member{1, 1000, 1}, Member{40, 700, 3}})
    expect_invariant(r, member, 1, 50);
}

TEST_P(CpuBatchInvariance, DenseWithLengths) {
  Recipe r = invariant_recipe(GetParam());
  r.problem.kv_lengths = true;
  expect_invariant(r, {1, 1000, 1}, 1, 1);
  expect_invariant(r, {20, 600, 1}, 20, 20);
}

}  // namespace
}  // namespace kernels::test
