// tests/kernels/common/visibility_test.cpp: compares the interval of visible keys with the
// definition, key by key
#include "kernels/common/visibility.hpp"

#include <gtest/gtest.h>

namespace kernels {
namespace {

TEST(VisibleKeys, AgreesWithTheDefinition) {
  for (const Align align : {Align::top_left, Align::bottom_right})
    for (const bool causal : {false, true})
      for (const int64_t left : {-1, 0, 1, 3, 100})
        for (const int64_t right : {-1, 0, 2, 100})
          for (const int64_t q : {1, 3, 8})
            for (const int64_t kv : {0, 1, 5, 12}) {
              Problem p;
              p.align = align;
              p.causal = causal;
              p.window_left = left;
              p.window_right = right;
              for (int64_t i = 0; i < q; ++i) {
                const int64_t aligned = align == Align::top_left ? i : i + kv - q;
                const KeyRange keys = visible_keys(p, i, {0, q, 0, kv, aligned - i});
                for (int64_t j = -3; j < kv + 3; ++j) {
                  const bool want = j >= 0 && j < kv && (!causal || j <= aligned) &&
                                    (left < 0 || aligned - left <= j) &&
                                    (right < 0 || j <= aligned + right);
                  EXPECT_EQ(keys.begin <= j && j < keys.end, want)
                      << i << " of " << q << ", key " << j << " of " << kv;
                }
              }
            }
}

TEST(VisibleKeys, HugeWindowsDoNotOverflow) {
  Problem p;
  p.window_left = p.window_right = INT64_MAX;
  const KeyRange keys = visible_keys(p, 3, {0, 10, 0, 20, 10});
  EXPECT_EQ(keys.begin, 0);
  EXPECT_EQ(keys.end, 20);
}

}  // namespace
}  // namespace kernels
