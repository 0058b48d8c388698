// tests/runtime/swap_growth_test.cpp: what each new binary of a plugin costs a process for ever
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "support/sanitized.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;

struct Use {
  int64_t descriptors = 0, mappings = 0, kilobytes = 0;
};

// What this process uses now. kilobytes: its resident memory, copies of libraries included.
Use use_now() {
  Use use;
  use.descriptors = static_cast<int64_t>(open_descriptors());
  const std::string maps = fakes::read_file("/proc/self/maps");
  use.mappings = std::count(maps.begin(), maps.end(), '\n');
  std::istringstream status(fakes::read_file("/proc/self/status"));
  for (std::string word; status >> word;) {
    if (word == "VmRSS:") status >> use.kilobytes;
  }
  return use;
}

// ATTNRT_TEST_SWAPS asks for more of them.
TEST(SwapGrowth, OfEachBinary) {
  const char* const asked = std::getenv("ATTNRT_TEST_SWAPS");
  const int swaps = asked != nullptr ? std::atoi(asked) : 100;
  TestRuntime runtime({"fake_full"});
  const std::string bytes = fakes::read_file(fakes::fake("fake_full"));
  const auto swap = [&](int n) {
    runtime.plugins.write("fake_full.so", bytes + fmt::format("{:08}", n));
    ASSERT_TRUE(runtime->reload());
    ASSERT_EQ(chosen(*runtime), "fake_full 1.0.0") << n;
  };
  for (int n = 0; n < 10; ++n) swap(n);
  const Use before = use_now();
  for (int n = 10; n < 10 + swaps; ++n) swap(n);
  const Use after = use_now();
  const auto each = [swaps](int64_t from, int64_t to) {
    return static_cast<double>(to - from) / swaps;
  };
  fmt::print("each of {} binaries of {} bytes: {:.2f} mappings, {:.1f} kB\n", swaps, bytes.size(),
             each(before.mappings, after.mappings), each(before.kilobytes, after.kilobytes));
  EXPECT_EQ(after.descriptors, before.descriptors);
  if (kSanitized) GTEST_SKIP() << "a sanitizer keeps memory of its own for each library";
  EXPECT_LE(each(before.mappings, after.mappings), 5.2) << "those of the loader, one a segment";
  EXPECT_LE(each(before.kilobytes, after.kilobytes), 64);
}

}  // namespace
}  // namespace attnrt::core
