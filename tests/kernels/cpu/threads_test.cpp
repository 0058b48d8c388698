// tests/kernels/cpu/threads_test.cpp: whole runs by several threads, for ThreadSanitizer too: packing, blocks, chunks and their
// join at the same time
#include <gtest/gtest.h>

#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

// What the tasks of several threads wait for, tests of one thread never see.
TEST(Threads, SameBitsWhoeverDoesWhat) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    Recipe r;
    r.problem.dtype = dtype;
    r.problem.heads_q = 4;
    r.problem.heads_kv = 2;
    r.problem.head_dim = r.problem.head_dim_v = 40;
    r.problem.causal = r.problem.varlen = r.problem.lse = true;
    r.q_lengths = {300, 1, 2, 90};  // blocks, and steps of a decode beside them
    r.kv_lengths = {300, 1100, 700, 400};
    Case c(r);
    for (const cpu::Target* target : targets()) {
      SCOPED_TRACE(cpu::target_name(*target));
      std::string bits;
      for (const int32_t thread_count : {1, 4, 4, 4, 7}) {
        c.poison_outputs();
        cpu::Error error;
        ASSERT_EQ(run_once(c, *target, thread_count, &error), cpu::Status::ok) << error.message;
        if (thread_count == 1) bits = c.output_bytes();
        EXPECT_TRUE(bits == c.output_bytes()) << "other bits with " << thread_count << " threads";
      }
    }
  }
}

}  // namespace
}  // namespace kernels::test
