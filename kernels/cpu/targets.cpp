// kernels/cpu/targets.cpp: the kernel's source into one function for each instruction set, chosen when it runs
//
// Highway compiles this file once for each target: foreach_target.h includes it again and again with another
// HWY_NAMESPACE. All macros of that ritual stay in this file; the .inl files hold plain code and are included here only.
#include <array>
#include <cmath>
#include <cstring>
#include <iterator>
#include <type_traits>

#include "kernels/common/half.hpp"
#include "kernels/common/online_softmax.hpp"
#include "kernels/cpu/amx/tiles.hpp"
#include "kernels/cpu/block.hpp"

// Register blocks are arrays of vectors, which targets with vectors of unknown size do not allow.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/targets.cpp"
// clang-format off
#include "hwy/foreach_target.h"  // before highway.h
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Vector = hn::Vec<Floats>;
constexpr int64_t kLanes = hn::MaxLanes(Floats());

// Vectors of one row in a register block: 6 x 4 accumulators need 32 registers, 6 x 2 need 16.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_NEON || \
    HWY_TARGET == HWY_SCALAR
constexpr int kVectors = 4;
#else
constexpr int kVectors = 2;
#endif
constexpr int64_t kPanel = kVectors * kLanes;

constexpr int64_t kRowGroup = 6;  // rows of one register block: 6 x 4 vectors of the 32 of AVX-512
constexpr int64_t kBlockRows = 384;  // a multiple of kRowGroup; amortizes reading a tile of K and V
constexpr int64_t kTileKeys = 256;   // keys of one tile: its K and V stay in L2
static_assert(kTileKeys % kPackKeys == 0 && kPackKeys % kPanel == 0 && kPadFloats % kLanes == 0 &&
              kPanel % 4 == 0);

// Whether scaling by powers of 2 and taking fractions are instructions.
#define KERNELS_CPU_AVX512 (HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL)

// Highway's conversion of f16 without the F16C instructions knows neither rounding nor infinity.
#if HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_EMU128 || \
    HWY_TARGET == HWY_SCALAR
constexpr bool kHasF16 = false;
#else
constexpr bool kHasF16 = true;
#endif

// Whether Max(a, b) gives b where it is NaN.
#if HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
constexpr bool kMaxKeepsNan = false;
#else
constexpr bool kMaxKeepsNan = true;
#endif

// In the order of use.
// clang-format off
#include "kernels/cpu/simd/convert.inl"
#include "kernels/cpu/simd/pack.inl"
#include "kernels/cpu/simd/scores.inl"
#include "kernels/cpu/simd/softmax.inl"
#include "kernels/cpu/simd/pv.inl"
#include "kernels/cpu/simd/tile.inl"
#include "kernels/cpu/simd/prefill.inl"
#include "kernels/cpu/simd/decode.inl"
#include "kernels/cpu/amx/pack.inl"
#include "kernels/cpu/amx/softmax.inl"
#include "kernels/cpu/amx/prefill.inl"
// clang-format on

bool attainable() { return (hwy::SupportedTargets() & HWY_TARGET) != 0; }

#define KERNELS_CPU_TARGET(name, attainable, cut, pack, attend) \
  { name, "attend<" name ">", attainable, cut, pack, attend, decode, join }

const Target* target() {
#if KERNELS_CPU_AVX512
  static constexpr Target kTarget =
      KERNELS_CPU_TARGET("avx512", attainable, float_cut, pack, attend);
#elif HWY_TARGET == HWY_AVX2
  static constexpr Target kTarget = KERNELS_CPU_TARGET("avx2", attainable, float_cut, pack, attend);
#elif HWY_TARGET == HWY_SSE4
  static constexpr Target kTarget = KERNELS_CPU_TARGET("sse4", attainable, float_cut, pack, attend);
#elif HWY_TARGET == HWY_SSSE3
  static constexpr Target kTarget =
      KERNELS_CPU_TARGET("ssse3", attainable, float_cut, pack, attend);
#elif HWY_TARGET == HWY_NEON
  static constexpr Target kTarget = KERNELS_CPU_TARGET("neon", attainable, float_cut, pack, attend);
#else
  static constexpr Target kTarget =
      KERNELS_CPU_TARGET("baseline", attainable, float_cut, pack, attend);
#endif
  return &kTarget;
}

#if KERNELS_CPU_AVX512
// Highway 1.0 has no instruction of AVX-512-BF16; every processor with AMX has them. vdpbf16ps itself is not used: on
// processors without AMX it was measured at half the speed of float multiply-adds.
struct ToBf16Avx512 {
  void operator()(Vector weight, Vector next, uint16_t* to) const {
    __m512i
        both;  // as text, since an intrinsic of more than this target's instructions is not inlined
    asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(next.raw), "v"(weight.raw));
    _mm512_storeu_si512(to, both);
  }
};

void attend_amx(const Run& run, int64_t index, int32_t worker) {
  attend_matrix<AmxTiles, ToBf16Avx512>(run, index, worker);
}

bool amx_attainable() { return attainable() && AmxTiles::attainable(); }
#endif

// The same with matrix tiles for f16 and bf16; null where there are none.
const Target* matrix_target() {
#if KERNELS_CPU_AVX512
  static constexpr Target kTarget =
      KERNELS_CPU_TARGET("amx", amx_attainable, matrix_cut, pack_matrix, attend_amx);
  return &kTarget;
#else
  return nullptr;
#endif
}

// For tests: the same source on any machine, its matrix tiles in plain C++; for the targets that one machine or another has
// as its best, and null for the rest.
#ifdef KERNELS_CPU_PLAIN_TILES
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
void attend_plain(const Run& run, int64_t index, int32_t worker) {
  attend_matrix<PlainTiles, ToBf16>(run, index, worker);
}
#endif

const Target* plain_target() {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
  static constexpr Target kTarget = KERNELS_CPU_TARGET(
      "plain tiles, " HWY_STR(HWY_NAMESPACE), attainable, matrix_cut, pack_matrix, attend_plain);
  return &kTarget;
#else
  return nullptr;
#endif
}
#endif
#undef KERNELS_CPU_TARGET

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kernels::cpu {

const Target* const* targets() {
  static const auto attainable_targets = [] {
    // Highway's list, best first; null where it compiled nothing for a target.
    constexpr const Target* (*kCompiled[])() = {
        HWY_CHOOSE_TARGET_LIST(matrix_target), HWY_CHOOSE_FALLBACK(matrix_target),
        HWY_CHOOSE_TARGET_LIST(target),        HWY_CHOOSE_FALLBACK(target),
#ifdef KERNELS_CPU_PLAIN_TILES
        HWY_CHOOSE_TARGET_LIST(plain_target),  HWY_CHOOSE_FALLBACK(plain_target),
#endif
    };
    std::array<const Target*, std::size(kCompiled) + 1> found{};
    size_t count = 0;
    for (const auto make : kCompiled) {
      const Target* target = make == nullptr ? nullptr : make();
      if (target != nullptr && target->attainable()) found[count++] = target;
    }
    return found;
  }();
  return attainable_targets.data();
}

const Target* find_target(const char* name) {
  for (const Target* const* target = targets(); *target != nullptr; ++target) {
    if (name == nullptr || strcmp(name, (*target)->name) == 0) return *target;
  }
  return nullptr;
}

const char* target_name(const Target& target) { return target.name; }

const char* kernel_name(const Target& target) { return target.kernel; }

}  // namespace kernels::cpu
#endif
