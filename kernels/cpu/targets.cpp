// kernels/cpu/targets.cpp: the kernels, compiled once for each instruction set, and the table of
// those that run here
//
// Highway compiles this file once for each of its targets: foreach_target.h includes it again and
// again, each time with a different HWY_NAMESPACE and compiler options. Everything before
// HWY_BEFORE_NAMESPACE is common to all of them; the .inl files repeat the same skeleton. The part
// in HWY_ONCE is compiled last, when all targets are known.
#include "kernels/cpu/targets.hpp"

#include <cstring>

#include "kernels/cpu/amx/tiles.hpp"
#include "kernels/cpu/attention.hpp"

// Register blocks are arrays of vectors, which targets with vectors of unknown size do not allow.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/targets.cpp"
// clang-format off
#include "hwy/foreach_target.h"  // before highway.h and every .inl
#include "hwy/highway.h"
// clang-format on
#include "kernels/common/instruction_set.hpp"
#include "kernels/cpu/amx/prefill.inl"
#include "kernels/cpu/simd/decode.inl"
#include "kernels/cpu/simd/merge.inl"
#include "kernels/cpu/simd/prefill.inl"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

bool attainable() { return has_instruction_set(HWY_TARGET); }

#define KERNELS_CPU_TARGET(name, attainable, tiling, pack, prefill)                      \
  {                                                                                      \
    name, "attend<" name ">", attainable, tiling, pack, prefill, decode, merge_partials, \
        merge_rows                                                                       \
  }

// The kernels with float operands.
const Target* float_target() {
#if KERNELS_CPU_AVX512
#define KERNELS_CPU_NAME "avx512"
#elif HWY_TARGET == HWY_AVX2
#define KERNELS_CPU_NAME "avx2"
#elif HWY_TARGET == HWY_SSE4
#define KERNELS_CPU_NAME "sse4"
#elif HWY_TARGET == HWY_SSSE3
#define KERNELS_CPU_NAME "ssse3"
#elif HWY_TARGET == HWY_NEON
#define KERNELS_CPU_NAME "neon"
#else
#define KERNELS_CPU_NAME "baseline"
#endif
  static constexpr Target kTarget =
      KERNELS_CPU_TARGET(KERNELS_CPU_NAME, attainable, float_tiling, pack, prefill);
#undef KERNELS_CPU_NAME
  return &kTarget;
}

#if KERNELS_CPU_AVX512
bool amx_attainable() { return attainable() && AmxTiles::attainable(); }

void prefill_amx(const Run& run, int64_t index, int32_t worker) {
  amx::prefill<AmxTiles, amx::RoundToBf16Avx512>(run, index, worker);
}
#endif

// The kernels with AMX tiles for f16 and bf16; null for an instruction set that never comes with
// AMX.
const Target* amx_target() {
#if KERNELS_CPU_AVX512
  static constexpr Target kTarget =
      KERNELS_CPU_TARGET("amx", amx_attainable, amx::bf16_tiling, amx::pack, prefill_amx);
  return &kTarget;
#else
  return nullptr;
#endif
}

// For tests: the kernels for AMX tiles on any machine, with the tiles in plain C++. They exist
// only for instruction sets that are the best of some machine, so that the build stays quick.
#ifdef KERNELS_CPU_PLAIN_TILES
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
void prefill_plain_tiles(const Run& run, int64_t index, int32_t worker) {
  amx::prefill<PlainTiles, amx::RoundToBf16>(run, index, worker);
}

const Target* plain_tiles_target() {
  static constexpr Target kTarget =
      KERNELS_CPU_TARGET("plain tiles, " HWY_STR(HWY_NAMESPACE), attainable, amx::bf16_tiling,
                         amx::pack, prefill_plain_tiles);
  return &kTarget;
}
#else
const Target* plain_tiles_target() { return nullptr; }
#endif
#endif
#undef KERNELS_CPU_TARGET

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kernels::cpu {

const Target* next_target(const Target* after) {
  // Highway's lists are best first; an entry is null if nothing was compiled for that instruction
  // set.
  constexpr const Target* (*kCompiled[])() = {
      HWY_CHOOSE_TARGET_LIST(amx_target),         HWY_CHOOSE_FALLBACK(amx_target),
      HWY_CHOOSE_TARGET_LIST(float_target),       HWY_CHOOSE_FALLBACK(float_target),
#ifdef KERNELS_CPU_PLAIN_TILES
      HWY_CHOOSE_TARGET_LIST(plain_tiles_target), HWY_CHOOSE_FALLBACK(plain_tiles_target),
#endif
  };
  bool passed = after == nullptr;
  for (const auto target_of : kCompiled) {
    const Target* target = target_of == nullptr ? nullptr : target_of();
    if (target == nullptr) continue;
    if (passed && target->attainable()) return target;
    if (target == after) passed = true;
  }
  return nullptr;
}

const Target* find_target(const char* name) {
  const Target* target = next_target(nullptr);
  while (name != nullptr && target != nullptr && strcmp(name, target->name) != 0)
    target = next_target(target);
  return target;
}

const char* target_name(const Target& target) { return target.name; }

const char* kernel_name(const Target& target) { return target.kernel; }

}  // namespace kernels::cpu
#endif
