// tests/kernels/hip/launch/tensor_map_test.cpp: what a tensor map says of a tensor
#include "kernels/hip/launch/tensor_map.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace kernels::hip {
namespace {

constexpr int64_t kLimit = int64_t{1} << 39;  // elements: 2^40 bytes

// [batch, seq, heads, columns]
Tensor tensor(int64_t batch, int64_t seq, int64_t heads, int64_t columns, int64_t batch_stride,
              int64_t row_stride, int64_t head_stride) {
  static uint16_t memory[8];
  return {memory,
          DType::bf16,
          4,
          {batch, seq, heads, columns},
          {batch_stride, row_stride, head_stride, 1}};
}

// Expects that a map reaches each element where it lies.
void expect_reaches(const Tensor& t, uint32_t group) {
  TensorMapRequest map;
  ASSERT_TRUE(request_for(t, t.shape[3], {64, 128, group, group}, 64, &map));
  EXPECT_EQ(map.at, 64U);
  EXPECT_EQ(map.base, t.data);
  const uint32_t rank = group > 0 ? 5 : 4;
  ASSERT_EQ(map.rank, rank);
  EXPECT_EQ(map.box[0], 64U);
  EXPECT_EQ(map.box[rank - 3], 128U);
  EXPECT_EQ(map.box[rank - 2], 1U);
  EXPECT_EQ(map.box[rank - 1], 1U);
  if (group > 0) {
    EXPECT_EQ(map.box[1], group);
  }
  for (uint32_t n = 1; n < rank; ++n) {
    EXPECT_GT(map.size[n], 0U) << n;
    EXPECT_GT(map.stride[n - 1], 0U) << n;
    EXPECT_EQ(map.stride[n - 1] % 16, 0U) << n;
  }
  for (int64_t b = 0; b < t.shape[0]; ++b) {
    for (int64_t i = 0; i < t.shape[1]; ++i) {
      for (int64_t h = 0; h < t.shape[2]; ++h) {
        const int64_t head = t.stride[2] == 0 ? 0 : h, batch = t.stride[0] == 0 ? 0 : b;
        const int64_t of = group > 0 ? group : 1;
        const int64_t grouped[] = {head % of, i, head / of, batch};
        const int64_t alone[] = {i, head, batch};
        const int64_t* at = group > 0 ? grouped : alone;
        int64_t bytes = 0;
        for (uint32_t n = 1; n < rank; ++n) {
          EXPECT_LT(at[n - 1], static_cast<int64_t>(map.size[n])) << n;
          bytes += at[n - 1] * static_cast<int64_t>(map.stride[n - 1]);
        }
        EXPECT_EQ(bytes, 2 * (b * t.stride[0] + i * t.stride[1] + h * t.stride[2]));
      }
    }
  }
}

TEST(TensorMap, ReachesEveryElement) {
  for (const uint32_t group : {0, 1, 2, 3, 6}) {
    SCOPED_TRACE(group);
    expect_reaches(tensor(2, 5, 6, 64, 5 * 6 * 64, 6 * 64, 64), group);  // rows outside heads
    expect_reaches(tensor(2, 5, 6, 72, 6 * 5 * 80, 80, 5 * 80), group);  // heads outside rows
    expect_reaches(tensor(2, 5, 6, 64, 64, 2 * 64, 5 * 2 * 64), group);  // batch inside
    expect_reaches(tensor(3, 5, 6, 128, 0, 6 * 128, 128), group);        // one batch for all
    expect_reaches(tensor(1, 1, 6, 64, 0, 0, 64), group);                // strides never used
    expect_reaches(tensor(1, 5, 6, 64, kLimit, 6 * 64, 64), group);      // nor this one
  }
  expect_reaches(tensor(2, 5, 6, 64, 5 * 64, 64, 0), 1);  // one head for all
  expect_reaches(tensor(2, 5, 1, 64, 5 * 64, 64, 3), 1);
}

TEST(TensorMap, SizesAreTheTensors) {
  TensorMapRequest map;
  ASSERT_TRUE(request_for(tensor(2, 5, 6, 192, 5760, 1152, 192), 128, {64, 64}, 0, &map));
  EXPECT_EQ(map.size[0], 128U) << "the first columns of wider rows";
  EXPECT_EQ(map.size[1], 5U);
  EXPECT_EQ(map.size[2], 6U);
  EXPECT_EQ(map.size[3], 2U);
  ASSERT_TRUE(request_for(tensor(2, 0, 6, 64, 0, 384, 64), 64, {64, 64}, 0, &map));
  EXPECT_EQ(map.size[1], 1U) << "a map has no empty dimension";
}

TEST(TensorMap, RefusesWhatNoMapDescribes) {
  TensorMapRequest map;
  const auto describes = [&map](const Tensor& t, uint32_t group = 0) {
    return request_for(t, t.shape[3], {64, 128, group, group}, 0, &map);
  };
  EXPECT_TRUE(describes(tensor(2, 5, 4, 64, kLimit - 8, 256, 64)));
  EXPECT_FALSE(describes(tensor(2, 5, 4, 64, kLimit, 256, 64)));
  EXPECT_FALSE(describes(tensor(2, 5, 4, 64, INT64_MAX - 7, 256, 64)));
  EXPECT_FALSE(describes(tensor(2, 5, 4, 64, 64, kLimit, 64)));
  EXPECT_FALSE(describes(tensor(2, 5, 4, 64, 64, 64, kLimit)));
  EXPECT_FALSE(describes(tensor(2, 5, 4, 64, -64, 256, 64)));
  EXPECT_FALSE(describes(tensor(2, 5, 4, 64, 1280, 0, 64))) << "all rows are one";
  EXPECT_TRUE(describes(tensor(2, 5, 4, 64, 1280, 64, kLimit / 2 - 8), 2));
  EXPECT_FALSE(describes(tensor(2, 5, 4, 64, 1280, 64, kLimit / 2), 2)) << "of a group";
  EXPECT_FALSE(describes(tensor(2, 5, 4, 64, 320, 64, 0), 2)) << "all heads of a group are one";
}

}  // namespace
}  // namespace kernels::hip
