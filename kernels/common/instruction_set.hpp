// kernels/common/instruction_set.hpp: whether this machine can run one of Highway's targets
//
// It answers as hwy::SupportedTargets() does. That function would be all that is used of Highway's
// shared library, which then had to be there and to be loaded as well.
//
// Included after HWY_DISABLED_TARGETS is defined.
#pragma once

#include <cstdint>

#include "hwy/detect_targets.h"

#if HWY_ARCH_X86
#include <cpuid.h>
#endif

namespace kernels {

#if HWY_ARCH_X86
// What __builtin_cpu_supports of older compilers has no names for.
inline bool has_f16c_and_lzcnt() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kExtendedFeatures = 0x80000001U;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0 &&
         __get_cpuid(kExtendedFeatures, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_LZCNT) != 0;
}
#endif

// Whether the processor has all instructions that are compiled for the target (HWY_AVX2), and the
// operating system keeps their registers.
inline bool has_instruction_set(int64_t target) {
  if ((target & HWY_ENABLED_BASELINE) != 0) return true;
#if HWY_ARCH_X86
  switch (target) {
    case HWY_SSSE3: return __builtin_cpu_supports("ssse3") != 0;
    case HWY_SSE4:
      return has_instruction_set(HWY_SSSE3) && __builtin_cpu_supports("sse4.1") != 0 &&
             __builtin_cpu_supports("sse4.2") != 0 && __builtin_cpu_supports("pclmul") != 0 &&
             __builtin_cpu_supports("aes") != 0;
    case HWY_AVX2:
      return has_instruction_set(HWY_SSE4) && __builtin_cpu_supports("avx2") != 0 &&
             __builtin_cpu_supports("fma") != 0 && __builtin_cpu_supports("bmi") != 0 &&
             __builtin_cpu_supports("bmi2") != 0 && has_f16c_and_lzcnt();
    case HWY_AVX3:
      return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
             __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
             has_instruction_set(HWY_AVX2);
    default: return false;
  }
#else
  return false;
#endif
}

}  // namespace kernels
