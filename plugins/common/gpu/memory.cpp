// plugins/common/gpu/memory.cpp: the device interface's memory and streams as the extension attnrt.memory/1
#include "plugins/common/gpu/backend.hpp"

namespace attnrt_hip {
namespace {

namespace gpu = kernels::hip;

attnrt_status allocate(void*, int32_t device_id, int64_t bytes, void** pointer,
                       attnrt_error* error) {
  gpu::Message message;
  return answer(gpu::allocate(device_id, bytes, pointer, &message), message, error);
}

void free(void*, int32_t device_id, void* pointer) { gpu::free(device_id, pointer); }

attnrt_status allocate_pinned(void*, int32_t device_id, int64_t bytes, void** pointer,
                              attnrt_error* error) {
  gpu::Message message;
  return answer(gpu::allocate_pinned(device_id, bytes, pointer, &message), message, error);
}

void free_pinned(void*, int32_t device_id, void* pointer) { gpu::free_pinned(device_id, pointer); }

attnrt_status copy(void*, int32_t device_id, void* to, const void* from, int64_t bytes,
                   int32_t direction, void* stream, attnrt_error* error) {
  gpu::Direction way = gpu::Direction::on_device;
  switch (direction) {
    case ATTNRT_COPY_TO_DEVICE: way = gpu::Direction::to_device; break;
    case ATTNRT_COPY_TO_HOST: way = gpu::Direction::to_host; break;
    case ATTNRT_COPY_ON_DEVICE: break;
    default:
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "direction: found %d, expected 0 to 2",
                         direction);
  }
  gpu::Message message;
  return answer(gpu::copy(device_id, to, from, bytes, way, stream, &message), message, error);
}

attnrt_status stream_create(void*, int32_t device_id, void** stream, attnrt_error* error) {
  gpu::Message message;
  return answer(gpu::stream_create(device_id, stream, &message), message, error);
}

void stream_destroy(void*, int32_t device_id, void* stream) {
  gpu::stream_destroy(device_id, stream);
}

attnrt_status stream_synchronize(void*, int32_t device_id, void* stream, attnrt_error* error) {
  gpu::Message message;
  return answer(gpu::stream_synchronize(device_id, stream, &message), message, error);
}

attnrt_status is_capturing(void*, int32_t device_id, void* stream, int32_t* capturing,
                           attnrt_error* error) {
  gpu::Message message;
  bool captured = false;
  const gpu::Status status = gpu::is_capturing(device_id, stream, &captured, &message);
  *capturing = captured ? 1 : 0;
  return answer(status, message, error);
}

}  // namespace

const attnrt_memory memory = {
    sizeof(attnrt_memory), 0,    allocate,      free,           allocate_pinned,
    free_pinned,           copy, stream_create, stream_destroy, stream_synchronize,
    is_capturing,
};

}  // namespace attnrt_hip
