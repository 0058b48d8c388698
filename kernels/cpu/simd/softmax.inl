// kernels/cpu/simd/softmax.inl: one row's scores of one tile into weights, and its running maximum and sum onwards
// (included by targets.cpp, once per target)

// 1 + c[n - 1] f + ... + c[0] f^n.
template <size_t kDegree>
inline Vector polynomial(const float (&c)[kDegree], Vector f) {
  const Floats d;
  Vector p = hn::Set(d, c[0]);
  HWY_UNROLL(4)
  for (size_t n = 1; n < kDegree; ++n) p = hn::MulAdd(p, f, hn::Set(d, c[n]));
  return hn::MulAdd(p, f, hn::Set(d, 1.0f));
}

// Polynomials of least largest relative error for 2^f, f from 0 to 1 and from -1/2 to 1/2.
struct Exp2 {  // within 1.1e-7
  static constexpr float k0To1[] = {0x1.e974fcp-10f, 0x1.277854p-7f, 0x1.c91ce6p-5f, 0x1.ebdb56p-3f,
                                    0x1.62e4bap-1f};
  static constexpr float kHalfs[] = {0x1.5bba14p-10f, 0x1.3cea88p-7f, 0x1.c6b752p-5f,
                                     0x1.ebf9bcp-3f, 0x1.62e42ap-1f};
};
struct Exp2For16Bits {  // within 3e-6, a fifth of what rounding to two parts of 8 bits may lose
  static constexpr float k0To1[] = {0x1.b7f732p-7f, 0x1.abf868p-5f, 0x1.ee2452p-3f, 0x1.62d6c6p-1f};
  static constexpr float kHalfs[] = {0x1.3a02cep-7f, 0x1.c9fc46p-5f, 0x1.ec0378p-3f,
                                     0x1.62e12cp-1f};
};

// 2^y for y < 127, and something for the others. Relative error of normal results below 2e-7 (Exp2For16Bits: 3.1e-6): the polynomial's and float rounding.
// Exactly 1 at 0; 0 below 2^-126 or soon after it; NaN stays NaN.
template <class Polynomial = Exp2>
inline Vector exp2(Vector y) {
#if KERNELS_CPU_AVX512  // Highway has no names for vreduceps (here y - floor(y)) and vscalefps (p 2^floor(y))
  constexpr int kFloor = 0x09;
  const __mmask16 normal =
      _mm512_cmp_ps_mask(y.raw, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);  // or NaN
  const Vector p = polynomial(Polynomial::k0To1, Vector{_mm512_reduce_ps(y.raw, kFloor)});
  return Vector{_mm512_maskz_scalef_ps(normal, p.raw, y.raw)};
#else
  const Floats d;
  const hn::Rebind<int32_t, Floats> d32;
  // Of a maximum that does not return its second operand where one is NaN, the comparison with itself repairs it.
  const Vector lowest = hn::Set(d, -127.0f);
  const Vector clamped =
      kMaxKeepsNan ? hn::Max(lowest, y) : hn::IfThenElse(hn::Eq(y, y), hn::Max(lowest, y), y);
  // Adding this leaves round(y) + 127, the exponent field of 2^round(y), in the low bits: 0 for all of 2^-127 and below.
  const Vector magic = hn::Set(d, 0x1.8p23f + 127.0f);
  const Vector shifted = hn::Add(clamped, magic);
  const Vector p = polynomial(Polynomial::kHalfs, hn::Sub(clamped, hn::Sub(shifted, magic)));
  return hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(d32, shifted))));
#endif
}

// Turns scores [begin, end), -inf where a key is not visible, into weights in their place; updates max and the sums by
// lane; returns the factor for what was accumulated so far.
//
// max is one of the scores. Plain scores are products of q and k, and run.exponent holds the scale: one multiply-add makes the
// exponent, above 0 at most by the rounding of max * exponent. Where that product is large, its rounding would be, too: then,
// and for adjusted scores, whose lowest finite one must not overflow, the maximum is subtracted first, which is exact at it.
template <bool kPlain>
inline float softmax_row(float exponent, float* HWY_RESTRICT scores, int64_t begin, int64_t end,
                         float* HWY_RESTRICT max, float* HWY_RESTRICT sum) {
  const Floats d;
  const Vector scale = hn::Set(d, exponent);
  const Vector lowest = hn::Set(d, -INFINITY);
  Vector highest = lowest, highest2 = lowest;
  int64_t j = begin;
  for (; j + 2 * kLanes <= end; j += 2 * kLanes) {
    highest = hn::Max(highest, hn::Load(d, scores + j));
    highest2 = hn::Max(highest2, hn::Load(d, scores + j + kLanes));
  }
  if (j < end) highest = hn::Max(highest, hn::Load(d, scores + j));
  const float tile_max = hn::GetLane(hn::MaxOfLanes(d, hn::Max(highest, highest2)));
  const float old_max = *max;
  const float new_max = old_max < tile_max ? tile_max : old_max;
  // Nothing visible so far: any finite number does, since exp(-inf - 0) = 0 and exp(-inf + inf) would be NaN.
  const float finite_max = new_max == -INFINITY ? 0.0f : new_max;
  constexpr float kLargeShift = 32;  // half an ulp of it is 2e-6
  const float shift = finite_max * exponent;
  if (kPlain && !(std::abs(shift) <= kLargeShift)) {
    return softmax_row<false>(exponent, scores, begin, end, max, sum);
  }
  const Vector base = hn::Set(d, kPlain ? shift : finite_max);
  const auto weight = [&](int64_t at) HWY_ATTR {
    const Vector s = hn::Load(d, scores + at);
    return exp2(kPlain ? hn::MulSub(s, scale, base) : hn::Mul(hn::Sub(s, base), scale));
  };
  Vector tile_sum = hn::Zero(d), tile_sum2 = hn::Zero(d);
  for (j = begin; j + 2 * kLanes <= end; j += 2 * kLanes) {
    const Vector p = weight(j);
    const Vector p2 = weight(j + kLanes);
    tile_sum = hn::Add(tile_sum, p);
    tile_sum2 = hn::Add(tile_sum2, p2);
    hn::Store(p, d, scores + j);
    hn::Store(p2, d, scores + j + kLanes);
  }
  if (j < end) {
    const Vector p = weight(j);
    tile_sum = hn::Add(tile_sum, p);
    hn::Store(p, d, scores + j);
  }
  tile_sum = hn::Add(tile_sum, tile_sum2);
  float factor = 1.0f;
  if (new_max != old_max) {
    factor = hn::GetLane(exp2(hn::Mul(hn::Set(d, old_max - finite_max), scale)));
    *max = new_max;
  }
  hn::Store(hn::MulAdd(hn::Load(d, sum), hn::Set(d, factor), tile_sum), d, sum);
  return factor;
}
