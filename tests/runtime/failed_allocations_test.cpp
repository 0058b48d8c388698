// tests/runtime/failed_allocations_test.cpp: what becomes of calls whose allocations fail
#include <attnrt/attnrt.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <utility>

#include "fakes/fakes.hpp"
#include "fakes/tiny.hpp"
#include "support/failing_allocations.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using fakes::Tiny;

// The backends that the first call may load: the runtime loads them then, not when it opens.
class FailedAllocations : public ::testing::TestWithParam<Failing> {
 protected:
  void SetUp() override {
    if (!can_fail_allocations) GTEST_SKIP() << "a sanitizer's malloc cannot be replaced";
  }

  // backend: a fake's name.
  void open(const std::string& backend) {
    directory.add(backend);
    open();
  }
  void open() {
    attnrt_runtime_options options = ATTNRT_RUNTIME_OPTIONS_INIT;
    options.thread_count = 2;
    options.policy_text = "schema: 1\n";
    options.plugin_path = directory.path().c_str();
    options.log = [](void*, int32_t, const char*) {};
    ASSERT_EQ(attnrt_runtime_open(&options, &runtime, &error), ATTNRT_OK) << error.message;
  }
  ~FailedAllocations() override { attnrt_runtime_close(runtime); }

  // Fails each allocation of `call`. Afterwards the same call must succeed, on this backend.
  template <class Call>
  void expect_survived(const char* what, Call&& call) {
    const FailureCounts counts = fail_each_allocation(GetParam(), [&](const Armed& armed) {
      const attnrt_status status = armed.run(call);
      if (status != ATTNRT_OK && status != ATTNRT_OUT_OF_MEMORY) {
        std::printf("%s: status %d: %s\n", what, status, error.message);
        std::fflush(stdout);
        return Trial::unexpected;
      }
      for (int again = 0; again < 2; ++again) {
        if (call() != ATTNRT_OK) return Trial::lost;
      }
      return status == ATTNRT_OK ? Trial::succeeded : Trial::out_of_memory;
    });
    EXPECT_GT(counts.allocations, 0) << what;
    EXPECT_EQ(counts.lost + counts.unexpected + counts.died + counts.hung, 0)
        << what << ": " << counts.text();
    RecordProperty(what, counts.text());
    std::printf("%s: %s\n", what, counts.text().c_str());
  }

  attnrt_status attend() const {
    Tiny tiny;
    tiny.args.workspace = nullptr;
    const auto status = attnrt_attention(runtime, &tiny.problem, &tiny.args, nullptr, &error);
    return status != ATTNRT_OK || tiny.right() ? status : ATTNRT_INTERNAL;
  }
  attnrt_status plan_and_run() const {
    Tiny tiny;
    attnrt_plan* plan = nullptr;
    auto status = attnrt_plan_create(runtime, &tiny.problem, nullptr, &plan, &error);
    if (status == ATTNRT_OK) status = attnrt_plan_run(plan, &tiny.args, &error);
    attnrt_plan_destroy(plan);
    return status != ATTNRT_OK || tiny.right() ? status : ATTNRT_INTERNAL;
  }

  fakes::Directory directory;
  attnrt_runtime* runtime = nullptr;
  mutable attnrt_error error = ATTNRT_ERROR_INIT;  // of the last call
};

TEST_P(FailedAllocations, OfTheFirstOneShotCall) {
  open("fake_full");
  expect_survived("first attention", [this] { return attend(); });
}

// Loading cpu.so runs what a shipped plugin runs when it is loaded.
TEST_P(FailedAllocations, OfTheFirstOneShotCallOfTheCpu) {
  directory.copy(cpu_plugin(), "cpu.so");
  open();
  expect_survived("first attention of the cpu", [this] { return attend(); });
}

TEST_P(FailedAllocations, OfTheFirstPlan) {
  open("fake_full");
  expect_survived("first plan and run", [this] { return plan_and_run(); });
}

TEST_P(FailedAllocations, OfTheFirstList) {
  open("fake_full");
  for (const auto& [format, ready] :
       {std::pair{ATTNRT_TEXT, " ready "}, {ATTNRT_JSON, "\"state\": \"ready\""}}) {
    expect_survived(format == ATTNRT_TEXT ? "first list" : "first list as JSON", [&] {
      char* text = nullptr;
      const auto status = attnrt_plugins(runtime, format, &text, nullptr);
      // A plugin that could not be looked at for lack of memory is listed so, and looked at again.
      const bool looked_at = status == ATTNRT_OK && std::strstr(text, ready) != nullptr;
      attnrt_text_free(text);
      return status == ATTNRT_OK && !looked_at ? attnrt_status{ATTNRT_OUT_OF_MEMORY} : status;
    });
  }
}

TEST_P(FailedAllocations, OfTextsAndJson) {
  open("fake_full");
  ASSERT_EQ(attend(), ATTNRT_OK) << error.message;  // so that the backend is loaded
  attnrt_plan* plan = nullptr;
  Tiny tiny;
  ASSERT_EQ(attnrt_plan_create(runtime, &tiny.problem, nullptr, &plan, &error), ATTNRT_OK);
  using Write = std::function<attnrt_status(int32_t format, char** text)>;
  const std::pair<const char*, Write> calls[] = {
      {"explain",
       [&](int32_t format, char** text) {
         return attnrt_explain(runtime, &tiny.problem, nullptr, nullptr, format, text, &error);
       }},
      {"plan", [&](int32_t format,
                   char** text) { return attnrt_plan_explain(plan, format, text, &error); }},
      {"policy",
       [&](int32_t format, char** text) { return attnrt_policy(runtime, format, text, &error); }},
      {"stats",
       [&](int32_t format, char** text) { return attnrt_stats(runtime, format, text, &error); }},
      {"decisions",
       [&](int32_t, char** text) { return attnrt_decisions(runtime, 0, text, &error); }}};
  for (const auto& [name, write] : calls) {
    for (const int32_t format : {ATTNRT_TEXT, ATTNRT_JSON}) {
      expect_survived(name, [&, &call = write] {
        char* text = nullptr;
        const attnrt_status status = call(format, &text);
        attnrt_text_free(text);
        return status;
      });
    }
  }
  attnrt_plan_destroy(plan);
}

INSTANTIATE_TEST_SUITE_P(, FailedAllocations, ::testing::Values(Failing::once, Failing::lasting),
                         [](const auto& test) {
                           return test.param == Failing::once ? "Once" : "Lasting";
                         });

}  // namespace
}  // namespace attnrt::core
