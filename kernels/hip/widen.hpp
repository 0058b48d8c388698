// kernels/hip/widen.hpp: widens 8-bit numbers to f16 and bf16, two in each word
//
// Both types hold every finite 8-bit number exactly:
//
//   i8     b ^ 0x80 is b + 128. f16 0x6400 + n is 1024 + n, for n below 1024, as its last place is
//          1 there. So b = (0x6400 + (b ^ 0x80)) - 1152, of exact numbers. (FasterTransformer's
//          trick, arXiv 2211.10017.) bf16 has 8 significant bits: 0x4300 + n is 128 + n, for n
//          below 128. 0x4300 + (b & 0x80) is 128, or 256 if b is negative. So
//          b = (0x4300 + (b & 0x7F)) - (0x4300 + (b & 0x80)), and |b| <= 128 needs 8 bits.
//   e4m3   The sign, then 4 bits of exponent and 3 of mantissa, stand below the sign of a wider
//          float so that the exponents' last bits meet. Both formats read e > 0 as
//          (1 + m/8) 2^(e - bias) and e = 0 as (m/8) 2^(1 - bias), so the wider number is the
//          narrow one times 2^(its bias - the wider bias), subnormal numbers too: with biases of 7
//          (fn), 8 (fnuz), 15 (f16) and 127 (bf16), f16 is short of a factor 2^8 or 2^7, bf16 of
//          2^120 or 2^119. (The formats: OCP's OFP8 1.0, and arXiv 2206.02915 for fnuz.)
//
// NaN (0x7F and 0xFF of fn, 0x80 of fnuz) stays NaN.
#pragma once

#include "kernels/hip/dtype.hpp"

namespace kernels::hip {

// Calls f with the type of the stored numbers, as a constant: i8, f8_e4m3fn or f8_e4m3fnuz.
template <DType kDType>
struct StoredAs {
  static constexpr DType kStored = kDType;
};
template <class F>
GPU_DEVICE void with_stored(DType stored, const F& f) {
  if (stored == DType::i8) {
    f(StoredAs<DType::i8>{});
  } else if (stored == DType::f8_e4m3fn) {
    f(StoredAs<DType::f8_e4m3fn>{});
  } else {
    f(StoredAs<DType::f8_e4m3fnuz>{});
  }
}

// ---- Arithmetic of two numbers in a word. REQUIRES: T holds the results exactly. ----

#if defined(GPU_AMD)
typedef _Float16 Halves __attribute__((ext_vector_type(2)));
#endif

// Packs two floats. Those that bf16 holds have zeros in their lower halves.
template <class T>
GPU_DEVICE uint32_t pack_exact(float low, float high) {
  if constexpr (T::kDType == DType::bf16) {
    return gpu::bytes_of<0x7632>(__builtin_bit_cast(uint32_t, low),
                                 __builtin_bit_cast(uint32_t, high));
  } else {
    return pack2(T{}, low, high);
  }
}

template <class T>
GPU_DEVICE uint32_t subtract2(uint32_t a, uint32_t b) {
#if defined(GPU_NVIDIA)
  uint32_t word;
  if constexpr (T::kDType == DType::f16) {
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(word) : "r"(a), "r"(b));
  } else {  // a - 1 * b
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(word) : "r"(b), "r"(0xBF80BF80u), "r"(a));
  }
  return word;
#else
#if defined(GPU_AMD)
  if constexpr (T::kDType == DType::f16) {
    return __builtin_bit_cast(uint32_t,
                              __builtin_bit_cast(Halves, a) - __builtin_bit_cast(Halves, b));
  }
#endif
  return pack_exact<T>(low_half<T>(a) - low_half<T>(b), high_half<T>(a) - high_half<T>(b));
#endif
}

// Multiplies by a power of two. kFactor: the power, twice in a word.
template <class T, uint32_t kFactor>
GPU_DEVICE uint32_t multiply2(uint32_t a) {
#if defined(GPU_NVIDIA)
  uint32_t word;
  if constexpr (T::kDType == DType::f16) {
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(word) : "r"(a), "r"(kFactor));
  } else {  // a * factor - 0
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(word) : "r"(a), "r"(kFactor), "r"(0x80008000u));
  }
  return word;
#else
#if defined(GPU_AMD)
  if constexpr (T::kDType == DType::f16) {
    return __builtin_bit_cast(uint32_t,
                              __builtin_bit_cast(Halves, a) * __builtin_bit_cast(Halves, kFactor));
  }
#endif
  const float factor = low_half<T>(kFactor);
  return pack_exact<T>(low_half<T>(a) * factor, high_half<T>(a) * factor);
#endif
}

// ---- Four numbers: a word of bytes becomes two words ----

// Which bytes of a word become which pair: side by side 0, 1 and 2, 3; or alternate 0, 2 and 1, 3.
enum class Pairs { side_by_side, alternate };

// RETURNS a word whose bytes kAt and kAt + 2 are a pair's two numbers; its others are those of
// `others`.
template <Pairs kPairs, int kPair, int kAt>
GPU_DEVICE uint32_t spread(uint32_t word, uint32_t others) {
  constexpr uint32_t kFirst = kPairs == Pairs::alternate ? kPair : 2 * kPair,
                     kSecond = kPairs == Pairs::alternate ? kPair + 2 : 2 * kPair + 1;
  constexpr uint32_t kSelector =
      kAt == 0 ? 0x4040 | kFirst | kSecond << 8 : 0x0404 | kFirst << 4 | kSecond << 12;
  return gpu::bytes_of<kSelector>(word, others);
}

