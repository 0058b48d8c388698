// tests/plugins/common/gpu/plugin_test.cpp: both GPU plugins in a runtime with two fake devices
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "fakes/hip.hpp"
#include "plan.hpp"
#include "run.hpp"
#include "staging.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::HasSubstr;

// A runtime over a directory with both GPU plugins, on stand-in kernels, and the cpu plugin.
class HipPlugin : public ::testing::TestWithParam<std::string> {
 protected:
  static void SetUpTestSuite() {
    setenv("FAKE_HIP_DEVICES", "gfx1100,gfx942:sramecc+:xnack-,gfx906", 1);
    setenv("FAKE_HIP_MEMORY", "67108864", 1);
    setenv("FAKE_HIP_KERNELS", STAND_IN_KERNELS, 1);
  }

  HipPlugin() {
    for (const char* name : {"hip_flash.so", "hip_unfused.so"}) {
      std::filesystem::copy_file(std::filesystem::path(HIP_PLUGINS_DIR) / name,
                                 plugins.path() / name);
    }
    std::filesystem::copy_file(cpu_plugin(), plugins.path() / "cpu.so");
    runtime = open("staging: allow\n");
    *fake_hip() = fake_hip_state{.device_count = 3};
  }
  void TearDown() override {
    fake_hip()->failing_function[0] = '\0';
    fake_hip()->capturing = 0;
    runtime.reset();
    int device = -1;
    EXPECT_EQ(hipGetDevice(&device), 0);
    EXPECT_EQ(device, 0);
    EXPECT_EQ(hipGetLastError(), 0);
    EXPECT_EQ(fake_hip()->wrong_device, 0);
    EXPECT_EQ(fake_hip()->allocated, 0) << "device memory is left";
    EXPECT_EQ(fake_hip()->pinned, 0) << "pinned memory is left";
    EXPECT_EQ(fake_hip()->streams, 0) << "a stream is left";
  }

  std::unique_ptr<Runtime> open(const std::string& policy) {
    RuntimeOptions options;
    options.policy_text = policy;
    options.plugin_path = plugins.text();
    options.thread_count = 1;
    options.log = [this](int32_t, const std::string& line) { log += line + "\n"; };
    auto opened = Runtime::open(std::move(options));
    if (!opened) throw std::runtime_error(opened.error().message);
    return *std::move(opened);
  }
  Result<std::unique_ptr<Plan>> plan(const Problem& problem) {
    return runtime->plan(checked(problem), Call{GetParam()});
  }
  static void fail(const char* function, int error) {
    (void)std::snprintf(fake_hip()->failing_function, sizeof fake_hip()->failing_function, "%s",
                        function);
    fake_hip()->failing_error = error;
  }
  // RETURNS the problem with tensors on a device.
  static Problem on_device(Problem problem, int32_t id) {
    problem.device_type = ATTNRT_DEVICE_ROCM;
    problem.device_id = id;
    return problem;
  }

  fakes::Directory plugins;
  std::string log;
  std::unique_ptr<Runtime> runtime;
  Attention a{{.batch = 2, .seq_q = 5, .seq_kv = 7, .heads_q = 4, .heads_kv = 2, .head_dim = 32}};
};

// Tensors and a stream on a device, made through the memory extension and freed with this.
class OnDevice {
 public:
  OnDevice(const Plan& plan, int32_t id, const attnrt_args& host)
      : backend_(plan.backend()), id_(id), args(host) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    EXPECT_EQ(memory().stream_create(instance(), id_, &args.stream, &error), ATTNRT_OK)
        << error.message;
    for (attnrt_tensor* tensor : {&args.q, &args.k, &args.v, &args.out}) {
      int64_t bytes = 4;
      for (int32_t n = 0; n < tensor->ndim; ++n) bytes *= tensor->shape[n];
      void* to = nullptr;
      EXPECT_EQ(memory().allocate(instance(), id_, bytes, args.stream, &to, &error), ATTNRT_OK)
          << error.message;
      std::memcpy(to, tensor->data,
                  static_cast<size_t>(bytes));  // the fake device's memory is the host's
      tensor->data = to;
    }
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() {
    for (const attnrt_tensor* tensor : {&args.q, &args.k, &args.v, &args.out}) {
      memory().free(instance(), id_, tensor->data, args.stream);
    }
    memory().stream_destroy(instance(), id_, args.stream);
  }
  void wait() const {
    attnrt_error error = ATTNRT_ERROR_INIT;
    EXPECT_EQ(memory().stream_synchronize(instance(), id_, args.stream, &error), ATTNRT_OK)
        << error.message;
  }
  const attnrt_memory& memory() const { return *backend_.memory(); }

