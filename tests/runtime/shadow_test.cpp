// tests/runtime/shadow_test.cpp: what is compared, and what is not even read
#include "shadow.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "problem/infer.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::HasSubstr;

// A run over two pages of four keys, with a mask of so many columns.
struct Paged {
  explicit Paged(int64_t columns, int32_t keys, int32_t page)
      : a({.seq_q = 2, .seq_kv = 8}),
        mask(static_cast<size_t>(2 * columns), 1),
        lengths{keys},
        pages{0, page} {
    std::fill(a.out.begin(), a.out.end(), 0.5F);
    a.args.k = view(a.k.data(), kF32, {2, 4, 1, 8});
    a.args.v = view(a.v.data(), kF32, {2, 4, 1, 8});
    a.args.mask = view(mask.data(), kBool, {1, 1, 2, columns});
    a.args.kv_lengths = view(lengths, kI32, {1});
    a.args.page_table = view(pages, kI32, {1, 2});
    problem = ATTNRT_PROBLEM_INIT;
    problem.seq_kv = 8;
    attnrt_error error = ATTNRT_ERROR_INIT;
    EXPECT_EQ(infer_problem(a.args, &problem, &error), ATTNRT_OK) << error.message;
    problem = checked(problem);
  }

  // The text of a comparison with a result that is the caller's, but for one number.
  std::optional<std::string> difference(float first) const {
    const Shadow shadow(problem, a.args);
    auto* const out = static_cast<float*>(shadow.args().out.data);
    for (int64_t row = 0; row < 2; ++row)
      std::fill_n(out + row * shadow.args().out.stride[1], 8, 0.5F);
    out[0] = first;
    return shadow.difference();
  }

  Attention a;
  std::vector<uint8_t> mask;
  int32_t lengths[1], pages[2];
  Problem problem{};
};

TEST(ShadowArgs, ResultsOfPagesAreCompared) {
  const Paged run(8, 8, 1);
  EXPECT_EQ(run.difference(0.5F), "");
  EXPECT_THAT(run.difference(1.5F).value_or(""),
              HasSubstr("out at sequence 0, query 0, head 0, column 0 is 1.5; the version that "
                        "served gave 0.5"));
}

TEST(ShadowArgs, AnIndexThatLeadsOutOfItsTensorIsNotFollowed) {
  EXPECT_EQ(Paged(8, 9, 1).difference(0.5F), std::nullopt) << "more keys than pages hold";
  EXPECT_EQ(Paged(8, -1, 1).difference(0.5F), std::nullopt);
  EXPECT_EQ(Paged(8, 8, 2).difference(0.5F), std::nullopt) << "a page that does not exist";
  EXPECT_EQ(Paged(8, 8, -1).difference(0.5F), std::nullopt);
  EXPECT_EQ(Paged(4, 8, 1).difference(0.5F), std::nullopt) << "a mask of fewer keys";
  EXPECT_EQ(Paged(4, 4, 2).difference(0.5F), "") << "the second page is not used";
}

TEST(ShadowArgs, HoldsNanInDenseAlignedRowsOfItsOwn) {
  const Paged run(8, 8, 1);
  const Shadow shadow(run.problem, run.a.args);
  const attnrt_tensor& out = shadow.args().out;
  EXPECT_NE(out.data, run.a.args.out.data);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(out.data) % 64, 0U);
  EXPECT_TRUE(std::isnan(static_cast<const float*>(out.data)[0]));
  EXPECT_EQ(shadow.args().q.data, run.a.args.q.data);
}

}  // namespace
}  // namespace attnrt::core
