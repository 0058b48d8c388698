// plugins/common/gpu/instance.cpp: open, close and extensions of the GPU plugins, and their
// statuses
#include <cstring>
#include <new>

#include "plugins/common/gpu/backend.hpp"

namespace attnrt_gpu {

attnrt_status open(const attnrt_host* host, void** instance, attnrt_error* error) {
  Instance* made = new (std::nothrow) Instance;
  if (made == nullptr) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "open: out of host memory");
  made->host = host;
  *instance = made;
  return ATTNRT_OK;
}

void close(void* instance) { delete static_cast<Instance*>(instance); }

const void* get_extension(void*, const char* id) {
  if (std::strcmp(id, ATTNRT_MEMORY) == 0) return &memory;
  if (std::strcmp(id, ATTNRT_TIMING) == 0) return &timing;
  return nullptr;
}

int32_t device_type() {
  return kernels::hip::platform() == kernels::hip::Platform::rocm ? ATTNRT_DEVICE_ROCM
                                                                  : ATTNRT_DEVICE_CUDA;
}

attnrt_status status_of(kernels::hip::Status status) {
  switch (status) {
    case kernels::hip::Status::ok: return ATTNRT_OK;
    case kernels::hip::Status::out_of_memory: return ATTNRT_OUT_OF_MEMORY;
    case kernels::hip::Status::invalid: return ATTNRT_INVALID_ARGUMENT;
    case kernels::hip::Status::device_lost: return ATTNRT_DEVICE_LOST;
    case kernels::hip::Status::internal: break;
  }
  return ATTNRT_INTERNAL;
}

attnrt_status report(kernels::hip::Status status, const kernels::hip::Message& message,
                     attnrt_error* error) {
  if (status == kernels::hip::Status::ok) return ATTNRT_OK;
  return attnrt_fail(error, status_of(status), "%s", message.text);
}

}  // namespace attnrt_gpu
