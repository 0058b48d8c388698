// tests/runtime/conformance/guarded_memory_test.cpp: exact alignment, whole images
#include "conformance/guarded_memory.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "fakes/fakes.hpp"

namespace attnrt::conformance {
namespace {

// fake_full works on the cpu, fake_rocm on devices of its own with memory behind attnrt.memory/1.
class GuardedMemoryOn : public testing::TestWithParam<const char*> {
 protected:
  Subject subject_{fakes::fake(GetParam()).string(), Settings{}, {}};
};

TEST_P(GuardedMemoryOn, TheContentIsAlignedAsAskedAndNoBetter) {
  ASSERT_FALSE(subject_.devices().empty());
  for (int64_t alignment = 1; alignment <= 4096; alignment *= 2) {
    for (const int64_t guard : {512, 4096}) {
      const GuardedMemory memory(subject_, 2 * guard + 100, alignment, guard, nullptr);
      ASSERT_EQ(memory.error(), "");
      const auto address = reinterpret_cast<uintptr_t>(memory.content());
      EXPECT_EQ(address % static_cast<uintptr_t>(alignment), 0u);
      EXPECT_NE(address % static_cast<uintptr_t>(2 * alignment), 0u);
    }
  }
}

TEST_P(GuardedMemoryOn, TheImageComesBackWithItsGuards) {
  ASSERT_FALSE(subject_.devices().empty());
  std::vector<std::byte> image(1234);
  for (size_t n = 0; n < image.size(); ++n) image[n] = std::byte(n * 7);
  GuardedMemory memory(subject_, static_cast<int64_t>(image.size()), 16, 512, nullptr);
  ASSERT_EQ(memory.write(image.data(), nullptr), "");
  std::vector<std::byte> after(image.size());
  ASSERT_EQ(memory.read(after.data(), nullptr), "");
  EXPECT_EQ(after, image);
  if (!subject_.on_cpu()) return;
  memory.content()[-1] = std::byte{0};  // a write to the guard is seen
  ASSERT_EQ(memory.read(after.data(), nullptr), "");
  EXPECT_NE(after, image);
}

INSTANTIATE_TEST_SUITE_P(Devices, GuardedMemoryOn, testing::Values("fake_full", "fake_rocm"));

}  // namespace
}  // namespace attnrt::conformance
