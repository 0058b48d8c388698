// kernels/hip/host/block.hpp: one workgroup of the host build: its fibers, its memory, and what its
// threads wait for
#pragma once

#include <boost/context/fiber.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/hip/host/host.hpp"

namespace gpu::host {

// Prints the running thread and the message, and ends the process: the kernel is wrong.
__attribute__((format(printf, 1, 2))) [[noreturn]] void fail(const char* format, ...);

// What a thread knows to be complete, as counts: from kProducts on, products of each warpgroup;
// from kPhases on, phases of each mbarrier. It knows what it has waited for, and what the threads
// that came before it to an mbarrier, barrier or meeting knew when they came there.
class Knowledge {
 public:
  static constexpr size_t kProducts = 0, kPhases = 8;

  uint64_t of(size_t what) const { return what < counts_.size() ? counts_[what] : 0; }
  void learn(size_t what, uint64_t count);
  void learn(const Knowledge& other);
  void forget() { counts_.clear(); }

 private:
  std::vector<uint64_t> counts_;
};

// Something that threads wait for. It is passed again and again.
struct Awaited {
  uint64_t passes = 0;  // how often it has been passed
  // Of the threads that have come, and of those that had come at the last pass.
  Knowledge arriving, knowledge;

  virtual ~Awaited() = default;
  void pass() {
    ++passes;
    knowledge = arriving;
  }
  // RETURNS what it is, and what its next pass lacks.
  virtual std::string missing() const = 0;
  // Is called when a thread waits for a pass that has not come.
  virtual void poll() {}
};

// A barrier of the threads of a wave, of a warpgroup or of the workgroup. They may hand words to
// each other there.
struct Meeting : Awaited {
  uint32_t first = 0, members = 0;  // threads
  uint32_t arrived = 0;
  uint32_t words_given = 0;  // by each thread, in this pass
  // Two sets alternate, because a lane can be one exchange ahead of another, but not two.
  std::vector<uint32_t> words[2];

  std::string missing() const override;
};

// Which thread last stored to each word of workgroup memory, if it has not called
// fence_async_proxy() since. Of two threads that store to halves of a word it knows the second.
class StoreMarks {
 public:
  void start(uint32_t bytes, uint32_t threads);
  void stored(uint32_t thread, uint32_t offset, uint32_t bytes);
  void fenced(uint32_t thread) { ++fences_[thread]; }
  void copied(uint32_t offset, uint32_t bytes);
  // RETURNS a thread whose store to these bytes is not fenced; -1 if there is none.
  int unfenced(uint32_t offset, uint32_t bytes) const;

 private:
  // 0: none; else thread + 1 in the low 11 bits, and how many fences it had passed.
  std::vector<uint32_t> marks_;
  std::vector<uint32_t> fences_;  // of each thread
};

// What runs beside the threads of a workgroup: copies (async.cpp), products (wgmma.cpp).
struct Unit {
  virtual ~Unit() = default;
  virtual void start() = 0;  // before each workgroup
  virtual void thread_ends(uint32_t /*thread*/) {}
  virtual void end() {}  // after the last thread
  // RETURNS what may be using these bytes of workgroup memory, for all that the running thread
  // knows; "" if nothing may.
  virtual std::string user_of(uint32_t offset, uint32_t bytes) const = 0;
};

class Block {
 public:
  Block(const Launch& launch, const std::function<void()>& kernel);
  void run(uint32_t x, uint32_t y, uint32_t z);

  uint32_t threads() const { return launch_.block; }
  uint32_t shared_bytes() const { return launch_.shared_bytes; }
  char* shared(uint32_t offset);

  // Lets the running thread wait until `what` has been passed that often.
  void wait(Awaited& what, uint64_t passes);
  // Lets it arrive and wait for the others. words: how many it hands on.
  void meet(Meeting& meeting, uint32_t words);
  // Lets other threads run before it, in one call of four.
  void perhaps_yield();

  Meeting& meeting_of_block() { return block_meeting_; }
  // wave: its size in threads, a power of two.
  Meeting& meeting_of_wave(uint32_t thread, uint32_t wave);
  // RETURNS a thread that waited for the last pass of `what` and has not run since; -1 if there is
  // none.
  int passed_and_not_run(const Awaited& what) const;
  // What the running thread knows.
  Knowledge& knowledge();
  // RETURNS true or false, by the launch's seed.
  bool chance() { return choices_() % 2 == 0; }

  StoreMarks marks;
  std::unique_ptr<Unit> async, products;

 private:
  // The stack of each fiber, kept from one workgroup to the next.
  struct Memory {
    std::unique_ptr<char[]> bytes;
  };
  struct Stack;
  struct Wait {
    Awaited* what = nullptr;  // null: the thread can run
    uint64_t passes = 0;
  };

  boost::context::fiber make_fiber(uint32_t i);
  bool can_run(uint32_t i);
  void resume(uint32_t i);
  void yield();
  [[noreturn]] void fail_stuck() const;
  void entered(uint32_t i);
  void leaving(uint32_t i, bool finished);

  const Launch launch_;
  const std::function<void()>& kernel_;
  std::vector<char> shared_;
  std::vector<Thread> threads_;
  std::vector<Memory> stacks_;
  std::vector<boost::context::fiber> fibers_;
  std::vector<Wait> waits_;
  std::vector<Knowledge> knowledge_;
  std::vector<uint32_t> order_;
  boost::context::fiber back_;
  uint32_t finished_ = 0;
  std::mt19937 choices_;
  Meeting block_meeting_;
  std::vector<Meeting> wave_meetings_[11];  // by the binary logarithm of the size, and the index
#if defined(__SANITIZE_ADDRESS__)
  std::vector<void*> threads_fake_;
  const void* main_stack_ = nullptr;
  size_t main_bytes_ = 0;
#endif
};

std::unique_ptr<Unit> make_async(Block& block);
std::unique_ptr<Unit> make_products(Block& block);

// RETURNS where an offset of a panel goes whose rows of 128 or 64 bytes are swizzled.
inline uint32_t swizzled(uint32_t offset, uint32_t row_bytes) {
  return offset ^ (offset >> 7 & (row_bytes / 16 - 1)) << 4;
}

}  // namespace gpu::host
