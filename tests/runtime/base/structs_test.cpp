// tests/runtime/base/structs_test.cpp: structs of older and newer callers
#include "base/structs.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <vector>

namespace attnrt::core {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// The bytes of a struct, each of them 1, and room for what a newer caller would append. No field of
// ours is 0 then.
template <class Struct>
class Caller {
 public:
  explicit Caller(size_t size) : bytes_(8192, 0) {
    std::memset(bytes_.data(), 1, sizeof(Struct));
    given().struct_size = static_cast<int32_t>(size);
  }
  Struct& given() { return *reinterpret_cast<Struct*>(bytes_.data()); }
  unsigned char& byte(size_t index) { return bytes_.at(index); }

 private:
  std::vector<unsigned char> bytes_;
};

// How many bytes of ours, which is all zero before, the caller's struct of this size sets. 0:
// refused.
template <class Struct>
size_t bytes_read(size_t size) {
  Caller<Struct> caller(size);
  Struct ours{};
  if (!read_struct(caller.given(), &ours)) return 0;
  EXPECT_EQ(ours.struct_size, static_cast<int32_t>(sizeof ours));
  const auto* bytes = reinterpret_cast<const unsigned char*>(&ours);
  size_t read = sizeof ours;
  while (bytes[read - 1] == 0) --read;
  return read;
}

TEST(Structs, HalfAFieldIsNeverRead) {
  EXPECT_EQ(bytes_read<attnrt_problem>(offsetof(attnrt_problem, scale)),
            offsetof(attnrt_problem, scale));
  const size_t window = offsetof(attnrt_problem, window_left);
  for (size_t size = window; size < window + 8; ++size)
    EXPECT_EQ(bytes_read<attnrt_problem>(size), window) << size;
  EXPECT_EQ(bytes_read<attnrt_problem>(window + 8), window + 8);
  for (size_t size = offsetof(attnrt_args, q); size <= sizeof(attnrt_args); ++size) {
    size_t end = offsetof(attnrt_args, q) +
                 (size - offsetof(attnrt_args, q)) / sizeof(attnrt_tensor) * sizeof(attnrt_tensor);
    if (size >= offsetof(attnrt_args, workspace)) end = size / sizeof(void*) * sizeof(void*);
    if (end == offsetof(attnrt_args, q)) continue;  // struct_size and a field of zeros
    EXPECT_EQ(bytes_read<attnrt_args>(size), end) << size;
  }
}

TEST(Structs, WholeStructsAndNewerOnesAreReadToTheirEnd) {
  EXPECT_EQ(bytes_read<attnrt_problem>(sizeof(attnrt_problem)), sizeof(attnrt_problem));
  EXPECT_EQ(bytes_read<attnrt_args>(sizeof(attnrt_args)), sizeof(attnrt_args));
  EXPECT_EQ(bytes_read<attnrt_call>(sizeof(attnrt_call)), sizeof(attnrt_call));
  EXPECT_EQ(bytes_read<attnrt_runtime_options>(sizeof(attnrt_runtime_options)),
            sizeof(attnrt_runtime_options));
  EXPECT_EQ(bytes_read<attnrt_problem>(sizeof(attnrt_problem) + 9), sizeof(attnrt_problem));
  EXPECT_EQ(bytes_read<attnrt_args>(4096), sizeof(attnrt_args));
}

template <class Struct>
void expect_refusals(const std::string& name, size_t least) {
  Struct ours{};
  for (const size_t size : {size_t{0}, least - 1, size_t{4097}}) {
    Caller<Struct> caller(size);
    const auto read = read_struct(caller.given(), &ours);
    ASSERT_FALSE(read) << name << " " << size;
    EXPECT_EQ(read.error().code, ATTNRT_INVALID_ARGUMENT);
    EXPECT_THAT(
        read.error().message,
        StartsWith(fmt::format("{}: struct_size is {}, expected {} to 4096; ", name, size, least)));
  }
  Caller<Struct> negative(0);
  negative.given().struct_size = -1;
  EXPECT_FALSE(read_struct(negative.given(), &ours));
  const size_t size = sizeof(Struct) + 24;
  Caller<Struct> newer(size);
  newer.byte(size - 1) = 1;
  const auto read = read_struct(newer.given(), &ours);
  ASSERT_FALSE(read) << name;
  EXPECT_EQ(read.error().message,
            fmt::format("{}: byte {} of {} is not zero, but this runtime knows only the first {}; "
                        "leave newer fields at zero",
                        name, size - 1, size, sizeof(Struct)));
  newer.byte(size - 1) = 0;
  newer.byte(size) = 1;  // belongs to somebody else
  EXPECT_TRUE(read_struct(newer.given(), &ours)) << name;
}

TEST(Structs, RefusesSizesThatCannotBeAndNewerFields) {
  expect_refusals<attnrt_problem>("problem", offsetof(attnrt_problem, scale));
  expect_refusals<attnrt_args>("args", offsetof(attnrt_args, q));
  expect_refusals<attnrt_call>("call", offsetof(attnrt_call, backend));
  expect_refusals<attnrt_runtime_options>("options", offsetof(attnrt_runtime_options, policy_path));
}

TEST(Structs, AdviseHowToFillThem) {
  attnrt_args args{};
  EXPECT_THAT(read_struct(args, &args).error().message, HasSubstr("set it to sizeof(attnrt_args)"));
  attnrt_call call{};
  EXPECT_THAT(read_struct(call, &call).error().message, HasSubstr("start from ATTNRT_CALL_INIT"));
}

}  // namespace
}  // namespace attnrt::core
