// tests/runtime/merge_test.cpp: attnrt_merge: its result, its checks, and who merges
#include "merge.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <attnrt/attnrt.hpp>
#include <cmath>
#include <functional>

#include "fakes/fakes.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace {

using attnrt::core::support::Aligned;
using attnrt::core::support::kF32;
using attnrt::core::support::number;
using attnrt::core::support::view;
using attnrt::fakes::Directory;
using ::testing::AllOf;
using ::testing::HasSubstr;

class MergeTest : public ::testing::Test {
 protected:
  MergeTest() { plugins_.copy(attnrt::core::support::cpu_plugin(), "cpu.so"); }

  attnrt::Runtime open(const std::string& policy = "schema: 1\n") {
    return attnrt::Runtime::open(
               {.policy_text = policy, .plugin_path = plugins_.text(), .thread_count = 2})
        .value();
  }

  Directory plugins_;
};

// Two partials of one shape, [batch 2, seq 3, heads 2, dim 4] and [batch, heads, seq].
struct Two {
  Aligned<float> values{48 * 3}, numbers{12 * 3};
  attnrt_tensor outs[2], lses[2], out, lse;

  Two() {
    for (size_t i = 0; i < values.size(); ++i) values[i] = number(i);
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = number(1000 + i);
    for (size_t i = 0; i < 3; ++i) {
      (i < 2 ? outs[i] : out) = view(values.data() + 48 * i, kF32, {2, 3, 2, 4});
      (i < 2 ? lses[i] : lse) = view(numbers.data() + 12 * i, kF32, {2, 2, 3});
    }
  }
};

std::string message_of(attnrt::Runtime& runtime, const Two& two) {
  const auto merged = runtime.merge(two.outs, two.lses, two.out, two.lse);
  return merged ? "" : merged.error().message;
}

// Attention over 64 keys, once in one run and once in three runs over parts of them.
TEST_F(MergeTest, PartsOfTheKeysGiveTheWhole) {
  auto runtime = open();
  constexpr int64_t kQueries = 5, kKeys = 64, kHeads = 3, kDim = 16;
  Aligned<float> q(kQueries * kHeads * kDim), k(kKeys * kHeads * kDim), v(k.size());
  uint64_t at = 0;
  for (const auto* values : {&q, &k, &v}) {
    for (float& value : *values) value = 3 * number(at++);
  }
  const auto run = [&](int64_t first, int64_t keys, float* out, float* lse) {
    const auto begin = static_cast<size_t>(first * kHeads * kDim);
    attnrt::Args args;
    args.q = view(q.data(), kF32, {1, kQueries, kHeads, kDim});
    args.k = view(k.data() + begin, kF32, {1, keys, kHeads, kDim});
    args.v = view(v.data() + begin, kF32, {1, keys, kHeads, kDim});
    args.out = view(out, kF32, {1, kQueries, kHeads, kDim});
    args.lse = view(lse, kF32, {1, kHeads, kQueries});
    const auto done = runtime.attention({}, args);
    EXPECT_TRUE(done) << done.error().message;
  };
  Aligned<float> whole(q.size()), whole_lse(kQueries * kHeads);
  run(0, kKeys, whole.data(), whole_lse.data());
  Aligned<float> parts(3 * q.size()), part_lses(3 * whole_lse.size());
  std::vector<attnrt::Tensor> outs, lses;
  const int64_t ends[] = {0, 20, 21, 64};
  for (size_t i = 0; i < 3; ++i) {
    float* out = parts.data() + i * q.size();
    float* lse = part_lses.data() + i * whole_lse.size();
    run(ends[i], ends[i + 1] - ends[i], out, lse);
    outs.push_back(view(out, kF32, {1, kQueries, kHeads, kDim}));
    lses.push_back(view(lse, kF32, {1, kHeads, kQueries}));
  }
  Aligned<float> merged(q.size(), NAN), lse(whole_lse.size(), NAN);
  const auto done =
      runtime.merge(outs, lses, view(merged.data(), kF32, {1, kQueries, kHeads, kDim}),
                    view(lse.data(), kF32, {1, kHeads, kQueries}));
  ASSERT_TRUE(done) << done.error().message;
  for (size_t i = 0; i < merged.size(); ++i) EXPECT_NEAR(merged[i], whole[i], 1e-5) << i;
  for (size_t i = 0; i < lse.size(); ++i) EXPECT_NEAR(lse[i], whole_lse[i], 1e-5) << i;
}

