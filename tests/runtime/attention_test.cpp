// tests/runtime/attention_test.cpp: calls and plans on the real cpu backend
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "run.hpp"
#include "support/allocations.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::HasSubstr;

// One new query and a cache of keys, of which lengths says how many exist.
struct Decode {
  static constexpr int64_t kKeys = 1024;
  Attention whole{
      {.batch = 1, .seq_q = 1, .seq_kv = kKeys, .heads_q = 4, .heads_kv = 2, .head_dim = 16}};
  Aligned<int32_t> lengths{1};
  attnrt_args args = whole.args;

  void grow_to(int64_t keys) { args.k.shape[1] = args.v.shape[1] = keys; }
};

TEST(Plans, ADecodeLoopPlansOnceAndAllocatesNothing) {
  for (const int32_t threads : {1, 2}) {
    const TestRuntime runtime({"cpu"}, "", {.thread_count = threads});
    Decode decode;
    Problem& problem = decode.whole.problem;
    problem.kv_lengths = 1;
    problem.causal = 1;
    decode.args.kv_lengths = view(decode.lengths.data(), kI32, {1});
    const auto plan = runtime->plan(checked(problem), {});
    ASSERT_TRUE(plan) << plan.error().message;
    const auto step = [&](int32_t length) {
      decode.lengths[0] = length;
      return run(**plan, decode.args, nullptr);
    };
    ASSERT_EQ(step(1), ATTNRT_OK);
    int failures = 0;
    EXPECT_EQ(settled_allocations_of([&] {
                for (int32_t length = 1; length <= 1000; ++length)
                  failures += step(length) != ATTNRT_OK;
              }),
              0)
        << threads;
    EXPECT_EQ(failures, 0);
    EXPECT_LT(largest_error(problem, decode.args), kTolerance);
    for (const int32_t length : {1, 2, 63, 64, 65, 777}) {
      ASSERT_EQ(step(length), ATTNRT_OK);
      EXPECT_LT(largest_error(problem, decode.args), kTolerance) << length;
    }
    EXPECT_EQ(runtime->plans_made(), 1);
  }
}

TEST(OneShot, ADecodeLoopPlansOnceForEachDoublingAndAllocatesNothingBetween) {
  for (const int32_t threads : {1, 2}) {
    const TestRuntime runtime({"cpu"}, "", {.thread_count = threads});
    Decode decode;
    int failures = 0;
    const auto step = [&](int64_t keys) {
      decode.grow_to(keys);
      failures += runtime->attention(decode.whole.problem, decode.args, {}, nullptr) != ATTNRT_OK;
    };
    for (const int64_t keys : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}) {
      const int64_t before = runtime->plans_made();
      EXPECT_GT(allocations_of([&] { step(keys); }), 0) << "a plan, if the counter counts";
      EXPECT_EQ(runtime->plans_made(), before + 1) << keys;
      EXPECT_LT(largest_error(decode.whole.problem, decode.args), kTolerance) << keys;
      const int64_t made = settled_allocations_of([&] {
        for (int64_t at = keys / 2 + 1; at <= keys; ++at) step(at);
      });
      EXPECT_EQ(made, 0) << "up to " << keys << " keys, " << threads << " threads";
      EXPECT_EQ(runtime->plans_made(), before + 1) << keys;
    }
    EXPECT_EQ(failures, 0);
  }
}

// Enough blocks of queries for all threads.
TEST(OneShot, APromptOnSeveralThreadsAllocatesNothingAfterItsFirstRuns) {
  const TestRuntime runtime({"cpu"}, "", {.thread_count = 4});
  Attention prompt(
      {.batch = 2, .seq_q = 96, .seq_kv = 96, .heads_q = 8, .heads_kv = 8, .head_dim = 16});
  prompt.problem.causal = 1;
  int failures = 0;
  const auto call = [&] {
    failures += runtime->attention(prompt.problem, prompt.args, {}, nullptr) != ATTNRT_OK;
  };
  EXPECT_EQ(settled_allocations_of([&] {
              for (int i = 0; i < 100; ++i) call();
            }),
            0);
  EXPECT_EQ(failures, 0);
  EXPECT_LT(largest_error(prompt.problem, prompt.args), kTolerance);
}

