// kernels/cpu/pack.inl: query rows and one tile of K and V into arrays of operands that the register blocks read
// (included by targets.cpp, once per target)

inline const char* element(const Tensor& tensor, int64_t offset) {
  return static_cast<const char*>(tensor.data) + offset * element_bytes(tensor.dtype);
}

// Queries as they are, but for a negative scale's sign.
inline void load_query(const Block& block, int64_t row, float* to) {
  const Run& run = *block.run;
  const Floats d;
  const int64_t offset =
      query_row(*run.problem, run.args->q, block.sequence, block.batch, block.query(row), block.head(row));
  load_row(run.problem->dtype, element(run.args->q, offset), run.problem->head_dim, to);
  if (!run.negative) return;
  for (int64_t x = 0; x < run.problem->head_dim; x += kLanes) hn::Store(hn::Neg(hn::Load(d, to + x)), d, to + x);
}

inline void pack_queries(const Block& block, const Scratch& scratch) {
  for (int64_t r = 0; r < block.rows; ++r) load_query(block, r, scratch.q + r * scratch.q_stride);
}

// Four rows of 32-bit elements into four columns of a panel of kWidth columns.
template <int64_t kWidth>
inline void transpose_4(const float* const row[4], int64_t length, float* to) {
  int64_t x = 0;
#if HWY_TARGET != HWY_SCALAR  // which has no vectors of 4
  const hn::FixedTag<float, 4> d;
  for (; x + 4 <= length; x += 4) {
    const auto a = hn::LoadU(d, row[0] + x);
    const auto b = hn::LoadU(d, row[1] + x);
    const auto c = hn::LoadU(d, row[2] + x);
    const auto e = hn::LoadU(d, row[3] + x);
    const auto ab_lower = hn::InterleaveLower(d, a, b);
    const auto ab_upper = hn::InterleaveUpper(d, a, b);
    const auto ce_lower = hn::InterleaveLower(d, c, e);
    const auto ce_upper = hn::InterleaveUpper(d, c, e);
    hn::Store(hn::ConcatLowerLower(d, ce_lower, ab_lower), d, to + (x + 0) * kWidth);
    hn::Store(hn::ConcatUpperUpper(d, ce_lower, ab_lower), d, to + (x + 1) * kWidth);
    hn::Store(hn::ConcatLowerLower(d, ce_upper, ab_upper), d, to + (x + 2) * kWidth);
    hn::Store(hn::ConcatUpperUpper(d, ce_upper, ab_upper), d, to + (x + 3) * kWidth);
  }
#endif
  for (; x < length; ++x) {
    for (int r = 0; r < 4; ++r) to[x * kWidth + r] = row[r][x];
  }
}

// Keys [first, first + count) into panels; the last panel is filled up with zeros, so that nothing past the last key,
// whatever bytes are there, is ever read.
inline void pack_keys(const Block& block, const Scratch& scratch, int64_t first, int64_t count, float* to) {
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
    transpose_4<kPanel>(row, head_dim, to + j / kPanel * kPanel * head_dim + j % kPanel);
  }
}

// Values of keys [first, first + count), padded with zero columns. Rows of V are copied even where they are floats
// already: at the strides of a whole tensor they would fall into few sets of the cache.
inline void pack_values(const Block& block, const Scratch& scratch, int64_t first, int64_t count, float* to) {
  const Run& run = *block.run;
  const Tensor& v = run.args->v;
  for (int64_t j = 0; j < count; ++j) {
    const int64_t offset = key_row(*run.problem, *run.args, v, block.sequence, block.batch, first + j, block.head_kv);
    load_row(v.dtype, element(v, offset), run.problem->head_dim_v, to + j * scratch.v_stride);
  }
}

// What every tile needs: zeros where nothing exists.
inline void start_scratch(const Run& run, const Scratch& scratch) {
  std::fill(scratch.zeros, scratch.zeros + std::max(scratch.q_stride, scratch.v_stride), 0.0f);
  std::fill(scratch.bias, scratch.bias + std::max(run.cut.tile_keys, kDecodeTileKeys) + kPadFloats, 0.0f);
}

// The keys that some query of the sequence sees, but for the mask.
inline KeyRange keys_of_sequence(const Problem& p, const Sequence& s) {
  const KeyRange first = visible_keys(p, 0, s.q_length, s.kv_length);
  const KeyRange last = visible_keys(p, s.q_length - 1, s.q_length, s.kv_length);
  return {first.begin, last.end};
}

// Tile `index` of the whole run into the shared workspace, unless nobody will read it.
template <typename PackTile>
inline void pack_shared(const Run& run, int64_t index, int32_t worker, const PackTile& pack_tile) {
  const int64_t number = index % run.tiles_per_pair;
  const Block block = block_of_pair(run, index / run.tiles_per_pair, 0, run.block_rows);
  if (block.sequence.q_length == 0 || is_decode(block.sequence.q_length, run.group)) return;
  const KeyRange keys = keys_of_sequence(*run.problem, block.sequence);
  const int64_t first = number * run.cut.tile_keys;
  if (first >= keys.end || first + run.cut.tile_keys <= keys.begin) return;
  const Scratch scratch = scratch_of(run, worker);
  start_scratch(run, scratch);
  pack_tile(block, scratch, first, run.shared + index * run.tile_bytes);
}

// The tile that begins at key `first`: packed before, or here and now.
template <typename PackTile>
inline const char* packed_tile(const Block& block, const Scratch& scratch, int64_t first, const PackTile& pack_tile) {
  const Run& run = *block.run;
  const int64_t number = first / run.cut.tile_keys;
  if (run.shared != nullptr) return run.shared + (block.pair * run.tiles_per_pair + number) * run.tile_bytes;
  pack_tile(block, scratch, first, scratch.packed);
  return scratch.packed;
}
