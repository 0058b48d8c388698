// tests/kernels/support/run.cpp: runs the CPU kernels on a case and compares with float64
#include "tests/kernels/support/run.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "tests/kernels/support/accuracy.hpp"

namespace kernels::test {
namespace {

void run_on_threads(void* self, int64_t count, void (*body)(void*, int64_t, int32_t), void* arg) {
  const int32_t thread_count = static_cast<int32_t>(reinterpret_cast<intptr_t>(self));
  std::atomic<int64_t> next{0};
  const auto work = [&](int32_t worker) {
    for (int64_t index = next++; index < count; index = next++) body(arg, index, worker);
  };
  std::vector<std::thread> others;
  for (int32_t worker = 1; worker < thread_count; ++worker) others.emplace_back(work, worker);
  work(0);
  for (std::thread& other : others) other.join();
}

}  // namespace

cpu::Workers threads(int32_t count) {
  return {reinterpret_cast<void*>(static_cast<intptr_t>(count)), count, run_on_threads};
}

cpu::Status run_once(const Case& c, const cpu::Target& target, int32_t thread_count,
                     cpu::Error* error) {
  const int64_t bytes = cpu::workspace_bytes(c.problem, target, thread_count);
  const std::unique_ptr<void, void (*)(void*)> workspace(
      std::aligned_alloc(cpu::kWorkspaceAlignment, static_cast<size_t>(bytes)), std::free);
  memset(workspace.get(), 0xFF, static_cast<size_t>(bytes));
  return cpu::run(c.problem, c.args, target, threads(thread_count), workspace.get(), bytes, error);
}

std::vector<const cpu::Target*> targets() {
  std::vector<const cpu::Target*> all;
  for (const cpu::Target* target = cpu::next_target(nullptr); target != nullptr;
       target = cpu::next_target(target))
    all.push_back(target);
  return all;
}

void expect_right(const Recipe& recipe) {
  SCOPED_TRACE(describe(recipe));
  Case c(recipe);
  expect_right(c);
}

void expect_right(Case& c) {
  const reference::Expectation expected = reference::expect(c.problem, c.args);
  for (const cpu::Target* target : targets()) {
    SCOPED_TRACE(cpu::target_name(*target));
    std::string bits;
    for (const int32_t thread_count : {1, 2, 3}) {
      c.poison_outputs();
      cpu::Error error;
      ASSERT_EQ(run_once(c, *target, thread_count, &error), cpu::Status::ok) << error.message;
      EXPECT_TRUE(c.outside_untouched()) << "wrote outside the rows";
      if (thread_count == 1) {
        expect_accurate(c, expected);
        bits = c.output_bytes();
      } else {
        EXPECT_TRUE(bits == c.output_bytes()) << "other bits with " << thread_count << " threads";
      }
    }
  }
}

}  // namespace kernels::test