 private:
  void* instance() const { return backend_.instance(); }
  const Backend& backend_;  // the plan's, which outlives this
  int32_t id_;

 public:
  attnrt_args args;
};

TEST_P(HipPlugin, DevicesWithoutCodeForThemAreNotListed) {
  const auto decision = runtime->decide(checked(on_device(a.problem, 1)), Call{GetParam()});
  ASSERT_NE(decision->winner(), nullptr) << decision->message;
  const auto& devices = decision->winner()->candidate.backend->devices();
  ASSERT_EQ(devices.size(), 2U);
  EXPECT_EQ(devices[0].arch, "gfx1100");
  EXPECT_EQ(devices[1].arch, "gfx942") << "without the features that it runs with";
  EXPECT_EQ(devices[1].name, "Fake Radeon 1");
  EXPECT_EQ(devices[1].total_memory_bytes, 67108864);
}

TEST_P(HipPlugin, HostTensorsAreStagedAndBuffersUsedAgain) {
  const auto made = plan(a.problem);
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_NE((*made)->staging(), nullptr);
  attnrt_error error = ATTNRT_ERROR_INIT;
  ASSERT_EQ(run(**made, a.args, &error), ATTNRT_OK) << error.message;
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
  const fake_hip_state first = *fake_hip();
  EXPECT_EQ(first.pinned_allocations, 1);
  EXPECT_EQ(first.copies_to_device, 3);
  EXPECT_EQ(first.copies_to_host, 1);
  for (float& value : a.out) value = NAN;
  ASSERT_EQ(run(**made, a.args, &error), ATTNRT_OK) << error.message;
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
  EXPECT_EQ(fake_hip()->allocations, first.allocations);
  EXPECT_EQ(fake_hip()->pinned_allocations, first.pinned_allocations);
  EXPECT_EQ(fake_hip()->streams_created, first.streams_created);
}

TEST_P(HipPlugin, RunNeitherAllocatesNorWaitsAndCanBeCaptured) {
  for (const int32_t id : {0, 1}) {
    const Problem problem = on_device(a.problem, id);
    const auto made = plan(problem);
    ASSERT_TRUE(made) << made.error().message;
    OnDevice device(**made, id, a.args);
    const fake_hip_state before = *fake_hip();
    fake_hip()->capturing = 1;  // from here on, calls that allocate, load or wait fail
    attnrt_error error = ATTNRT_ERROR_INIT;
    ASSERT_EQ(run(**made, device.args, &error), ATTNRT_OK) << error.message;
    fake_hip()->capturing = 0;
    EXPECT_EQ(fake_hip()->synchronizations, before.synchronizations);
    EXPECT_EQ(fake_hip()->modules_loaded, before.modules_loaded);
    EXPECT_EQ(fake_hip()->functions_found, before.functions_found);
    EXPECT_EQ(fake_hip()->launches - before.launches, GetParam() == "hip_flash" ? 1 : 5);
    EXPECT_EQ(fake_hip()->kernels_run, before.kernels_run) << "before the stream is synchronised";
    EXPECT_EQ(fake_hip()->last_device, id);
    EXPECT_EQ(fake_hip()->last_stream, device.args.stream);
    device.wait();
    EXPECT_LT(largest_error(problem, device.args), kTolerance);
  }
}

