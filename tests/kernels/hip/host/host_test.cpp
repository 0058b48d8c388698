// tests/kernels/hip/host/host_test.cpp: fibers of a workgroup meet, and a workgroup that is stuck
// says why
#include "kernels/hip/host/host.hpp"

#include <gtest/gtest.h>

#include "kernels/hip/gpu.hpp"

namespace gpu {
namespace {

// Waves meet in 32 and warpgroups in 128, which have numbers in common.
TEST(Host, MeetingsOfWavesAndWarpgroupsAreApart) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    host::run({{1, 1, 1}, 384, 16, seed}, [] {
      const uint32_t thread = gpu::thread();
      for (uint32_t i = 0; i < 4 + thread / 32; ++i) {  // each wave as often as it likes
        EXPECT_EQ(exchange<32>(thread * 100 + i, 8), (thread ^ 8) * 100 + i);
      }
      host::Thread& here = host::current();
      const uint32_t words[2] = {thread, thread + 1};
      const uint32_t* all = here.gather(words, 2, 128);
      for (uint32_t i = 0; i < 128; ++i) {
        EXPECT_EQ(all[2 * i], thread / 128 * 128 + i);
        EXPECT_EQ(all[2 * i + 1], thread / 128 * 128 + i + 1);
      }
      EXPECT_TRUE(any<32>(thread % 32 == 7));
      barrier();
    });
  }
}

TEST(HostDeathTest, SaysWhatEachThreadWaitsForWhenNoneCanRun) {
  const auto stuck = [] {
    host::run({{1, 1, 1}, 96, 16, 3}, [] {
      if (thread() < 32) return;
      if (thread() >= 64) barrier();
      exchange<32>(thread() < 40 ? 1.0F : 2.0F, 1);
      if (thread() == 40) return;
      exchange<32>(1.0F, 1);
    });
  };
  EXPECT_DEATH(
      stuck(),
      "workgroup \\(0, 0, 0\\): no thread can run:\n"
      "  threads 0 to 31: ended\n"
      "  threads 32 to 39: waiting for the others of threads 32 to 63, of which 31 have come\n"
      "  thread 40: ended\n"
      "  threads 41 to 63: waiting for the others of threads 32 to 63, of which 31 have come\n"
      "  threads 64 to 95: waiting for the others of threads 0 to 95, of which 32 have come\n");
}

TEST(HostDeathTest, LanesOfAWaveExchangeTheSame) {
  const auto kernel = [] {
    const uint32_t words[2] = {};
    host::current().gather(words, thread() == 5 ? 2 : 1, 32);
  };
  EXPECT_DEATH(host::run({{1, 1, 1}, 32, 16, 0}, kernel),
               "thread 5 of .*: hands on 2 words where the others of its wave hand on 1");
}

TEST(HostDeathTest, WorkgroupMemoryHasAnEnd) {
  EXPECT_DEATH(host::run({{1, 1, 1}, 1, 16, 0}, [] { shared_load<uint32_t>(16); }),
               "offset 16 is outside of workgroup memory, 16 bytes");
  EXPECT_DEATH(host::run({{1, 1, 1}, 1, 16, 0}, [] { shared_store<uint32_t>(13, 0); }),
               "stores to 17, past the end of workgroup memory, 16 bytes");
}

}  // namespace
}  // namespace gpu
