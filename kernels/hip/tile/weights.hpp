// kernels/hip/tile/weights.hpp: packs softmax weights in pairs of f16 or bf16 by truncation, and
// sums the truncated weights
//
// AMD's matrix instructions take the weights as f16 or bf16. Truncation packs two weights in one
// instruction; rounding a pair to bf16 takes several on gfx11 and gfx12.
//
// INVARIANT: the denominator of softmax is the sum of the truncated weights, so it agrees with the
// product: truncation does not bias the result, and if only one key is visible the result is
// exactly its row of V.
#pragma once

#include "kernels/hip/dtype.hpp"

namespace kernels::hip {

// Truncates two weights, which are not negative, to T.
template <class T>
GPU_DEVICE uint32_t pack_weights(float low, float high) {
#if defined(GPU_AMD)
  if constexpr (__is_same(T, F16)) {
    return __builtin_bit_cast(uint32_t, __builtin_amdgcn_cvt_pkrtz(low, high));
  } else {
    return __builtin_amdgcn_perm(__builtin_bit_cast(uint32_t, high),
                                 __builtin_bit_cast(uint32_t, low), 0x07060302);
  }
#else
  if constexpr (__is_same(T, F16)) {
    // The nearest number of T, or the one below it if the nearest is above.
    const auto truncated = [](float x) {
      const uint16_t nearest = f32_to_f16(x);
      return static_cast<uint16_t>(f16_to_f32(nearest) > x ? nearest - 1 : nearest);
    };
    return truncated(low) | static_cast<uint32_t>(truncated(high)) << 16;
  } else {
    return __builtin_bit_cast(uint32_t, low) >> 16 |
           (__builtin_bit_cast(uint32_t, high) & 0xFFFF0000u);
  }
#endif
}

// RETURNS sum plus both weights of a word.
template <class T>
GPU_DEVICE float add_weights(uint32_t weights, float sum) {
#if defined(GPU_AMD)
  if constexpr (__is_same(T, F16)) {
    typedef _Float16 Halves __attribute__((ext_vector_type(2)));
    const Halves ones = {1, 1};
    return __builtin_amdgcn_fdot2(__builtin_bit_cast(Halves, weights), ones, sum, false);
  }
#if defined(__GFX11__) || defined(__GFX12__)
  if constexpr (__is_same(T, BF16)) {
    typedef __bf16 Brains __attribute__((ext_vector_type(2)));
    return __builtin_amdgcn_fdot2_f32_bf16(__builtin_bit_cast(Brains, weights),
                                           __builtin_bit_cast(Brains, 0x3F803F80u), sum, false);
  }
#endif
#endif
  return sum + low_half<T>(weights) + high_half<T>(weights);
}

}  // namespace kernels::hip
