// plugins/common/gpu/launch.cpp: the kernels' launches into loaded kernels at plan, and onto a stream at run
#include <cstring>

#include "kernels/hip/device/code_objects.hpp"
#include "plugins/common/gpu/backend.hpp"

namespace attnrt_hip {
namespace {

namespace gpu = kernels::hip;

attnrt_status find(int32_t device_id, const char* code_arch, const gpu::Launch& launch,
                   gpu::Kernel* kernel, attnrt_error* error) {
  for (uint32_t n = 0; n < gpu::code_object_count; ++n) {
    const gpu::CodeObject& object = gpu::code_objects[n];
    if (std::strcmp(object.name, launch.object) != 0 || std::strcmp(object.arch, code_arch) != 0)
      continue;
    gpu::Message message;
    const gpu::Status status = gpu::find_kernel(device_id, object.data, launch.kernel,
                                                launch.shared_bytes, kernel, &message);
    if (status == gpu::Status::ok) return ATTNRT_OK;
    // Code that the platform refuses is this build's fault, and never the caller's.
    const attnrt_status ours = status == gpu::Status::invalid ? ATTNRT_INTERNAL : status_of(status);
    return attnrt_fail(error, ours, "%s for %s: %s", launch.object, code_arch, message.text);
  }
  return attnrt_fail(error, ATTNRT_INTERNAL, "this build has no code object %s for %s",
                     launch.object, code_arch);
}

const Kernels::Loaded* find_loaded(const Kernels& kernels, const gpu::Launch& launch) {
  for (int32_t n = 0; n < kernels.count; ++n) {
    const Kernels::Loaded& loaded = kernels.loaded[n];
    const bool same = std::strcmp(loaded.name, launch.kernel) == 0 &&
                      std::strcmp(loaded.object, launch.object) == 0;
    if (same && launch.shared_bytes <= loaded.shared_bytes) return &loaded;
  }
  return nullptr;
}

}  // namespace

void* somewhere() { return reinterpret_cast<void*>(uintptr_t{1} << 32); }

kernels::Args bounds_of(const kernels::Problem& p) {
  const auto dense = [](kernels::DType dtype, int32_t ndim, int64_t a, int64_t b = 0, int64_t c = 0,
                        int64_t d = 0) {
    kernels::Tensor tensor{somewhere(), dtype, ndim, {a, b, c, d}, {}};
    int64_t stride = 1;
    for (int32_t n = ndim - 1; n >= 0; --n) {
      tensor.stride[n] = stride;
      stride *= tensor.shape[n];
    }
    return tensor;
  };
  using kernels::DType;
  kernels::Args args;
  args.q = dense(p.dtype, 4, p.batch, p.seq_q, p.heads_q, p.head_dim);
  args.k = dense(p.dtype, 4, p.batch, p.seq_kv, p.heads_kv, p.head_dim);
  args.v = dense(p.dtype, 4, p.batch, p.seq_kv, p.heads_kv, p.head_dim_v);
  args.out = dense(p.dtype, 4, p.batch, p.seq_q, p.heads_q, p.head_dim_v);
  if (p.mask != kernels::Mask::none) {
    const DType dtype = p.mask == kernels::Mask::boolean ? DType::boolean : p.mask_dtype;
    args.mask = dense(dtype, 4, p.batch, p.heads_q, p.seq_q, p.seq_kv);
  }
  if (p.lse) args.lse = dense(DType::f32, 3, p.batch, p.heads_q, p.seq_q);
  if (p.alibi) args.alibi_slopes = dense(DType::f32, 1, p.heads_q);
  if (p.sinks) args.sinks = dense(DType::f32, 1, p.heads_q);
  if (p.kv_lengths) args.kv_lengths = dense(DType::i32, 1, p.batch);
  return args;
}

bool fits(const Served& device, const gpu::Launch* launches, int32_t count, std::string* reason) {
  for (int32_t n = 0; n < count; ++n) {
    if (launches[n].shared_bytes <= device.shared_bytes) continue;
    *reason = std::string(launches[n].object) + " needs " +
              std::to_string(launches[n].shared_bytes) + " bytes of workgroup memory, and " +
              device.name + " has " + std::to_string(device.shared_bytes);
    return false;
  }
  return true;
}

attnrt_status load(const Served& device, const gpu::Launch* launches, int32_t count,
                   Kernels* kernels, attnrt_error* error) {
  kernels->device_id = device.id;
  kernels->code_arch = device.code_arch;
  for (int32_t n = 0; n < count; ++n) {
    if (find_loaded(*kernels, launches[n]) != nullptr) continue;
    Kernels::Loaded& loaded = kernels->loaded[kernels->count];
    const attnrt_status status =
        find(device.id, device.code_arch, launches[n], &loaded.kernel, error);
    if (status != ATTNRT_OK) return status;
    loaded.object = launches[n].object;
    loaded.name = launches[n].kernel;
    loaded.shared_bytes = launches[n].shared_bytes;
    ++kernels->count;
  }
  return ATTNRT_OK;
}

attnrt_status enqueue(const Kernels& kernels, const gpu::Launch* launches, int32_t count,
                      void* stream, attnrt_error* error) {
  if (count < 0) {
    return attnrt_fail(error, ATTNRT_UNSUPPORTED,
                       "k or v: found rows 2^25 elements apart or more, expected less");
  }
  for (int32_t n = 0; n < count; ++n) {
    const gpu::Launch& launch = launches[n];
    const Kernels::Loaded* loaded = find_loaded(kernels, launch);
    gpu::Kernel kernel;
    if (loaded != nullptr) {
      kernel = loaded->kernel;
    } else if (const attnrt_status status =
                   find(kernels.device_id, kernels.code_arch, launch, &kernel, error);
               status != ATTNRT_OK) {
      return status;
    }
    gpu::Message message;
    const gpu::Status status = gpu::launch(kernel, launch.grid, launch.block, launch.shared_bytes,
                                           launch.params, stream, &message);
    if (status != gpu::Status::ok)
      return attnrt_fail(error, status_of(status), "%s: %s", launch.kernel, message.text);
  }
  return ATTNRT_OK;
}

attnrt_status check_workspace(const attnrt_args& args, int64_t bytes, attnrt_error* error) {
  if (bytes == 0 || (args.workspace != nullptr && args.workspace_bytes >= bytes)) return ATTNRT_OK;
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                     "workspace_bytes: found %lld, and the plan asked for %lld",
                     static_cast<long long>(args.workspace != nullptr ? args.workspace_bytes : 0),
                     static_cast<long long>(bytes));
}

}  // namespace attnrt_hip
