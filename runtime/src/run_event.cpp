// runtime/src/run_event.cpp: the point of a stream at which a plan's last run has passed
#include "run_event.hpp"

#include <atomic>
#include <utility>

namespace attnrt::core {
namespace {

// Returns the calling thread's number, which no other thread of the process has or had. (A
// std::thread::id is given again when its thread has ended.)
uint64_t thread_number() {
  constinit static std::atomic<uint64_t> last{0};
  constinit thread_local uint64_t mine = 0;
  if (mine == 0) mine = last.fetch_add(1, std::memory_order_relaxed) + 1;
  return mine;
}

}  // namespace

RunEvent::RunEvent(RunEvent&& other) noexcept { *this = std::move(other); }

RunEvent& RunEvent::operator=(RunEvent&& other) noexcept {
  std::swap(backend_, other.backend_);
  std::swap(device_id_, other.device_id_);
  std::swap(event_, other.event_);
  std::swap(recorded_, other.recorded_);
  std::swap(stream_, other.stream_);
  std::swap(thread_, other.thread_);
  return *this;
}

RunEvent::~RunEvent() {
  if (event_ == nullptr) return;
  backend_->call(nullptr, [this] {
    return backend_->memory()->event_destroy(backend_->instance(), device_id_, event_), ATTNRT_OK;
  });
}

attnrt_status RunEvent::record(const std::shared_ptr<const Backend>& backend, int32_t device_id,
                               void* stream, attnrt_error* error) {
  const attnrt_memory& memory = *backend->memory();
  attnrt_status status = ATTNRT_OK;
  if (event_ == nullptr) {
    status = backend->call(
        error, [&] { return memory.event_create(backend->instance(), device_id, &event_, error); });
    if (status != ATTNRT_OK) event_ = nullptr;
    backend_ = backend;
    device_id_ = device_id;
  }
  if (status == ATTNRT_OK) {
    status = backend->call(error, [&] {
      return memory.event_record(backend->instance(), device_id, event_, stream, error);
    });
  }
  recorded_ = status == ATTNRT_OK;
  stream_ = stream;
  thread_ = thread_number();
  if (status != ATTNRT_OK) {
    backend->call(nullptr, [&] {
      return memory.stream_synchronize(backend->instance(), device_id, stream, nullptr);
    });
  }
  return status;
}

bool RunEvent::passed() {
  if (!recorded_) return true;
  int32_t passed = 0;
  const attnrt_status status = backend_->call(nullptr, [&] {
    return backend_->memory()->event_query(backend_->instance(), device_id_, event_, &passed,
                                           nullptr);
  });
  recorded_ = status != ATTNRT_DEVICE_LOST && (status != ATTNRT_OK || passed == 0);
  return !recorded_;
}

attnrt_status RunEvent::order(void* stream, attnrt_error* error) {
  if (!recorded_) return ATTNRT_OK;
  const bool follows = stream == nullptr && stream_ == nullptr && thread_ == thread_number();
  if (follows) return ATTNRT_OK;
  return backend_->call(error, [&] {
    return backend_->memory()->stream_wait_event(backend_->instance(), device_id_, stream, event_,
                                                 error);
  });
}

void RunEvent::wait() {
  if (!recorded_) return;
  // If this fails, the device does not work any more, and so neither does the run.
  backend_->call(nullptr, [this] {
    return backend_->memory()->event_synchronize(backend_->instance(), device_id_, event_, nullptr);
  });
  recorded_ = false;
}

}  // namespace attnrt::core
