// tests/kernels/hip/listed_attention_test.cpp: the kernels that take their work from a list, on
// sequences of different lengths, paged keys, and few queries
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
#include "tests/kernels/hip/listed.hpp"

namespace kernels::test {
namespace {

class Listed : public OnLists {
 protected:
  // Sets q, k and v of one sequence of packed tensors to numbers that depend on the place in the
  // sequence alone.
  void fill_from(const Case& c, int64_t b) const {
    const Sequence s = sequence(c.problem, c.args, b);
    const auto fill = [&](const Tensor& t, int64_t first, int64_t rows, int64_t salt) {
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t head = 0; head < t.shape[1]; ++head)
          for (int64_t x = 0; x < t.shape[2]; ++x)
            store_float(t.dtype, t.data,
                        (first + i) * t.stride[0] + head * t.stride[1] + x * t.stride[2],
                        static_cast<float>((i * 31 + head * 7 + x * 13 + salt) % 97) / 97 - 0.5F);
    };
    fill(c.args.q, s.q_first, s.q_length, 1);
    fill(c.args.k, s.kv_first, s.kv_length, 2);
    fill(c.args.v, s.kv_first, s.kv_length, 3);
  }
};
INSTANTIATE_TEST_SUITE_P(, Listed, testing::ValuesIn(kTargets),
                         [](const auto& test) { return name_of(test.param); });
INSTANTIATE_TEST_SUITE_P(Pipelined, Listed, testing::ValuesIn(kPipelinedTargets),
                         [](const auto& test) { return name_of(test.param); });

// Groups of 1 to 16 packed rows, and more than one tile.
TEST_P(Listed, FewQueries) {
  for (const int64_t d : {24, 64, 128, 256}) {
    expect(recipe(1, 300, d, 8, 2));
    expect(recipe(4, 77, d, 8, 2));
  }
  expect(recipe(1, 200, 40, 6, 6));
  expect(recipe(1, 200, 96, 7, 1));
  expect(recipe(3, 200, 80, 5, 1));
  expect(recipe(5, 200, 64, 14, 2));
}

TEST_P(Listed, Lengths) {
  for (const int64_t d : {8, 64, 128, 256}) {
    Recipe r = lengths({0, 1, 63, 64, 65, 128, 200, 2}, 1, d);
    expect(r);
    r.problem.causal = true;
    r.seq_q = 3;
    expect(r);
  }
}

// Rows that see no key, with nothing cut.
TEST_P(Listed, RowsWithoutKeys) {
  for (const bool batch_invariant : {false, true}) {
    Recipe r = lengths({0, 70, 0}, 40, 64);
    r.problem.batch_invariant = batch_invariant;
    expect(r);
    Recipe causal = lengths({10, 200}, 300, 64, 4, 2);
    causal.problem.batch_invariant = batch_invariant;
    causal.problem.causal = causal.problem.sinks = true;
    expect(causal);
  }
}

// One head's queries for all heads, where a copy cannot take a group's heads at once.
TEST_P(Listed, QueriesSharedByHeads) {
  Case c(lengths({60, 9}, 40, 64, 6, 2));
  Tensor& q = c.args.q;
  for (int64_t b = 0; b < q.shape[0]; ++b) {
    for (int64_t i = 0; i < q.shape[1]; ++i) {
      const auto row = [&](int64_t head) {
        return static_cast<char*>(q.data) +
               (b * q.stride[0] + i * q.stride[1] + head * q.stride[2]) * element_bytes(q.dtype);
      };
      for (int64_t head = 1; head < q.shape[2]; ++head)
        std::copy_n(row(0), q.shape[3] * element_bytes(q.dtype), row(head));
    }
  }
  run_flash_on(arch, c);
  const std::string written_out = c.output_bytes();
  c.poison_outputs();
  q.stride[2] = 0;
  run_flash_on(arch, c);
  EXPECT_TRUE(c.output_bytes() == written_out);
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

// Masks that add the lowest number to every score of a row: all keys count the same.
TEST_P(Listed, MasksOfTheLowestNumber) {
  for (const int64_t page_size : {0, 5}) {
    for (const int64_t seq_q : {2, 7, 30}) {
      Recipe r = lengths({47, 200, 11}, seq_q, 64, 4, 1);
      r.problem.page_size = page_size;
      r.problem.mask = Mask::additive, r.problem.mask_dtype = DType::f32;
      r.hidden = Hidden::lowest;
      r.problem.softcap = 30;
      expect(r);
    }
  }
}

// More values than keys hold, few keys, and a mask.
TEST_P(Listed, ShortRows) {
  for (const DType mask_dtype : {DType::f32, dtype}) {
    Recipe r = lengths({2, 1}, 16, 256, 4, 2);
    r.problem.head_dim_v = 128;
    r.problem.v_in_k = r.problem.sinks = true;
    r.problem.mask = Mask::additive, r.problem.mask_dtype = mask_dtype;
    r.problem.lse = false;
    expect(r);
  }
}

// Costs that 32 bits do not hold, and groups that decode does not take, go through a list; bounds
// that numbers of items do not hold are refused.
TEST_P(Listed, Bounds) {
  Problem p = recipe(1, 1, 64, 1, 1).problem;
  p.batch = 520000, p.seq_q = 1, p.seq_kv = 1048000;
  std::string reason;
  if (hip::flash_supported(p, {arch}, &reason)) {
    EXPECT_TRUE(hip::plan_flash(p, {arch, 132}).list.has_list);
  }
  p.batch = 1 << 28, p.kv_lengths = true;
  EXPECT_FALSE(hip::flash_supported(p, {arch}, &reason));
  EXPECT_NE(reason.find("above"), std::string::npos) << reason;
  p = recipe(1, 1, 64, 66, 1).problem;
  p.batch = 4096, p.seq_q = 1, p.seq_kv = 1 << 21;
  if (hip::flash_supported(p, {arch}, &reason)) {
    EXPECT_TRUE(hip::plan_flash(p, {arch, 132}).list.has_list);
  }
  p = recipe(1, 300, 64, 71, 1).problem;
  p.varlen = true;
  EXPECT_EQ(hip::plan_flash(p, {arch, 3}).list.decode.kernel, nullptr);
}

// One list for several runs, made before them; and what it does where lengths have changed since.
class Schedules : public Listed {
 protected:
  std::vector<char> workspace_, schedule_;
  hip::FlashPlan plan_;

  void run(const hip::Launch* launches, int32_t count) {
    for (int32_t n = 0; n < count; ++n) run_launch(arch, launches[n], ++seed);
  }
  void build(const Case& c) {
    plan_ = hip::plan_flash(c.problem, {arch, 3});
    workspace_.assign(static_cast<size_t>(plan_.workspace_bytes), '\xFF');
    schedule_.assign(static_cast<size_t>(hip::schedule_bytes(plan_)), '\xFF');
    ASSERT_GT(schedule_.size(), 0U);
    hip::Launch launches[8];
    const int32_t count =
        hip::schedule_launches(plan_, c.problem, c.args, schedule_.data(), launches);
    ASSERT_EQ(count, 1);
    run(launches, count);
  }
  void run_scheduled(const Case& c) {
    hip::Launch launches[8];
    const int32_t count =
        hip::launches(plan_, c.problem, c.args, workspace_.data(), launches, schedule_.data());
    for (int32_t n = 0; n < count; ++n) EXPECT_STRNE(launches[n].kernel, "schedule_kernel");
    run(launches, count);
  }
};
INSTANTIATE_TEST_SUITE_P(, Schedules, testing::ValuesIn(kTargets),
                         [](const auto& test) { return name_of(test.param); });
INSTANTIATE_TEST_SUITE_P(Pipelined, Schedules, testing::ValuesIn(kPipelinedTargets),
                         [](const auto& test) { return name_of(test.param); });

TEST_P(Schedules, GiveTheSameBits) {
  for (const int64_t seq_q : {1, 40}) {
    Recipe r = lengths({300, 0, 20, 150}, seq_q, 64);
    r.problem.sinks = true;
    Case c(r);
    build(c);
    run_flash_on(arch, c);
    const std::string without = c.output_bytes();
    for (int twice = 0; twice < 2; ++twice) {
      c.poison_outputs();
      run_scheduled(c);
      EXPECT_TRUE(c.output_bytes() == without);
    }
  }
}

TEST_P(Schedules, OtherLengthsGiveNan) {
  for (const int64_t seq_q : {1, 40}) {
    Case c(lengths({300, 9, 20, 150}, seq_q, 64));
    build(c);
    static_cast<int32_t*>(c.args.kv_lengths.data)[0] = 299;
    static_cast<int32_t*>(c.args.kv_lengths.data)[2] = 0;
    run_scheduled(c);
    EXPECT_TRUE(c.outside_untouched());
    c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
      const int64_t row = query_row(c.problem, c.args.out, s, b, i, head);
      const float out = load_float(c.problem.dtype, c.args.out.data, row);
      const float lse = static_cast<const float*>(
          c.args.lse.data)[lse_element(c.problem, c.args.lse, s, b, i, head)];
      EXPECT_EQ(std::isnan(out), b % 2 == 0) << b;
      EXPECT_EQ(std::isnan(lse), b % 2 == 0) << b;
    });
  }
}

