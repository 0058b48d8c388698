// kernels/hip/host/host.cpp: runs the threads of a workgroup as fibers that take turns
// (Boost.Context)
#include "kernels/hip/host/host.hpp"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <cassert>
#include <memory>
#include <random>

#include "kernels/common/shuffle.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace gpu::host {

namespace {
namespace context = boost::context;
constexpr size_t kStackBytes = 256 << 10;
thread_local Thread* running = nullptr;
}  // namespace

// A barrier: how many of its members have arrived, and how often all of them had.
struct Barrier {
  uint32_t members = 0;
  uint32_t arrived = 0;
  uint64_t passes = 0;
};

class Block {
 public:
  Block(const Launch& launch, const std::function<void()>& kernel)
      : launch_(launch),
        kernel_(kernel),
        shared_(launch.shared_bytes),
        threads_(launch.block),
        fibers_(launch.block) {
    order_.resize(launch.block);
    for (uint32_t i = 0; i < launch.block; ++i) order_[i] = i;
  }

  void run(uint32_t x, uint32_t y, uint32_t z) {
    std::fill(shared_.begin(), shared_.end(), static_cast<char>(0xFF));
    block_barrier_ = {launch_.block, 0, 0};
    wave_barriers_.assign(launch_.block, Barrier{});
    words_.clear();
    std::mt19937 random(launch_.seed + x * 7919u + y);
    for (uint32_t i = 0; i < launch_.block; ++i) {
      threads_[i] = {this, i, {x, y, z}, {launch_.grid[0], launch_.grid[1], launch_.grid[2]}};
      fibers_[i] = make_fiber(i);
    }
    finished_ = 0;
    while (finished_ < launch_.block) {
      if (launch_.seed != 0) kernels::shuffle(order_, random);
      for (const uint32_t i : order_) resume(i);
    }
  }

  char* shared(uint32_t offset) {
    assert(offset < shared_.size());
    return shared_.data() + offset;
  }

  void wait(Barrier& barrier) {
    const uint64_t mine = barrier.passes;
    if (++barrier.arrived == barrier.members) {
      barrier.arrived = 0;
      ++barrier.passes;
      return;
    }
    while (barrier.passes == mine) yield();
  }
  Barrier& barrier_of_block() { return block_barrier_; }
  Barrier& barrier_of_wave(uint32_t thread, int wave) {
    Barrier& barrier = wave_barriers_[thread / static_cast<uint32_t>(wave)];
    barrier.members = std::min<uint32_t>(static_cast<uint32_t>(wave), launch_.block);
    return barrier;
  }

  // Where a wave exchanges words. Two sets alternate, because a lane can be one exchange ahead of
  // another, but not two.
  uint32_t* words(uint32_t first_thread, int wave, int count, uint64_t turn) {
    const size_t per_wave = 64 * 64;
    const size_t need = (launch_.block / static_cast<size_t>(wave) + 1) * 2 * per_wave;
    assert(static_cast<size_t>(wave) * static_cast<size_t>(count) <= per_wave);
    (void)count;
    if (words_.size() < need) words_.resize(need);
    return words_.data() + (first_thread / static_cast<size_t>(wave) * 2 + turn % 2) * per_wave;
  }

 private:
  context::fiber make_fiber(uint32_t i) {
    if (stacks_.size() <= i) stacks_.resize(launch_.block);
    return context::fiber(std::allocator_arg, Stack{&stacks_[i]}, [this, i](context::fiber&& back) {
      entered(i);
      back_ = std::move(back);
      kernel_();
      ++finished_;
      leaving(i, true);
      return std::move(back_);
    });
  }

  // The stack of each fiber, kept from one workgroup to the next.
  struct Memory {
    std::unique_ptr<char[]> bytes;
  };
  struct Stack {
    Memory* memory;
    context::stack_context allocate() {
      if (!memory->bytes) memory->bytes.reset(new char[kStackBytes]);
      context::stack_context stack;
      stack.size = kStackBytes;
      stack.sp = memory->bytes.get() + kStackBytes;
      return stack;
    }
    void deallocate(context::stack_context&) {}
  };

  void resume(uint32_t i) {
    if (!fibers_[i]) return;
    running = &threads_[i];
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stacks_[i].bytes.get(), kStackBytes);
#endif
    fibers_[i] = std::move(fibers_[i]).resume();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    running = nullptr;
  }

  void yield() {
    const uint32_t i = running->thread;
    leaving(i, false);
    context::fiber back = std::move(back_).resume();
    entered(i);
    back_ = std::move(back);
  }

  // Tells AddressSanitizer of each switch between stacks.
  void entered([[maybe_unused]] uint32_t i) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(threads_fake_.size() > i ? threads_fake_[i] : nullptr,
                                    &main_stack_, &main_bytes_);
#endif
  }
  void leaving([[maybe_unused]] uint32_t i, [[maybe_unused]] bool finished) {
#if defined(__SANITIZE_ADDRESS__)
    threads_fake_.resize(launch_.block);
    threads_fake_[i] = nullptr;  // the next workgroup's fiber starts without
    __sanitizer_start_switch_fiber(finished ? nullptr : &threads_fake_[i], main_stack_,
                                   main_bytes_);
#endif
  }

  const Launch launch_;
  const std::function<void()>& kernel_;
  std::vector<char> shared_;
  std::vector<Thread> threads_;
  std::vector<Memory> stacks_;
  std::vector<context::fiber> fibers_;
  std::vector<uint32_t> order_;
  context::fiber back_;
  uint32_t finished_ = 0;
  Barrier block_barrier_;
  std::vector<Barrier> wave_barriers_;
  std::vector<uint32_t> words_;
#if defined(__SANITIZE_ADDRESS__)
  std::vector<void*> threads_fake_;
  const void* main_stack_ = nullptr;
  size_t main_bytes_ = 0;
#endif
};

char* Thread::shared(uint32_t offset) const { return owner->shared(offset); }
void Thread::will_store(uint32_t, uint32_t) {}
void Thread::wait_for_block() { owner->wait(owner->barrier_of_block()); }
void Thread::wait_for_wave(int wave) { owner->wait(owner->barrier_of_wave(thread, wave)); }

const uint32_t* Thread::gather(const uint32_t* given, int count, int wave) {
  Barrier& barrier = owner->barrier_of_wave(thread, wave);
  const uint32_t lane = thread % static_cast<uint32_t>(wave);
  uint32_t* all = owner->words(thread - lane, wave, count, barrier.passes);
  std::copy(given, given + count, all + lane * static_cast<uint32_t>(count));
  owner->wait(barrier);
  return all;
}

uint32_t Thread::exchange(uint32_t value, int wave, int bit) {
  const uint32_t lane = thread % static_cast<uint32_t>(wave);
  return gather(&value, 1, wave)[lane ^ static_cast<uint32_t>(bit)];
}

bool Thread::any(bool condition, int wave) {
  const uint32_t word = condition ? 1 : 0;
  const uint32_t* all = gather(&word, 1, wave);
  return std::any_of(all, all + wave, [](uint32_t w) { return w != 0; });
}

Thread& current() {
  assert(running != nullptr);
  return *running;
}

void run(const Launch& launch, const std::function<void()>& kernel) {
  Block block(launch, kernel);
  for (uint32_t z = 0; z < launch.grid[2]; ++z) {
    for (uint32_t y = 0; y < launch.grid[1]; ++y) {
      for (uint32_t x = 0; x < launch.grid[0]; ++x) block.run(x, y, z);
    }
  }
}

}  // namespace gpu::host