TEST_P(HipPlugin, TimestampsAreAnExtension) {
  const Problem problem = on_device(a.problem, 1);
  const auto made = plan(problem);
  ASSERT_TRUE(made) << made.error().message;
  OnDevice device(**made, 1, a.args);
  const auto& backend = (*made)->backend();
  const auto* timing = static_cast<const attnrt_timing*>(backend.extension(ATTNRT_TIMING));
  ASSERT_NE(timing, nullptr);
  EXPECT_EQ(timing->struct_size, static_cast<int32_t>(sizeof(attnrt_timing)));
  void* const instance = backend.instance();
  void* stamps[2] = {};
  attnrt_error error = ATTNRT_ERROR_INIT;
  for (void*& stamp : stamps)
    ASSERT_EQ(timing->timestamp_create(instance, 1, &stamp, &error), ATTNRT_OK);
  ASSERT_EQ(timing->record(instance, 1, stamps[0], device.args.stream, &error), ATTNRT_OK)
      << error.message;
  ASSERT_EQ(run(**made, device.args, &error), ATTNRT_OK) << error.message;
  ASSERT_EQ(timing->record(instance, 1, stamps[1], device.args.stream, &error), ATTNRT_OK)
      << error.message;
  double seconds = -1;
  ASSERT_EQ(timing->elapsed(instance, 1, stamps[0], stamps[1], &seconds, &error), ATTNRT_OK)
      << error.message;
  EXPECT_GT(seconds, 0);
  EXPECT_LT(largest_error(problem, device.args), kTolerance) << "elapsed waited for the run";
  fail("hipEventRecord", 719);
  EXPECT_EQ(timing->record(instance, 1, stamps[0], device.args.stream, &error), ATTNRT_DEVICE_LOST);
  EXPECT_THAT(error.message, HasSubstr("hipEventRecord"));
  fail("", 0);
  for (void* stamp : stamps) timing->timestamp_destroy(instance, 1, stamp);
  EXPECT_EQ(fake_hip()->events, 0);
}

TEST_P(HipPlugin, ASecondDeviceServesWhileAnotherIsCurrent) {
  const Problem problem = on_device(a.problem, 1);
  const auto made = plan(problem);
  ASSERT_TRUE(made) << made.error().message;
  OnDevice device(**made, 1, a.args);
  attnrt_error error = ATTNRT_ERROR_INIT;
  ASSERT_EQ(hipSetDevice(2), 0);
  EXPECT_EQ(run(**made, device.args, &error), ATTNRT_OK) << error.message;
  int current = -1;
  EXPECT_EQ(hipGetDevice(&current), 0);
  EXPECT_EQ(current, 2);
  ASSERT_EQ(hipSetDevice(0), 0);
  device.wait();
  EXPECT_LT(largest_error(problem, device.args), kTolerance);
}

TEST_P(HipPlugin, NothingToDoLaunchesNothing) {
  const Problem problem = on_device(a.problem, 0);
  const auto made = plan(problem);
  ASSERT_TRUE(made) << made.error().message;
  OnDevice device(**made, 0, a.args);
  device.args.q.shape[0] = device.args.k.shape[0] = device.args.v.shape[0] =
      device.args.out.shape[0] = 0;
  const int64_t before = fake_hip()->launches;
  attnrt_error error = ATTNRT_ERROR_INIT;
  EXPECT_EQ(run(**made, device.args, &error), ATTNRT_OK) << error.message;
  EXPECT_EQ(fake_hip()->launches, before);
}

TEST_P(HipPlugin, ErrorsOfHipHaveAStatusAndItsText) {
  const Problem problem = on_device(a.problem, 0);
  const auto made = plan(problem);
  ASSERT_TRUE(made) << made.error().message;
  OnDevice device(**made, 0, a.args);
  constexpr struct {
    int error;
    attnrt_status status;
    const char* text;
  } kClasses[] = {
      {2, ATTNRT_OUT_OF_MEMORY, "hipModuleLaunchKernel: out of memory (hipErrorOutOfMemory)"},
      {1, ATTNRT_INTERNAL, "hipModuleLaunchKernel: hipErrorInvalidValue"},
      {400, ATTNRT_INVALID_ARGUMENT, "invalid resource handle"},
      {719, ATTNRT_DEVICE_LOST, "hipModuleLaunchKernel"},
      {98, ATTNRT_INTERNAL, "hipModuleLaunchKernel"}};
  for (const auto& [code, status, text] : kClasses) {
    fail("hipModuleLaunchKernel", code);
    attnrt_error error = ATTNRT_ERROR_INIT;
    EXPECT_EQ(run(**made, device.args, &error), status) << code;
    EXPECT_THAT(error.message, HasSubstr(text));
    EXPECT_THAT(error.message, HasSubstr("stand_in_")) << "the message names the kernel";
  }
}

