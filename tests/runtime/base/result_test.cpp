// tests/runtime/base/result_test.cpp: the error that a caller gets
#include "base/result.hpp"

#include <gtest/gtest.h>

namespace attnrt::core {
namespace {

TEST(FillError, IsOneLineWhateverItQuotes) {
  attnrt_error error = ATTNRT_ERROR_INIT;
  EXPECT_EQ(fill_error(&error, {ATTNRT_UNSUPPORTED, "mask is not hea\nd\x1b[31m"}),
            ATTNRT_UNSUPPORTED);
  EXPECT_STREQ(error.message, "mask is not hea\\nd\\x1b[31m");
  EXPECT_EQ(fill_error(&error, {ATTNRT_INTERNAL, "größer than 3"}), ATTNRT_INTERNAL);
  EXPECT_STREQ(error.message, "größer than 3");
  EXPECT_EQ(fill_error(nullptr, {ATTNRT_INTERNAL, "\n"}), ATTNRT_INTERNAL);
}

}  // namespace
}  // namespace attnrt::core
