// kernels/cpu/targets.cpp: the kernel's source into one function for each instruction set, chosen when it runs
//
// Highway compiles this file once for each target: foreach_target.h includes it again and again with another
// HWY_NAMESPACE. All macros of that ritual stay in this file; the .inl files hold plain code and are included here only.
#include "kernels/cpu/targets.hpp"

#include <cmath>
#include <cstring>

#include "kernels/common/half.hpp"
#include "kernels/common/online_softmax.hpp"
#include "kernels/cpu/attention.hpp"

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
#include "kernels/cpu/decode.inl"
#include "kernels/cpu/attend.inl"
// clang-format on

const char* target() { return hwy::TargetName(HWY_TARGET); }
const char* kernel() { return "attend<" HWY_STR(HWY_NAMESPACE) ">"; }

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kernels::cpu {

HWY_EXPORT(attend);
HWY_EXPORT(target);
HWY_EXPORT(kernel);

void attend_block(const Run& run, int64_t index, int32_t worker) { HWY_DYNAMIC_DISPATCH(attend)(run, index, worker); }

const char* target_name() { return HWY_DYNAMIC_DISPATCH(target)(); }

const char* kernel_name() { return HWY_DYNAMIC_DISPATCH(kernel)(); }

}  // namespace kernels::cpu
#endif
