// plugins/common/gpu/memory.cpp: the extension attnrt.memory/1, on the device interface
#include "plugins/common/gpu/backend.hpp"

namespace attnrt_gpu {
namespace {

namespace hip = kernels::hip;

attnrt_status allocate(void*, int32_t device_id, int64_t bytes, void* stream, void** pointer,
                       attnrt_error* error) {
  hip::Message message;
  return report(hip::allocate(device_id, bytes, stream, pointer, &message), message, error);
}

void free(void*, int32_t device_id, void* pointer, void* stream) {
  hip::free(device_id, pointer, stream);
}

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
                           uint64_t* capture_id, attnrt_error* error) {
  hip::Message message;
  hip::Capture capture;
  const hip::Status status = hip::is_capturing(device_id, stream, &capture, &message);
  *capturing = capture.active ? 1 : 0;
  *capture_id = capture.id;
  return report(status, message, error);
}

attnrt_status event_create(void*, int32_t device_id, void** event, attnrt_error* error) {
  hip::Message message;
  return report(hip::event_create(device_id, event, &message), message, error);
}

attnrt_status event_record(void*, int32_t device_id, void* event, void* stream,
                           attnrt_error* error) {
  hip::Message message;
  return report(hip::record(device_id, event, stream, &message), message, error);
}

attnrt_status event_query(void*, int32_t device_id, void* event, int32_t* passed,
                          attnrt_error* error) {
  hip::Message message;
  bool done = false;
  const hip::Status status = hip::event_query(device_id, event, &done, &message);
  *passed = done ? 1 : 0;
  return report(status, message, error);
}

attnrt_status event_synchronize(void*, int32_t device_id, void* event, attnrt_error* error) {
  hip::Message message;
  return report(hip::event_synchronize(device_id, event, &message), message, error);
}

void event_destroy(void*, int32_t device_id, void* event) { hip::event_destroy(device_id, event); }

attnrt_status stream_wait_event(void*, int32_t device_id, void* stream, void* event,
                                attnrt_error* error) {
  hip::Message message;
  return report(hip::stream_wait_event(device_id, stream, event, &message), message, error);
}

}  // namespace

const attnrt_memory memory = {
    sizeof(attnrt_memory),
    0,
    allocate,
    free,
    allocate_pinned,
    free_pinned,
    copy,
    stream_create,
    stream_destroy,
    stream_synchronize,
    is_capturing,
    event_create,
    event_record,
    event_query,
    event_synchronize,
    event_destroy,
    stream_wait_event,
};

}  // namespace attnrt_gpu
