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
  const Floats d;
  const Tensor& m = run.args->mask;
  const int64_t stride = m.stride[3];
  const int64_t offset = batch * m.stride[0] + head * m.stride[1] + i * m.stride[2] + first * stride;
  if (m.dtype == DType::boolean) {
    const uint8_t* from = reinterpret_cast<const uint8_t*>(element(m, offset));
    int64_t j = 0;
    if (stride == 1) {
      const hn::Rebind<uint8_t, Floats> d8;
      const hn::Rebind<int32_t, Floats> d32;
      for (; j + kLanes <= count; j += kLanes) {
        const auto seen = hn::PromoteTo(d32, hn::LoadU(d8, from + j));
        const auto hidden = hn::RebindMask(d, hn::Eq(seen, hn::Zero(d32)));
        hn::StoreU(hn::IfThenElseZero(hidden, hn::Set(d, -INFINITY)), d, bias + j);
      }
    }
    for (; j < count; ++j) bias[j] = from[j * stride] != 0 ? 0.0f : -INFINITY;
  } else if (stride == 1) {
    load_row(m.dtype, element(m, offset), count, bias);
  } else {
    for (int64_t j = 0; j < count; ++j) bias[j] = load_float(m.dtype, m.data, offset + j * stride);
  }
}

// scores [begin, end) of one row, whose key 0 is `first`: softcap, mask, ALiBi. Nothing is done that the Problem does not
// ask for, and plain scores stay unscaled. A masked score is replaced, not added to, so that a NaN in its key cannot pass.
inline void adjust_row(const Block& block, const Scratch& scratch, int64_t row, int64_t first, int64_t begin,
                       int64_t end, float* scores) {
  const Run& run = *block.run;
  const Problem& p = *run.problem;
  const Floats d;
  const int64_t i = block.query(row);
  const int64_t head = block.head(row);
  const Vector scale = hn::Set(d, run.plain ? 1.0f : run.scale);
  if (p.softcap != 0) {
    const Vector cap = hn::Set(d, p.softcap);
    for (int64_t j = begin; j < end; j += kLanes) {
      const Vector s = hn::Mul(hn::Load(d, scores + j), scale);
      hn::Store(hn::Mul(cap, hn::Tanh(d, hn::Div(s, cap))), d, scores + j);
    }
  } else if (!run.plain && p.mask == Mask::none) {
    for (int64_t j = begin; j < end; j += kLanes) {
      hn::Store(hn::Mul(hn::Load(d, scores + j), scale), d, scores + j);
    }
  }
  if (p.mask != Mask::none) {
    const int64_t count = std::min(end, block.sequence.kv_length - first) - begin;
    load_bias(run, block.batch, head, i, first + begin, count, scratch.bias + begin);
    const Vector hidden = hn::Set(d, -INFINITY);
    const Vector once = p.softcap != 0 ? hn::Set(d, 1.0f) : scale;
    // Lanes past the last key hold an older bias: finite or not, their scores are replaced after this.
    for (int64_t j = begin; j < end; j += kLanes) {
      const Vector bias = hn::Load(d, scratch.bias + j);
      const Vector s = hn::MulAdd(hn::Load(d, scores + j), once, bias);
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

// Which keys of a tile a mask leaves to a group of rows.
enum class Left { none, some, all };

// What lies between begin and end of one row of the mask, as far as it can be told quickly: `some` where it cannot.
inline Left row_left(const Run& run, int64_t batch, int64_t head, int64_t i, int64_t begin, int64_t end) {
  const Tensor& m = run.args->mask;
  const int64_t stride = m.stride[3];
  if (m.dtype == DType::f32 || stride > 1 || stride < 0) return Left::some;
  const char* row = element(m, batch * m.stride[0] + head * m.stride[1] + i * m.stride[2] + begin * stride);
  const int64_t count = stride == 0 ? 1 : end - begin;
  bool any = false, every = true;
  if (m.dtype != DType::boolean) {
    const uint16_t hidden = m.dtype == DType::f16 ? 0xFC00 : 0xFF80;
    const hn::ScalableTag<uint16_t> d16;
    const uint16_t* from = reinterpret_cast<const uint16_t*>(row);
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d16));
    int64_t j = 0;
    for (; j + lanes <= count && !any; j += lanes) {
      any = !hn::AllTrue(d16, hn::Eq(hn::LoadU(d16, from + j), hn::Set(d16, hidden)));
    }
    for (; j < count && !any; ++j) any = from[j] != hidden;
    return any ? Left::some : Left::none;
  }
  const hn::ScalableTag<uint8_t> d8;
  const uint8_t* from = reinterpret_cast<const uint8_t*>(row);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d8));
  int64_t j = 0;
  for (; j + lanes <= count && (every || !any); j += lanes) {
    const auto hidden = hn::Eq(hn::LoadU(d8, from + j), hn::Zero(d8));
    any = any || !hn::AllTrue(d8, hidden);
    every = every && hn::AllFalse(d8, hidden);
  }
  for (; j < count; ++j) {
    any = any || from[j] != 0;
    every = every && from[j] != 0;
  }
  return every ? Left::all : any ? Left::some : Left::none;
}
