// kernels/hip/dtype.hpp: converts f32, f16 and bf16 to float and back, on every platform
#pragma once

#include "kernels/common/half.hpp"
#include "kernels/hip/gpu.hpp"

namespace kernels::hip {

// Element types. Storage: how an element lies in memory; kBytes: its size.
struct F32 {
  using Storage = float;
  static constexpr int kBytes = 4;
  static constexpr DType kDType = DType::f32;
};
struct F16 {
  using Storage = uint16_t;
  static constexpr int kBytes = 2;
  static constexpr DType kDType = DType::f16;
};
struct BF16 {
  using Storage = uint16_t;
  static constexpr int kBytes = 2;
  static constexpr DType kDType = DType::bf16;
};

GPU_DEVICE float to_float(F32, float value) { return value; }
GPU_DEVICE float to_float(BF16, uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
}
GPU_DEVICE float to_float(F16, uint16_t bits) {
#if defined(GPU_AMD)
  return static_cast<float>(__builtin_bit_cast(_Float16, bits));
#elif defined(GPU_NVIDIA)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
#else
  return f16_to_f32(bits);
#endif
}

// Rounds two floats to nearest even and packs them into a word, the first in its low half.
GPU_DEVICE uint32_t pack2(BF16, float low, float high) {
#if defined(GPU_NVIDIA)
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return f32_to_bf16(low) | static_cast<uint32_t>(f32_to_bf16(high)) << 16;
#endif
}
GPU_DEVICE uint32_t pack2(F16, float low, float high) {
#if defined(GPU_NVIDIA)
  uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#elif defined(GPU_AMD)
  return __builtin_bit_cast(uint16_t, static_cast<_Float16>(low)) |
         static_cast<uint32_t>(__builtin_bit_cast(uint16_t, static_cast<_Float16>(high))) << 16;
#else
  return f32_to_f16(low) | static_cast<uint32_t>(f32_to_f16(high)) << 16;
#endif
}
template <class T>
GPU_DEVICE float low_half(uint32_t word) {
  return to_float(T{}, static_cast<uint16_t>(word));
}
template <class T>
GPU_DEVICE float high_half(uint32_t word) {
  return to_float(T{}, static_cast<uint16_t>(word >> 16));
}

// Rounds a float to T and back.
GPU_DEVICE float rounded(F32, float value) { return value; }
template <class T>
GPU_DEVICE float rounded(T, float value) {
  return low_half<T>(pack2(T{}, value, 0));
}

// Stores two floats side by side. REQUIRES: `at` is aligned to 8 bytes.
GPU_DEVICE void store2(float* at, float a, float b) {
  gpu::store64(at, {{__builtin_bit_cast(uint32_t, a), __builtin_bit_cast(uint32_t, b)}});
}

// Rounds four floats to T and stores them side by side. REQUIRES: `at` is aligned to four elements.
GPU_DEVICE void store4(F32, void* at, float a, float b, float c, float d) {
  gpu::store128(at, {{__builtin_bit_cast(uint32_t, a), __builtin_bit_cast(uint32_t, b),
                      __builtin_bit_cast(uint32_t, c), __builtin_bit_cast(uint32_t, d)}});
}
template <class T>
GPU_DEVICE void store4(T, void* at, float a, float b, float c, float d) {
  gpu::store64(at, {{pack2(T{}, a, b), pack2(T{}, c, d)}});
}

}  // namespace kernels::hip
