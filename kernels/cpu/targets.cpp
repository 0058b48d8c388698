// kernels/cpu/targets.cpp: the kernel's source into one function for each instruction set, chosen when it runs
//
// Highway compiles this file once for each target: foreach_target.h includes it again and again with another
// HWY_NAMESPACE. All macros of that ritual stay in this file; the .inl files hold plain code and are included here only.
#include "kernels/cpu/targets.hpp"

#include <array>
#include <cmath>
#include <cstring>
#include <iterator>
#include <type_traits>

#include "kernels/common/half.hpp"
#include "kernels/common/online_softmax.hpp"
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
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_NEON || HWY_TARGET == HWY_SCALAR
constexpr int kVectors = 4;
#else
constexpr int kVectors = 2;
#endif
constexpr int64_t kPanel = kVectors * kLanes;
static_assert(kTileKeys % kPanel == 0 && kPadFloats % kLanes == 0 && kPanel % 4 == 0);

// Highway's conversion of f16 without the F16C instructions knows neither rounding nor infinity.
#if HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
constexpr bool kHasF16 = false;
#else
constexpr bool kHasF16 = true;
#endif

// In the order of use.
// clang-format off
#include "kernels/cpu/convert.inl"
#include "kernels/cpu/pack.inl"
#include "kernels/cpu/scores.inl"
#include "kernels/cpu/softmax.inl"
#include "kernels/cpu/values.inl"
#include "kernels/cpu/tile.inl"
#include "kernels/cpu/attend.inl"
#include "kernels/cpu/decode.inl"
// clang-format on

Cut float_cut(const Problem& problem) {
  Cut cut{};
  cut.row_group = kRowGroup;
  cut.block_rows = kBlockRows;
  cut.tile_keys = kTileKeys;
  cut.element = sizeof(float);
  cut.head_pad = 1;
  cut.head_v_pad = kPadFloats;
  cut.score_rows = kGroupsAtOnce * kRowGroup;
  cut.share = problem.dtype == DType::f32;  // f16 and bf16 would be twice as large as they are given
  return cut;
}

bool attainable() { return (hwy::SupportedTargets() & HWY_TARGET) != 0; }

const Target* target() {
#define KERNELS_CPU_TARGET(name) {name, "attend<" name ">", false, attainable, float_cut, pack, attend, decode, join}
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
  static constexpr Target kTarget = KERNELS_CPU_TARGET("avx512");
#elif HWY_TARGET == HWY_AVX2
  static constexpr Target kTarget = KERNELS_CPU_TARGET("avx2");
#elif HWY_TARGET == HWY_SSE4
  static constexpr Target kTarget = KERNELS_CPU_TARGET("sse4");
#elif HWY_TARGET == HWY_SSSE3
  static constexpr Target kTarget = KERNELS_CPU_TARGET("ssse3");
#elif HWY_TARGET == HWY_NEON
  static constexpr Target kTarget = KERNELS_CPU_TARGET("neon");
#else
  static constexpr Target kTarget = KERNELS_CPU_TARGET("baseline");
#endif
#undef KERNELS_CPU_TARGET
  return &kTarget;
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kernels::cpu {

const Target* const* targets() {
  static const auto attainable_targets = [] {
    // Highway's list, best first; null where it compiled nothing for a target.
    constexpr const Target* (*kCompiled[])() = {HWY_CHOOSE_TARGET_LIST(target), HWY_CHOOSE_FALLBACK(target)};
    std::array<const Target*, std::size(kCompiled) + 1> found{};
    size_t count = 0;
    for (const auto make : kCompiled) {
      if (make != nullptr && make()->attainable()) found[count++] = make();
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
