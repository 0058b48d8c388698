// plugins/common/gpu/timing.cpp: the device interface's timestamps as the extension attnrt.timing/1
#include "plugins/common/gpu/backend.hpp"

namespace attnrt_hip {
namespace {

namespace gpu = kernels::hip;

attnrt_status timestamp_create(void*, int32_t device_id, void** timestamp, attnrt_error* error) {
  gpu::Message message;
  return answer(gpu::timestamp_create(device_id, timestamp, &message), message, error);
}

void timestamp_destroy(void*, int32_t device_id, void* timestamp) {
  gpu::timestamp_destroy(device_id, timestamp);
}

attnrt_status record(void*, int32_t device_id, void* timestamp, void* stream, attnrt_error* error) {
  gpu::Message message;
  return answer(gpu::record(device_id, timestamp, stream, &message), message, error);
}

attnrt_status elapsed(void*, int32_t device_id, void* from, void* to, double* seconds,
                      attnrt_error* error) {
  gpu::Message message;
  return answer(gpu::elapsed(device_id, from, to, seconds, &message), message, error);
}

}  // namespace

const attnrt_timing timing = {
    sizeof(attnrt_timing), 0, timestamp_create, timestamp_destroy, record, elapsed,
};

}  // namespace attnrt_hip
