// tests/support/fake_device.hpp: an attention whose tensors are on the fake device
#pragma once

#include <cstring>
#include <vector>

#include "plan.hpp"
#include "test_runtime.hpp"

namespace attnrt::core::support {

// Sets the fake's counters back to zero.
inline void reset(fake_counters& counters) {
  const auto complete = counters.complete;
  const auto replay = counters.replay;
  counters = {};
  counters.complete = complete;
  counters.replay = replay;
}

// Streams for tests, made and destroyed by the fake. REQUIRES: the backend outlives it.
class FakeStreams {
 public:
  explicit FakeStreams(const Backend& backend) : backend_(backend) {}
  FakeStreams(const FakeStreams&) = delete;
  FakeStreams& operator=(const FakeStreams&) = delete;
  ~FakeStreams() {
    for (void* stream : streams_) destroy_now(stream);
  }
  void* make() {
    void* stream = nullptr;
    EXPECT_EQ(backend_.memory()->stream_create(backend_.instance(), 0, &stream, nullptr),
              ATTNRT_OK);
    streams_.push_back(stream);
    return stream;
  }
  void destroy(void* stream) {
    std::erase(streams_, stream);
    destroy_now(stream);
  }

 private:
  void destroy_now(void* stream) {
    backend_.memory()->stream_destroy(backend_.instance(), 0, stream);
  }
  const Backend& backend_;
  std::vector<void*> streams_;
};

// An attention on the fake device. Its results are there when the device has completed its work.
class DeviceAttention {
 public:
  DeviceAttention(const TestRuntime& runtime, const Shape& shape, uint64_t seed = 1)
      : host_(shape, seed), problem(host_.problem), args(host_.args) {
    problem.device_type = ATTNRT_DEVICE_ROCM;
    const auto decision = runtime->decide(checked(problem), {});
    const Verdict* winner = decision->winner();
    if (winner == nullptr) throw std::runtime_error(decision->message);
    backend_ = winner->candidate.backend;
    for (auto [tensor, values] : {std::pair{&args.q, &host_.q},
                                  {&args.k, &host_.k},
                                  {&args.v, &host_.v},
                                  {&args.out, &host_.out}}) {
      const size_t bytes = values->size() * sizeof(float);
      auto copy =
          DeviceMemory::allocate(backend_, winner->candidate.device, DeviceMemory::Kind::device,
                                 static_cast<int64_t>(bytes), 64);
      if (!copy) throw std::runtime_error(copy.error().message);
      std::memcpy(copy->data(), values->data(), bytes);  // the fake device's memory is the host's
      tensor->data = copy->data();
      memory_.push_back(std::move(*copy));
    }
  }

  DeviceAttention(const DeviceAttention&) = delete;
  DeviceAttention& operator=(const DeviceAttention&) = delete;
  // Completes all work first, since it may use this memory.
  ~DeviceAttention() {
    static_cast<const fake_counters*>(backend_->extension(FAKE_COUNTERS))->complete();
  }

  attnrt_status run(const TestRuntime& runtime, void* stream = nullptr) {
    args.stream = stream;
    error = ATTNRT_ERROR_INIT;
    return runtime->attention(problem, args, {}, &error);
  }
  void clear() const {
    auto* out = static_cast<float*>(args.out.data);
    for (int64_t i = 0; i < args.out.shape[1] * args.out.shape[2] * args.out.shape[3]; ++i)
      out[i] = NAN;
  }
  bool right() const { return largest_error(problem, args) < kTolerance; }
  const std::shared_ptr<const Backend>& backend() const { return backend_; }

 private:
  Attention host_;
  std::shared_ptr<const Backend> backend_;
  std::vector<DeviceMemory> memory_;

 public:
  Problem problem;
  attnrt_args args;
  attnrt_error error = ATTNRT_ERROR_INIT;
};

// A runtime on one fake device, and the counters of its fake. Checks at its end that nothing was
// done that a real device would not survive.
struct FakeDevice {
  explicit FakeDevice(const std::string& policy = {}, RuntimeOptions options = {},
                      const std::vector<std::string>& backends = {"fake_rocm"})
      : runtime(backends, policy, std::move(options)),
        counters(runtime.counters(checked(on_device()))) {
    reset(counters);
  }
  FakeDevice(const FakeDevice&) = delete;
  FakeDevice& operator=(const FakeDevice&) = delete;
  ~FakeDevice() {
    runtime.close();
    counters.complete();
    EXPECT_EQ(counters.freed_in_flight, 0);
    EXPECT_EQ(counters.destroyed_in_flight, 0);
    EXPECT_EQ(counters.overlapping_runs, 0);
    EXPECT_EQ(counters.runs_of_captured, 0);
    EXPECT_EQ(counters.replays_of_freed, 0);
    EXPECT_EQ(counters.invalidated_captures, 0);
    EXPECT_EQ(counters.plans_alive, 0);
    EXPECT_EQ(counters.events, 0);
    reset(counters);
  }
  static Problem on_device() {
    Problem problem = kAny;
    problem.device_type = ATTNRT_DEVICE_ROCM;
    return problem;
  }
  void capture(void* stream, uint64_t id) const {
    counters.capturing = 1;
    counters.captured_stream = stream;
    counters.capture_id = id;
  }
  void end_capture() const { counters.capturing = 0; }

  TestRuntime runtime;
  fake_counters& counters;
};

}  // namespace attnrt::core::support
