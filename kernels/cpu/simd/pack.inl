// kernels/cpu/simd/pack.inl: query rows and one tile of K and V into arrays of operands that the register blocks read
// (included by targets.cpp, once per target)

inline const char* element(const Tensor& tensor, int64_t offset) {
  return static_cast<const char*>(tensor.data) + offset * element_bytes(tensor.dtype);
}

// Queries as they are, but for a negative scale's sign.
inline void load_query(const Block& block, int64_t row, float* to) {
  const Run& run = *block.run;
  const Floats d;
  const int64_t offset = query_row(*run.problem, run.args->q, block.sequence, block.batch,
                                   block.query(row), block.head(row));
  load_row(run.problem->dtype, element(run.args->q, offset), run.problem->head_dim, to);
  if (!run.negative) return;
  for (int64_t x = 0; x < run.problem->head_dim; x += kLanes)
    hn::Store(hn::Neg(hn::Load(d, to + x)), d, to + x);
}

inline void pack_queries(const Block& block, const Scratch& scratch) {
  for (int64_t r = 0; r < block.rows; ++r) load_query(block, r, scratch.q + r * scratch.q_stride);
}

// Rows that are packed at a time.
constexpr int64_t kPackRows = std::max(kLanes, int64_t{4});

#if HWY_TARGET != HWY_SCALAR  // which has no vectors of 4
// Four elements each of the first row, the fourth after it, and so on, as blocks of one vector.
template <int64_t kRows>
inline auto load_fours(const float* const* row, int64_t at) {
  const hn::FixedTag<float, kRows> d;
  if constexpr (kRows == 4) {
    return hn::LoadU(d, row[0] + at);
  } else {
    return hn::Combine(d, load_fours<kRows / 2>(row + kRows / 2, at),
                       load_fours<kRows / 2>(row, at));
  }
}
#endif

// kPackRows rows of 32-bit elements into as many columns of a panel of kWidth columns.
template <int64_t kWidth>
inline void transpose_rows(const float* const* row, int64_t length, float* to) {
  int64_t x = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, kPackRows> d;
  const hn::RepartitionToWide<decltype(d)> d64;
  const auto store = [&](auto v, int64_t at)
                         HWY_ATTR { hn::StoreU(hn::BitCast(d, v), d, to + at * kWidth); };
  for (; x + 4 <= length; x += 4) {
    const auto a = load_fours<kPackRows>(row, x), b = load_fours<kPackRows>(row + 1, x);
    const auto c = load_fours<kPackRows>(row + 2, x), e = load_fours<kPackRows>(row + 3, x);
    const auto ab_lower = hn::BitCast(d64, hn::InterleaveLower(d, a, b));
    const auto ab_upper = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));
    const auto ce_lower = hn::BitCast(d64, hn::InterleaveLower(d, c, e));
    const auto ce_upper = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
    store(hn::InterleaveLower(d64, ab_lower, ce_lower), x);
    store(hn::InterleaveUpper(d64, ab_lower, ce_lower), x + 1);
    store(hn::InterleaveLower(d64, ab_upper, ce_upper), x + 2);
    store(hn::InterleaveUpper(d64, ab_upper, ce_upper), x + 3);
  }
#endif
  for (; x < length; ++x) {
    for (int64_t r = 0; r < kPackRows; ++r) to[x * kWidth + r] = row[r][x];
  }
}

