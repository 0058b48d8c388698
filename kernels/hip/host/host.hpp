// kernels/hip/host/host.hpp: runs a kernel over a grid on the CPU, with fibers as the threads of a
// workgroup
//
// It is made to be correct, not fast: the kernels are tested with it on machines without a GPU. A
// workgroup runs on one thread of the CPU, and its fibers switch where threads wait for each other.
// So a race shows here only if the order of the fibers brings it out; that order comes from a seed.
// If all fibers wait, the process ends with a list of what each thread waits for. async.hpp and
// wgmma.hpp say which other mistakes of a kernel end it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace gpu::host {

class Block;

// One thread of a workgroup.
struct Thread {
  Block* owner;
  uint32_t thread;
  uint32_t block[3];
  uint32_t grid[3];

  // What gpu.hpp names: see there.
  char* shared(uint32_t offset) const;
  void will_store(uint32_t offset, uint32_t bytes);
  void wait_for_block();
  void wait_for_wave(int wave);  // of this thread's wave; wave: its size in lanes
  // RETURNS the words that every lane of the wave gave, in lane order; valid until this thread's
  // next call.
  const uint32_t* gather(const uint32_t* words, int count, int wave);
  uint32_t exchange(uint32_t value, int wave, int bit);
  bool any(bool condition, int wave);
};

// RETURNS the thread that is running. REQUIRES: called inside run.
Thread& current();

struct Launch {
  uint32_t grid[3];
  uint32_t block;
  uint32_t shared_bytes;
  // Of the order in which fibers run (0: by their number) and of when copies and products complete.
  uint32_t seed = 0;
};

// Runs kernel() once as every thread of the grid. Workgroup memory is filled with NaN before each
// workgroup.
// THREADS: any; calls on different threads are independent.
void run(const Launch& launch, const std::function<void()>& kernel);

}  // namespace gpu::host
