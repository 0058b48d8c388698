// tests/runtime/api_test.cpp: right and wrong calls of the C API
#include <attnrt/attnrt.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <new>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "fakes/fakes.hpp"
#include "fakes/tiny.hpp"

namespace {

using attnrt::fakes::Directory;
using attnrt::fakes::Tiny;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct Error : attnrt_error {
  Error() : attnrt_error ATTNRT_ERROR_INIT {}
};

// What an application of a newer header hands over: the struct as known here, and more behind it.
template <class Struct>
struct Newer {
  Struct known;
  int64_t later = 0;
  explicit Newer(const Struct& value) : known(value) { known.struct_size = sizeof *this; }
};

// Plugins stand beside the library that is mapped, wherever the process has gone since: the child
// exits 0 if so.
TEST(DefaultDirectory, IsBesideTheLibraryAndNotInTheCurrentFolder) {
  Dl_info info{};
  ASSERT_NE(dladdr(reinterpret_cast<const void*>(&attnrt_version), &info), 0);
  const std::filesystem::path library = std::filesystem::canonical(info.dli_fname);
  const Directory runtime, evil;
  std::filesystem::create_directories(runtime.path() / "lib/attnrt/plugins");
  std::filesystem::create_directories(evil.path() / "lib/attnrt/plugins");
  std::filesystem::copy_file(library, runtime.path() / "lib/libattnrt.so");
  std::ofstream(evil.path() / "lib/libattnrt.so") << "";
  std::filesystem::copy_file(attnrt::fakes::fake("fake_full"),
                             evil.path() / "lib/attnrt/plugins/e.so");
  EXPECT_EXIT(
      {
        std::filesystem::current_path(runtime.path());
        void* handle = dlopen("lib/libattnrt.so", RTLD_NOW | RTLD_LOCAL);
        if (handle == nullptr) _exit(2);
        std::filesystem::current_path(evil.path());
        attnrt_runtime_options none{};
        none.struct_size = sizeof none;
        attnrt_runtime* opened = nullptr;
        char* list = nullptr;
        const auto open =
            reinterpret_cast<decltype(&attnrt_runtime_open)>(dlsym(handle, "attnrt_runtime_open"));
        const auto plugins =
            reinterpret_cast<decltype(&attnrt_plugins)>(dlsym(handle, "attnrt_plugins"));
        if (open(&none, &opened, nullptr) != ATTNRT_OK ||
            plugins(opened, ATTNRT_TEXT, &list, nullptr) != ATTNRT_OK)
          _exit(3);
        _exit(std::strstr(list, "fake_full") == nullptr &&
                      std::strstr(list, runtime.text().c_str()) != nullptr
                  ? 0
                  : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

class Api : public ::testing::Test {
 protected:
  Api() {
    plugins.add("fake_full");
    plugins.add("fake_minimal");
    path = plugins.text();
    options.plugin_path = path.c_str();
    options.policy_text = "backends: {fake_full: {priority: 2}, fake_minimal: {priority: 1}}\n";
    options.thread_count = 1;
    options.log = [](void* self, int32_t severity, const char* text) {
      static_cast<std::vector<std::string>*>(self)->push_back(std::to_string(severity) + " " +
                                                              text);
    };
    options.log_self = &log;
    EXPECT_EQ(attnrt_runtime_open(&options, &runtime, &error), ATTNRT_OK) << error.message;
  }
  ~Api() override { attnrt_runtime_close(runtime); }

  std::string text_of(const std::function<attnrt_status(char**, attnrt_error*)>& call) {
    char* text = nullptr;
    error = Error();
    EXPECT_EQ(call(&text, &error), ATTNRT_OK) << error.message;
    const std::string copy = text != nullptr ? text : "";
    attnrt_text_free(text);
    return copy;
  }
  attnrt_status attention(const attnrt_problem* problem, const attnrt_args* args = nullptr,
                          const attnrt_call* call = nullptr) {
    error = Error();
    return attnrt_attention(runtime, problem, args != nullptr ? args : &tiny.args, call, &error);
  }

  Directory plugins;
  std::string path;
  std::vector<std::string> log;
  attnrt_runtime_options options = ATTNRT_RUNTIME_OPTIONS_INIT;
  attnrt_runtime* runtime = nullptr;
  Tiny tiny;
  Error error;
};

TEST(Version, IsThreeNumbers) {
  EXPECT_THAT(attnrt_version(), ::testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
}

TEST_F(Api, AsAnApplicationWould) {
  attnrt_plan* plan = nullptr;
  ASSERT_EQ(attnrt_plan_create(runtime, &tiny.problem, nullptr, &plan, &error), ATTNRT_OK)
      << error.message;
  EXPECT_STREQ(attnrt_plan_backend(plan), "fake_full");
  EXPECT_STREQ(attnrt_plan_version(plan), "1.0.0");
  EXPECT_STREQ(attnrt_plan_kernel(plan), "fake_attention");
  EXPECT_EQ(attnrt_plan_workspace_bytes(plan), 256);
  EXPECT_EQ(attnrt_plan_run(plan, &tiny.args, &error), ATTNRT_OK) << error.message;
  EXPECT_TRUE(tiny.right());
  attnrt_plan_destroy(plan);
  tiny.out = {};
  EXPECT_EQ(attention(&tiny.problem), ATTNRT_OK) << error.message;
  EXPECT_TRUE(tiny.right());
  tiny.out = {};
  EXPECT_EQ(attention(nullptr), ATTNRT_OK) << "no attributes: " << error.message;
  EXPECT_TRUE(tiny.right());
  attnrt_call call = ATTNRT_CALL_INIT;
  call.backend = "fake_minimal";
  ASSERT_EQ(attnrt_plan_create(runtime, &tiny.problem, &call, &plan, nullptr), ATTNRT_OK);
  EXPECT_STREQ(attnrt_plan_backend(plan), "fake_minimal");
  attnrt_plan_destroy(plan);
  call.backend = "fake_minimum";
  EXPECT_EQ(attention(&tiny.problem, nullptr, &call), ATTNRT_NOT_FOUND);
  EXPECT_THAT(error.message, HasSubstr("did you mean fake_minimal?"));
  EXPECT_EQ(attnrt_runtime_reload(runtime, &error), ATTNRT_OK);
}

TEST_F(Api, APlanExplainsItself) {
  attnrt_plan* plan = nullptr;
  attnrt_call call = ATTNRT_CALL_INIT;
  call.backend = "fake_minimal";
  ASSERT_EQ(attnrt_plan_create(runtime, &tiny.problem, &call, &plan, &error), ATTNRT_OK);
  const auto explained = [&](int32_t format) {
    return text_of(
        [&](char** text, attnrt_error* e) { return attnrt_plan_explain(plan, format, text, e); });
  };
  EXPECT_THAT(explained(ATTNRT_TEXT),
              AllOf(HasSubstr("decision  fake_minimal 1.0.0 on cpu: the call asks for it"),
                    HasSubstr("fake_full 1.0.0")));
  EXPECT_THAT(explained(ATTNRT_JSON), HasSubstr("\"chosen\": \"fake_minimal\""));
  char* text = nullptr;
  EXPECT_EQ(attnrt_plan_explain(nullptr, ATTNRT_TEXT, &text, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_EQ(attnrt_plan_explain(plan, ATTNRT_TEXT, nullptr, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_EQ(attnrt_plan_explain(plan, 7, &text, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_EQ(text, nullptr);
  attnrt_plan_destroy(plan);
}

TEST_F(Api, ATrimTakesBytes) {
  EXPECT_EQ(attention(&tiny.problem), ATTNRT_OK);
  EXPECT_EQ(attnrt_runtime_trim(runtime, 0, &error), ATTNRT_OK);
  EXPECT_EQ(attention(&tiny.problem), ATTNRT_OK);
  EXPECT_EQ(attnrt_runtime_trim(runtime, INT64_MAX, nullptr), ATTNRT_OK);
  EXPECT_EQ(attnrt_runtime_trim(runtime, -1, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "bytes is -1; expected 0 or more");
  EXPECT_EQ(attnrt_runtime_trim(nullptr, 0, &error), ATTNRT_INVALID_ARGUMENT);
}

TEST_F(Api, AnAllocatorHasTwoCalls) {
  attnrt_runtime* other = nullptr;
  options.free = [](void*, int32_t, int32_t, void*, void*) {};
  EXPECT_EQ(attnrt_runtime_open(&options, &other, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "config: free is given without allocate; expected both or neither");
  options.free = nullptr;
  options.allocate = [](void*, int32_t, int32_t, int64_t, void*, void**, attnrt_error*) {
    return attnrt_status{ATTNRT_UNSUPPORTED};
  };
  EXPECT_EQ(attnrt_runtime_open(&options, &other, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "config: allocate is given without free; expected both or neither");
}

TEST_F(Api, NullsAreRefusedByName) {
  attnrt_plan* plan = nullptr;
  char* text = nullptr;
  attnrt_problem* const p = &tiny.problem;
  attnrt_args* const a = &tiny.args;
  const auto refuses = [this](attnrt_status status, const char* name) {
    EXPECT_EQ(status, ATTNRT_INVALID_ARGUMENT) << name;
    EXPECT_EQ(error.code, ATTNRT_INVALID_ARGUMENT) << name;
    EXPECT_THAT(error.message, HasSubstr(name));
    error = Error();
  };
  refuses(attnrt_runtime_open(nullptr, nullptr, &error), "runtime");
  refuses(attnrt_runtime_reload(nullptr, &error), "runtime");
  int32_t descriptor = -1;
  refuses(attnrt_runtime_watch(nullptr, &descriptor, &error), "runtime");
  refuses(attnrt_runtime_handle_events(nullptr, &error), "runtime");
  refuses(attnrt_problem_infer(nullptr, a, &error), "problem");
  refuses(attnrt_problem_infer(p, nullptr, &error), "args");
  refuses(attnrt_problem_parse(nullptr, p, nullptr, 0, &error), "words");
  refuses(attnrt_problem_parse("", nullptr, nullptr, 0, &error), "problem");
  refuses(attnrt_explain(nullptr, p, nullptr, nullptr, ATTNRT_TEXT, &text, &error), "runtime");
  refuses(attnrt_explain(runtime, nullptr, nullptr, nullptr, ATTNRT_TEXT, &text, &error),
          "problem");
  refuses(attnrt_explain(runtime, p, nullptr, nullptr, ATTNRT_TEXT, nullptr, &error), "text");
  refuses(attnrt_plugins(nullptr, ATTNRT_TEXT, &text, &error), "runtime");
  refuses(attnrt_plugins(runtime, ATTNRT_TEXT, nullptr, &error), "text");
  refuses(attnrt_policy(nullptr, ATTNRT_TEXT, &text, &error), "runtime");
  refuses(attnrt_policy(runtime, ATTNRT_TEXT, nullptr, &error), "text");
  refuses(attnrt_stats(nullptr, ATTNRT_TEXT, &text, &error), "runtime");
  refuses(attnrt_stats(runtime, ATTNRT_TEXT, nullptr, &error), "text");
  refuses(attnrt_decisions(nullptr, 0, &text, &error), "runtime");
  refuses(attnrt_decisions(runtime, 0, nullptr, &error), "lines");
  refuses(attnrt_plan_create(nullptr, p, nullptr, &plan, &error), "runtime");
  refuses(attnrt_plan_create(runtime, nullptr, nullptr, &plan, &error), "problem");
  refuses(attnrt_plan_create(runtime, p, nullptr, nullptr, &error), "plan");
  refuses(attnrt_plan_run(nullptr, a, &error), "plan");
  refuses(attnrt_attention(nullptr, p, a, nullptr, &error), "runtime");
  refuses(attnrt_attention(runtime, p, nullptr, nullptr, &error), "args");
  ASSERT_EQ(attnrt_plan_create(runtime, p, nullptr, &plan, nullptr), ATTNRT_OK);
  refuses(attnrt_plan_run(plan, nullptr, &error), "args");
  attnrt_schedule* schedule = nullptr;
  refuses(attnrt_schedule_create(nullptr, &schedule, &error), "plan");
  refuses(attnrt_schedule_create(plan, nullptr, &error), "schedule");
  refuses(attnrt_plan_run_scheduled(nullptr, schedule, a, &error), "plan");
  refuses(attnrt_plan_run_scheduled(plan, nullptr, a, &error), "schedule");
  ASSERT_EQ(attnrt_schedule_create(plan, &schedule, nullptr), ATTNRT_OK);
  refuses(attnrt_schedule_build(nullptr, a, &error), "schedule");
  refuses(attnrt_schedule_build(schedule, nullptr, &error), "args");
  refuses(attnrt_plan_run_scheduled(plan, schedule, nullptr, &error), "args");
  attnrt_schedule_destroy(schedule);
  attnrt_plan_destroy(plan);
  EXPECT_EQ(text, nullptr);
  // All of it without an error struct, and what gives nothing back.
  EXPECT_EQ(attnrt_runtime_reload(nullptr, nullptr), ATTNRT_INVALID_ARGUMENT);
  attnrt_runtime_close(nullptr);
  attnrt_plan_destroy(nullptr);
  attnrt_text_free(nullptr);
  EXPECT_STREQ(attnrt_plan_backend(nullptr), "");
  EXPECT_STREQ(attnrt_plan_version(nullptr), "");
  EXPECT_STREQ(attnrt_plan_kernel(nullptr), "");
  EXPECT_EQ(attnrt_plan_workspace_bytes(nullptr), 0);
  attnrt_schedule_destroy(nullptr);
  EXPECT_EQ(attnrt_schedule_bytes(nullptr), 0);
}

// As an application writes it once for all backends: on the cpu, a schedule does nothing.
TEST_F(Api, AScheduleIsBuiltOnceForTheRunsOfAllLayers) {
  attnrt_plan* plans[2] = {};
  attnrt_schedule* schedule = nullptr;
  for (attnrt_plan*& plan : plans) {
    ASSERT_EQ(attnrt_plan_create(runtime, &tiny.problem, nullptr, &plan, &error), ATTNRT_OK);
  }
  ASSERT_EQ(attnrt_schedule_create(plans[0], &schedule, &error), ATTNRT_OK) << error.message;
  EXPECT_EQ(attnrt_schedule_bytes(schedule), 0);
  EXPECT_EQ(attnrt_plan_run_scheduled(plans[0], schedule, &tiny.args, &error),
            ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("the schedule is not built"));
  EXPECT_EQ(attnrt_schedule_build(schedule, &tiny.args, &error), ATTNRT_OK) << error.message;
  for (attnrt_plan* plan : plans) {
    tiny.out = {};
    EXPECT_EQ(attnrt_plan_run_scheduled(plan, schedule, &tiny.args, &error), ATTNRT_OK)
        << error.message;
    EXPECT_TRUE(tiny.right());
  }
  attnrt_schedule_destroy(schedule);
  for (attnrt_plan* plan : plans) attnrt_plan_destroy(plan);
}

TEST_F(Api, FormatsThatDoNotExist) {
  char* text = nullptr;
  EXPECT_EQ(attnrt_policy(runtime, 2, &text, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_EQ(attnrt_plugins(runtime, -1, &text, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_EQ(attnrt_stats(runtime, 2, &text, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_EQ(attnrt_explain(runtime, &tiny.problem, nullptr, nullptr, 7, &text, &error),
            ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("format is 7"));
}

// Every way in for a problem says the same of a struct that is too short, too long or from the
// future.
TEST_F(Api, ProblemsOfEverySize) {
  const auto each = [this](attnrt_problem* problem,
                           const std::function<void(attnrt_status, const char*)>& judge) {
    char* text = nullptr;
    attnrt_plan* plan = nullptr;
    judge(attnrt_plan_create(runtime, problem, nullptr, &plan, &error), "plan_create");
    attnrt_plan_destroy(plan);
    judge(attnrt_explain(runtime, problem, nullptr, nullptr, ATTNRT_TEXT, &text, &error),
          "explain");
    attnrt_text_free(text);
    judge(attention(problem), "attention");
    judge(attnrt_problem_infer(problem, &tiny.args, &error), "infer");
    judge(attnrt_problem_parse("seq_q=1", problem, nullptr, 0, &error), "parse");
  };
  for (const int32_t size :
       {-1, 0, 4, static_cast<int32_t>(offsetof(attnrt_problem, scale)) - 1, 1 << 20}) {
    Newer<attnrt_problem> bad(tiny.problem);
    bad.known.struct_size = size;
    each(&bad.known, [&](attnrt_status status, const char* where) {
      EXPECT_EQ(status, ATTNRT_INVALID_ARGUMENT) << where << size;
      EXPECT_THAT(error.message, HasSubstr("problem: struct_size is " + std::to_string(size)))
          << where;
      EXPECT_EQ(bad.known.struct_size, size) << where;
    });
  }
  Newer<attnrt_problem> newer(tiny.problem);
  each(&newer.known, [&](attnrt_status status, const char* where) {
    EXPECT_EQ(status, ATTNRT_OK) << where << error.message;
    EXPECT_EQ(newer.known.struct_size, static_cast<int32_t>(sizeof newer)) << where;
  });
  newer.later = 1;  // switches something on that this runtime cannot know
  each(&newer.known, [&](attnrt_status status, const char* where) {
    EXPECT_EQ(status, ATTNRT_INVALID_ARGUMENT) << where;
    EXPECT_THAT(error.message, HasSubstr("leave newer fields at zero")) << where;
  });
}

// An application of an older header has no windows: they are unbounded, not 0.
TEST_F(Api, WhatAShortProblemDoesNotHoldIsOff) {
  std::vector<float> q(8 * 4, 0.0F), v(8 * 4), out(8 * 4);
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i);
  const auto tensor = [](std::vector<float>& values) {
    return attnrt_tensor{
        values.data(), {ATTNRT_DTYPE_FLOAT, 32, 1}, 4, {1, 8, 1, 4}, {32, 4, 4, 1}};
  };
  attnrt_args args{};
  args.struct_size = sizeof args;
  args.q = args.k = tensor(q);
  args.v = tensor(v);
  args.out = tensor(out);
  for (size_t size = offsetof(attnrt_problem, scale); size <= sizeof(attnrt_problem); ++size) {
    attnrt_problem problem = ATTNRT_PROBLEM_INIT;
    std::memset(reinterpret_cast<char*>(&problem) + size, 1,
                sizeof problem - size);  // not the caller's to read
    problem.struct_size = static_cast<int32_t>(size);
    std::fill(out.begin(), out.end(), NAN);
    ASSERT_EQ(attention(&problem, &args), ATTNRT_OK) << size << error.message;
    for (size_t i = 0; i < out.size(); ++i)
      ASSERT_EQ(out[i], 14.0F + static_cast<float>(i % 4)) << size;  // the mean
  }
}

TEST_F(Api, AShortProblemIsWrittenAsFarAsItGoesOrNotAtAll) {
  struct {
    attnrt_problem problem;
    char guard;
  } held{tiny.problem, 77};
  constexpr auto size = static_cast<int32_t>(offsetof(attnrt_problem, window_left));
  std::memset(reinterpret_cast<char*>(&held.problem) + size, 77, sizeof held.problem - size);
  held.problem.struct_size = size;
  const attnrt_problem before = held.problem;
  EXPECT_EQ(attnrt_problem_parse("seq_q=5 causal=true", &held.problem, nullptr, 0, &error),
            ATTNRT_OK)
      << error.message;
  EXPECT_EQ(held.problem.seq_q, 5);
  EXPECT_EQ(held.problem.causal, 1);
  const char* const bytes = reinterpret_cast<const char*>(&held.problem);
  for (size_t i = size; i < sizeof held.problem; ++i) EXPECT_EQ(bytes[i], 77) << i;
  held.problem = before;
  EXPECT_EQ(attnrt_problem_parse("window_left=5", &held.problem, nullptr, 0, &error),
            ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("cannot hold"));
  EXPECT_EQ(std::memcmp(&before, &held.problem, sizeof before), 0);
  tiny.args.lse = {tiny.out.data(), {ATTNRT_DTYPE_FLOAT, 32, 1}, 3, {1, 1, 1}, {1, 1, 1}};
  EXPECT_EQ(attnrt_problem_infer(&held.problem, &tiny.args, &error), ATTNRT_INVALID_ARGUMENT)
      << "lse would be lost";
  EXPECT_EQ(std::memcmp(&before, &held.problem, sizeof before), 0);
}

TEST_F(Api, ArgsCallsAndOptionsOfEverySize) {
  for (const int32_t size : {-1, 0, 4, 1 << 20}) {
    attnrt_args args = tiny.args;
    args.struct_size = size;
    EXPECT_EQ(attention(&tiny.problem, &args), ATTNRT_INVALID_ARGUMENT);
    EXPECT_THAT(error.message, HasSubstr("args: struct_size is " + std::to_string(size)));
    EXPECT_EQ(attnrt_problem_infer(&tiny.problem, &args, &error), ATTNRT_INVALID_ARGUMENT);
    attnrt_call call = ATTNRT_CALL_INIT;
    call.backend = "fake_minimal";
    call.struct_size = size;
    EXPECT_EQ(attention(&tiny.problem, nullptr, &call), ATTNRT_INVALID_ARGUMENT)
        << "a forgotten size must not drop the name";
    EXPECT_THAT(error.message, HasSubstr("call: struct_size is " + std::to_string(size)));
    attnrt_runtime_options bad = options;
    bad.struct_size = size;
    attnrt_runtime* other = nullptr;
    EXPECT_EQ(attnrt_runtime_open(&bad, &other, &error), ATTNRT_INVALID_ARGUMENT);
    EXPECT_EQ(other, nullptr);
  }
  Newer<attnrt_args> args(tiny.args);
  attnrt_call plain = ATTNRT_CALL_INIT;
  Newer<attnrt_call> call(plain);
  Newer<attnrt_runtime_options> later(options);
  EXPECT_EQ(attention(&tiny.problem, &args.known, &call.known), ATTNRT_OK) << error.message;
  args.later = 1;
  EXPECT_EQ(attention(&tiny.problem, &args.known), ATTNRT_INVALID_ARGUMENT);
  call.later = 1;
  EXPECT_EQ(attention(&tiny.problem, nullptr, &call.known), ATTNRT_INVALID_ARGUMENT);
  later.later = 1;
  attnrt_runtime* other = nullptr;
  EXPECT_EQ(attnrt_runtime_open(&later.known, &other, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("leave newer fields at zero"));
}

// Read past its end, a struct of an older header is somebody else's memory: the address sanitizer
// is the judge.
TEST_F(Api, AnOlderArgsIsNotReadPastItsEnd) {
  constexpr size_t size = offsetof(attnrt_args, mask);
  void* const exact = std::malloc(size);
  tiny.args.struct_size = static_cast<int32_t>(size);
  std::memcpy(exact, &tiny.args, size);
  EXPECT_EQ(attention(&tiny.problem, static_cast<attnrt_args*>(exact)), ATTNRT_OK) << error.message;
  EXPECT_TRUE(tiny.right());
  attnrt_problem inferred = ATTNRT_PROBLEM_INIT;
  EXPECT_EQ(attnrt_problem_infer(&inferred, static_cast<attnrt_args*>(exact), &error), ATTNRT_OK)
      << error.message;
  std::free(exact);
}

TEST_F(Api, ErrorsOfEverySize) {
  attnrt_error shorter{static_cast<int32_t>(offsetof(attnrt_error, message)), 55, "as it was"};
  EXPECT_EQ(attnrt_runtime_reload(nullptr, &shorter), ATTNRT_INVALID_ARGUMENT);
  EXPECT_STREQ(shorter.message, "as it was");
  EXPECT_EQ(shorter.code, 55);
  // A message that is longer than the struct is cut, and ends.
  attnrt_call call = ATTNRT_CALL_INIT;
  const std::string name(2000, 'x');
  call.backend = name.c_str();
  EXPECT_EQ(attention(&tiny.problem, nullptr, &call), ATTNRT_NOT_FOUND);
  EXPECT_EQ(std::strlen(error.message), sizeof error.message - 1);
}

TEST_F(Api, ParseAndItsArch) {
  attnrt_problem problem = ATTNRT_PROBLEM_INIT;
  char arch[8] = "before";
  EXPECT_EQ(attnrt_problem_parse("device=rocm arch=gfx1100 dtype=f16 head_dim=64", &problem, arch,
                                 sizeof arch, &error),
            ATTNRT_OK);
  EXPECT_STREQ(arch, "gfx1100");
  EXPECT_EQ(problem.device_type, ATTNRT_DEVICE_ROCM);
  EXPECT_EQ(attnrt_problem_parse("causal=true", &problem, arch, sizeof arch, &error), ATTNRT_OK);
  EXPECT_STREQ(arch, "");
  EXPECT_EQ(problem.device_type, ATTNRT_DEVICE_ROCM) << "what is not named stays";
  EXPECT_EQ(attnrt_problem_parse("seq_q=9 arch=gfx1100", &problem, arch, 7, &error),
            ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("do not fit into 7 bytes"));
  EXPECT_EQ(problem.seq_q, 1) << "outputs are written on success only";
  EXPECT_EQ(attnrt_problem_parse("arch=gfx1100", &problem, nullptr, 0, &error),
            ATTNRT_INVALID_ARGUMENT);
  EXPECT_EQ(attnrt_problem_parse("", &problem, arch, 0, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_EQ(attnrt_problem_parse("cusal=true", &problem, nullptr, 0, &error),
            ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("did you mean causal?"));
}

TEST_F(Api, TextsBelongToTheCaller) {
  const auto explained = text_of([&](char** text, attnrt_error* e) {
    return attnrt_explain(runtime, &tiny.problem, nullptr, nullptr, ATTNRT_TEXT, text, e);
  });
  EXPECT_THAT(explained, AllOf(StartsWith("problem   device=cpu"),
                               HasSubstr("decision  fake_full 1.0.0 on cpu")));
  EXPECT_THAT(text_of([&](char** text, attnrt_error* e) {
                return attnrt_plugins(runtime, ATTNRT_TEXT, text, e);
              }),
              HasSubstr("fake_minimal"));
  EXPECT_THAT(text_of([&](char** text, attnrt_error* e) {
                return attnrt_policy(runtime, ATTNRT_TEXT, text, e);
              }),
              HasSubstr("backends.fake_full.priority"));
  ASSERT_EQ(attention(&tiny.problem), ATTNRT_OK) << error.message;
  EXPECT_THAT(text_of([&](char** text, attnrt_error* e) {
                return attnrt_stats(runtime, ATTNRT_TEXT, text, e);
              }),
              HasSubstr("fake_full 1.0.0"));
  const auto kinds = {std::pair{"decision", text_of([&](char** text, attnrt_error* e) {
                                  return attnrt_explain(runtime, &tiny.problem, "", nullptr,
                                                        ATTNRT_JSON, text, e);
                                })},
                      {"plugins", text_of([&](char** text, attnrt_error* e) {
                         return attnrt_plugins(runtime, ATTNRT_JSON, text, e);
                       })},
                      {"policy", text_of([&](char** text, attnrt_error* e) {
                         return attnrt_policy(runtime, ATTNRT_JSON, text, e);
                       })},
                      {"stats", text_of([&](char** text, attnrt_error* e) {
                         return attnrt_stats(runtime, ATTNRT_JSON, text, e);
                       })},
                      {"decision", text_of([&](char** text, attnrt_error* e) {
                         return attnrt_decisions(runtime, 0, text, e);
                       })}};
  for (const auto& [kind, text] : kinds) {
    const auto json = nlohmann::json::parse(text);
    EXPECT_EQ(json.at("schema"), "attnrt/1");
    EXPECT_EQ(json.at("kind"), kind);
  }
}

TEST_F(Api, AFileNameThatIsNoUtf8IsStillJson) {
  plugins.write("odd_\xFF.so", "no library");
  ASSERT_EQ(attnrt_runtime_reload(runtime, &error), ATTNRT_OK);
  for (const int32_t kind : {0, 1}) {
    const auto text = text_of([&](char** out, attnrt_error* e) {
      return kind == 0
                 ? attnrt_plugins(runtime, ATTNRT_JSON, out, e)
                 : attnrt_explain(runtime, &tiny.problem, nullptr, nullptr, ATTNRT_JSON, out, e);
    });
    EXPECT_TRUE(nlohmann::json::accept(text));
  }
}

TEST_F(Api, ExplainForAnotherMachineAndWhereNobodyCan) {
  attnrt_problem problem = tiny.problem;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  EXPECT_THAT(text_of([&](char** text, attnrt_error* e) {
                return attnrt_explain(runtime, &problem, "gfx1100", nullptr, ATTNRT_TEXT, text, e);
              }),
              AllOf(HasSubstr("arch=gfx1100"), HasSubstr("decision  none: unsupported"),
                    HasSubstr("is for cpu")));
  plugins.add("fake_rocm");
  ASSERT_EQ(attnrt_runtime_reload(runtime, &error), ATTNRT_OK);
  problem.device_id = 3;
  EXPECT_THAT(text_of([&](char** text, attnrt_error* e) {
                return attnrt_explain(runtime, &problem, "gfx1100", nullptr, ATTNRT_TEXT, text, e);
              }),
              HasSubstr("judged by its manifest, this machine has no such device"));
}

TEST_F(Api, OutputsStayAsTheyWereWhereACallFails) {
  auto* const before = reinterpret_cast<attnrt_plan*>(&tiny);
  attnrt_plan* plan = before;
  attnrt_call call = ATTNRT_CALL_INIT;
  call.backend = "nobody";
  EXPECT_EQ(attnrt_plan_create(runtime, &tiny.problem, &call, &plan, &error), ATTNRT_NOT_FOUND);
  EXPECT_EQ(plan, before);
  auto* other = reinterpret_cast<attnrt_runtime*>(&tiny);
  options.policy_text = "unlisted: perhaps";
  EXPECT_EQ(attnrt_runtime_open(&options, &other, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_EQ(other, reinterpret_cast<attnrt_runtime*>(&tiny));
  EXPECT_THAT(error.message, StartsWith("policy:1:11: "));
}

// A callback of the application that throws: into a status, whatever it throws.
TEST(ApiExceptions, BecomeStatuses) {
  struct Thrown {
    std::function<void()> how;
    attnrt_status status;
  };
  const std::vector<Thrown> all = {
      {[] { throw std::runtime_error("the log is full"); }, ATTNRT_INTERNAL},
      {[] { throw std::bad_alloc(); }, ATTNRT_OUT_OF_MEMORY},
      {[] { throw 5; }, ATTNRT_INTERNAL}};
  for (const Thrown& thrown : all) {
    attnrt_runtime_options options = ATTNRT_RUNTIME_OPTIONS_INIT;
    options.plugin_path = "/no/such/directory";  // which is a warning
    options.log_self = const_cast<Thrown*>(&thrown);
    options.log = [](void* self, int32_t, const char*) { static_cast<const Thrown*>(self)->how(); };
    attnrt_runtime* runtime = nullptr;
    Error error;
    EXPECT_EQ(attnrt_runtime_open(&options, &runtime, &error), thrown.status);
    EXPECT_EQ(error.code, thrown.status);
    EXPECT_STRNE(error.message, "");
    EXPECT_EQ(runtime, nullptr);
  }
}

TEST_F(Api, EveryLineOfTheLogArrives) {
  plugins.add("fake_open_fails");
  ASSERT_EQ(attnrt_runtime_reload(runtime, &error), ATTNRT_OK);
  EXPECT_EQ(attention(&tiny.problem), ATTNRT_OK);
  EXPECT_THAT(
      log, ::testing::Contains(AllOf(StartsWith("2 load: "), HasSubstr("open was told to fail"))));
}

}  // namespace
