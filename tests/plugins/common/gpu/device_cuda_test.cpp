// tests/plugins/common/gpu/device_cuda_test.cpp: launches on CUDA, with some of its calls replaced:
// which tensor maps the driver is asked for, and which argument a kernel gets
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/hip/device/device.hpp"

namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

// One call of the driver's encoder.
struct Encoded {
  const void* to;
  CUtensorMapDataType type;
  std::vector<uint64_t> size, stride;
  std::vector<uint32_t> box;
  const void* base;
};
std::vector<Encoded> encoded;
CUresult encoder_result = CUDA_SUCCESS;
std::vector<unsigned char> launched;  // the argument that a kernel got
bool overlapped = false;              // whether it may start before the one before it ends

CUresult encode(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* base,
                const cuuint64_t* size, const cuuint64_t* stride, const cuuint32_t* box,
                const cuuint32_t* element_stride, CUtensorMapInterleave interleave,
                CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                CUtensorMapFloatOOBfill fill) {
  EXPECT_EQ(reinterpret_cast<uintptr_t>(map) % 64, 0U);
  EXPECT_EQ(interleave, CU_TENSOR_MAP_INTERLEAVE_NONE);
  EXPECT_EQ(swizzle, CU_TENSOR_MAP_SWIZZLE_128B);
  EXPECT_EQ(promotion, CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
  EXPECT_EQ(fill, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  for (cuuint32_t n = 0; n < rank; ++n) EXPECT_EQ(element_stride[n], 1U);
  encoded.push_back(
      {map, type, {size, size + rank}, {stride, stride + rank - 1}, {box, box + rank}, base});
  std::memset(map, static_cast<int>(encoded.size()), sizeof *map);
  return encoder_result;
}

}  // namespace

// The linker's --wrap makes device_cuda.cpp call these.
extern "C" {
cudaError_t __wrap_cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t __wrap_cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                                    unsigned long long,
                                                    cudaDriverEntryPointQueryResult* result) {
  EXPECT_STREQ(name, "cuTensorMapEncodeTiled");
  *function = reinterpret_cast<void*>(encode);
  *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void*,
                                       void** arguments) {
  overlapped = config->numAttrs == 1;
  const auto* bytes = static_cast<const unsigned char*>(arguments[0]);
  launched.assign(bytes, bytes + launched.size());
  return cudaSuccess;
}
}

namespace kernels::hip {
namespace {

constexpr uint32_t kOne[3] = {1, 1, 1};

// An address that no map was asked for before; nothing reads there.
const void* new_address() {
  static uintptr_t last = 0;
  return reinterpret_cast<const void*>(last += 16);
}

class CudaLaunch : public ::testing::Test {
 protected:
  CudaLaunch() {
    encoded.clear();
    encoder_result = CUDA_SUCCESS;
    launched.assign(kSize, 0);
    std::fill(std::begin(params), std::end(params), static_cast<unsigned char>(0xA5));
  }
  Status run(std::span<const TensorMapRequest> maps, bool overlaps = false) {
    return launch({0, nullptr}, kOne, 32, 0, {params, kSize, maps, overlaps}, nullptr, &message);
  }

  static constexpr uint32_t kSize = 640;
  unsigned char params[kSize];
  Message message;
};

TEST_F(CudaLaunch, WithoutMapsTheArgumentIsAsGiven) {
  EXPECT_EQ(run({}), Status::ok) << message.text;
  EXPECT_THAT(launched, ElementsAreArray(params));
  EXPECT_TRUE(encoded.empty());
  EXPECT_FALSE(overlapped);
}

TEST_F(CudaLaunch, MayStartBeforeTheOneBeforeItEnds) {
  EXPECT_EQ(run({}, true), Status::ok) << message.text;
  EXPECT_TRUE(overlapped);
}

TEST_F(CudaLaunch, MapsAreEncodedIntoACopyOfTheArgument) {
  const void *const first = new_address(), *const second = new_address();
  const TensorMapRequest maps[] = {{64, first, 4, {128, 7, 6, 5}, {16, 32, 48}, {64, 96, 1, 1}},
                                   {384, second, 5, {64, 2, 3, 4, 9}, {1, 2, 3, 4}, {64, 2}}};
  EXPECT_EQ(run(maps), Status::ok) << message.text;
  ASSERT_EQ(encoded.size(), 2U);
  EXPECT_EQ(encoded[0].base, first);
  EXPECT_EQ(encoded[0].type, CU_TENSOR_MAP_DATA_TYPE_UINT16);
  EXPECT_THAT(encoded[0].size, ElementsAreArray({128, 7, 6, 5}));
  EXPECT_THAT(encoded[0].stride, ElementsAreArray({16, 32, 48}));
  EXPECT_THAT(encoded[0].box, ElementsAreArray({64, 96, 1, 1}));
  EXPECT_EQ(encoded[1].base, second);
  EXPECT_EQ(encoded[1].size.size(), 5U);
  for (uint32_t n = 0; n < kSize; ++n) {
    const bool in_first = n >= 64 && n < 192, in_second = n >= 384 && n < 512;
    EXPECT_EQ(launched[n], in_first ? 1 : in_second ? 2 : 0xA5) << n;
    EXPECT_EQ(params[n], 0xA5) << n;
  }
}

TEST_F(CudaLaunch, AMapIsEncodedOnce) {
  const TensorMapRequest map{64, new_address(), 4, {128, 7, 6, 5}, {16, 32, 48}, {64, 96, 1, 1}};
  for (int times = 0; times < 2; ++times) {
    EXPECT_EQ(run({&map, 1}), Status::ok) << message.text;
    EXPECT_EQ(encoded.size(), 1U);
    for (uint32_t n = 0; n < kSize; ++n) EXPECT_EQ(launched[n], n >= 64 && n < 192 ? 1 : 0xA5) << n;
  }
}

TEST_F(CudaLaunch, AMapThatTheDriverRefusesIsNotTheCallersFault) {
  encoder_result = CUDA_ERROR_INVALID_VALUE;
  const TensorMapRequest map{0, new_address(), 1, {64}, {}, {64}};
  EXPECT_EQ(run({&map, 1}), Status::internal);
  EXPECT_THAT(message.text, HasSubstr("cuTensorMapEncodeTiled: invalid argument"));
  EXPECT_THAT(launched, ::testing::Each(0)) << "nothing was launched";
}

}  // namespace
}  // namespace kernels::hip
