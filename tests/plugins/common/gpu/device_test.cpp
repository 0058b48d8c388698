// tests/plugins/common/gpu/device_test.cpp: the device interface on a fake HIP runtime
#include "kernels/hip/device/device.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "fakes/hip.hpp"

namespace kernels::hip {
namespace {

using ::testing::HasSubstr;

struct AddParams {
  int32_t* to;
  int32_t value;
};
void add(const void* params, const uint32_t grid[3], uint32_t, uint32_t) {
  const auto& p = *static_cast<const AddParams*>(params);
  *p.to += p.value * static_cast<int32_t>(grid[0]);
}
void sleep_for(const void* params, const uint32_t*, uint32_t, uint32_t) {
  std::this_thread::sleep_for(std::chrono::milliseconds(*static_cast<const int*>(params)));
}
constexpr fake_hip_kernel kKernels[] = {
    {"add", sizeof(AddParams), add}, {"sleep", sizeof(int), sleep_for}, {nullptr, 0, nullptr}};

// Two devices. The fake runtime reads the environment when the process first calls it.
class DeviceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    setenv("FAKE_HIP_DEVICES", "gfx1100,gfx90a:sramecc+:xnack-", 1);
    setenv("FAKE_HIP_MEMORY", "1048576", 1);
    fake_hip_use(kKernels);
  }
  void TearDown() override {
    fake_hip()->failing_function[0] = '\0';
    fake_hip()->capturing = 0;
    int device = -1;
    EXPECT_EQ(hipGetDevice(&device), 0);
    EXPECT_EQ(device, 0);
    EXPECT_EQ(hipGetLastError(), 0) << "an error of ours is left for the application";
    EXPECT_EQ(fake_hip()->wrong_device, 0);
    EXPECT_EQ(fake_hip()->allocated, 0);
    EXPECT_EQ(fake_hip()->pinned, 0);
    EXPECT_EQ(fake_hip()->streams, 0);
  }
  static void fail(const char* function, int error) {
    (void)std::snprintf(fake_hip()->failing_function, sizeof fake_hip()->failing_function, "%s",
                        function);
    fake_hip()->failing_error = error;
  }

  // RETURNS a kernel's argument without tensor maps.
  template <class Params>
  static Argument argument(const Params& params) {
    return {&params, sizeof params, {}};
  }

  Message message;
};

TEST_F(DeviceTest, DescribesEachDevice) {
  std::vector<Device> found;
  ASSERT_EQ(devices(&found, &message), Status::ok) << message.text;
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[1].id, 1);
  EXPECT_STREQ(found[0].arch, "gfx1100");
  EXPECT_STREQ(found[1].arch, "gfx90a:sramecc+:xnack-");
  EXPECT_STREQ(found[1].name, "Fake Radeon 1");
  EXPECT_EQ(found[1].total_memory_bytes, 1048576);
  EXPECT_EQ(found[1].multiprocessor_count, 96);
  EXPECT_EQ(platform(), Platform::rocm);
}

TEST_F(DeviceTest, WithoutADeviceTheListIsEmptyAndTheMessageSaysWhy) {
  fail("hipGetDeviceCount", 100);
  std::vector<Device> found(1);
  EXPECT_EQ(devices(&found, &message), Status::ok);
  EXPECT_TRUE(found.empty());
  EXPECT_STREQ(message.text,
               "hipGetDeviceCount: no ROCm-capable device is detected (hipErrorNoDevice)");
}

