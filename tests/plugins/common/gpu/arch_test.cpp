// tests/plugins/common/gpu/arch_test.cpp: which code objects serve a device of AMD or NVIDIA, and
// what the host is told of it
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/hip/device/code_objects.hpp"
#include "plugins/common/gpu/backend.hpp"

namespace kernels::hip {

const CodeObject code_objects[] = {
    {"flash", "gfx1100", nullptr, 0},      {"flash", "gfx90a", nullptr, 0},
    {"unfused", "gfx90a", nullptr, 0},     {"flash", "gfx90a:xnack+", nullptr, 0},
    {"flash", "compute_80", nullptr, 0},   {"flash", "sm_80", nullptr, 0},
    {"flash", "sm_86", nullptr, 0},        {"flash", "sm_90", nullptr, 0},
    {"flash", "sm_100f", nullptr, 0},      {"flash", "sm_120a", nullptr, 0},
    {"sm90", "sm_90a", nullptr, 0},        {"sm90", "compute_90a", nullptr, 0},
    {"replaced", "compute_80", nullptr, 0}};  // on sm_90 by sm90
const uint32_t code_object_count = 13;

static std::vector<const char*> present;  // the machine's devices, by their architectures

Status devices(std::vector<Device>* found, Message*) {
  for (const char* arch : present) {
    Device& device = found->emplace_back();
    device.id = static_cast<int32_t>(found->size()) - 1;
    std::strcpy(device.arch, arch);
    std::strcpy(device.name, "a GPU");
  }
  return Status::ok;
}

}  // namespace kernels::hip

namespace attnrt_gpu {

static int32_t asked_type = ATTNRT_DEVICE_ROCM;
int32_t device_type() { return asked_type; }
attnrt_status status_of(kernels::hip::Status) { return ATTNRT_INTERNAL; }

namespace {

using ::testing::HasSubstr;

std::string serves(int32_t type, const char* arch, bool ptx_only = false) {
  asked_type = type;
  const char* code = code_arch_for(arch, ptx_only);
  return code != nullptr ? code : "none";
}

// The architecture of the code object with the name that a device of NVIDIA runs.
std::string code_of(const char* name, const char* arch, bool ptx_only = false) {
  asked_type = ATTNRT_DEVICE_CUDA;
  ServedDevice device;
  device.full_arch = arch;
  device.ptx_only = ptx_only;
  const auto* object = code_object_for(device, name);
  return object != nullptr ? object->arch : "none";
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
  EXPECT_EQ(serves(kType, "sm_75"), "none");
  EXPECT_EQ(serves(kType, "gfx1100"), "none");
}

TEST(Arch, NvidiasDriverCompilesPtxWhereNoOtherCodeRuns) {
  constexpr int32_t kType = ATTNRT_DEVICE_CUDA;
  EXPECT_EQ(serves(kType, "sm_121"), "compute_80") << "sm_120a is for one processor alone";
  EXPECT_EQ(serves(kType, "sm_140"), "compute_80");
  EXPECT_EQ(serves(kType, "sm_90", true), "compute_80");
  EXPECT_EQ(serves(kType, "sm_75", true), "none");
  EXPECT_EQ(serves(ATTNRT_DEVICE_ROCM, "gfx1100", true), "gfx1100");
}

TEST(Arch, EachKernelFileHasItsOwnNewestCode) {
  EXPECT_EQ(code_of("sm90", "sm_90"), "sm_90a");
  EXPECT_EQ(code_of("flash", "sm_90"), "sm_90");
  EXPECT_EQ(code_of("sm90", "sm_80"), "none");
  EXPECT_EQ(code_of("sm90", "sm_100"), "none") << "PTX for compute_90a is for sm_90 alone";
  EXPECT_EQ(code_of("flash", "sm_140"), "compute_80");
  EXPECT_EQ(code_of("flash", "sm_90", true), "compute_80");
  EXPECT_EQ(code_of("sm90", "sm_90", true), "none");
  EXPECT_EQ(code_of("other", "sm_90"), "none");
}

// What devices() says beside adding devices.
std::string note_on(std::vector<const char*> archs, size_t served, bool ptx_only = false) {
  asked_type = ATTNRT_DEVICE_CUDA;
  kernels::hip::present = std::move(archs);
  Instance instance;
  instance.ptx_only = ptx_only;
  size_t count = 0;
  attnrt_error error = ATTNRT_ERROR_INIT;
  const auto add = [](void* sink, const attnrt_device*) { ++*static_cast<size_t*>(sink); };
  EXPECT_EQ(devices(&instance, add, &count, &error), ATTNRT_OK);
  EXPECT_EQ(count, served);
  return error.message;
}

TEST(Arch, TheHostIsToldForWhichDevicesTheDriverCompiles) {
  EXPECT_EQ(note_on({"sm_80", "sm_90"}, 2), "");
  EXPECT_EQ(note_on({"sm_90", "sm_130", "sm_140"}, 3),
            "the driver compiles kernels from PTX for device 1 (sm_130), device 2 (sm_140)");
  EXPECT_EQ(note_on({"sm_103", "sm_120"}, 2), "") << "sm_100f and sm_120a have every kernel";
  EXPECT_EQ(note_on({"sm_90"}, 1, true),
            "the driver compiles kernels from PTX for device 0 (sm_90), as the option code says");
  EXPECT_THAT(note_on({"sm_75"}, 0, true),
              HasSubstr("device 0 is a sm_75 (a GPU), the option code says ptx, and this build has "
                        "code for "));
}

}  // namespace
}  // namespace attnrt_gpu
