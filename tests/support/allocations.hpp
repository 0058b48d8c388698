// tests/support/allocations.hpp: counts the allocations of a piece of work
//
// Include it in one source file of a test: it replaces malloc for the whole process, and operator
// new calls malloc. Under a sanitizer, whose malloc cannot be replaced, the sanitizer's own hook
// counts.
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
  attnrt::core::support::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  attnrt::core::support::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, size_t bytes) {
  attnrt::core::support::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(old, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
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
