// tests/kernels/hip/host/kernels.cpp: finds the host build of a kernel, and runs launches on it
#include "tests/kernels/hip/host/kernels.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/hip/async.hpp"
#include "kernels/hip/host/host.hpp"
#include "kernels/hip/merge.hpp"
#include "kernels/hip/schedule.hpp"
#include "tests/kernels/hip/expect.hpp"
#include "tests/kernels/hip/host/family.hpp"

namespace kernels::test {

using hip::Family;

namespace {

template <class T>
void merge(const void* params) {
  hip::merge<T>(*static_cast<const hip::MergeParams*>(params));
}

void schedule(const void* params) {
  hip::Scheduler(*static_cast<const hip::ScheduleParams*>(params)).run();
}

// The kernels that merge are the same for every family.
HostKernel merge_kernel(const std::string& name) {
  if (name == "merge_f32_kernel") return merge<hip::F32>;
  if (name == "merge_f16_kernel") return merge<hip::F16>;
  return name == "merge_bf16_kernel" ? merge<hip::BF16> : nullptr;
}

}  // namespace

HostKernel host_kernel(Family family, const char* object, const char* name) {
  if (std::strcmp(object, "merge") == 0) return merge_kernel(name);
  if (std::strcmp(object, "schedule") == 0)
    return std::strcmp(name, "schedule_kernel") == 0 ? schedule : nullptr;
  switch (family) {
    case Family::wmma_gfx11: return kernel_of_family<Family::wmma_gfx11>(object, name);
    case Family::wmma_gfx12: return kernel_of_family<Family::wmma_gfx12>(object, name);
    case Family::mfma: return kernel_of_family<Family::mfma>(object, name);
    case Family::mma_sm80: return kernel_of_family<Family::mma_sm80>(object, name);
    case Family::wgmma_sm90: return kernel_of_family<Family::wgmma_sm90>(object, name);
    case Family::valu32: return kernel_of_family<Family::valu32>(object, name);
    case Family::valu64: return kernel_of_family<Family::valu64>(object, name);
    case Family::valu_large: break;
  }
  return nullptr;  // serves no GPU by itself: mma_sm80 uses it for f32
}

void run_launch(const char* arch, const hip::Launch& launch, uint32_t seed) {
  const HostKernel kernel = host_kernel(hip::family_of(arch), launch.object, launch.kernel);
  ASSERT_NE(kernel, nullptr) << launch.object << " has no " << launch.kernel;
  alignas(64) unsigned char params[sizeof launch.params];
  std::memcpy(params, launch.params, launch.params_bytes);
  for (uint32_t n = 0; n < launch.map_count; ++n) {
    gpu::host::encode(launch.maps[n],
                      reinterpret_cast<gpu::TensorMap*>(params + launch.maps[n].at));
  }
  const gpu::host::Launch grid{
      {launch.grid[0], launch.grid[1], launch.grid[2]}, launch.block, launch.shared_bytes, seed};
  gpu::host::run(grid, [&] { kernel(params); });
}

}  // namespace kernels::test
