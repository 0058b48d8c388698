// kernels/cpu/simd/scores.inl: packed queries and keys into scores, and scores into what mask, softcap and ALiBi make of them
// (included by targets.cpp, once per target)

// One register block: kRows queries against one panel of keys.
template <int kRows>
inline void score_panel(const float* HWY_RESTRICT q, int64_t q_stride,
                        const float* HWY_RESTRICT keys, int64_t head_dim,
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

inline void score_rows(int64_t rows, const float* q, int64_t q_stride, const float* keys,
                       int64_t head_dim, float* scores) {
  switch (rows) {
    case 1: return score_panel<1>(q, q_stride, keys, head_dim, scores);
    case 2: return score_panel<2>(q, q_stride, keys, head_dim, scores);
    case 3: return score_panel<3>(q, q_stride, keys, head_dim, scores);
    case 4: return score_panel<4>(q, q_stride, keys, head_dim, scores);
    case 5: return score_panel<5>(q, q_stride, keys, head_dim, scores);
    default: return score_panel<6>(q, q_stride, keys, head_dim, scores);
  }
}

// Which keys of a tile a mask leaves as they are.
enum class Left { none, some, all };

// One row of the mask for keys [first, first + count), as what is added to the scores: -inf where a key is not visible.
inline void load_bias(const Tensor& mask, const char* row, int64_t count, float* bias) {
  const int64_t stride = mask.stride[3];
  if (mask.dtype == DType::boolean) {
    for (int64_t j = 0; j < count; ++j) bias[j] = row[j * stride] != 0 ? 0.0f : -INFINITY;
  } else if (stride == 1) {
    load_row(mask.dtype, row, count, bias);
  } else {
    for (int64_t j = 0; j < count; ++j) bias[j] = load_float(mask.dtype, row, j * stride);
  }
}

// Scores of some rows and of keys [first, first + count), `stride` floats between rows.
struct Scores {
  int64_t row;
  int64_t rows;
  int64_t first;
  int64_t count;
  float* data;
  int64_t stride;
};

// Scores times `scale`, and the mask on them. A masked score is replaced, not added to, so that a NaN in its key cannot pass.
inline void mask_scores(const Block& block, const Scratch& scratch, const Scores& at,
                        Vector scale) {
  const Floats d;
  const Tensor& m = block.run->args->mask;
  const Vector hidden = hn::Set(d, -INFINITY);
  // In locals, which no store of scores can change.
  const char* const* masks = scratch.mask + at.row;
  const int64_t skip = at.first * m.stride[3] * element_bytes(m.dtype);
  float* const data = at.data;
  const int64_t stride = at.stride, rows = at.rows, count = at.count;
  const auto each = [=](auto&& masked) HWY_ATTR {
    for (int64_t r = 0; r < rows; ++r) {
      const char* from = masks[r] + skip;
      float* scores = data + r * stride;
      for (int64_t j = 0; j < count; j += kLanes)
        hn::Store(masked(hn::Load(d, scores + j), from, j), d, scores + j);
    }
  };
  const auto add = [=](auto&& bias_at) HWY_ATTR {
    each([=](Vector s, const char* from, int64_t j) HWY_ATTR {
      const Vector bias = bias_at(from, j);
      return hn::IfThenElse(hn::Eq(bias, hidden), hidden, hn::MulAdd(s, scale, bias));
    });
  };
  const int64_t exist = block.sequence.kv_length - at.first;
  if (m.stride[3] != 1 || at.count > exist) {
    // Lanes past the last key hold an older bias: finite or not, their scores are replaced after this.
    add([&](const char* from, int64_t j) HWY_ATTR {
      load_bias(m, from + j * m.stride[3] * element_bytes(m.dtype),
                std::clamp(exist - j, int64_t{0}, kLanes), scratch.bias);
      return hn::Load(d, scratch.bias);
    });
  } else if (m.dtype == DType::f32) {
    add([](const char* from, int64_t j) HWY_ATTR { return widen<DType::f32>(from, j); });
  } else if (m.dtype == DType::f16) {
    add([](const char* from, int64_t j) HWY_ATTR { return widen<DType::f16>(from, j); });
  } else if (m.dtype == DType::bf16) {
    add([](const char* from, int64_t j) HWY_ATTR { return widen<DType::bf16>(from, j); });
  } else {
    each([=](Vector s, const char* from, int64_t j) HWY_ATTR {
      const hn::Rebind<uint8_t, Floats> d8;
      const hn::Rebind<int32_t, Floats> d32;
      const auto seen =
          hn::PromoteTo(d32, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(from) + j));
      return hn::IfThenElse(hn::RebindMask(d, hn::Eq(seen, hn::Zero(d32))), hidden,
                            hn::Mul(s, scale));
    });
  }
}