TEST_P(HipPlugin, CodeThatDoesNotLoadIsAnErrorOfPlan) {
  fail("hipModuleGetFunction", 500);
  Problem problem = on_device(a.problem, 0);
  problem.device_id = 0;
  const auto made = plan(problem);
  if (made) GTEST_SKIP() << "another test of this process has loaded it";
  EXPECT_EQ(made.error().code, ATTNRT_INTERNAL);
  EXPECT_THAT(made.error().message, HasSubstr("for gfx1100: stand_in_"));
}

TEST_P(HipPlugin, ReasonsOfTheKernelsReachTheDecision) {
  Problem problem = on_device(a.problem, 0);
  problem.softcap = 31;
  const auto decision = runtime->decide(checked(problem), Call{GetParam()});
  EXPECT_EQ(decision->status, ATTNRT_UNSUPPORTED);
  EXPECT_THAT(decision->message, HasSubstr("softcap 31 is what the stand-in refuses"));
}

TEST_P(HipPlugin, AProblemThatNeedsTooMuchWorkgroupMemoryIsRefused) {
  Attention wide{
      {.batch = 1, .seq_q = 5, .seq_kv = 7, .heads_q = 1, .heads_kv = 1, .head_dim = 248}};
  const auto refused = plan(on_device(wide.problem, 0));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ATTNRT_UNSUPPORTED);
  EXPECT_THAT(refused.error().message, HasSubstr("needs 131072 bytes of workgroup memory"));
  EXPECT_THAT(refused.error().message, HasSubstr("has 65536"));
}

TEST_P(HipPlugin, TheManifestRefusesWhatItDoesNotList) {
  Problem problem = on_device(a.problem, 0);
  problem.head_dim = problem.head_dim_v = 20;
  EXPECT_THAT(runtime->decide(checked(problem), Call{GetParam()})->message,
              HasSubstr("head_dim 20"));
  problem = on_device(a.problem, 0);
  problem.kv_dtype = {ATTNRT_DTYPE_INT, 8, 1};
  EXPECT_THAT(runtime->decide(checked(problem), Call{GetParam()})->message, HasSubstr("kv_dtype"));
}

TEST_P(HipPlugin, UnknownOptionsAreNamed) {
  const auto other =
      open("staging: allow\nbackends: {" + GetParam() + ": {options: {colour: red}}}\n");
  const auto decision = other->decide(checked(on_device(a.problem, 0)), Call{GetParam()});
  EXPECT_THAT(decision->message, HasSubstr("options: found colour, expected"));
}

TEST_P(HipPlugin, APolicyMayForcePtxWhichAmdsBuildDoesNotHave) {
  if (GetParam() != "hip_flash") GTEST_SKIP() << "only hip_flash has the option";
  const auto forced = open("staging: allow\nbackends: {hip_flash: {options: {code: ptx}}}\n");
  EXPECT_TRUE(forced->plan(checked(on_device(a.problem, 0)), Call{GetParam()}));
  const auto wrong = open("staging: allow\nbackends: {hip_flash: {options: {code: sass}}}\n");
  EXPECT_THAT(wrong->decide(checked(on_device(a.problem, 0)), Call{GetParam()})->message,
              HasSubstr("code: found sass, expected any or ptx"));
}

INSTANTIATE_TEST_SUITE_P(Both, HipPlugin, ::testing::Values("hip_flash", "hip_unfused"),
                         [](const auto& tested) { return tested.param; });