// What a hostile caller puts into index arrays: nothing is read or written outside of tensors,
// which AddressSanitizer watches.
TEST_P(Listed, IndicesOutOfRangeAreClamped) {
  constexpr int32_t kHostile[] = {INT32_MIN, -1, 1 << 20, INT32_MAX};
  for (const int32_t value : kHostile) {
    Recipe paged = lengths({100, 3, 60}, 2, 64);
    paged.problem.page_size = 16;
    Case pages(paged);
    for (int64_t i = 0; i < pages.args.page_table.shape[1]; ++i)
      static_cast<int32_t*>(pages.args.page_table.data)[i * pages.args.page_table.stride[1]] =
          value;
    run_flash_on(arch, pages);
    EXPECT_TRUE(pages.outside_untouched());
    Case lengths_of(paged);
    static_cast<int32_t*>(lengths_of.args.kv_lengths.data)[1] = value;
    run_flash_on(arch, lengths_of);
    EXPECT_TRUE(lengths_of.outside_untouched());
    for (const bool of_q : {false, true}) {
      Case offsets(packed({3, 30, 9}, {70, 30, 9}, 64));
      const Tensor& array = of_q ? offsets.args.offsets_q : offsets.args.offsets_kv;
      int32_t& offset = static_cast<int32_t*>(array.data)[array.stride[0]];
      const int32_t before = offset;
      offset = value;
      run_flash_on(arch, offsets);
      offset = before;
      // Offsets of q may make a sequence of rows that belong to none.
      EXPECT_TRUE(of_q || offsets.outside_untouched());
    }
  }
}

