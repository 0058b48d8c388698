// kernels/cpu/simd/vectors.inl: a target's vector of floats, and the sizes of register blocks and
// tiles that follow from it
//
// Highway compiles targets.cpp, and with it every .inl, once for each instruction set, each time in
// a different HWY_NAMESPACE. The guard below is Highway's own: it lets a file in once per target,
// not once per source. Each .inl includes what it uses.
//
// Register block of q k (and of weights times v): kGroupRows rows by kVectors vectors of
// accumulators. Each step of its inner loop loads kVectors vectors and broadcasts kGroupRows
// numbers, for kGroupRows * kVectors multiply-adds.
#if defined(KERNELS_CPU_SIMD_VECTORS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_VECTORS_INL
#undef KERNELS_CPU_SIMD_VECTORS_INL
#else
#define KERNELS_CPU_SIMD_VECTORS_INL
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/workspace.hpp"

// Whether the target has vscalefps and vreduceps: scaling by 2^y, and the fraction of y.
#define KERNELS_CPU_AVX512 (HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL)

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

// Columns of a register block: keys of a panel of K, or columns of V.
constexpr int64_t kPanel = kVectors * kLanes;
// Rows of a register block, and so of a row group.
constexpr int64_t kGroupRows = 6;
// Most rows of a block; a multiple of kGroupRows. Many rows amortize reading a tile of K and V.
constexpr int64_t kMaxBlockRows = 384;
// Keys of a tile: its K and V stay in the L2 cache while the block's rows use them.
constexpr int64_t kTileKeys = 256;
static_assert(kMaxBlockRows % kGroupRows == 0 && kTileKeys % kPackKeys == 0 &&
              kPackKeys % kPanel == 0 && kPadFloats % kLanes == 0 && kPanel % 4 == 0);

// Whether Highway converts f16 exactly. Without the F16C instructions its conversion handles
// neither rounding nor infinity.
#if HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_EMU128 || \
    HWY_TARGET == HWY_SCALAR
constexpr bool kHasF16 = false;
#else
constexpr bool kHasF16 = true;
#endif

// Whether Max(a, b) returns b if b is NaN.
#if HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
constexpr bool kMaxKeepsNan = false;
#else
constexpr bool kMaxKeepsNan = true;
#endif

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_VECTORS_INL
