// kernels/cpu/amx/pack.inl: rows of q, K and V of 16 bits into matrix tiles of bf16
// (included by targets.cpp, once for each target that has them)
//
// bf16 goes in as it is. f16 is the exact sum of two bf16, a high and a low part.

constexpr int64_t kMatrixRows = kTilePairRows;
constexpr int64_t kMatrixTileKeys = 256;
constexpr int64_t kMatrixBlockRows = 512;
constexpr int64_t kChunkKeys = 2 * kTileColumns;
static_assert(kChunkKeys == kTileDepth);

Cut matrix_cut(const Problem& problem) {
  if (problem.dtype == DType::f32) return float_cut(problem);
  Cut cut{};
  cut.row_group = kMatrixRows;
  cut.block_rows = kMatrixBlockRows;
  cut.least_rows =
      kMatrixBlockRows / (problem.dtype == DType::f16 ? 4 : 8);  // each block splits its f16 anew
  cut.tile_keys = kMatrixTileKeys;
  cut.element = sizeof(uint16_t);
  cut.head_pad = kTileDepth;
  cut.head_v_pad = kTileColumns;
  cut.score_rows = kMatrixRows;
  cut.score_keys = kChunkKeys;
  cut.share = true;
  cut.parts = problem.dtype == DType::f16 ? 2 : 1;
  return cut;
}

// The nearest bf16 as a float, by the rounding of the float adder itself; NaN stays NaN.
inline Vector nearest_bf16(Vector v) {
  const Vector wide = hn::Mul(v, hn::Set(Floats(), 65537.0f));
  return hn::Sub(wide, hn::Sub(wide, v));
}

// The upper halves of floats.
inline void store_upper(Vector v, uint16_t* to) {
  const hn::Rebind<uint16_t, Floats> d16;
  const hn::Rebind<uint32_t, Floats> d32;
  hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(hn::BitCast(d32, v))), d16, to);
}

// Two vectors as bf16, to the nearest.
struct ToBf16 {
  void operator()(Vector weight, Vector next, uint16_t* to) const {
    store_upper(nearest_bf16(weight), to);
    store_upper(nearest_bf16(next), to + kLanes);
  }
};

// Two vectors as the sum of two of bf16, a high and a low part; what is left is below 2^-16 of a number, and nothing of f16.
template <class Bf16>
inline void store_parts(Vector v, Vector next, uint16_t* high, uint16_t* low) {
  const Floats d;
  const Vector upper = hn::BitCast(d, hn::Set(hn::Rebind<uint32_t, Floats>(), 0xFFFF0000u));
  const Vector h = hn::And(v, upper), next_h = hn::And(next, upper);
  Bf16()(h, next_h, high);
  Bf16()(hn::Sub(v, h), hn::Sub(next, next_h), low);
}

// Rows of K as pairs of elements into columns of a tile's panel; then every 32 elements of depth are one tile.
inline void pack_matrix_keys(const Block& block, const Scratch& scratch, int64_t first,
                             int64_t begin, int64_t end, uint16_t* to) {
  const Run& run = *block.run;
  const Tensor& k = run.args->k;
  const int64_t head_dim = run.problem->head_dim;
  const int64_t padded = round_up(head_dim, kTileDepth);
  for (int64_t j = begin; j < round_up(end, kTileDepth); j += kPackRows) {
    const float* row[kPackRows];
    for (int64_t r = 0; r < kPackRows; ++r) {
      if (j + r >= end) {
        row[r] = scratch.zeros;
        continue;
      }
      const char* from = element(k, key_row(*run.problem, *run.args, k, block.sequence, block.batch,
                                            first + j + r, block.head_kv));
      if (head_dim == padded && reinterpret_cast<uintptr_t>(from) % sizeof(float) == 0) {
        row[r] = reinterpret_cast<const float*>(from);
        continue;
      }
      char* copy = reinterpret_cast<char*>(scratch.rows + r * scratch.q_stride);
      memcpy(copy, from, static_cast<size_t>(head_dim) * 2);
      memset(copy + head_dim * 2, 0, static_cast<size_t>(padded - head_dim) * 2);
      row[r] = reinterpret_cast<const float*>(copy);
    }
    float* panel =
        reinterpret_cast<float*>(to + j / kTileColumns * kTileColumns * padded) + j % kTileColumns;
    transpose_rows<kTileColumns>(row, padded / 2, panel);
  }
}