// A sequence's bits depend on nothing but itself.
TEST_P(Listed, BitsDoNotDependOnTheBatch) {
  const auto bits_of = [&](std::vector<int32_t> q_lengths, std::vector<int32_t> kv_lengths,
                           int64_t sequence) {
    Recipe r = packed(std::move(q_lengths), std::move(kv_lengths), 64);
    r.problem.batch_invariant = r.problem.causal = true;
    Case c(r);
    fill_from(c, sequence);
    run_flash_on(arch, c);
    std::string bits;
    c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
      if (b != sequence) return;
      const Tensor& out = c.args.out;
      bits.append(static_cast<const char*>(out.data) +
                      query_row(c.problem, out, s, b, i, head) * element_bytes(out.dtype),
                  static_cast<size_t>(c.problem.head_dim_v * element_bytes(out.dtype)));
    });
    return bits;
  };
  const std::string alone = bits_of({1}, {2500}, 0);
  EXPECT_TRUE(alone == bits_of({9, 1, 10}, {9, 2500, 70}, 1));
  EXPECT_TRUE(alone == bits_of({1, 1, 1, 1}, {30, 5, 2500, 100}, 2));
  // Under larger bounds, by which it would not be few queries.
  Recipe r = lengths({2500, 2500, 2500}, 1, 64);
  r.problem.batch_invariant = true;
  expect_same_bits_alone(r, [this](const Case& c) { run_flash_on(arch, c); });
}

}  // namespace
}  // namespace kernels::test
