// runtime/src/base/floating_point.hpp: the default floating-point environment for a plugin's code
//
// A thread's rounding mode, FTZ and DAZ (numbers near zero become zero) and unmasked exceptions
// change what arithmetic computes. Applications change them, and so does any library that is built
// with -ffast-math, in the thread that loads it. Plugins expect the default, and must not change it
// for the application either.
#pragma once

#include <cfenv>
#include <cstdint>

namespace attnrt::core {

#if defined(__SSE__)
// Sets the calling thread's environment to the default, and restores it when destroyed. Flags of
// exceptions that occurred are left as the code in between leaves them. Costs a few nanoseconds if
// nothing has to be changed: the two registers are only read.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() : mxcsr_(read_mxcsr()), x87_(read_x87()) { set(kMxcsr, kX87); }
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;
  ~DefaultFloatingPoint() { set(mxcsr_, x87_); }

 private:
  static constexpr uint32_t kFlags = 0x3F;    // of MXCSR: exceptions that occurred
  static constexpr uint32_t kMxcsr = 0x1F80;  // round to nearest, no FTZ, no DAZ, no traps
  static constexpr uint16_t kX87 = 0x37F;     // the same, with 64 bits of precision

  static uint32_t read_mxcsr() { return __builtin_ia32_stmxcsr() & ~kFlags; }
  static uint16_t read_x87() {
    uint16_t control = 0;
    asm volatile("fnstcw %0" : "=m"(control));
    return control;
  }
  static void set(uint32_t mxcsr, uint16_t x87) {
    if (read_mxcsr() != mxcsr) __builtin_ia32_ldmxcsr(mxcsr | (__builtin_ia32_stmxcsr() & kFlags));
    if (read_x87() == x87) return;
    // The flag of an exception that is about to be unmasked would trap at the next x87 instruction.
    asm volatile("fnclex\n\tfldcw %0" : : "m"(x87));
  }

  uint32_t mxcsr_;
  uint16_t x87_;
};
#else
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;
  ~DefaultFloatingPoint() { std::fesetenv(&before_); }

 private:
  std::fenv_t before_{};
};
#endif

}  // namespace attnrt::core