TEST_F(DeviceTest, CopiesAndLaunchesInStreamOrderOnAnotherDevice) {
  void *stream = nullptr, *there = nullptr, *here = nullptr;
  ASSERT_EQ(stream_create(1, &stream, &message), Status::ok) << message.text;
  ASSERT_EQ(allocate(1, sizeof(int32_t), stream, &there, &message), Status::ok) << message.text;
  ASSERT_EQ(allocate_pinned(1, sizeof(int32_t), &here, &message), Status::ok) << message.text;
  auto& value = *static_cast<int32_t*>(here);
  value = 7;
  Kernel kernel;
  ASSERT_EQ(find_kernel(1, "code", "add", 0, &kernel, &message), Status::ok) << message.text;
  ASSERT_EQ(copy(1, there, here, sizeof value, Direction::to_device, stream, &message), Status::ok)
      << message.text;
  const uint32_t grid[3] = {3, 1, 1};
  {
    const AddParams params{static_cast<int32_t*>(there), 10};  // read before launch returns
    ASSERT_EQ(launch(kernel, grid, 64, 128, argument(params), stream, &message), Status::ok)
        << message.text;
  }
  ASSERT_EQ(copy(1, here, there, sizeof value, Direction::to_host, stream, &message), Status::ok)
      << message.text;
  EXPECT_EQ(value, 7) << "nothing runs before the stream is synchronised";
  ASSERT_EQ(stream_synchronize(1, stream, &message), Status::ok) << message.text;
  EXPECT_EQ(value, 37);
  EXPECT_EQ(fake_hip()->last_device, 1);
  EXPECT_EQ(fake_hip()->last_block, 64U);
  EXPECT_EQ(fake_hip()->last_shared_bytes, 128U);
  EXPECT_EQ(fake_hip()->last_stream, stream);
  free(1, there, stream);
  free_pinned(1, here);
  stream_destroy(1, stream);
}

// The message names the call that failed.
TEST_F(DeviceTest, ACurrentDeviceThatCannotBeReadOrSet) {
  void* pointer = nullptr;
  for (const char* call : {"hipGetDevice", "hipSetDevice"}) {
    fail(call, 101);
    EXPECT_NE(allocate(1, 16, nullptr, &pointer, &message), Status::ok);
    EXPECT_THAT(message.text, HasSubstr(std::string(call) + ": "));
    fake_hip()->failing_function[0] = '\0';
  }
}

TEST_F(DeviceTest, TheCallersCurrentDeviceIsKept) {
  ASSERT_EQ(hipSetDevice(1), 0);
  void* pointer = nullptr;
  ASSERT_EQ(allocate(0, 16, nullptr, &pointer, &message), Status::ok);
  free(0, pointer, nullptr);
  fail("hipMallocAsync", 2);
  EXPECT_EQ(allocate(0, 16, nullptr, &pointer, &message), Status::out_of_memory);
  int device = -1;
  ASSERT_EQ(hipGetDevice(&device), 0);
  EXPECT_EQ(device, 1);
  ASSERT_EQ(hipSetDevice(0), 0);
}

TEST_F(DeviceTest, ErrorsHaveAStatusAndHipsText) {
  void* pointer = nullptr;
  EXPECT_EQ(allocate(0, 1 << 30, nullptr, &pointer, &message), Status::out_of_memory);
  EXPECT_STREQ(message.text, "hipMalloc: out of memory (hipErrorOutOfMemory)");
  EXPECT_EQ(allocate(2, 16, nullptr, &pointer, &message), Status::invalid);
  EXPECT_STREQ(message.text, "hipSetDevice: invalid device ordinal (hipErrorInvalidDevice)");
  EXPECT_EQ(allocate(0, -1, nullptr, &pointer, &message), Status::invalid);
  int nothing = 0;
  EXPECT_EQ(stream_synchronize(0, &nothing, &message), Status::invalid);
  EXPECT_THAT(message.text, HasSubstr("invalid resource handle"));
  constexpr struct {
    int error;
    Status status;
  } kClasses[] = {{2, Status::out_of_memory}, {700, Status::device_lost},
                  {719, Status::device_lost}, {999, Status::internal},
                  {98, Status::internal},     {1052, Status::out_of_memory}};
  for (const auto& [error, status] : kClasses) {
    fail("hipStreamSynchronize", error);
    EXPECT_EQ(stream_synchronize(0, nullptr, &message), status) << error;
    EXPECT_EQ(stream_synchronize(0, nullptr, nullptr), status) << "the message may be null";
  }
}

