// tests/support/allocations.hpp: counts the allocations of some work, or makes one of them fail
//
// Include it in one source file of a test: it replaces malloc for the whole process, and operator
// new calls malloc. Under a sanitizer, whose malloc cannot be replaced, the sanitizer's own hook
// counts, and nothing can be made to fail.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ATTNRT_TEST_SANITIZED 1
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*, size_t),
                                                         void (*)(const volatile void*));
#endif

namespace attnrt::core::support {

inline std::atomic<int64_t> allocations{0};  // since the process began
inline std::atomic<int64_t> frees{0};

// Which of this thread's allocations fails. Other threads are left alone: what a thread pool does
// differs from run to run.
inline thread_local int64_t allocations_until_failure = 0;  // 0: none fails
inline thread_local bool failure_lasts = false;
inline thread_local int64_t failed_allocations = 0;

// Whether the allocation that is asked for now is to fail.
inline bool allocation_fails() {
  if (allocations_until_failure == 0) return false;
  if (allocations_until_failure > 1) return --allocations_until_failure, false;
  if (!failure_lasts) allocations_until_failure = 0;
  ++failed_allocations;
  errno = ENOMEM;
  return true;
}

// Makes this thread's n-th allocation from now on fail (1: the next one), and with `lasting` every
// one after it, too. The destructor ends that.
class FailingAllocation {
 public:
  explicit FailingAllocation(int64_t n, bool lasting = false) {
    failed_allocations = 0;
    failure_lasts = lasting;
    allocations_until_failure = n;
  }
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;
  ~FailingAllocation() { end(); }
  void end() { allocations_until_failure = 0; }  // to look at results without failures
  bool happened() const { return failed_allocations > 0; }
};

// Calls work(n) for n = 1, 2, ... with the n-th allocation failing, until a call makes fewer. Then
// calls judge(n) without failures. Returns how many calls met a failure.
template <class Work, class Judge>
int64_t for_each_failing_allocation(Work&& work, Judge&& judge, bool lasting = false) {
  for (int64_t n = 1;; ++n) {
    bool happened = false;
    {
      const FailingAllocation failing(n, lasting);
      work(n);
      happened = failing.happened();
    }
    judge(n);
    if (!happened) return n - 1;
  }
}

#ifdef ATTNRT_TEST_SANITIZED
inline const int hooks_installed = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, size_t) { allocations.fetch_add(1, std::memory_order_relaxed); },
    [](const volatile void*) { frees.fetch_add(1, std::memory_order_relaxed); });
#endif

template <class Work>
int64_t allocations_of(Work&& work) {
  const int64_t before = allocations.load();
  work();
  return allocations.load() - before;
}

// The allocations of a round after the thread pool has settled. In the first rounds the pool starts
// threads and grows its task lists; work that allocates itself does so in every round.
template <class Work>
int64_t settled_allocations_of(Work&& work) {
  int64_t made = allocations_of(work);
  for (int round = 1; made != 0 && round < 20; ++round) made = allocations_of(work);
  return made;
}

}  // namespace attnrt::core::support

#ifndef ATTNRT_TEST_SANITIZED
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t bytes) {
  if (attnrt::core::support::allocation_fails()) return nullptr;
  attnrt::core::support::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  if (attnrt::core::support::allocation_fails()) return nullptr;
  attnrt::core::support::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, size_t bytes) {
  if (attnrt::core::support::allocation_fails()) return nullptr;
  attnrt::core::support::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(old, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
  if (attnrt::core::support::allocation_fails()) return nullptr;
  attnrt::core::support::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** pointer, size_t alignment, size_t bytes) {
  *pointer = memalign(alignment, bytes);
  return *pointer != nullptr ? 0 : ENOMEM;
}
void free(void* pointer) {
  if (pointer != nullptr) attnrt::core::support::frees.fetch_add(1, std::memory_order_relaxed);
  __libc_free(pointer);
}
}
#endif
