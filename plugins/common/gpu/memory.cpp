// plugins/common/gpu/memory.cpp: the extension attnrt.memory/1, on the device interface
#include "plugins/common/gpu/backend.hpp"

namespace attnrt_gpu {
namespace {

namespace hip = kernels::hip;

attnrt_status allocate(void*, int32_t device_id, int64_t bytes, void** pointer,
                       attnrt_error* error) {
  hip::Message message;
  return report(hip::allocate(device_id, bytes, pointer, &message), message, error);
}

void free(void*, int32_t device_id, void* pointer) { hip::free(device_id, pointer); }

attnrt_status allocate_pinned(void*, int32_t device_id, int64_t bytes, void** pointer,
                              attnrt_error* error) {
  hip::Message message;
  return report(hip::allocate_pinned(device_id, bytes, pointer, &message), message, error);
}

void free_pinned(void*, int32_t device_id, void* pointer) { hip::free_pinned(device_id, pointer); }

attnrt_status copy(void*, int32_t device_id, void* to, const void* from, int64_t bytes,
                   int32_t direction, void* stream, attnrt_error* error) {
  hip::Direction kind = hip::Direction::on_device;
  switch (direction) {
    case ATTNRT_COPY_TO_DEVICE: kind = hip::Direction::to_device; break;
    case ATTNRT_COPY_TO_HOST: kind = hip::Direction::to_host; break;
    case ATTNRT_COPY_ON_DEVICE: break;
    default:
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "direction: found %d, expected 0 to 2",
                         direction);
  }
  hip::Message message;
  return report(hip::copy(device_id, to, from, bytes, kind, stream, &message), message, error);
}

attnrt_status stream_create(void*, int32_t device_id, void** stream, attnrt_error* error) {
  hip::Message message;
  return report(hip::stream_create(device_id, stream, &message), message, error);
}

void stream_destroy(void*, int32_t device_id, void* stream) {
  hip::stream_destroy(device_id, stream);
}

attnrt_status stream_synchronize(void*, int32_t device_id, void* stream, attnrt_error* error) {
  hip::Message message;
  return report(hip::stream_synchronize(device_id, stream, &message), message, error);
}

attnrt_status is_capturing(void*, int32_t device_id, void* stream, int32_t* capturing,
                           attnrt_error* error) {
  hip::Message message;
  bool captured = false;
  const hip::Status status = hip::is_capturing(device_id, stream, &captured, &message);
  *capturing = captured ? 1 : 0;
  return report(status, message, error);
}

}  // namespace

const attnrt_memory memory = {
    sizeof(attnrt_memory), 0,    allocate,      free,           allocate_pinned,
    free_pinned,           copy, stream_create, stream_destroy, stream_synchronize,
    is_capturing,
};

}  // namespace attnrt_gpu