TEST_F(DeviceTest, ALaunchThatHipCallsInvalidIsNotTheCallersFault) {
  Kernel kernel;
  ASSERT_EQ(find_kernel(0, "code", "add", 0, &kernel, &message), Status::ok);
  const uint32_t none[3] = {0, 1, 1}, one[3] = {1, 1, 1};
  const AddParams params{};
  EXPECT_EQ(launch(kernel, none, 64, 0, argument(params), nullptr, &message), Status::internal);
  int nothing = 0;
  EXPECT_EQ(launch(kernel, one, 64, 0, argument(params), &nothing, &message), Status::invalid)
      << "but its stream is";
}

TEST_F(DeviceTest, ALaunchWithTensorMapsIsRefused) {
  Kernel kernel;
  ASSERT_EQ(find_kernel(0, "code", "add", 0, &kernel, &message), Status::ok);
  const uint32_t one[3] = {1, 1, 1};
  const int64_t launches = fake_hip()->launches;
  const AddParams params{};
  const TensorMapRequest map{};
  const Argument with_map{&params, sizeof params, {&map, 1}};
  EXPECT_EQ(launch(kernel, one, 64, 0, with_map, nullptr, &message), Status::internal);
  EXPECT_STREQ(message.text, "AMD's GPUs have no tensor maps");
  EXPECT_EQ(fake_hip()->launches, launches);
}

