// runtime/src/base/fork.cpp: keeps locks and threads usable in a child made by fork
#include "base/fork.hpp"

namespace attnrt::core {

// All that is told of forks. Its mutex is held during each fork, so that no entry comes or goes
// meanwhile. Never destroyed: a thread may still be inside a call when the process ends.
struct ForkRegistry {
  std::mutex mutex;
  AtFork* first = nullptr;
  bool installed = false;
  std::atomic<uint32_t> generation{0};

  // Returns false if memory ran out.
  bool install() {
    if (!installed) installed = pthread_atfork(before, in_parent, in_child) == 0;
    return installed;
  }

  void add(AtFork& entry) {
    const std::lock_guard lock(mutex);
    if (!install()) throw std::bad_alloc();
    entry.next_ = first;
    if (first != nullptr) first->previous_ = &entry;
    first = &entry;
  }

  void remove(AtFork& entry) {
    const std::lock_guard lock(mutex);
    if (entry.previous_ != nullptr) entry.previous_->next_ = entry.next_;
    if (entry.next_ != nullptr) entry.next_->previous_ = entry.previous_;
    if (first == &entry) first = entry.next_;
  }

  void after(bool is_child) {
    if (is_child) generation.fetch_add(1, std::memory_order_relaxed);
    for (AtFork* entry = first; entry != nullptr; entry = entry->next_) entry->after_fork(is_child);
    mutex.unlock();
  }

  static void before();
  static void in_parent();
  static void in_child();
};

namespace {
constinit ForkRegistry registry;
}  // namespace

void ForkRegistry::before() {
  registry.mutex.lock();
  for (AtFork* entry = registry.first; entry != nullptr; entry = entry->next_) entry->before_fork();
}
void ForkRegistry::in_parent() { registry.after(false); }
void ForkRegistry::in_child() { registry.after(true); }

namespace {
// Done when the library is loaded. At a fork while another thread adds the first entry, nobody
// would take the mutex, and it would stay locked in the child. (If memory runs out here, add tries
// again.)
[[maybe_unused]] const bool installed_early = registry.install();
}  // namespace

void AtFork::watch_forks() { registry.add(*this); }
void AtFork::ignore_forks() { registry.remove(*this); }

uint32_t fork_generation() { return registry.generation.load(std::memory_order_relaxed); }

}  // namespace attnrt::core
