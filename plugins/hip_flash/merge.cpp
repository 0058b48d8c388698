// plugins/hip_flash/merge.cpp: the extension attnrt.merge/1 on a GPU
#include "plugins/hip_flash/merge.hpp"

#include <new>
#include <string>

#include "kernels/hip/launch/merge.hpp"
#include "plugins/common/gpu/backend.hpp"
#include "plugins/common/translate.hpp"

namespace attnrt_hip_flash {
namespace {

namespace hip = kernels::hip;

// Enqueues a merge. Its kernel is loaded at a device's first merge, by calls that a capture allows.
attnrt_status merge(void* instance, int32_t device_id, const attnrt_tensor* outs,
                    const attnrt_tensor* lses, int32_t count, const attnrt_tensor* out,
                    const attnrt_tensor* lse, void* stream, attnrt_error* error) try {
  const auto* const device = attnrt_gpu::find_device(
      *static_cast<const attnrt_gpu::Instance*>(instance), device_id, error);
  if (device == nullptr) return ATTNRT_INVALID_ARGUMENT;
  // On the stack, since a merge allocates nothing. Of too many, launches() reads the count alone.
  kernels::Tensor translated[2][hip::kMaxPartials];
  for (int32_t i = 0; i < count && count <= hip::kMaxPartials; ++i) {
    translated[0][i] = attnrt_plugins::translate(outs[i]);
    translated[1][i] = attnrt_plugins::translate(lses[i]);
  }
  const hip::Merge merge{translated[0], translated[1], count, attnrt_plugins::translate(*out),
                         attnrt_plugins::translate(*lse)};
  hip::Launch launch;
  std::string reason;
  const int32_t launches = hip::launches(merge, device->multiprocessors, &launch, &reason);
  if (launches < 0) return attnrt_fail(error, ATTNRT_UNSUPPORTED, "%s", reason.c_str());
  attnrt_gpu::LoadedKernels kernels;
  kernels.device = *device;
  return attnrt_gpu::enqueue(kernels, &launch, launches, stream, error);
} catch (const std::bad_alloc&) {
  return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "merge: out of host memory");
}

}  // namespace

const attnrt_merging merging = {sizeof(attnrt_merging), 0, merge};

}  // namespace attnrt_hip_flash