TEST_F(MergeTest, AByteOffsetMovesATensor) {
  auto runtime = open();
  Two two, moved;
  ASSERT_EQ(message_of(runtime, two), "");
  for (attnrt_tensor* tensor : {&moved.outs[1], &moved.lses[0], &moved.out, &moved.lse}) {
    tensor->data = static_cast<char*>(tensor->data) - 16;
    tensor->byte_offset = 16;
  }
  ASSERT_EQ(message_of(runtime, moved), "");
  for (size_t i = 0; i < two.values.size(); ++i) EXPECT_EQ(moved.values[i], two.values[i]) << i;
  for (size_t i = 0; i < two.numbers.size(); ++i) EXPECT_EQ(moved.numbers[i], two.numbers[i]) << i;
}

TEST_F(MergeTest, MayWriteOverAPartial) {
  auto runtime = open();
  Two two, in_place;
  ASSERT_EQ(message_of(runtime, two), "");
  in_place.out = in_place.outs[0];
  in_place.lse = in_place.lses[1];
  ASSERT_EQ(message_of(runtime, in_place), "");
  for (size_t i = 0; i < 48; ++i) EXPECT_EQ(in_place.values[i], two.values[96 + i]) << i;
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(in_place.numbers[12 + i], two.numbers[24 + i]) << i;
}

TEST_F(MergeTest, NothingToDoIsOk) {
  auto runtime = open();
  Two two;
  for (attnrt_tensor* tensor :
       {&two.outs[0], &two.outs[1], &two.out, &two.lses[0], &two.lses[1], &two.lse})
    tensor->shape[0] = 0;
  EXPECT_EQ(message_of(runtime, two), "");
}

TEST_F(MergeTest, ChecksEachTensor) {
  auto runtime = open();
  const auto refusal = [&](const std::function<void(Two&)>& change) {
    Two two;
    change(two);
    const std::string text = message_of(runtime, two);
    EXPECT_EQ(two.values[96], number(96)) << text;  // nothing was written
    return text;
  };
  EXPECT_EQ(refusal([](Two& t) {
              t.outs[1].dtype = {ATTNRT_DTYPE_FLOAT, 16, 1};
            }),
            "merge: tensor outs[1] is f16; expected f32");
  EXPECT_EQ(refusal([](Two& t) { t.outs[1].shape[3] = 3; }),
            "merge: tensor outs[1] has 3 in dimension 3; expected 4");
  EXPECT_EQ(refusal([](Two& t) { t.lses[0].shape[2] = 2; }),
            "merge: tensor lses[0] has 2 in dimension 2; expected 3");
  EXPECT_EQ(refusal([](Two& t) { t.out.ndim = 2; }),
            "merge: tensor out has 2 dimensions; expected 4, or 3 if it is packed");
  EXPECT_EQ(refusal([](Two& t) {
              t.out.dtype = {ATTNRT_DTYPE_INT, 32, 1};
            }),
            "merge: tensor out is int32; expected f32, f16 or bf16");
  EXPECT_EQ(refusal([](Two& t) { t.outs[0].stride[3] = 2; }),
            "merge: tensor outs[0] has stride 2 in head_dim_v; expected 1");
  EXPECT_THAT(refusal([](Two& t) { t.outs[0].data = nullptr; }),
              HasSubstr("tensor outs[0] is absent; expected memory"));
  EXPECT_THAT(refusal([](Two& t) { t.out.stride[1] = 0; }), HasSubstr("tensor out"));
  EXPECT_THAT(refusal([](Two& t) { t.outs[1].reserved[0] = 1; }),
              AllOf(HasSubstr("outs[1]"), HasSubstr("reserved")));
  EXPECT_THAT(refusal([](Two& t) { t.lse = t.lses[0], t.lse.data = t.numbers.data() + 1; }),
              HasSubstr("tensor lse overlaps tensor lses[0]"));
  EXPECT_THAT(refusal([](Two& t) { t.out.data = t.values.data() + 4; }),
              HasSubstr("tensor out overlaps tensor outs[0]"));
}

TEST_F(MergeTest, TheBestEnabledBackendThatOffersItMerges) {
  plugins_.add("fake_merge_fails");
  plugins_.add("fake_full");
  const std::string first =
      "backends: {fake_full: {priority: 900}, fake_merge_fails: {priority: 800";
  auto failing = open(first + "}}\n");
  EXPECT_EQ(message_of(failing, Two()), "merge: fake_merge_fails: merge was told to fail");
  auto disabled = open(first + ", enabled: false}}\n");
  EXPECT_EQ(message_of(disabled, Two()), "");
  auto nobody = open(first + ", enabled: false}, cpu: {enabled: false}}\n");
  EXPECT_THAT(
      message_of(nobody, Two()),
      AllOf(HasSubstr("merge: no backend of cpu merges: "), HasSubstr("cpu 1.0.0: disabled"),
            HasSubstr("fake_full 1.0.0: does not offer attnrt.merge/1")));
  auto pinned = open("backends: {fake_merge_fails: {version: \">=9\"}, cpu: {enabled: false}}\n");
  EXPECT_THAT(message_of(pinned, Two()), HasSubstr("version 1.0.0 is not in >=9"));
  const Two two;
  const auto elsewhere = failing.merge(two.outs, two.lses, two.out, two.lse, attnrt::Device::rocm);
  ASSERT_FALSE(elsewhere);
  EXPECT_EQ(elsewhere.error().code, ATTNRT_UNSUPPORTED);
  EXPECT_EQ(elsewhere.error().message,
            "merge: no backend of rocm merges: no plugin for it was found");
}

