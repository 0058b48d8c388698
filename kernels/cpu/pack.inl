// kernels/cpu/pack.inl: query rows and one tile of K and V into float arrays that the register blocks read
// (included by targets.cpp, once per target)

inline const char* element(const Tensor& tensor, int64_t offset) {
  return static_cast<const char*>(tensor.data) + offset * element_bytes(tensor.dtype);
}

// q * scale: one multiplication for each query instead of one for each score.
inline void pack_queries(const Block& block, const Scratch& scratch) {
  const Run& run = *block.run;
  const Floats d;
  const Vector scale = hn::Set(d, run.scale);
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t offset =
        query_row(*run.problem, run.args->q, block.sequence, block.batch, block.query(r), block.head(r));
    float* to = scratch.q + r * scratch.q_stride;
    load_row(run.problem->dtype, element(run.args->q, offset), run.problem->head_dim, to);
    for (int64_t x = 0; x < scratch.q_stride; x += kLanes) hn::Store(hn::Mul(hn::Load(d, to + x), scale), d, to + x);
  }
}

// Four rows of K into four columns of a panel.
inline void transpose_4(const float* const row[4], int64_t head_dim, float* to) {
  int64_t x = 0;
#if HWY_TARGET != HWY_SCALAR  // which has no vectors of 4
  const hn::FixedTag<float, 4> d;
  for (; x + 4 <= head_dim; x += 4) {
    const auto a = hn::LoadU(d, row[0] + x);
    const auto b = hn::LoadU(d, row[1] + x);
    const auto c = hn::LoadU(d, row[2] + x);
    const auto e = hn::LoadU(d, row[3] + x);
    const auto ab_lower = hn::InterleaveLower(d, a, b);
    const auto ab_upper = hn::InterleaveUpper(d, a, b);
    const auto ce_lower = hn::InterleaveLower(d, c, e);
    const auto ce_upper = hn::InterleaveUpper(d, c, e);
    hn::Store(hn::ConcatLowerLower(d, ce_lower, ab_lower), d, to + (x + 0) * kPanel);
    hn::Store(hn::ConcatUpperUpper(d, ce_lower, ab_lower), d, to + (x + 1) * kPanel);
    hn::Store(hn::ConcatLowerLower(d, ce_upper, ab_upper), d, to + (x + 2) * kPanel);
    hn::Store(hn::ConcatUpperUpper(d, ce_upper, ab_upper), d, to + (x + 3) * kPanel);
  }
#endif
  for (; x < head_dim; ++x) {
    for (int r = 0; r < 4; ++r) to[x * kPanel + r] = row[r][x];
  }
}

// Keys [first, first + count) into panels; the last panel is filled up with zeros, so that nothing past the last key,
// whatever bytes are there, is ever read.
inline void pack_keys(const Block& block, const Scratch& scratch, int64_t first, int64_t count) {
  const Run& run = *block.run;
  const Tensor& k = run.args->k;
  const int64_t head_dim = run.problem->head_dim;
  for (int64_t j = 0; j < round_up(count, kPanel); j += 4) {
    const float* row[4];
    for (int64_t r = 0; r < 4; ++r) {
      if (j + r >= count) {
        row[r] = scratch.zeros;
        continue;
      }
      const int64_t offset =
          key_row(*run.problem, *run.args, k, block.sequence, block.batch, first + j + r, block.head_kv);
      if (k.dtype == DType::f32) {
        row[r] = reinterpret_cast<const float*>(element(k, offset));
      } else {
        float* converted = scratch.rows + r * scratch.q_stride;
        load_row(k.dtype, element(k, offset), head_dim, converted);
        row[r] = converted;
      }
    }
    transpose_4(row, head_dim, scratch.keys + j / kPanel * kPanel * head_dim + j % kPanel);
  }
}

// Values of keys [first, first + count), padded with zero columns. Rows of V are copied even where they are floats
// already: at the strides of a whole tensor they would fall into few sets of the cache.
inline void pack_values(const Block& block, const Scratch& scratch, int64_t first, int64_t count) {
  const Run& run = *block.run;
  const Tensor& v = run.args->v;
  for (int64_t j = 0; j < count; ++j) {
    const int64_t offset = key_row(*run.problem, *run.args, v, block.sequence, block.batch, first + j, block.head_kv);
    load_row(v.dtype, element(v, offset), run.problem->head_dim_v, scratch.values + j * scratch.v_stride);
  }
}
