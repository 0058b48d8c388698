// kernels/cpu/softmax.inl: one row's scores of one tile into weights, and its running maximum and sum onwards
// (included by targets.cpp, once per target)

// 2^y for y <= 0. Relative error below 1.5e-7 (a polynomial of degree 6 on [-0.5, 0.5], itself within 1e-8); exactly 1 at 0;
// below 2^-126 exactly 0, so that no slow subnormal arises; NaN stays NaN.
inline Vector exp2_nonpositive(Vector y) {
  const Floats d;
  const hn::Rebind<int32_t, Floats> d32;
  // Adding this leaves round(y) + 127, the exponent field of 2^round(y), in the low bits.
  const Vector magic = hn::Set(d, 0x1.8p23f + 127.0f);
  const Vector shifted = hn::Add(y, magic);
  const Vector f = hn::Sub(y, hn::Sub(shifted, magic));
  Vector p = hn::Set(d, 0x1.44138ap-13f);
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.5f0890p-10f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.3b2a54p-7f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.c6af6cp-5f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.ebfbe0p-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.62e430p-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const Vector power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(d32, shifted)));
  // Where y is below the range (or -inf) p and power are meaningless, and the comparison throws them away; it is false for NaN.
  return hn::IfThenZeroElse(hn::Lt(y, hn::Set(d, -126.0f)), hn::Mul(p, power));
}

// Turns scores [begin, end), -inf where a key is not visible, into exp(score - max); updates max and the sums by lane;
// returns the factor for what was accumulated so far.
// The maximum is one of the very numbers it is subtracted from, so no difference is positive and none overflows.
inline float softmax_row(float* HWY_RESTRICT scores, int64_t begin, int64_t end, float* HWY_RESTRICT max,
                         float* HWY_RESTRICT sum) {
  const Floats d;
  const Vector log2e = hn::Set(d, 0x1.715476p+0f);
  Vector highest = hn::Load(d, scores + begin);
  for (int64_t j = begin + kLanes; j < end; j += kLanes) highest = hn::Max(highest, hn::Load(d, scores + j));
  const float tile_max = hn::GetLane(hn::MaxOfLanes(d, highest));
  const float old_max = *max;
  const float new_max = old_max < tile_max ? tile_max : old_max;
  // Nothing visible so far: any finite number does, since exp(-inf - 0) = 0 and exp(-inf + inf) would be NaN.
  const Vector base = hn::Set(d, new_max == -INFINITY ? 0.0f : new_max);

  Vector tile_sum = hn::Zero(d);
  for (int64_t j = begin; j < end; j += kLanes) {
    const Vector p = exp2_nonpositive(hn::Mul(hn::Sub(hn::Load(d, scores + j), base), log2e));
    tile_sum = hn::Add(tile_sum, p);
    hn::Store(p, d, scores + j);
  }
  float factor = 1.0f;
  if (new_max != old_max) {
    factor = hn::GetLane(exp2_nonpositive(hn::Mul(hn::Sub(hn::Set(d, old_max), base), log2e)));
  }
  hn::Store(hn::MulAdd(hn::Load(d, sum), hn::Set(d, factor), tile_sum), d, sum);
  *max = new_max;
  return factor;
}
