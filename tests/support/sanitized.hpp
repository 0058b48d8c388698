// tests/support/sanitized.hpp: which sanitizers a test is built with
#pragma once

namespace attnrt::core::support {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
inline constexpr bool kSanitized = kAddressSanitizer || kThreadSanitizer;

// Why no test under a sanitizer works in a child that was forked while other threads were running.
// GCC 12's AddressSanitizer takes no lock of its allocator at a fork. One that another thread held
// stays locked in the child, which then waits for ever when it allocates. ThreadSanitizer does not
// follow threads that such a child starts.
inline constexpr const char* kNoForksOfThreads =
    "the sanitizer's own locks do not survive a fork while other threads are running";

}  // namespace attnrt::core::support