// Keys [begin, end) of the tile that begins at key `first` into its panels; begin is a panel's. The last panel is filled up
// with zeros, so that nothing past the last key, whatever bytes are there, is ever read.
inline void pack_keys(const Block& block, const Scratch& scratch, int64_t first, int64_t begin,
                      int64_t end, float* to) {
  const Run& run = *block.run;
  const Tensor& k = run.args->k;
  const int64_t head_dim = run.problem->head_dim;
  for (int64_t j = begin; j < round_up(end, kPanel); j += kPackRows) {
    const float* row[kPackRows];
    for (int64_t r = 0; r < kPackRows; ++r) {
      if (j + r >= end) {
        row[r] = scratch.zeros;
        continue;
      }
      const int64_t offset = key_row(*run.problem, *run.args, k, block.sequence, block.batch,
                                     first + j + r, block.head_kv);
      if (k.dtype == DType::f32) {
        row[r] = reinterpret_cast<const float*>(element(k, offset));
      } else {
        float* converted = scratch.rows + r * scratch.q_stride;
        load_row(k.dtype, element(k, offset), head_dim, converted);
        row[r] = converted;
      }
    }
    transpose_rows<kPanel>(row, head_dim, to + j / kPanel * kPanel * head_dim + j % kPanel);
  }
}

// Values of the same keys, padded with zero columns. Rows of V are copied even where they are floats
// already: at the strides of a whole tensor they would fall into few sets of the cache.
inline void pack_values(const Block& block, const Scratch& scratch, int64_t first, int64_t begin,
                        int64_t end, float* to) {
  const Run& run = *block.run;
  const Tensor& v = run.args->v;
  for (int64_t j = begin; j < end; ++j) {
    const int64_t offset =
        key_row(*run.problem, *run.args, v, block.sequence, block.batch, first + j, block.head_kv);
    load_row(v.dtype, element(v, offset), run.problem->head_dim_v, to + j * scratch.v_stride);
  }
}

// What every tile needs: zeros where nothing exists.
inline void start_scratch(const Scratch& scratch) {
  std::fill(scratch.zeros, scratch.zeros + std::max(scratch.q_stride, scratch.v_stride), 0.0f);
  std::fill(scratch.bias, scratch.bias + kPadFloats, 0.0f);
}

// The keys that some query of the sequence sees, but for the mask.
inline KeyRange keys_of_sequence(const Problem& p, const Sequence& s) {
  const KeyRange first = visible_keys(p, 0, s.q_length, s.kv_length);
  const KeyRange last = visible_keys(p, s.q_length - 1, s.q_length, s.kv_length);
  return {first.begin, last.end};
}

// Piece `index` of all tiles of the run into the shared workspace, unless nobody will read it.
template <typename PackTile>
inline void pack_shared(const Run& run, int64_t index, int32_t worker, const PackTile& pack_tile) {
  const int64_t pieces = run.cut.tile_keys / kPackKeys;
  const int64_t tile = index / pieces;
  const int64_t first = tile % run.tiles_per_pair * run.cut.tile_keys;
  const int64_t begin = index % pieces * kPackKeys;
  const Block block = block_of_pair(run, tile / run.tiles_per_pair, 0, run.block_rows);
  if (block.sequence.q_length == 0 || is_decode(block.sequence.q_length, run.group)) return;
  const KeyRange keys = keys_of_sequence(*run.problem, block.sequence);
  if (first >= keys.end || first + run.cut.tile_keys <= keys.begin) return;
  const int64_t end = std::min(begin + kPackKeys, block.sequence.kv_length - first);
  if (begin >= end) return;
  const Scratch scratch = scratch_of(run, worker);
  start_scratch(scratch);
  pack_tile(block, scratch, first, begin, end, run.shared + tile * run.tile_bytes);
}

// The tile that begins at key `first`: packed before, or here and now.
template <typename PackTile>
inline const char* packed_tile(const Block& block, const Scratch& scratch, int64_t first,
                               const PackTile& pack_tile) {
  const Run& run = *block.run;
  const int64_t number = first / run.cut.tile_keys;
  if (run.shared != nullptr)
    return run.shared + (block.pair * run.tiles_per_pair + number) * run.tile_bytes;
  pack_tile(block, scratch, first, 0, std::min(run.cut.tile_keys, block.sequence.kv_length - first),
            scratch.packed);
  return scratch.packed;
}