TEST(OneShot, ThousandsOfProblemsDoNotGrowTheCaches) {
  const TestRuntime runtime({"fake_full"});
  const auto round = [&](int64_t from) {
    for (int64_t heads = from; heads < from + 1500; ++heads) {
      Attention a({.heads_q = heads, .head_dim = 1});
      ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
    }
  };
  round(1);
  const int64_t alive = allocations.load() - frees.load();
  round(1501);
  EXPECT_NEAR(static_cast<double>(allocations.load() - frees.load() - alive), 0, 50);
  EXPECT_EQ(runtime->plans_made(), 3000);
}

TEST(OneShot, DoesNotTouchTheCallersProblemAndReadsEverythingOffTheTensors) {
  const TestRuntime runtime({"cpu"});
  Attention a({.batch = 2, .seq_q = 3, .seq_kv = 7, .heads_q = 4, .heads_kv = 2});
  Problem attributes = default_problem();
  attributes.causal = 1;
  attributes.scale = 0.3F;
  const Problem before = attributes;
  ASSERT_EQ(runtime->attention(attributes, a.args, {}, nullptr), ATTNRT_OK);
  EXPECT_EQ(std::memcmp(&before, &attributes, sizeof before), 0);
  EXPECT_LT(largest_error(attributes, a.args), kTolerance);
}

TEST(OneShot, NothingToDoIsOk) {
  const TestRuntime runtime({"cpu"});
  Attention a({.batch = 2, .seq_q = 3, .seq_kv = 7});
  a.args.q.shape[1] = a.args.out.shape[1] = 0;
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  a.args.q.shape[0] = a.args.k.shape[0] = a.args.v.shape[0] = a.args.out.shape[0] = 0;
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
}

TEST(OneShot, RowsOfAnyAlignment) {
  const TestRuntime runtime({"cpu"});
  Attention a({.seq_q = 3, .seq_kv = 7, .head_dim = 16});
  for (auto* tensor : {&a.args.q, &a.args.k, &a.args.v, &a.args.out}) {
    tensor->data = static_cast<float*>(tensor->data) + 1;
    tensor->shape[3] = 11;
  }
  attnrt_error error = ATTNRT_ERROR_INIT;
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, &error), ATTNRT_OK) << error.message;
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

TEST(OneShot, WrongTensorsAreTheCallersFault) {
  const TestRuntime runtime({"cpu"});
  Attention a({.seq_q = 3, .seq_kv = 7});
  attnrt_error error = ATTNRT_ERROR_INIT;
  a.args.out.shape[1] = 2;
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("tensor out has 2 in dimension 1; expected 3"));
  a.args.out.shape[1] = 3;
  a.args.out.data = nullptr;
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, &error), ATTNRT_INVALID_ARGUMENT);
  a.args = {};
  a.args.struct_size = 8;
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("tensor q has 0 dimensions"));
  Attention b({});
  b.problem.causal = 7;
  EXPECT_EQ(runtime->attention(b.problem, b.args, {}, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("causal 7"));
}

TEST(OneShot, FromManyThreadsAtOnce) {
  const TestRuntime runtime({"cpu"}, "", {.thread_count = 2});
  std::vector<std::thread> callers;
  std::atomic<int> wrong = 0;
  for (uint64_t caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (int64_t round = 0; round < 25; ++round) {
        Attention a({.batch = 1 + round % 2,
                     .seq_q = 1 + round % 3,
                     .seq_kv = 1 + round,
                     .heads_q = 4,
                     .heads_kv = 2},
                    caller * 100 + static_cast<uint64_t>(round));
        a.problem.causal = static_cast<int32_t>(round % 2);
        if (runtime->attention(a.problem, a.args, {}, nullptr) != ATTNRT_OK) ++wrong;
        if (!(largest_error(a.problem, a.args) < kTolerance)) ++wrong;
      }
    });
  }
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(OneShot, OnTheApplicationsOwnThreads) {
  struct Application {
    std::atomic<int> calls = 0;
  } application;
  RuntimeOptions options;
  options.thread_count = 3;
  options.parallel_self = &application;
  options.parallel_for = [](void* self, int64_t count, attnrt_parallel_body body, void* arg) {
    ++static_cast<Application*>(self)->calls;
    for (int64_t i = 0; i < count; ++i) body(arg, i, static_cast<int32_t>(i % 3));
  };
  const TestRuntime runtime({"cpu"}, "", options);
  Attention a({.batch = 2, .seq_q = 33, .seq_kv = 65, .heads_q = 4, .heads_kv = 2});
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
  EXPECT_GE(application.calls, 1);  // a backend may call it more than once
}