using HipUnfused = HipPlugin;

TEST_P(HipUnfused, ScoresThatTheDeviceCannotHoldAreRefusedByPlan) {
  Problem problem = on_device(a.problem, 0);
  problem.seq_q = problem.seq_kv = 8192;
  const auto made = plan(problem);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ATTNRT_OUT_OF_MEMORY);
  EXPECT_THAT(
      made.error().message,
      HasSubstr("workspace: needs 2147483712 bytes, and Fake Radeon 0 has 67108864 in all"));
}

TEST_P(HipUnfused, TheRuntimeFallsBackToTheCpuIfScoresAreTooLarge) {
  Attention large(
      {.batch = 1, .seq_q = 2048, .seq_kv = 2048, .heads_q = 8, .heads_kv = 8, .head_dim = 32});
  const auto other = open("staging: allow\nrules:\n- {prefer: [hip_unfused, cpu]}\n");
  const auto made = other->plan(checked(large.problem), {});
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_NE((*made)->backend_name(), "hip_unfused");
}

TEST_P(HipUnfused, AnOptionLimitsItsWorkspace) {
  const auto limited =
      open("staging: allow\nbackends: {hip_unfused: {options: {max_workspace_bytes: 1000}}}\n");
  const auto decision = limited->decide(checked(on_device(a.problem, 0)), Call{GetParam()});
  EXPECT_EQ(decision->status, ATTNRT_UNSUPPORTED);
  EXPECT_THAT(decision->message,
              HasSubstr("workspace: needs 1184 bytes, and max_workspace_bytes is 1000"));
  const auto wrong =
      open("staging: allow\nbackends: {hip_unfused: {options: {max_workspace_bytes: much}}}\n");
  EXPECT_THAT(wrong->decide(checked(on_device(a.problem, 0)), Call{GetParam()})->message,
              HasSubstr("max_workspace_bytes: found much, expected a number of bytes, 1 or more"));
}

INSTANTIATE_TEST_SUITE_P(Only, HipUnfused, ::testing::Values("hip_unfused"),
                         [](const auto& tested) { return tested.param; });

// ---- attnrt.merge/1, which hip_flash alone offers ----

// A stream of a device, and a merge of partials of the same lse: out is their mean.
class OnStream {
 public:
  OnStream(const Backend& backend, int32_t id, int64_t count)
      : extension(static_cast<const attnrt_merging*>(backend.extension(ATTNRT_MERGE))),
        backend_(backend),
        id_(id),
        values_(static_cast<size_t>(count) * kValues),
        numbers_(static_cast<size_t>(count) * kRows, 3),
        merged_(kValues, NAN),
        merged_number_(kRows, NAN) {
    for (size_t i = 0; i < values_.size(); ++i)
      values_[i] = number(i % kValues) + static_cast<float>(i / kValues);
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      outs.push_back(view(values_.data() + i * kValues, kF32, {2, 3, 2, 4}));
      lses.push_back(view(numbers_.data() + i * kRows, kF32, {2, 2, 3}));
    }
    out = view(merged_.data(), kF32, {2, 3, 2, 4});
    lse = view(merged_number_.data(), kF32, {2, 2, 3});
    EXPECT_EQ(backend_.memory()->stream_create(backend_.instance(), id_, &stream, &error),
              ATTNRT_OK);
  }
  OnStream(const OnStream&) = delete;
  OnStream& operator=(const OnStream&) = delete;
  ~OnStream() { backend_.memory()->stream_destroy(backend_.instance(), id_, stream); }

  attnrt_status merge(int32_t id) {
    return extension->merge(backend_.instance(), id, outs.data(), lses.data(),
                            static_cast<int32_t>(outs.size()), &out, &lse, stream, &error);
  }
  // Waits for the merge, and expects its result.
  void expect_right() {
    EXPECT_EQ(backend_.memory()->stream_synchronize(backend_.instance(), id_, stream, &error),
              ATTNRT_OK);
    const auto count = static_cast<float>(outs.size());
    for (size_t i = 0; i < kValues; ++i)
      EXPECT_NEAR(merged_[i], number(i) + (count - 1) / 2, 1e-6F) << i;
    for (const float each : merged_number_) EXPECT_NEAR(each, 3 + std::log(count), 1e-6F);
  }

  const attnrt_merging* const extension;
  std::vector<attnrt_tensor> outs, lses;
  attnrt_tensor out, lse;
  void* stream = nullptr;
  attnrt_error error = ATTNRT_ERROR_INIT;

 private:
  static constexpr size_t kValues = 48, kRows = 12;
  const Backend& backend_;
  int32_t id_;
  Aligned<float> values_, numbers_, merged_, merged_number_;  // the fake device's memory is ours
};

