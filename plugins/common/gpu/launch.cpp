// plugins/common/gpu/launch.cpp: loads a plan's kernels, and enqueues the launches of a run
#include <cstring>

#include "plugins/common/gpu/backend.hpp"

namespace attnrt_gpu {
namespace {

namespace hip = kernels::hip;
static_assert(sizeof(hip::Launch::params) <= hip::kMostArgumentBytes);

// Finds a launch's kernel among this build's code objects, and loads it if it is not loaded yet.
attnrt_status find(const ServedDevice& device, const hip::Launch& launch, hip::Kernel* kernel,
                   attnrt_error* error) {
  const hip::CodeObject* object = code_object_for(device, launch.object);
  if (object == nullptr) {
    return attnrt_fail(error, ATTNRT_INTERNAL, "this build has no code object %s for %s",
                       launch.object, device.full_arch);
  }
  hip::Message message;
  const hip::Status status = hip::find_kernel(device.device_id, object->data, launch.kernel,
                                              launch.shared_bytes, kernel, &message);
  if (status == hip::Status::ok) return ATTNRT_OK;
  // If the platform refuses the code, that is a fault of this build and never the caller's.
  const attnrt_status code = status == hip::Status::invalid ? ATTNRT_INTERNAL : status_of(status);
  return attnrt_fail(error, code, "%s for %s: %s", launch.object, object->arch, message.text);
}

// Compares two names. Mostly they are one literal, and so have one address.
bool equal(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

const LoadedKernels::Kernel* find_loaded(const LoadedKernels& loaded, const hip::Launch& launch) {
  for (int32_t n = 0; n < loaded.count; ++n) {
    const LoadedKernels::Kernel& kernel = loaded.kernels[n];
    const bool same = equal(kernel.name, launch.kernel) && equal(kernel.object, launch.object);
    if (same && launch.shared_bytes <= kernel.shared_bytes) return &kernel;
  }
  return nullptr;
}

}  // namespace

void* planning_address() {
  return reinterpret_cast<void*>(uintptr_t{1} << 32);  // NOLINT(performance-no-int-to-ptr)
}

kernels::Args args_at_bounds(const kernels::Problem& p) {
  const auto dense = [](kernels::DType dtype, int32_t ndim, int64_t a, int64_t b = 0, int64_t c = 0,
                        int64_t d = 0) {
    kernels::Tensor tensor{planning_address(), dtype, ndim, {a, b, c, d}, {}};
    // Bounds may multiply to more than any run has: a tensor map takes no larger stride, and no
    // device has the memory.
    constexpr int64_t kLargest = int64_t{1} << 38;
    int64_t stride = 1;
    for (int32_t n = ndim - 1; n >= 0; --n) {
      tensor.stride[n] = stride;
      if (__builtin_mul_overflow(stride, tensor.shape[n], &stride) || stride > kLargest)
        stride = kLargest;
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
  if (p.alibi) args.alibi_slopes = dense(DType::f32, 2, p.batch, p.heads_q);
  if (p.sinks) args.sinks = dense(DType::f32, 1, p.heads_q);
  if (p.kv_lengths) args.kv_lengths = dense(DType::i32, 1, p.batch);
  if (p.varlen) {
    int64_t total_q = 0, total_kv = 0;
    if (__builtin_mul_overflow(p.batch, p.seq_q, &total_q)) total_q = INT64_MAX;
    if (__builtin_mul_overflow(p.batch, p.seq_kv, &total_kv)) total_kv = INT64_MAX;
    args.q = dense(p.dtype, 3, total_q, p.heads_q, p.head_dim);
    args.k = dense(p.dtype, 3, total_kv, p.heads_kv, p.head_dim);
    args.v = dense(p.dtype, 3, total_kv, p.heads_kv, p.head_dim_v);
    args.out = dense(p.dtype, 3, total_q, p.heads_q, p.head_dim_v);
    if (p.lse) args.lse = dense(DType::f32, 2, p.heads_q, total_q);
    args.offsets_q = dense(DType::i32, 1, p.batch + 1);
    args.offsets_kv = args.offsets_q;
  }
  if (p.page_size > 0) {
    args.k = dense(p.dtype, 4, 1, p.page_size, p.heads_kv, p.head_dim);
    args.v = dense(p.dtype, 4, 1, p.page_size, p.heads_kv, p.head_dim_v);
    args.page_table = dense(DType::i32, 2, p.batch, 1);
  }
  return args;
}

bool fits(const ServedDevice& device, const hip::Launch* launches, int32_t count,
          std::string* reason) {
  for (int32_t n = 0; n < count; ++n) {
    if (code_object_for(device, launches[n].object) == nullptr) {
      *reason = std::string("this build has no code object ") + launches[n].object + " for " +
                device.full_arch;
      return false;
    }
    if (launches[n].shared_bytes <= device.shared_bytes) continue;
    *reason = std::string(launches[n].object) + " needs " +
              std::to_string(launches[n].shared_bytes) + " bytes of workgroup memory, and " +
              device.name + " has " + std::to_string(device.shared_bytes);
    return false;
  }
  return true;
}

attnrt_status load(const ServedDevice& device, const hip::Launch* launches, int32_t count,
                   LoadedKernels* loaded, attnrt_error* error) {
  loaded->device = device;
  for (int32_t n = 0; n < count; ++n) {
    if (find_loaded(*loaded, launches[n]) != nullptr) continue;
    LoadedKernels::Kernel& kernel = loaded->kernels[loaded->count];
    const attnrt_status status = find(device, launches[n], &kernel.handle, error);
    if (status != ATTNRT_OK) return status;
    kernel.object = launches[n].object;
    kernel.name = launches[n].kernel;
    kernel.shared_bytes = launches[n].shared_bytes;
    ++loaded->count;
  }
  return ATTNRT_OK;
}

attnrt_status enqueue(const LoadedKernels& loaded, const hip::Launch* launches, int32_t count,
                      void* stream, attnrt_error* error) {
  if (count < 0) {
    const char* const text =
        count == hip::kNoTensorMap
            ? "q, k or v: found strides of 2^40 bytes or more, or of 0 between rows or between q's "
              "heads of a group; expected others"
            : "k or v: found rows 2^25 elements apart or more, expected less";
    return attnrt_fail(error, ATTNRT_UNSUPPORTED, "%s", text);
  }
  for (int32_t n = 0; n < count; ++n) {
    const hip::Launch& launch = launches[n];
    const LoadedKernels::Kernel* known = find_loaded(loaded, launch);
    hip::Kernel handle;
    if (known != nullptr) {
      handle = known->handle;
    } else if (const attnrt_status status = find(loaded.device, launch, &handle, error);
               status != ATTNRT_OK) {
      return status;
    }
    hip::Message message;
    const hip::Argument argument{
        launch.params, launch.params_bytes, {launch.maps, launch.map_count}, launch.overlaps};
    const hip::Status status = hip::launch(handle, launch.grid, launch.block, launch.shared_bytes,
                                           argument, stream, &message);
    if (status != hip::Status::ok)
      return attnrt_fail(error, status_of(status), "%s: %s", launch.kernel, message.text);
  }
  return ATTNRT_OK;
}

attnrt_status check_workspace(const attnrt_args& args, int64_t bytes, attnrt_error* error) {
  if (bytes == 0 || (args.workspace != nullptr && args.workspace_bytes >= bytes)) return ATTNRT_OK;
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                     "workspace_bytes: found %lld, expected at least %lld, as the plan asked for",
                     static_cast<long long>(args.workspace != nullptr ? args.workspace_bytes : 0),
                     static_cast<long long>(bytes));
}

}  // namespace attnrt_gpu