TEST(OneShot, OnTheCpuStreamsMeanNothing) {
  const TestRuntime runtime({"fake_full"});
  Attention a({});
  int streams[2];
  for (int round = 0; round < 3; ++round) {
    for (int& stream : streams) {
      a.args.stream = &stream;
      ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
    }
  }
  EXPECT_EQ(runtime->plans_made(), 1);
}

// Two backends, the better one first, and who serves a one-shot call; explain says the same.
struct Two {
  explicit Two(const std::string& policy = {})
      : runtime({"fake_slow", "fake_full"}, policy),
        first(runtime.counters(kAny, "fake_slow")),
        second(runtime.counters(kAny, "fake_full")) {
    first.runs = second.runs = 0;
  }
  std::string served(int64_t keys) {
    Attention a({.seq_kv = keys});
    attnrt_error error = ATTNRT_ERROR_INIT;
    const int64_t before = first.runs;
    EXPECT_EQ(runtime->attention(a.problem, a.args, {}, &error), ATTNRT_OK) << error.message;
    EXPECT_LT(largest_error(a.problem, a.args), kTolerance) << keys;
    std::string name = first.runs > before ? "fake_slow" : "fake_full";
    const auto decision = runtime->explain(checked(a.problem), "", {});
    EXPECT_EQ(decision.winner()->candidate.plugin->manifest->name, name) << keys;
    return name;
  }

  TestRuntime runtime;
  fake_counters& first;
  fake_counters& second;
};

TEST(OneShot, DecidesOnTheExactProblemAsExplainDoes) {
  Two two("rules: [{name: few keys, when: {seq_kv: {max: 40}}, prefer: [fake_full]}]\n");
  // All of these are rounded up to 64.
  for (const int64_t keys : {50, 39, 64, 33, 41, 40, 50, 39})
    EXPECT_EQ(two.served(keys), keys <= 40 ? "fake_full" : "fake_slow") << keys;
  EXPECT_EQ(two.runtime->plans_made(), 2);
}

TEST(OneShot, WhatSupportsSaysOfTheExactProblemCounts) {
  Two two;
  two.first.most_keys = 40;
  for (const int64_t keys : {50, 39, 64, 33, 41, 40, 35})
    EXPECT_EQ(two.served(keys), keys <= 40 ? "fake_slow" : "fake_full") << keys;
  two.first.most_keys = 0;
}

TEST(OneShot, PlansUpToTheMaximaOfTheManifest) {
  const TestRuntime runtime({"fake_narrow"});  // seq_q up to 40, batch up to 8
  Attention a({.seq_q = 40, .seq_kv = 3});
  attnrt_error error = ATTNRT_ERROR_INIT;
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, &error), ATTNRT_OK) << error.message;
  Attention fewer({.seq_q = 33, .seq_kv = 3});
  ASSERT_EQ(runtime->attention(fewer.problem, fewer.args, {}, &error), ATTNRT_OK) << error.message;
  EXPECT_LT(largest_error(fewer.problem, fewer.args), kTolerance);
  EXPECT_EQ(runtime->plans_made(), 1) << "of up to 40 queries";
}

TEST(OneShot, ABackendThatAcceptsOnlyTheExactProblemServesIt) {
  const TestRuntime runtime({"fake_full"});
  fake_counters& counters = runtime.counters(kAny);
  counters.most_keys = 40;
  for (const int64_t keys : {33, 40, 34}) {
    Attention a({.seq_kv = keys});
    attnrt_error error = ATTNRT_ERROR_INIT;
    ASSERT_EQ(runtime->attention(a.problem, a.args, {}, &error), ATTNRT_OK) << error.message;
    EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
  }
  EXPECT_EQ(runtime->plans_made(), 2) << "of 33 keys, and of 40, which serves 34";
  counters.most_keys = 0;
}

TEST(OneShot, AReloadForgetsItsPlans) {
  const TestRuntime runtime({"fake_full"});
  Attention a({});
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  EXPECT_EQ(runtime->plans_made(), 1);
  ASSERT_TRUE(runtime->reload());
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  EXPECT_EQ(runtime->plans_made(), 2);
}

}  // namespace
}  // namespace attnrt::core