// Two rows of V side by side, 16 columns at a time: [panel of columns][32 keys] tiles.
inline void pack_matrix_values(const Block& block, const Scratch& scratch, int64_t first,
                               int64_t begin, int64_t end, uint16_t* to) {
  const Run& run = *block.run;
  const Tensor& v = run.args->v;
  const int64_t columns = run.problem->head_dim_v;
  const int64_t panel = kMatrixTileKeys * kTileColumns;
  const uint16_t* zeros = reinterpret_cast<const uint16_t*>(scratch.zeros);
  for (int64_t j = begin; j < round_up(end, kTileDepth); j += 2) {
    const uint16_t* row[2] = {zeros, zeros};
    for (int64_t r = 0; r < 2 && j + r < end; ++r) {
      row[r] = reinterpret_cast<const uint16_t*>(
          element(v, key_row(*run.problem, *run.args, v, block.sequence, block.batch, first + j + r,
                             block.head_kv)));
    }
    uint16_t* at = to + j * kTileColumns;
    int64_t x = 0;
    for (; x + kTileColumns <= columns; x += kTileColumns, at += panel) {
      for (int64_t n = 0; n < kTileColumns; n += kLanes) {
        const hn::Rebind<uint16_t, Floats> d16;
        const hn::Rebind<uint32_t, Floats> d32;
        const auto even = hn::PromoteTo(d32, hn::LoadU(d16, row[0] + x + n));
        const auto odd = hn::PromoteTo(d32, hn::LoadU(d16, row[1] + x + n));
        hn::StoreU(hn::Or(even, hn::ShiftLeft<16>(odd)), d32, reinterpret_cast<uint32_t*>(at) + n);
      }
    }
    if (x < columns) {
      memset(at, 0, 2 * kTileColumns * sizeof(uint16_t));
      for (int64_t n = 0; x + n < columns; ++n)
        at[2 * n] = row[0][x + n], at[2 * n + 1] = row[1][x + n];
    }
  }
}

inline void pack_matrix_tile(const Block& block, const Scratch& scratch, int64_t first,
                             int64_t begin, int64_t end, char* to) {
  uint16_t* keys = reinterpret_cast<uint16_t*>(to);
  pack_matrix_keys(block, scratch, first, begin, end, keys);
  pack_matrix_values(block, scratch, first, begin, end,
                     keys + packed_key_elements(*block.run->problem, block.run->cut));
}

// f16 into its high and low bf16. Of infinity one is NaN.
template <class Bf16>
inline void split_halves(const uint16_t* from, int64_t n, uint16_t* high, uint16_t* low) {
  for (int64_t x = 0; x < n; x += 2 * kLanes) {
    store_parts<Bf16>(widen<DType::f16>(from, x), widen<DType::f16>(from, x + kLanes), high + x,
                      low + x);
  }
}

template <class Bf16>
inline void pack_matrix_queries(const Block& block, const Scratch& scratch) {
  const Run& run = *block.run;
  const int64_t head_dim = run.problem->head_dim;
  const int64_t rows = round_up(block.rows, kMatrixRows);
  const int64_t part = run.cut.block_rows * scratch.q_stride;
  const size_t row_bytes = static_cast<size_t>(scratch.q_stride) * 2;
  for (int64_t r = 0; r < rows; ++r) {
    uint16_t* to = scratch.q16 + r * scratch.q_stride;
    memset(to, 0, row_bytes);
    if (r < block.rows) {
      const int64_t offset = query_row(*run.problem, run.args->q, block.sequence, block.batch,
                                       block.query(r), block.head(r));
      memcpy(to, element(run.args->q, offset), static_cast<size_t>(head_dim) * 2);
      if (run.negative) {
        for (int64_t x = 0; x < head_dim; ++x) to[x] = static_cast<uint16_t>(to[x] ^ 0x8000);
      }
    }
    if (run.cut.parts == 2) split_halves<Bf16>(to, scratch.q_stride, to, to + part);
  }
}

// The tiles of one block's operands, part by part.
struct Operands {
  const uint16_t* keys[2];
  const uint16_t* values[2];
};

template <class Bf16>
inline Operands operands_of(const Block& block, const Scratch& scratch, int64_t first) {
  const Run& run = *block.run;
  const uint16_t* packed =
      reinterpret_cast<const uint16_t*>(packed_tile(block, scratch, first, pack_matrix_tile));
  const int64_t keys = packed_key_elements(*run.problem, run.cut);
  if (run.cut.parts == 1) return {{packed, nullptr}, {packed + keys, nullptr}};
  const int64_t all = packed_elements(*run.problem, run.cut);
  // Keys and values of the whole steps that exist; what lies past them is never multiplied.
  const int64_t count =
      round_up(std::min(kMatrixTileKeys, block.sequence.kv_length - first), kTileDepth);
  split_halves<Bf16>(packed, keys / kMatrixTileKeys * count, scratch.split, scratch.split + all);
  for (int64_t at = keys; at < all; at += kMatrixTileKeys * kTileColumns) {
    split_halves<Bf16>(packed + at, count * kTileColumns, scratch.split + at,
                       scratch.split + all + at);
  }
  return {{scratch.split, scratch.split + all}, {scratch.split + keys, scratch.split + all + keys}};
}