using HipFlash = HipPlugin;

// Even the first merge, which loads the kernel, may be captured.
TEST_P(HipFlash, MergesAndCanBeCaptured) {
  for (const int32_t id : {0, 1}) {
    const auto made = plan(on_device(a.problem, id));
    ASSERT_TRUE(made) << made.error().message;
    OnStream on((*made)->backend(), id, 3);
    ASSERT_NE(on.extension, nullptr);
    EXPECT_EQ(on.extension->struct_size, static_cast<int32_t>(sizeof(attnrt_merging)));
    for (const bool again : {false, true}) {
      const fake_hip_state before = *fake_hip();
      fake_hip()->capturing = 1;
      ASSERT_EQ(on.merge(id), ATTNRT_OK) << on.error.message;
      fake_hip()->capturing = 0;
      EXPECT_EQ(fake_hip()->launches, before.launches + 1);
      EXPECT_EQ(fake_hip()->kernels_run, before.kernels_run) << "before the stream is synchronised";
      EXPECT_EQ(fake_hip()->last_device, id);
      EXPECT_EQ(fake_hip()->last_stream, on.stream);
      EXPECT_STREQ(fake_hip()->last_kernel, "merge_f32_kernel");
      EXPECT_EQ(fake_hip()->allocations, before.allocations);
      EXPECT_EQ(fake_hip()->synchronizations, before.synchronizations);
      if (again) {
        EXPECT_EQ(fake_hip()->functions_found, before.functions_found);
      }
      on.expect_right();
    }
  }
}

TEST_P(HipFlash, AMergeOfNothingLaunchesNothing) {
  const auto made = plan(on_device(a.problem, 0));
  ASSERT_TRUE(made) << made.error().message;
  OnStream on((*made)->backend(), 0, 2);
  on.out.shape[1] = 0;
  const int64_t before = fake_hip()->launches;
  EXPECT_EQ(on.merge(0), ATTNRT_OK) << on.error.message;
  EXPECT_EQ(fake_hip()->launches, before);
}

TEST_P(HipFlash, MergesThatItRefuses) {
  const auto made = plan(on_device(a.problem, 0));
  ASSERT_TRUE(made) << made.error().message;
  OnStream on((*made)->backend(), 0, 2), many((*made)->backend(), 0, 161);
  EXPECT_EQ(on.merge(2), ATTNRT_INVALID_ARGUMENT);
  EXPECT_STREQ(on.error.message,
               "device_id: found 2, expected the id of one of this backend's devices");
  EXPECT_EQ(many.merge(0), ATTNRT_UNSUPPORTED);
  EXPECT_STREQ(many.error.message, "count: found 161, expected at most 160");
  fail("hipModuleLaunchKernel", 719);
  EXPECT_EQ(on.merge(0), ATTNRT_DEVICE_LOST);
  EXPECT_THAT(on.error.message, HasSubstr("merge_f32_kernel: hipModuleLaunchKernel"));
}

INSTANTIATE_TEST_SUITE_P(Only, HipFlash, ::testing::Values("hip_flash"),
                         [](const auto& tested) { return tested.param; });

TEST_P(HipUnfused, DoesNotMerge) {
  const auto made = plan(on_device(a.problem, 0));
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ((*made)->backend().extension(ATTNRT_MERGE), nullptr);
}

}  // namespace
}  // namespace attnrt::core