TEST_F(DeviceTest, CodeIsLoadedOnceForEachDeviceFromAnyThread) {
  static constexpr char kCode[] = "code of this test";
  const int64_t modules = fake_hip()->modules_loaded, functions = fake_hip()->functions_found;
  std::vector<std::thread> threads;
  std::vector<Kernel> found(8);
  for (size_t n = 0; n < found.size(); ++n) {
    threads.emplace_back([&found, n] {
      for (const char* name : {"one", "other"}) {
        EXPECT_EQ(find_kernel(static_cast<int32_t>(n % 2), kCode, name, 0, &found[n], nullptr),
                  Status::ok);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(fake_hip()->modules_loaded - modules, 2);
  EXPECT_EQ(fake_hip()->functions_found - functions, 4);
  EXPECT_EQ(found[0].function, found[2].function);
  EXPECT_NE(found[0].function, found[1].function);
}

TEST_F(DeviceTest, WhatFailedToLoadIsTriedAgain) {
  static constexpr char kCode[] = "code that loads the second time";
  Kernel kernel;
  fail("hipModuleLoadData", 209);
  EXPECT_EQ(find_kernel(0, kCode, "add", 0, &kernel, &message), Status::internal);
  fail("hipModuleGetFunction", 500);
  EXPECT_EQ(find_kernel(0, kCode, "add", 0, &kernel, &message), Status::internal);
  EXPECT_STREQ(message.text, "add: named symbol not found (hipErrorNotFound)");
  fail("", 0);
  EXPECT_EQ(find_kernel(0, kCode, "add", 0, &kernel, &message), Status::ok);
}

TEST_F(DeviceTest, TellsWhetherAStreamIsBeingCaptured) {
  Capture capture{true, 7};
  ASSERT_EQ(is_capturing(1, nullptr, &capture, &message), Status::ok) << message.text;
  EXPECT_FALSE(capture.active);
  EXPECT_EQ(capture.id, 0u);
  fake_hip()->capturing = 1;
  fake_hip()->capture_id = 42;
  ASSERT_EQ(is_capturing(1, nullptr, &capture, &message), Status::ok);
  EXPECT_TRUE(capture.active);
  EXPECT_EQ(capture.id, 42u);
  capture.active = false;
  fail("hipStreamGetCaptureInfo",
       906);  // the default stream, while another one that waits for it is captured
  ASSERT_EQ(is_capturing(1, nullptr, &capture, &message), Status::ok) << message.text;
  EXPECT_TRUE(capture.active);
  fail("hipStreamGetCaptureInfo", 400);
  EXPECT_EQ(is_capturing(1, nullptr, &capture, &message), Status::invalid);
}

// Each of these would fail, and invalidate the capture, in the global capture mode.
TEST_F(DeviceTest, WhatACaptureForbidsIsDoneInTheRelaxedMode) {
  static constexpr char kCode[] = "code that is loaded while a stream is captured";
  fake_hip()->capturing = 1;
  void *stream = nullptr, *event = nullptr, *memory = nullptr, *pinned = nullptr, *stamp = nullptr;
  Kernel kernel;
  bool passed = false;
  EXPECT_EQ(stream_create(1, &stream, &message), Status::ok) << message.text;
  EXPECT_EQ(allocate(1, 100, stream, &memory, &message), Status::ok) << message.text;
  EXPECT_EQ(allocate_pinned(1, 100, &pinned, &message), Status::ok) << message.text;
  EXPECT_EQ(find_kernel(1, kCode, "add", 0, &kernel, &message), Status::ok) << message.text;
  EXPECT_EQ(event_create(1, &event, &message), Status::ok) << message.text;
  EXPECT_EQ(timestamp_create(1, &stamp, &message), Status::ok) << message.text;
  EXPECT_EQ(event_query(1, event, &passed, &message), Status::ok) << message.text;
  EXPECT_EQ(event_synchronize(1, event, &message), Status::ok) << message.text;
  EXPECT_EQ(stream_synchronize(1, stream, &message), Status::ok) << message.text;
  timestamp_destroy(1, stamp);
  event_destroy(1, event);
  free_pinned(1, pinned);
  free(1, memory, stream);
  stream_destroy(1, stream);
  EXPECT_EQ(fake_hip()->allocated, 0) << "hipFree is forbidden, too";
  int mode = 0;
  EXPECT_EQ(hipThreadExchangeStreamCaptureMode(&mode), 0);
  EXPECT_EQ(mode, 0) << "the thread's mode is as it was";
}

TEST_F(DeviceTest, MemoryIsFreedTheWayItWasAllocated) {
  // The fake runtime aborts if hipFreeAsync gets memory of hipMalloc.
  void *ordered = nullptr, *captured = nullptr, *plain = nullptr;
  ASSERT_EQ(allocate(0, 100, nullptr, &ordered, &message), Status::ok) << message.text;
  EXPECT_EQ(fake_hip()->stream_ordered, 1);
  fake_hip()->capturing = 1;
  ASSERT_EQ(allocate(0, 100, nullptr, &captured, &message), Status::ok) << message.text;
  fake_hip()->capturing = 0;
  fake_hip()->no_memory_pools = 1;
  ASSERT_EQ(allocate(0, 100, nullptr, &plain, &message), Status::ok) << message.text;
  fake_hip()->no_memory_pools = 0;
  EXPECT_EQ(fake_hip()->stream_ordered, 1);
  for (void* pointer : {plain, captured, ordered}) free(0, pointer, nullptr);
  EXPECT_EQ(fake_hip()->stream_ordered, 0);
}

TEST_F(DeviceTest, AnEventPassesWithItsStream) {
  void *stream = nullptr, *other = nullptr, *event = nullptr;
  ASSERT_EQ(stream_create(1, &stream, &message), Status::ok) << message.text;
  ASSERT_EQ(stream_create(1, &other, &message), Status::ok) << message.text;
  ASSERT_EQ(event_create(1, &event, &message), Status::ok) << message.text;
  bool passed = false;
  ASSERT_EQ(event_query(1, event, &passed, &message), Status::ok) << message.text;
  EXPECT_TRUE(passed) << "it is not recorded yet";
  ASSERT_EQ(record(1, event, stream, &message), Status::ok) << message.text;
  ASSERT_EQ(event_query(1, event, &passed, &message), Status::ok) << message.text;
  EXPECT_FALSE(passed);
  const int64_t waits = fake_hip()->stream_waits;
  ASSERT_EQ(stream_wait_event(1, other, event, &message), Status::ok) << message.text;
  EXPECT_EQ(fake_hip()->stream_waits, waits + 1);
  ASSERT_EQ(event_synchronize(1, event, &message), Status::ok) << message.text;
  ASSERT_EQ(event_query(1, event, &passed, &message), Status::ok) << message.text;
  EXPECT_TRUE(passed);
  EXPECT_EQ(event_query(1, &passed, &passed, &message), Status::invalid);
  event_destroy(1, event);
  stream_destroy(1, stream);
  stream_destroy(1, other);
}

TEST_F(DeviceTest, TimestampsMeasureWhatTheStreamDidBetweenThem) {
  void *stream = nullptr, *from = nullptr, *to = nullptr;
  ASSERT_EQ(stream_create(1, &stream, &message), Status::ok) << message.text;
  ASSERT_EQ(timestamp_create(1, &from, &message), Status::ok) << message.text;
  ASSERT_EQ(timestamp_create(1, &to, &message), Status::ok) << message.text;
  Kernel kernel;
  ASSERT_EQ(find_kernel(1, "code", "sleep", 0, &kernel, &message), Status::ok) << message.text;
  const uint32_t grid[3] = {1, 1, 1};
  const int milliseconds = 20;
  const int64_t synchronizations = fake_hip()->synchronizations;
  ASSERT_EQ(record(1, from, stream, &message), Status::ok) << message.text;
  ASSERT_EQ(launch(kernel, grid, 64, 0, argument(milliseconds), stream, &message), Status::ok)
      << message.text;
  ASSERT_EQ(record(1, to, stream, &message), Status::ok) << message.text;
  EXPECT_EQ(fake_hip()->synchronizations, synchronizations) << "recording waits for nothing";
  double seconds = -1;
  ASSERT_EQ(elapsed(1, from, to, &seconds, &message), Status::ok) << message.text;
  EXPECT_GE(seconds, 0.020);
  EXPECT_LT(seconds, 2.0);
  ASSERT_EQ(record(1, from, stream, &message), Status::ok) << message.text;  // and again
  ASSERT_EQ(record(1, to, stream, &message), Status::ok) << message.text;
  ASSERT_EQ(elapsed(1, from, to, &seconds, &message), Status::ok) << message.text;
  EXPECT_LT(seconds, 0.020);

  fail("hipEventElapsedTime", 719);
  EXPECT_EQ(elapsed(1, from, to, &seconds, &message), Status::device_lost);
  fail("hipEventCreate", 2);
  void* none = nullptr;
  EXPECT_EQ(timestamp_create(1, &none, &message), Status::out_of_memory);
  EXPECT_STREQ(message.text, "hipEventCreate: out of memory (hipErrorOutOfMemory)");
  fail("", 0);
  int nothing = 0;
  EXPECT_EQ(record(1, from, &nothing, &message), Status::invalid);
  timestamp_destroy(1, from);
  timestamp_destroy(1, to);
  timestamp_destroy(1, nullptr);
  stream_destroy(1, stream);
  EXPECT_EQ(fake_hip()->events, 0);
}

TEST_F(DeviceTest, NullPointersAndZeroBytesAreAccepted) {
  free(0, nullptr, nullptr);
  free_pinned(0, nullptr);
  stream_destroy(0, nullptr);
  EXPECT_EQ(copy(0, nullptr, nullptr, 0, Direction::on_device, nullptr, &message), Status::ok);
  void* pointer = nullptr;
  ASSERT_EQ(allocate(0, 0, nullptr, &pointer, &message), Status::ok);
  EXPECT_NE(pointer, nullptr);
  free(0, pointer, nullptr);
}

}  // namespace
}  // namespace kernels::hip
