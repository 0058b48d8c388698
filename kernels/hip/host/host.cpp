// kernels/hip/host/host.cpp: runs the threads of a workgroup as fibers that take turns
// (Boost.Context)
#include "kernels/hip/host/host.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "kernels/common/shuffle.hpp"
#include "kernels/hip/host/block.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace gpu::host {

namespace {
namespace context = boost::context;
constexpr size_t kStackBytes = 256 << 10;
thread_local Thread* running = nullptr;

std::string range(const char* word, uint32_t first, uint32_t last) {
  std::string text = std::string(word) + (first == last ? " " : "s ") + std::to_string(first);
  return first == last ? text : text + " to " + std::to_string(last);
}

std::string workgroup(const Thread& t) {
  return "workgroup (" + std::to_string(t.block[0]) + ", " + std::to_string(t.block[1]) + ", " +
         std::to_string(t.block[2]) + ")";
}
}  // namespace

void fail(const char* format, ...) {
  if (running != nullptr)
    std::fprintf(stderr, "thread %u of %s: ", running->thread, workgroup(*running).c_str());
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  std::abort();
}

void Knowledge::learn(size_t what, uint64_t count) {
  if (counts_.size() <= what) counts_.resize(what + 1);
  counts_[what] = std::max(counts_[what], count);
}

void Knowledge::learn(const Knowledge& other) {
  for (size_t i = 0; i < other.counts_.size(); ++i) learn(i, other.counts_[i]);
}

std::string Meeting::missing() const {
  return "the others of " + range("thread", first, first + members - 1) + ", of which " +
         std::to_string(arrived) + " have come";
}

void StoreMarks::start(uint32_t bytes, uint32_t threads) {
  marks_.assign((bytes + 3) / 4, 0);
  fences_.assign(threads, 0);
}

void StoreMarks::stored(uint32_t thread, uint32_t offset, uint32_t bytes) {
  const uint32_t mark = (thread + 1) | fences_[thread] << 11;
  for (uint32_t word = offset / 4; word <= (offset + bytes - 1) / 4; ++word) marks_[word] = mark;
}

void StoreMarks::copied(uint32_t offset, uint32_t bytes) {
  for (uint32_t word = offset / 4; word <= (offset + bytes - 1) / 4; ++word) marks_[word] = 0;
}

int StoreMarks::unfenced(uint32_t offset, uint32_t bytes) const {
  for (uint32_t word = offset / 4; word <= (offset + bytes - 1) / 4; ++word) {
    if (marks_[word] == 0) continue;
    const uint32_t thread = (marks_[word] & 0x7FFu) - 1;
    if ((fences_[thread] & 0x1FFFFFu) == marks_[word] >> 11) return static_cast<int>(thread);
  }
  return -1;
}

Block::Block(const Launch& launch, const std::function<void()>& kernel)
    : async(make_async(*this)),
      products(make_products(*this)),
      launch_(launch),
      kernel_(kernel),
      shared_(launch.shared_bytes),
      threads_(launch.block),
      stacks_(launch.block),
      fibers_(launch.block),
      waits_(launch.block),
      knowledge_(launch.block) {
  order_.resize(launch.block);
  for (uint32_t i = 0; i < launch.block; ++i) order_[i] = i;
}

void Block::run(uint32_t x, uint32_t y, uint32_t z) {
  std::fill(shared_.begin(), shared_.end(), static_cast<char>(0xFF));
  marks.start(launch_.shared_bytes, launch_.block);
  block_meeting_.members = launch_.block;
  block_meeting_.arriving.forget();
  for (std::vector<Meeting>& meetings : wave_meetings_) {
    for (Meeting& meeting : meetings) meeting.arriving.forget();
  }
  async->start();
  products->start();
  std::mt19937 random(launch_.seed + x * 7919u + y);
  choices_.seed(launch_.seed + x * 7919u + y * 104729u + z * 15485863u);
  for (uint32_t i = 0; i < launch_.block; ++i) {
    threads_[i] = {this, i, {x, y, z}, {launch_.grid[0], launch_.grid[1], launch_.grid[2]}};
    fibers_[i] = make_fiber(i);
    waits_[i] = {};
    knowledge_[i].forget();
  }
  finished_ = 0;
  while (finished_ < launch_.block) {
    if (launch_.seed != 0) kernels::shuffle(order_, random);
    bool any = false;
    for (const uint32_t i : order_) {
      if (!can_run(i)) continue;
      any = true;
      resume(i);
    }
    if (!any) fail_stuck();
  }
  async->end();
  products->end();
}

char* Block::shared(uint32_t offset) {
  if (offset >= shared_.size())
    fail("offset %u is outside of workgroup memory, %zu bytes", offset, shared_.size());
  return shared_.data() + offset;
}

void Block::wait(Awaited& what, uint64_t passes) {
  if (what.passes < passes) what.poll();
  if (what.passes < passes) {
    waits_[running->thread] = {&what, passes};
    yield();
  }
  knowledge().learn(what.knowledge);
}

