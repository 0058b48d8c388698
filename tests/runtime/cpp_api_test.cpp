// tests/runtime/cpp_api_test.cpp: what attnrt.hpp adds to the C API
#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <attnrt/attnrt.hpp>

#include "fakes/fakes.hpp"

namespace {

TEST(CppApi, ATensorIsDense) {
  std::array<float, 120> data{};
  const attnrt::Tensor view = attnrt::tensor(data.data(), {2, 3, 4, 5});
  EXPECT_EQ(view.ndim, 4);
  EXPECT_EQ(view.stride[0], 60);
  EXPECT_EQ(view.stride[3], 1);
}

// A view has room for four dimensions. One of five is refused where it is used, whatever its name.
TEST(CppApi, AFifthDimensionIsRefused) {
  std::array<float, 64> data{};
  auto runtime = attnrt::Runtime::open().value();
  const auto one = [&] { return attnrt::tensor(data.data(), {1, 1, 1, 8}); };
  const auto five = [&] { return attnrt::tensor(data.data(), {1, 1, 1, 8, 1}); };
  EXPECT_EQ(five().ndim, 5);
  const attnrt::Args right{.q = one(), .k = one(), .v = one(), .out = one()};
  attnrt::Args q = right, out = right, mask = right;
  q.q = five(), out.out = five(), mask.mask = five();
  for (const auto& [args, name] : {std::pair{&q, "q"}, {&out, "out"}, {&mask, "mask"}}) {
    const auto done = runtime.attention({}, *args);
    ASSERT_FALSE(done) << name;
    EXPECT_EQ(done.error().code, ATTNRT_INVALID_ARGUMENT);
    EXPECT_NE(done.error().message.find(std::string("tensor ") + name + " has 5 dimensions"),
              std::string::npos)
        << done.error().message;
  }
}

TEST(CppApi, APlanExplainsItselfAndARuntimeIsTrimmed) {
  const attnrt::fakes::Directory plugins;
  plugins.add("fake_full");
  auto runtime =
      attnrt::Runtime::open({.policy_text = "unlisted: allow", .plugin_path = plugins.text()})
          .value();
  const auto plan = runtime.plan({.head_dim = 4}).value();
  EXPECT_NE(plan.explain().value().find("decision  fake_full 1.0.0 on cpu"), std::string::npos);
  EXPECT_NE(plan.explain(attnrt::Format::json).value().find("\"chosen\": \"fake_full\""),
            std::string::npos);
  EXPECT_TRUE(runtime.trim());
  EXPECT_TRUE(runtime.trim(1000));
  EXPECT_EQ(runtime.trim(-1).error().code, ATTNRT_INVALID_ARGUMENT);
}

TEST(CppApi, CountersAndDecisions) {
  const attnrt::fakes::Directory plugins;
  plugins.add("fake_full");
  auto runtime =
      attnrt::Runtime::open({.policy_text = "unlisted: allow", .plugin_path = plugins.text()})
          .value();
  EXPECT_EQ(runtime.decisions().value(), "");
  const auto plan = runtime.plan({.head_dim = 4}).value();
  EXPECT_NE(runtime.stats().value().find("fake_full 1.0.0"), std::string::npos);
  EXPECT_NE(runtime.stats(attnrt::Format::json).value().find("\"plans\": 1"), std::string::npos);
  EXPECT_TRUE(runtime.decisions().value().starts_with("{\"sequence\": 1, "));
  EXPECT_EQ(runtime.decisions(1).value(), "");
}

TEST(CppApi, ALoopWatchesTheDirectories) {
  const attnrt::fakes::Directory plugins;
  auto runtime =
      attnrt::Runtime::open({.policy_text = "unlisted: allow", .plugin_path = plugins.text()})
          .value();
  EXPECT_EQ(runtime.handle_events().error().code, ATTNRT_INVALID_ARGUMENT);
  const auto descriptor = runtime.watch();
  ASSERT_TRUE(descriptor);
  plugins.add("fake_full");
  constexpr int kPatienceMs = 30'000;
  while (runtime.plugins().value().find("fake_full") == std::string::npos) {
    pollfd waited{*descriptor, POLLIN, 0};
    ASSERT_EQ(poll(&waited, 1, kPatienceMs), 1);
    ASSERT_TRUE(runtime.handle_events());
  }
}

// On the cpu a schedule does nothing, and its checks are those of a device.
TEST(CppApi, AScheduleServesEqualPlans) {
  const attnrt::fakes::Directory plugins;
  plugins.add("fake_full");
  auto runtime =
      attnrt::Runtime::open({.policy_text = "unlisted: allow", .plugin_path = plugins.text()})
          .value();
  auto plan = runtime.plan({.head_dim = 4}).value(), other = runtime.plan({.head_dim = 4}).value();
  auto wide = runtime.plan({.head_dim = 8}).value();
  alignas(64) std::array<float, 4> q{1, 2, 3, 4}, k{1, 0, 1, 0}, v{5, 6, 7, 8}, out{};
  const auto one = [](float* data) { return attnrt::tensor(data, {1, 1, 1, 4}); };
  const attnrt::Args args{
      .q = one(q.data()), .k = one(k.data()), .v = one(v.data()), .out = one(out.data())};
  auto schedule = plan.schedule().value();
  EXPECT_EQ(schedule.bytes(), 0);
  EXPECT_EQ(plan.run(args, schedule).error().code, ATTNRT_INVALID_ARGUMENT) << "it is not built";
  ASSERT_TRUE(schedule.build(args));
  for (attnrt::Plan* each : {&plan, &other}) {
    out = {};
    EXPECT_TRUE(each->run(args, schedule));
    EXPECT_EQ(out, v);
  }
  attnrt::Args empty = args;
  empty.q = {};
  EXPECT_EQ(schedule.build(empty).error().message,
            "schedule: tensor q is absent, but the problem uses it");
  EXPECT_FALSE(wide.run(args, schedule));
}

}  // namespace