template <class T, Pairs kPairs, int kPair>
GPU_DEVICE uint32_t widen_i8(uint32_t word) {
  if constexpr (T::kDType == DType::f16) {
    return subtract2<T>(spread<kPairs, kPair, 0>(word ^ 0x80808080u, 0x64646464u), 0x64806480u);
  } else {
    const uint32_t pair = spread<kPairs, kPair, 0>(word, 0);
    return subtract2<T>((pair & 0x007F007Fu) | 0x43004300u, (pair & 0x00800080u) | 0x43004300u);
  }
}

// Whether one instruction converts two of these numbers, NaN too.
template <class T, DType kStored>
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
inline constexpr bool kIsNative = T::kDType == DType::f16&& kStored == DType::f8_e4m3fn;
#else
inline constexpr bool kIsNative = false;
#endif

// The factor by which numbers are short that are not widened to their values (see widen4), and a
// pair of it as T.
template <class T, DType kStored>
inline constexpr float kMissingFactor = kStored == DType::i8 || kIsNative<T, kStored> ? 1
                                        : kStored == DType::f8_e4m3fn
                                            ? (T::kDType == DType::f16 ? 0x1p8F : 0x1p120F)
                                            : (T::kDType == DType::f16 ? 0x1p7F : 0x1p119F);
template <class T, DType kStored>
inline constexpr uint32_t kPairOfFactors =
    kStored == DType::f8_e4m3fn ? (T::kDType == DType::f16 ? 0x5C005C00u : 0x7B807B80u)
                                : (T::kDType == DType::f16 ? 0x58005800u : 0x7B007B00u);

// RETURNS a word with bit 7 of each byte that is NaN.
template <DType kStored>
GPU_DEVICE uint32_t nan_bytes(uint32_t word) {
  const uint32_t magnitude = word & 0x7F7F7F7Fu;
  if constexpr (kStored == DType::f8_e4m3fn) return (magnitude + 0x01010101u) & 0x80808080u;
  return ~(magnitude + 0x7F7F7F7Fu) & word & 0x80808080u;
}

template <class T, DType kStored, Pairs kPairs, int kPair, bool kWhole>
GPU_DEVICE uint32_t widen_e4m3(uint32_t word) {
  const uint32_t pair = spread<kPairs, kPair, 1>(word, 0);
  const auto shifted = [pair](int shift) {  // by the wider exponent's bits minus 4
    return (pair & 0x80008000u) | (pair & 0x7F007F00u) >> shift;
  };
  if constexpr (T::kDType == DType::f16) {
    return kWhole ? multiply2<F16, kPairOfFactors<F16, kStored>>(shifted(1)) : shifted(1);
  } else {
#if defined(GPU_AMD)
    // By way of f16: f32, in which AMD multiplies bf16, may have no subnormal numbers.
    static_assert(kWhole);
    constexpr float kFactor = kMissingFactor<F16, kStored>;
    return pack_exact<T>(low_half<F16>(shifted(1)) * kFactor, high_half<F16>(shifted(1)) * kFactor);
#else
    return kWhole ? multiply2<T, kPairOfFactors<T, kStored>>(shifted(4)) : shifted(4);
#endif
  }
}

// Widens the four numbers of a word. kWhole: to their values; else what kMissingFactor says may be
// missing.
template <class T, DType kStored, Pairs kPairs, bool kWhole>
GPU_DEVICE void widen4(uint32_t word, uint32_t (&pairs)[2]) {
  if constexpr (kStored == DType::i8) {
    pairs[0] = widen_i8<T, kPairs, 0>(word), pairs[1] = widen_i8<T, kPairs, 1>(word);
  } else if constexpr (kIsNative<T, kStored>) {
#if defined(GPU_NVIDIA)
    if (kPairs == Pairs::alternate) word = gpu::bytes_of<0x3120>(word, 0);
    asm("{\n.reg .b16 low, high;\n"
        "mov.b32 {low, high}, %2;\n"
        "cvt.rn.f16x2.e4m3x2 %0, low;\n"
        "cvt.rn.f16x2.e4m3x2 %1, high;\n}"
        : "=r"(pairs[0]), "=r"(pairs[1])
        : "r"(word));
#endif
  } else {
    pairs[0] = widen_e4m3<T, kStored, kPairs, 0, kWhole>(word);
    pairs[1] = widen_e4m3<T, kStored, kPairs, 1, kWhole>(word);
    const uint32_t nan = nan_bytes<kStored>(word);
    if (nan != 0) {  // seldom: sets all lower bits of each NaN
      pairs[0] |= (spread<kPairs, 0, 1>(nan, 0) >> 15) * 0x7FFF;
      pairs[1] |= (spread<kPairs, 1, 1>(nan, 0) >> 15) * 0x7FFF;
    }
  }
}

// Widens eight numbers to their values, in their order.
template <class T, DType kStored>
GPU_DEVICE gpu::Bits128 widen8(const gpu::Bits64& bytes) {
  gpu::Bits128 wide;
  GPU_UNROLL for (int i = 0; i < 2; ++i) {
    uint32_t pairs[2];
    widen4<T, kStored, Pairs::side_by_side, true>(bytes.word[i], pairs);
    wide.word[2 * i] = pairs[0], wide.word[2 * i + 1] = pairs[1];
  }
  return wide;
}

}  // namespace kernels::hip