// Softcap, mask and ALiBi. Nothing is done that the Problem does not ask for, and plain scores stay unscaled.
inline void adjust_scores(const Block& block, const Scratch& scratch, const Scores& at, Left left) {
  const Run& run = *block.run;
  const Problem& p = *run.problem;
  if (run.plain && left == Left::all) return;
  const Floats d;
  Vector scale = hn::Set(d, run.plain ? 1.0f : run.scale);
  const auto each = [&](auto&& change) HWY_ATTR {
    for (int64_t r = 0; r < at.rows; ++r) {
      float* scores = at.data + r * at.stride;
      for (int64_t j = 0; j < at.count; j += kLanes)
        hn::Store(change(hn::Load(d, scores + j)), d, scores + j);
    }
  };
  if (p.softcap != 0) {
    const Vector cap = hn::Set(d, p.softcap);
    each([&](Vector s)
             HWY_ATTR { return hn::Mul(cap, hn::Tanh(d, hn::Div(hn::Mul(s, scale), cap))); });
    scale = hn::Set(d, 1.0f);
  }
  if (left != Left::all) {
    mask_scores(block, scratch, at, scale);
  } else if (p.softcap == 0) {
    each([&](Vector s) HWY_ATTR { return hn::Mul(s, scale); });
  }
  if (p.alibi) {
    const Tensor& slopes = run.args->alibi_slopes;
    for (int64_t r = 0; r < at.rows; ++r) {
      const int64_t i = block.query(at.row + r), head = block.head(at.row + r);
      const int64_t opposite =
          diagonal(p.align, i, block.sequence.q_length, block.sequence.kv_length);
      const Vector slope = hn::Set(d, load_float(DType::f32, slopes.data, head * slopes.stride[0]));
      float* scores = at.data + r * at.stride;
      for (int64_t j = 0; j < at.count; j += kLanes) {
        const Vector distance = hn::Abs(hn::Iota(d, static_cast<float>(at.first + j - opposite)));
        hn::Store(hn::NegMulAdd(slope, distance, hn::Load(d, scores + j)), d, scores + j);
      }
    }
  }
}

// -inf for those of keys [first, first + count) that are outside of a row's interval.
inline void hide_outside(KeyRange seen, int64_t first, int64_t count, float* scores) {
  const int64_t begin = std::clamp(seen.begin - first, int64_t{0}, count);
  const int64_t end = std::clamp(seen.end - first, begin, count);
  std::fill(scores, scores + begin, -INFINITY);
  std::fill(scores + end, scores + count, -INFINITY);
}

// Whether `hidden` or `free` says so of all of n elements. They take a tag and a vector of them and give a mask.
template <typename T, class Hidden, class Free>
inline Left elements_left(const T* from, int64_t n, const Hidden& hidden, const Free& free) {
  const hn::ScalableTag<T> d;
  const hn::CappedTag<T, 1> d1;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  bool none = true, all = true;
  int64_t j = 0;
  for (; j + lanes <= n && (none || all); j += lanes) {
    const auto v = hn::LoadU(d, from + j);
    none = none && hn::AllTrue(d, hidden(d, v));
    all = all && hn::AllTrue(d, free(d, v));
  }
  for (; j < n && (none || all); ++j) {
    const auto v = hn::LoadU(d1, from + j);
    none = none && hn::AllTrue(d1, hidden(d1, v));
    all = all && hn::AllTrue(d1, free(d1, v));
  }
  return all ? Left::all : none ? Left::none : Left::some;
}

// What lies between begin and end of one row of the mask, if it can be told quickly: else `some`.
inline Left row_left(const Block& block, const Scratch& scratch, int64_t row, int64_t begin,
                     int64_t end) {
  const Tensor& m = block.run->args->mask;
  const int64_t stride = m.stride[3];
  if (stride > 1 || stride < 0) return Left::some;
  const char* from = scratch.mask[row] + begin * stride * element_bytes(m.dtype);
  const int64_t n = stride == 0 ? 1 : end - begin;
  if (m.dtype == DType::boolean) {
    return elements_left(
        reinterpret_cast<const uint8_t*>(from), n,
        [](auto d, auto v) HWY_ATTR { return hn::Eq(v, hn::Zero(d)); },
        [](auto d, auto v) HWY_ATTR { return hn::Ne(v, hn::Zero(d)); });
  }
  const auto free = [](auto d, auto v)
                        HWY_ATTR { return hn::Eq(hn::ShiftLeft<1>(v), hn::Zero(d)); };  // 0 or -0
  if (m.dtype == DType::f32) {
    return elements_left(
        reinterpret_cast<const uint32_t*>(from), n,
        [](auto d, auto v) HWY_ATTR { return hn::Eq(v, hn::Set(d, 0xFF800000u)); }, free);
  }
  const uint16_t infinity = m.dtype == DType::f16 ? 0xFC00 : 0xFF80;
  return elements_left(
      reinterpret_cast<const uint16_t*>(from), n,
      [infinity](auto d, auto v) HWY_ATTR { return hn::Eq(v, hn::Set(d, infinity)); }, free);
}
