// kernels/cpu/simd/decode.inl: the few rows of a decode step against K and V where they lie, chunk of keys by chunk of keys
// (included by targets.cpp, once per target)
//
// Each element of K and V is used a few times only: packing it would cost more than it saves, and the memory's bandwidth
// is the limit. 16-bit elements are widened in registers.

// Rows of one register block against four keys, or four vectors of V.
constexpr int64_t kFewRows = kVectors == 4 ? 4 : 2;

// The last elements of a row, up to its end, and zeros.
template <DType kDType>
inline Vector widen_tail(const void* row, int64_t x, int64_t end) {
  HWY_ALIGN float floats[kLanes] = {};
  for (int64_t n = 0; x + n < end; ++n) floats[n] = load_float(kDType, row, x + n);
  return hn::Load(Floats(), floats);
}

// The sums of the lanes of four vectors, in order.
#if HWY_TARGET == HWY_SCALAR
inline void store_sums(const Vector sum[4], float* to) {
  for (int n = 0; n < 4; ++n) to[n] = hn::GetLane(sum[n]);
}
#else
template <class D>
inline hn::Vec<hn::FixedTag<float, 4> > add_blocks([[maybe_unused]] D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return add_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

inline void store_sums(const Vector sum[4], float* to) {
  const Floats d;
  const hn::RepartitionToWide<Floats> wide;
  const Vector ab =
      hn::Add(hn::InterleaveLower(d, sum[0], sum[1]), hn::InterleaveUpper(d, sum[0], sum[1]));
  const Vector ce =
      hn::Add(hn::InterleaveLower(d, sum[2], sum[3]), hn::InterleaveUpper(d, sum[2], sum[3]));
  const auto ab2 = hn::BitCast(wide, ab);
  const auto ce2 = hn::BitCast(wide, ce);
  const Vector all = hn::Add(hn::BitCast(d, hn::InterleaveLower(wide, ab2, ce2)),
                             hn::BitCast(d, hn::InterleaveUpper(wide, ab2, ce2)));
  hn::StoreU(add_blocks(d, all), hn::FixedTag<float, 4>(), to);
}
#endif

// kRows queries against four keys.
template <DType kDType, int kRows>
inline void dot_keys(const float* HWY_RESTRICT q, int64_t q_stride, const void* const key[4],
                     int64_t head_dim, float* HWY_RESTRICT scores) {
  const Floats d;
  Vector sum[kRows][4];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int n = 0; n < 4; ++n) sum[r][n] = hn::Zero(d);
  }
  const auto step = [&](int64_t x, const Vector k[4]) HWY_ATTR {
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const Vector query = hn::Load(d, q + r * q_stride + x);
      HWY_UNROLL(8)
      for (int n = 0; n < 4; ++n) sum[r][n] = hn::MulAdd(query, k[n], sum[r][n]);
    }
  };
  int64_t x = 0;
  for (; x + kLanes <= head_dim; x += kLanes) {
    Vector k[4];
    HWY_UNROLL(8)
    for (int n = 0; n < 4; ++n) k[n] = widen<kDType>(key[n], x);
    step(x, k);
  }
  if (x < head_dim) {
    Vector k[4];
    for (int n = 0; n < 4; ++n) k[n] = widen_tail<kDType>(key[n], x, head_dim);
    step(x, k);
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) store_sums(sum[r], scores + r * kDecodeTileKeys);
}

