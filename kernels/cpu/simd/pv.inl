// kernels/cpu/simd/pv.inl: weights and a tile of V into the accumulated output (included by targets.cpp, once per target)

// One register block: kRows rows of weights times kCount vectors of the columns of V, added to out * rescale.
template <int kRows, int kCount>
inline void value_panel(const float* HWY_RESTRICT weights, const float* HWY_RESTRICT values,
                        int64_t v_stride, int64_t begin, int64_t end,
                        const float* HWY_RESTRICT rescale, float* HWY_RESTRICT out,
                        int64_t out_stride) {
  const Floats d;
  Vector sum[kRows][kCount];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    const Vector factor = hn::Set(d, rescale[r]);
    HWY_UNROLL(8)
    for (int n = 0; n < kCount; ++n)
      sum[r][n] = hn::Mul(factor, hn::Load(d, out + r * out_stride + n * kLanes));
  }
  for (int64_t j = begin; j < end; ++j) {
    Vector value[kCount];
    HWY_UNROLL(8)
    for (int n = 0; n < kCount; ++n) value[n] = hn::LoadU(d, values + j * v_stride + n * kLanes);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const Vector weight = hn::Set(d, weights[r * kTileKeys + j]);
      HWY_UNROLL(8)
      for (int n = 0; n < kCount; ++n) sum[r][n] = hn::MulAdd(weight, value[n], sum[r][n]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int n = 0; n < kCount; ++n) hn::Store(sum[r][n], d, out + r * out_stride + n * kLanes);
  }
}

template <int kCount>
inline void value_rows(int64_t rows, const float* weights, const float* values, int64_t v_stride,
                       int64_t begin, int64_t end, const float* rescale, float* out,
                       int64_t out_stride) {
  switch (rows) {
    case 1:
      return value_panel<1, kCount>(weights, values, v_stride, begin, end, rescale, out,
                                    out_stride);
    case 2:
      return value_panel<2, kCount>(weights, values, v_stride, begin, end, rescale, out,
                                    out_stride);
    case 3:
      return value_panel<3, kCount>(weights, values, v_stride, begin, end, rescale, out,
                                    out_stride);
    case 4:
      return value_panel<4, kCount>(weights, values, v_stride, begin, end, rescale, out,
                                    out_stride);
    case 5:
      return value_panel<5, kCount>(weights, values, v_stride, begin, end, rescale, out,
                                    out_stride);
    default:
      return value_panel<6, kCount>(weights, values, v_stride, begin, end, rescale, out,
                                    out_stride);
  }
}

// Columns [first, first + vectors * kLanes) of V; vectors <= kVectors.
inline void value_columns(int64_t vectors, int64_t rows, const float* weights, const float* values,
                          int64_t v_stride, int64_t begin, int64_t end, const float* rescale,
                          float* out, int64_t out_stride) {
  if constexpr (kVectors == 4) {
    if (vectors == 4)
      return value_rows<4>(rows, weights, values, v_stride, begin, end, rescale, out, out_stride);
    if (vectors == 3)
      return value_rows<3>(rows, weights, values, v_stride, begin, end, rescale, out, out_stride);
  }
  if (vectors == 2)
    return value_rows<2>(rows, weights, values, v_stride, begin, end, rescale, out, out_stride);
  return value_rows<1>(rows, weights, values, v_stride, begin, end, rescale, out, out_stride);
}
