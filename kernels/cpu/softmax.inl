// kernels/cpu/softmax.inl: one row's scores of one tile into weights, and its running maximum and sum onwards
// (included by targets.cpp, once per target)

// 2^y for y <= 0, or above it by a rounding. Relative error below 1.5e-7 (a polynomial of degree 6 on [-0.5, 0.5], itself
// within 1e-8); exactly 1 at 0; exactly 0 below 2^-127; NaN stays NaN.
inline Vector exp2_nonpositive(Vector y) {
  const Floats d;
  const hn::Rebind<int32_t, Floats> d32;
  // Of a maximum that does not return its second operand where one is NaN, the comparison with itself repairs it.
  const Vector lowest = hn::Set(d, -127.0f);
  const Vector clamped = kMaxKeepsNan ? hn::Max(lowest, y) : hn::IfThenElse(hn::Eq(y, y), hn::Max(lowest, y), y);
  // Adding this leaves round(y) + 127, the exponent field of 2^round(y), in the low bits: 0 for all of 2^-127 and below.
  const Vector magic = hn::Set(d, 0x1.8p23f + 127.0f);
  const Vector shifted = hn::Add(clamped, magic);
  const Vector f = hn::Sub(clamped, hn::Sub(shifted, magic));
  Vector p = hn::Set(d, 0x1.44138ap-13f);
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.5f0890p-10f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.3b2a54p-7f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.c6af6cp-5f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.ebfbe0p-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.62e430p-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  return hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(d32, shifted))));
}

// Weights go where they came from. Two vectors at a time, or the last one alone.
struct InPlace {
  void operator()(float* HWY_RESTRICT scores, int64_t j, Vector weight) const {
    hn::Store(weight, Floats(), scores + j);
  }
  void operator()(float* HWY_RESTRICT scores, int64_t j, Vector weight, Vector next) const {
    hn::Store(weight, Floats(), scores + j);
    hn::Store(next, Floats(), scores + j + kLanes);
  }
};

// Turns scores [begin, end), -inf where a key is not visible, into weights that `put` stores; updates max and the sums by
// lane; returns the factor for what was accumulated so far.
//
// max is one of the scores. Plain scores are products of q and k, and run.exponent holds the scale: one multiply-add makes the
// exponent, above 0 at most by the rounding of max * exponent. Where that product is large, its rounding would be, too: then,
// and for adjusted scores, whose lowest finite one must not overflow, the maximum is subtracted first, which is exact at it.
template <bool kPlain, typename Put>
inline float softmax_row(float exponent, float* HWY_RESTRICT scores, int64_t begin, int64_t end,
                         float* HWY_RESTRICT max, float* HWY_RESTRICT sum, const Put& put) {
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
    return softmax_row<false>(exponent, scores, begin, end, max, sum, put);
  }
  const Vector base = hn::Set(d, kPlain ? shift : finite_max);
  const auto weight = [&](int64_t at) HWY_ATTR {
    const Vector s = hn::Load(d, scores + at);
    return exp2_nonpositive(kPlain ? hn::MulSub(s, scale, base) : hn::Mul(hn::Sub(s, base), scale));
  };
  Vector tile_sum = hn::Zero(d), tile_sum2 = hn::Zero(d);
  for (j = begin; j + 2 * kLanes <= end; j += 2 * kLanes) {
    const Vector p = weight(j);
    const Vector p2 = weight(j + kLanes);
    tile_sum = hn::Add(tile_sum, p);
    tile_sum2 = hn::Add(tile_sum2, p2);
    put(scores, j, p, p2);
  }
  if (j < end) {
    const Vector p = weight(j);
    tile_sum = hn::Add(tile_sum, p);
    put(scores, j, p);
  }
  tile_sum = hn::Add(tile_sum, tile_sum2);
  float factor = 1.0f;
  if (new_max != old_max) {
    factor = hn::GetLane(exp2_nonpositive(hn::Mul(hn::Set(d, old_max - finite_max), scale)));
    *max = new_max;
  }
  hn::Store(hn::MulAdd(hn::Load(d, sum), hn::Set(d, factor), tile_sum), d, sum);
  return factor;
}