// kRows rows of weights times kCount vectors of columns of V, added to out * rescale.
template <DType kDType, int kRows, int kCount>
inline void add_values(const float* HWY_RESTRICT weights, const char* const* values, int64_t column,
                       int64_t begin, int64_t end, const float* HWY_RESTRICT rescale,
                       float* HWY_RESTRICT out, int64_t out_stride) {
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
    for (int n = 0; n < kCount; ++n) value[n] = widen<kDType>(values[j], column + n * kLanes);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const Vector weight = hn::Set(d, weights[r * kDecodeTileKeys + j]);
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

// The columns of V past its last whole vector.
template <DType kDType>
inline void add_value_tail(const Scratch& scratch, int64_t rows, const char* const* values,
                           int64_t column, int64_t end_column, int64_t begin, int64_t end) {
  const Floats d;
  for (int64_t r = 0; r < rows; ++r) {
    float* out = scratch.out + r * scratch.v_stride + column;
    Vector sum = hn::Mul(hn::Set(d, scratch.rescale[r]), hn::Load(d, out));
    for (int64_t j = begin; j < end; ++j) {
      const Vector weight = hn::Set(d, scratch.scores[r * kDecodeTileKeys + j]);
      sum = hn::MulAdd(weight, widen_tail<kDType>(values[j], column, end_column), sum);
    }
    hn::Store(sum, d, out);
  }
}

// Calls f with kFewRows, or with what is left of the rows, as a constant.
template <typename F>
inline void for_few_rows(int64_t rows, const F& f) {
  int64_t r = 0;
  for (; r + kFewRows <= rows; r += kFewRows) f(r, std::integral_constant<int, int{kFewRows}>());
  const int64_t left = rows - r;
  if (left == 1) f(r, std::integral_constant<int, 1>());
  if constexpr (kFewRows == 4) {
    if (left == 2) f(r, std::integral_constant<int, 2>());
    if (left == 3) f(r, std::integral_constant<int, 3>());
  }
}

inline void prefetch_row(const char* row, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at);
}

// One tile: keys [keys.begin, keys.end) from `first` on.
template <DType kDType>
inline void decode_tile(const Block& block, const Scratch& scratch, int64_t first,
                        const GroupKeys& keys) {
  const Run& run = *block.run;
  const Problem& p = *run.problem;
  const Args& args = *run.args;
  const char* k[kDecodeTileKeys + 4];
  const char* v[kDecodeTileKeys];
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    k[j] = element(args.k,
                   key_row(p, args, args.k, block.sequence, block.batch, first + j, block.head_kv));
    v[j] = element(args.v,
                   key_row(p, args, args.v, block.sequence, block.batch, first + j, block.head_kv));
  }
  const int64_t begin = keys.begin / 4 * 4;
  for (int64_t j = begin; j < keys.begin; ++j) k[j] = k[keys.begin];
  for (int64_t j = keys.end; j < round_up(keys.end, 4); ++j) k[j] = k[keys.begin];
  const int64_t k_bytes = p.head_dim * element_bytes(kDType);
  const int64_t v_bytes = p.head_dim_v * element_bytes(kDType);
  constexpr int64_t kAhead = 8;  // keys
  for (int64_t j = begin; j < keys.end; j += 4) {
    for (int64_t n = j; n < std::min(j + 4, keys.end); ++n) {
      if (n + kAhead < keys.end) prefetch_row(k[n + kAhead], k_bytes);
      if (n >= keys.begin) prefetch_row(v[n], v_bytes);
    }
    const void* const key[4] = {k[j], k[j + 1], k[j + 2], k[j + 3]};
    for_few_rows(block.rows, [&](int64_t r, auto count) HWY_ATTR {
      dot_keys<kDType, count()>(scratch.q + r * scratch.q_stride, scratch.q_stride, key, p.head_dim,
                                scratch.scores + r * kDecodeTileKeys + j);
    });
  }
  const KeyRange panels = whole_panels(keys, kLanes * 2);
  adjust_scores(block, scratch,
                {0, block.rows, first + panels.begin, panels.end - panels.begin,
                 scratch.scores + panels.begin, kDecodeTileKeys},
                keys.left);
  for (int64_t r = 0; r < block.rows; ++r) {
    weigh_row(block, scratch, r, first, panels, scratch.scores + r * kDecodeTileKeys);
  }
  const int64_t whole = p.head_dim_v / kLanes * kLanes;
  for_few_rows(block.rows, [&](int64_t r, auto rows) HWY_ATTR {
    const float* weights = scratch.scores + r * kDecodeTileKeys;
    const auto columns = [&](int64_t x, auto count) HWY_ATTR {
      add_values<kDType, rows(), count()>(weights, v, x, keys.begin, keys.end, scratch.rescale + r,
                                          scratch.out + r * scratch.v_stride + x, scratch.v_stride);
    };
    int64_t x = 0;
    for (; x + 4 * kLanes <= whole; x += 4 * kLanes) columns(x, std::integral_constant<int, 4>());
    for (; x < whole; x += kLanes) columns(x, std::integral_constant<int, 1>());
  });
  if (whole < p.head_dim_v) {
    add_value_tail<kDType>(scratch, block.rows, v, whole, p.head_dim_v, keys.begin, keys.end);
  }
}

