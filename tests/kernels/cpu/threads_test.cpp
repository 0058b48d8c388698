// tests/kernels/cpu/threads_test.cpp: runs on several threads give the same bits as on one
//
// ThreadSanitizer runs this file too: it packs, computes blocks, and merges splits of decode steps
// at the same time.
#include <gtest/gtest.h>

#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

TEST(Threads, ThreadsDoNotChangeTheBits) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    Recipe r;
    r.problem.dtype = dtype;
    r.problem.heads_q = 4;
    r.problem.heads_kv = 2;
    r.problem.head_dim = r.problem.head_dim_v = 40;
    r.problem.causal = r.problem.varlen = r.problem.lse = true;
    r.q_lengths = {300, 1, 2, 90};  // two sequences for prefill, two for decode
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