TEST_F(MergeTest, AVersionInRolloutMergesWhatNothingElseDoes) {
  const Two two;
  plugins_.add("fake_every_word");
  auto alone = open(
      "schema: 1\nbackends: {fake_every_word: {priority: 900, rollout: {version: '>=1', canary: "
      "1/1}}, cpu: {enabled: false}}\n");
  EXPECT_EQ(message_of(alone, two), "");
  ASSERT_TRUE(alone.roll_back("fake_every_word"));
  EXPECT_THAT(message_of(alone, two), HasSubstr("fake_every_word 1.0.0: rolled back ("));
  ASSERT_TRUE(alone.promote("fake_every_word"));
  EXPECT_EQ(message_of(alone, two), "");
  const auto unknown = alone.promote("cpu");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ATTNRT_NOT_FOUND);
  attnrt_error error = ATTNRT_ERROR_INIT;
  EXPECT_EQ(attnrt_runtime_promote(alone.c(), nullptr, &error), ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("backend"));
  EXPECT_EQ(attnrt_runtime_roll_back(nullptr, "cpu", &error), ATTNRT_INVALID_ARGUMENT);
}

TEST_F(MergeTest, ABackendThatRunsOutOfMemoryWhileItIsLoadedLeavesItToTheNext) {
  using attnrt::core::support::TestRuntime;
  // The counters of the library, which stays mapped.
  fake_counters& counters = TestRuntime({"fake_merge_fails"}).counters(attnrt::core::support::kAny);
  counters.open_status = ATTNRT_OUT_OF_MEMORY;
  const Two two;
  attnrt_error error = ATTNRT_ERROR_INIT;
  const auto status = [&](const TestRuntime& runtime) {
    return attnrt::core::merge(*runtime->snapshot(), ATTNRT_DEVICE_CPU,
                               {0, two.outs, two.lses, two.out, two.lse}, &error);
  };
  const TestRuntime both({"fake_merge_fails", "cpu"}), alone({"fake_merge_fails"});
  EXPECT_EQ(status(both), ATTNRT_OK) << error.message;
  EXPECT_EQ(status(alone), ATTNRT_OUT_OF_MEMORY);
  EXPECT_STREQ(error.message,
               "merge: fake_merge_fails 1.0.0: cannot be opened: open was told to fail by a test");
  counters.open_status = ATTNRT_OK;
  for (const TestRuntime* runtime : {&both, &alone}) {
    EXPECT_EQ(status(*runtime), ATTNRT_INTERNAL) << "it is asked again";
    EXPECT_STREQ(error.message, "merge: fake_merge_fails: merge was told to fail");
  }
}

TEST_F(MergeTest, PointersAndTheCountAreChecked) {
  auto runtime = open();
  const Two two;
  attnrt_error error = ATTNRT_ERROR_INIT;
  const auto status = [&](const attnrt_tensor* outs, const attnrt_tensor* lses, int32_t count,
                          const attnrt_tensor* out) {
    return attnrt_merge(runtime.c(), ATTNRT_DEVICE_CPU, 0, outs, lses, count, out, nullptr, nullptr,
                        &error);
  };
  EXPECT_EQ(status(nullptr, two.lses, 2, &two.out), ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("outs is NULL"));
  EXPECT_EQ(status(two.outs, nullptr, 2, &two.out), ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("lses is NULL"));
  EXPECT_EQ(status(two.outs, two.lses, 2, nullptr), ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("out is NULL"));
  EXPECT_EQ(status(two.outs, two.lses, 0, &two.out), ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("count is 0"));
  EXPECT_EQ(status(two.outs, two.lses, 2, &two.out), ATTNRT_OK);  // without lse
  EXPECT_EQ(attnrt_merge(nullptr, ATTNRT_DEVICE_CPU, 0, two.outs, two.lses, 2, &two.out, nullptr,
                         nullptr, nullptr),
            ATTNRT_INVALID_ARGUMENT);
  const auto lengths = runtime.merge(two.outs, std::span(two.lses, 1), two.out);
  EXPECT_THAT(lengths.error().message, HasSubstr("found 2 outs and 1 lses"));
}

}  // namespace
