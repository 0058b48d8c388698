// kernels/hip/host/host.hpp: a kernel and a grid into a run on the CPU: a workgroup's threads are fibers
//
// Correct, not fast: it is how the kernels are tested where there is no GPU. A workgroup runs on one thread of the CPU; its
// fibers switch where threads wait for each other, so an access that races on a GPU is seen here only if the order of the
// fibers brings it out. `run` therefore takes the order of the lanes from a seed.
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

  char* shared(uint32_t offset) const;
  void meet_block();
  void meet_wave(int wave);  // the threads of this one's wave; wave: its size
  // What every lane of the wave gave, in lane order; valid until this thread's next call.
  const uint32_t* gather(const uint32_t* words, int count, int wave);
  uint32_t exchange(uint32_t value, int wave, int bit);
  bool any(bool condition, int wave);
};

// The thread that is running. REQUIRES: inside run.
Thread& current();

struct Launch {
  uint32_t grid[3];
  uint32_t block;
  uint32_t shared_bytes;
  uint32_t seed = 0;  // of the order in which fibers run
};

// Runs kernel() once as every thread of the grid. Workgroup memory is filled with NaN first, for every workgroup.
// THREADS: any; calls on different threads are independent.
void run(const Launch& launch, const std::function<void()>& kernel);

}  // namespace gpu::host
