// tests/plugins/common/gpu/arch_test.cpp: which code objects serve a device of AMD or NVIDIA
#include <gtest/gtest.h>

#include "kernels/hip/device/code_objects.hpp"
#include "plugins/common/gpu/backend.hpp"

namespace kernels::hip {

const CodeObject code_objects[] = {
    {"flash", "gfx1100", nullptr, 0},  {"flash", "gfx90a", nullptr, 0},
    {"unfused", "gfx90a", nullptr, 0}, {"flash", "gfx90a:xnack+", nullptr, 0},
    {"flash", "sm_80", nullptr, 0},    {"flash", "sm_86", nullptr, 0},
    {"flash", "sm_90", nullptr, 0},    {"flash", "sm_90a", nullptr, 0},
    {"flash", "sm_100f", nullptr, 0},  {"flash", "sm_120a", nullptr, 0}};
const uint32_t code_object_count = 10;

}  // namespace kernels::hip

namespace attnrt_gpu {

static int32_t asked_type = ATTNRT_DEVICE_ROCM;
int32_t device_type() { return asked_type; }

namespace {

std::string serves(int32_t type, const char* arch) {
  asked_type = type;
  const char* code = code_arch_for(arch);
  return code != nullptr ? code : "none";
}

TEST(Arch, AmdNamesTheProcessorAndWhatItsCodeNeeds) {
  constexpr int32_t kType = ATTNRT_DEVICE_ROCM;
  EXPECT_EQ(serves(kType, "gfx1100"), "gfx1100");
  EXPECT_EQ(serves(kType, "gfx90a"), "gfx90a");
  EXPECT_EQ(serves(kType, "gfx90a:sramecc+:xnack-"), "gfx90a");
  EXPECT_EQ(serves(kType, "gfx90a:sramecc+:xnack+"), "gfx90a:xnack+");
  EXPECT_EQ(serves(kType, "gfx906"), "none");
  EXPECT_EQ(serves(kType, "gfx11"), "none");
  EXPECT_EQ(serves(kType, "gfx1101"), "none");
}

TEST(Arch, NvidiaTakesTheNewestOfItsMajorNumber) {
  constexpr int32_t kType = ATTNRT_DEVICE_CUDA;
  EXPECT_EQ(serves(kType, "sm_80"), "sm_80");
  EXPECT_EQ(serves(kType, "sm_86"), "sm_86");
  EXPECT_EQ(serves(kType, "sm_89"), "sm_86");
  EXPECT_EQ(serves(kType, "sm_90"), "sm_90a");
  EXPECT_EQ(serves(kType, "sm_103"), "sm_100f");
  EXPECT_EQ(serves(kType, "sm_120"), "sm_120a");
  EXPECT_EQ(serves(kType, "sm_121"), "none") << "code for one processor alone";
  EXPECT_EQ(serves(kType, "sm_75"), "none");
  EXPECT_EQ(serves(kType, "gfx1100"), "none");
}

}  // namespace
}  // namespace attnrt_gpu
