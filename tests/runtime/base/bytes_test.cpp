// tests/runtime/base/bytes_test.cpp: amounts of memory as text, and texts that are none
#include "base/bytes.hpp"

#include <gtest/gtest.h>

namespace attnrt::core {
namespace {

TEST(Bytes, AreRead) {
  EXPECT_EQ(parse_bytes("0"), 0);
  EXPECT_EQ(parse_bytes("1000"), 1000);
  EXPECT_EQ(parse_bytes("1 KiB"), 1024);
  EXPECT_EQ(parse_bytes("256 MiB"), int64_t{256} << 20);
  EXPECT_EQ(parse_bytes("3 GiB"), int64_t{3} << 30);
  EXPECT_EQ(parse_bytes("8388607 TiB"), int64_t{8388607} << 40);
  EXPECT_EQ(parse_bytes("9223372036854775807"), INT64_MAX);
}

TEST(Bytes, EverythingElseIsRefused) {
  for (const char* text : {"",
                           " ",
                           "MiB",
                           " MiB",
                           "256MiB",
                           "256  MiB",
                           "256 MiB ",
                           " 256 MiB",
                           "256 MB",
                           "256 mib",
                           "256 M",
                           "-1",
                           "-1 KiB",
                           "+1",
                           "1.5 GiB",
                           "0x10",
                           "010",
                           "1e3",
                           "1_000",
                           "256 B",
                           "9223372036854775808",
                           "8388608 TiB",
                           "9223372036854775807 KiB",
                           "1\t KiB",
                           "1 PiB"})
    EXPECT_EQ(parse_bytes(text), std::nullopt) << text;
}

TEST(Bytes, AreWrittenAsTheyAreRead) {
  for (const char* text : {"0", "1", "1023", "1 KiB", "1025", "1536", "3 MiB", "256 MiB", "1 GiB",
                           "1025 GiB", "2 TiB", "9223372036854775807"}) {
    const auto bytes = parse_bytes(text);
    ASSERT_TRUE(bytes) << text;
    EXPECT_EQ(bytes_text(*bytes), text);
  }
}

}  // namespace
}  // namespace attnrt::core