void Block::meet(Meeting& meeting, uint32_t words) {
  const uint64_t mine = meeting.passes;
  if (meeting.arrived == 0) meeting.words_given = words;
  if (meeting.words_given != words)
    fail("hands on %u words where the others of its wave hand on %u", words, meeting.words_given);
  meeting.arriving.learn(knowledge());
  if (++meeting.arrived == meeting.members) {
    meeting.arrived = 0;
    meeting.pass();
  }
  wait(meeting, mine + 1);
}

Knowledge& Block::knowledge() { return knowledge_[running->thread]; }

void Block::perhaps_yield() {
  if (choices_() % 4 == 0) yield();
}

Meeting& Block::meeting_of_wave(uint32_t thread, uint32_t wave) {
  assert(std::has_single_bit(wave) && wave <= 1024);
  std::vector<Meeting>& all = wave_meetings_[std::countr_zero(wave)];
  if (all.empty()) {
    all.resize((launch_.block + wave - 1) / wave);
    for (uint32_t i = 0; i < all.size(); ++i) {
      all[i].first = i * wave;
      all[i].members = std::min(wave, launch_.block);
    }
  }
  return all[thread / wave];
}

int Block::passed_and_not_run(const Awaited& what) const {
  for (uint32_t i = 0; i < launch_.block; ++i) {
    if (waits_[i].what == &what && waits_[i].passes <= what.passes) return static_cast<int>(i);
  }
  return -1;
}

struct Block::Stack {
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

context::fiber Block::make_fiber(uint32_t i) {
  return context::fiber(std::allocator_arg, Stack{&stacks_[i]}, [this, i](context::fiber&& back) {
    entered(i);
    back_ = std::move(back);
    kernel_();
    products->thread_ends(i);
    ++finished_;
    leaving(i, true);
    return std::move(back_);
  });
}

bool Block::can_run(uint32_t i) {
  if (!fibers_[i]) return false;
  const Wait& wait = waits_[i];
  if (wait.what == nullptr) return true;
  if (wait.what->passes < wait.passes) wait.what->poll();
  return wait.what->passes >= wait.passes;
}

void Block::resume(uint32_t i) {
  running = &threads_[i];
  waits_[i] = {};
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

void Block::yield() {
  const uint32_t i = running->thread;
  leaving(i, false);
  context::fiber back = std::move(back_).resume();
  entered(i);
  back_ = std::move(back);
}

// Prints what each thread waits for: a line for threads side by side that wait for the same.
void Block::fail_stuck() const {
  std::fprintf(stderr, "%s: no thread can run:\n", workgroup(threads_[0]).c_str());
  const auto state = [this](uint32_t i) {
    return fibers_[i] ? "waiting for " + waits_[i].what->missing() : std::string("ended");
  };
  for (uint32_t first = 0, next; first < launch_.block; first = next) {
    const std::string text = state(first);
    for (next = first + 1; next < launch_.block && state(next) == text;) ++next;
    std::fprintf(stderr, "  %s: %s\n", range("thread", first, next - 1).c_str(), text.c_str());
  }
  std::abort();
}

// Tells AddressSanitizer of each switch between stacks.
void Block::entered([[maybe_unused]] uint32_t i) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(threads_fake_.size() > i ? threads_fake_[i] : nullptr,
                                  &main_stack_, &main_bytes_);
#endif
}
void Block::leaving([[maybe_unused]] uint32_t i, [[maybe_unused]] bool finished) {
#if defined(__SANITIZE_ADDRESS__)
  threads_fake_.resize(launch_.block);
  threads_fake_[i] = nullptr;  // the next workgroup's fiber starts without
  __sanitizer_start_switch_fiber(finished ? nullptr : &threads_fake_[i], main_stack_, main_bytes_);
#endif
}

char* Thread::shared(uint32_t offset) const { return owner->shared(offset); }

void Thread::will_store(uint32_t offset, uint32_t bytes) {
  if (offset + bytes > owner->shared_bytes())
    fail("stores to %u, past the end of workgroup memory, %u bytes", offset + bytes,
         owner->shared_bytes());
  for (const Unit* unit : {owner->async.get(), owner->products.get()}) {
    const std::string user = unit->user_of(offset, bytes);
    if (!user.empty()) fail("stores to offset %u, which %s", offset, user.c_str());
  }
  owner->marks.stored(thread, offset, bytes);
}

void Thread::wait_for_block() { owner->meet(owner->meeting_of_block(), 0); }
void Thread::wait_for_wave(int wave) {
  owner->meet(owner->meeting_of_wave(thread, static_cast<uint32_t>(wave)), 0);
}

const uint32_t* Thread::gather(const uint32_t* given, int count, int wave) {
  const uint32_t size = static_cast<uint32_t>(wave), words = static_cast<uint32_t>(count);
  Meeting& meeting = owner->meeting_of_wave(thread, size);
  std::vector<uint32_t>& all = meeting.words[meeting.passes % 2];
  if (all.size() < size_t{size} * words) all.resize(size_t{size} * words);
  std::copy(given, given + words, all.begin() + thread % size * words);
  owner->meet(meeting, words);
  return all.data();
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