// What a chunk saw of one row, for join: max, sum, and out not yet divided.
inline void store_parts(const Block& block, const Scratch& scratch, int64_t chunk) {
  const Floats d;
  for (int64_t r = 0; r < block.rows; ++r) {
    float* part = part_of(*block.run, block.pair, chunk, r);
    part[0] = scratch.max[r];
    part[1] = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, scratch.sum + r * kSumLanes)));
    memcpy(part + kPadFloats, scratch.out + r * scratch.v_stride,
           static_cast<size_t>(part_floats(*block.run->problem) - kPadFloats) * sizeof(float));
  }
}

void decode(const Run& run, int64_t index, int32_t worker) {
  const int64_t chunk = index % run.chunks_per_pair;
  const Block block = block_of_pair(run, index / run.chunks_per_pair, 0, kDecodeRows);
  if (block.rows <= 0 || !is_decode(block.sequence.q_length, run.group)) return;
  const int64_t begin = chunk * run.chunk_keys;
  if (chunk > 0 && begin >= block.sequence.kv_length) return;
  const Scratch scratch = scratch_of(run, worker);
  start_scratch(scratch);
  pack_queries(block, scratch);
  const KeyRange seen = start_rows(block, scratch, run.problem->sinks && chunk == 0);
  const int64_t end = std::min(seen.end, begin + run.chunk_keys);
  for (int64_t first = std::max(seen.begin / kDecodeTileKeys * kDecodeTileKeys, begin); first < end;
       first += kDecodeTileKeys) {
    const int64_t count = std::min(kDecodeTileKeys, block.sequence.kv_length - first);
    const GroupKeys keys = group_keys(block, scratch, 0, block.rows, first, count);
    if (keys.begin >= keys.end) continue;
    switch (run.problem->dtype) {
      case DType::f32: decode_tile<DType::f32>(block, scratch, first, keys); break;
      case DType::f16: decode_tile<DType::f16>(block, scratch, first, keys); break;
      default: decode_tile<DType::bf16>(block, scratch, first, keys);
    }
  }
  if (run.chunks_per_pair == 1) {
    finish_rows(block, scratch);
  } else {
    store_parts(block, scratch, chunk);
  }
}

// The chunks in their order, so that the bits do not depend on who was first.
void join(const Run& run, int64_t index, int32_t worker) {
  const Block block = block_of_pair(run, index, 0, kDecodeRows);
  if (block.rows <= 0 || !is_decode(block.sequence.q_length, run.group)) return;
  const Scratch scratch = scratch_of(run, worker);
  const Floats d;
  const int64_t chunks = std::max(int64_t{1}, ceil_div(block.sequence.kv_length, run.chunk_keys));
  for (int64_t r = 0; r < block.rows; ++r) {
    float max = -INFINITY;
    for (int64_t c = 0; c < chunks; ++c) {
      const float chunk_max = part_of(run, block.pair, c, r)[0];
      max = max < chunk_max ? chunk_max : max;
    }
    float* out = scratch.out + r * scratch.v_stride;
    std::fill(out, out + scratch.v_stride, 0.0f);
    float sum = 0;
    for (int64_t c = 0; c < chunks; ++c) {
      const float* part = part_of(run, block.pair, c, r);
      const float difference = part[0] == max ? 0.0f : part[0] - max;
      const Vector factor = exp2(hn::Set(d, difference * run.exponent));
      sum += part[1] * hn::GetLane(factor);
      for (int64_t x = 0; x < part_floats(*run.problem) - kPadFloats; x += kLanes) {
        hn::Store(hn::MulAdd(factor, hn::Load(d, part + kPadFloats + x), hn::Load(d, out + x)), d,
                  out + x);
      }
    }
    scratch.max[r] = max;
    std::fill(scratch.sum + r * kSumLanes, scratch.sum + (r + 1) * kSumLanes, 0.0f);
    scratch.sum[r * kSumLanes] = sum;
  }
  finish_rows(block, scratch);
}
