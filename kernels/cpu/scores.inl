// kernels/cpu/scores.inl: packed queries and keys into scores, and scores into what mask, softcap and ALiBi make of them
// (included by targets.cpp, once per target)

// One register block: kRows queries against one panel of keys.
template <int kRows>
inline void score_panel(const float* HWY_RESTRICT q, int64_t q_stride, const float* HWY_RESTRICT keys, int64_t head_dim,
                        float* HWY_RESTRICT scores) {
  const Floats d;
  Vector sum[kRows][kVectors];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int n = 0; n < kVectors; ++n) sum[r][n] = hn::Zero(d);
  }
  for (int64_t x = 0; x < head_dim; ++x) {
    Vector key[kVectors];
    HWY_UNROLL(8)
    for (int n = 0; n < kVectors; ++n) key[n] = hn::Load(d, keys + x * kPanel + n * kLanes);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const Vector query = hn::Set(d, q[r * q_stride + x]);
      HWY_UNROLL(8)
      for (int n = 0; n < kVectors; ++n) sum[r][n] = hn::MulAdd(query, key[n], sum[r][n]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int n = 0; n < kVectors; ++n) hn::Store(sum[r][n], d, scores + r * kTileKeys + n * kLanes);
  }
}

inline void score_rows(int64_t rows, const float* q, int64_t q_stride, const float* keys, int64_t head_dim,
                       float* scores) {
  switch (rows) {
    case 1: return score_panel<1>(q, q_stride, keys, head_dim, scores);
    case 2: return score_panel<2>(q, q_stride, keys, head_dim, scores);
    case 3: return score_panel<3>(q, q_stride, keys, head_dim, scores);
    case 4: return score_panel<4>(q, q_stride, keys, head_dim, scores);
    case 5: return score_panel<5>(q, q_stride, keys, head_dim, scores);
    default: return score_panel<6>(q, q_stride, keys, head_dim, scores);
  }
}

// One row of the mask for keys [first, first + count), as what is added to the scores: -inf where a key is not visible.
inline void load_bias(const Run& run, int64_t batch, int64_t head, int64_t i, int64_t first, int64_t count,
                      float* bias) {
  const Tensor& m = run.args->mask;
  const int64_t stride = m.stride[3];
  const int64_t offset = batch * m.stride[0] + head * m.stride[1] + i * m.stride[2] + first * stride;
  if (m.dtype == DType::boolean) {
    const uint8_t* from = reinterpret_cast<const uint8_t*>(element(m, offset));
    if (stride == 1) {
      for (int64_t j = 0; j < count; ++j) bias[j] = from[j] != 0 ? 0.0f : -INFINITY;
    } else {
      for (int64_t j = 0; j < count; ++j) bias[j] = from[j * stride] != 0 ? 0.0f : -INFINITY;
    }
  } else if (stride == 1) {
    load_row(m.dtype, element(m, offset), count, bias);
  } else {
    for (int64_t j = 0; j < count; ++j) bias[j] = load_float(m.dtype, m.data, offset + j * stride);
  }
}

// scores [begin, end) of one row, whose key 0 is `first`: softcap, mask, ALiBi. Nothing is done that the Problem does not
// ask for. A masked score is replaced, not added to, so that a NaN in its key cannot pass.
inline void adjust_row(const Block& block, const Scratch& scratch, int64_t row, int64_t first, int64_t begin,
                       int64_t end, float* scores) {
  const Run& run = *block.run;
  const Problem& p = *run.problem;
  const Floats d;
  const int64_t i = block.query(row);
  const int64_t head = block.head(row);
  if (p.softcap != 0) {
    const Vector cap = hn::Set(d, p.softcap);
    for (int64_t j = begin; j < end; j += kLanes) {
      const Vector s = hn::Load(d, scores + j);
      hn::Store(hn::Mul(cap, hn::Tanh(d, hn::Div(s, cap))), d, scores + j);
    }
  }
  if (p.mask != Mask::none) {
    const int64_t count = std::min(end, block.sequence.kv_length - first) - begin;
    load_bias(run, block.batch, head, i, first + begin, count, scratch.bias + begin);
    const Vector hidden = hn::Set(d, -INFINITY);
    // Lanes past the last key hold an older bias: finite or not, their scores are replaced after this.
    for (int64_t j = begin; j < end; j += kLanes) {
      const Vector bias = hn::Load(d, scratch.bias + j);
      const Vector s = hn::Add(hn::Load(d, scores + j), bias);
      hn::Store(hn::IfThenElse(hn::Eq(bias, hidden), hidden, s), d, scores + j);
    }
  }
  if (p.alibi) {
    const Tensor& slopes = run.args->alibi_slopes;
    const Vector slope = hn::Set(d, load_float(DType::f32, slopes.data, head * slopes.stride[0]));
    const int64_t opposite = diagonal(p.align, i, block.sequence.q_length, block.sequence.kv_length);
    for (int64_t j = begin; j < end; j += kLanes) {
      const Vector distance = hn::Abs(hn::Iota(d, static_cast<float>(first + j - opposite)));
      hn::Store(hn::NegMulAdd(slope, distance, hn::Load(d, scores + j)), d, scores + j);
    }
  }
}
