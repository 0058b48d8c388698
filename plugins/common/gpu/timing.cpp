// plugins/common/gpu/timing.cpp: the extension attnrt.timing/1, on the device interface
#include "plugins/common/gpu/backend.hpp"

namespace attnrt_gpu {
namespace {

namespace hip = kernels::hip;

attnrt_status timestamp_create(void*, int32_t device_id, void** timestamp, attnrt_error* error) {
  hip::Message message;
  return report(hip::timestamp_create(device_id, timestamp, &message), message, error);
}

void timestamp_destroy(void*, int32_t device_id, void* timestamp) {
  hip::timestamp_destroy(device_id, timestamp);
}

attnrt_status record(void*, int32_t device_id, void* timestamp, void* stream, attnrt_error* error) {
  hip::Message message;
  return report(hip::record(device_id, timestamp, stream, &message), message, error);
}

attnrt_status elapsed(void*, int32_t device_id, void* from, void* to, double* seconds,
                      attnrt_error* error) {
  hip::Message message;
  return report(hip::elapsed(device_id, from, to, seconds, &message), message, error);
}

}  // namespace

const attnrt_timing timing = {
    sizeof(attnrt_timing), 0, timestamp_create, timestamp_destroy, record, elapsed,
};

}  // namespace attnrt_gpu
