// kernels/cpu/matrix.inl: one block of f16 or bf16 rows into its rows of out and lse, by matrix tiles of bf16 operands
// (included by targets.cpp, once for each target that has them)
//
// bf16 goes in as it is. f16 is the exact sum of two bf16, a high and a low part: q k is then four products and exact as
// ever, and weights times v are three (what is left out is below 2^-16 of a weight). Weights are rounded to bf16, or to the
// sum of two.

constexpr int64_t kMatrixRows = kTilePairRows;
constexpr int64_t kMatrixTileKeys = 256;
constexpr int64_t kMatrixBlockRows = 512;

Cut matrix_cut(const Problem& problem) {
  if (problem.dtype == DType::f32) return float_cut(problem);
  Cut cut{};
  cut.row_group = kMatrixRows;
  cut.block_rows = kMatrixBlockRows;
  cut.tile_keys = kMatrixTileKeys;
  cut.element = sizeof(uint16_t);
  cut.head_pad = kTileDepth;
  cut.head_v_pad = kTileColumns;
  cut.score_rows = kMatrixRows;
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

// Weights as bf16.
struct ToBf16 {
  uint16_t* to;
  void operator()(float*, int64_t j, Vector weight) const { store_upper(nearest_bf16(weight), to + j); }
  void operator()(float*, int64_t j, Vector weight, Vector next) const {
    store_upper(nearest_bf16(weight), to + j);
    store_upper(nearest_bf16(next), to + j + kLanes);
  }
};

// Weights as the sum of two bf16.
struct ToTwoBf16 {
  uint16_t* high;
  uint16_t* low;
  void operator()(float*, int64_t j, Vector weight) const {
    const Vector rounded = nearest_bf16(weight);
    store_upper(rounded, high + j);
    store_upper(hn::Sub(weight, rounded), low + j);
  }
  void operator()(float* scores, int64_t j, Vector weight, Vector next) const {
    (*this)(scores, j, weight);
    (*this)(scores, j + kLanes, next);
  }
};

// Four rows of K as pairs of elements into four columns of a tile's panel; then every 32 elements of depth are one tile.
inline void pack_matrix_keys(const Block& block, const Scratch& scratch, int64_t first, int64_t count, uint16_t* to) {
  const Run& run = *block.run;
  const Tensor& k = run.args->k;
  const int64_t head_dim = run.problem->head_dim;
  const int64_t padded = round_up(head_dim, kTileDepth);
  for (int64_t j = 0; j < round_up(count, kTileDepth); j += 4) {
    const float* row[4];
    for (int64_t r = 0; r < 4; ++r) {
      if (j + r >= count) {
        row[r] = scratch.zeros;
        continue;
      }
      const char* from =
          element(k, key_row(*run.problem, *run.args, k, block.sequence, block.batch, first + j + r, block.head_kv));
      if (head_dim == padded && reinterpret_cast<uintptr_t>(from) % sizeof(float) == 0) {
        row[r] = reinterpret_cast<const float*>(from);
        continue;
      }
      char* copy = reinterpret_cast<char*>(scratch.rows + r * scratch.q_stride);
      memcpy(copy, from, static_cast<size_t>(head_dim) * 2);
      memset(copy + head_dim * 2, 0, static_cast<size_t>(padded - head_dim) * 2);
      row[r] = reinterpret_cast<const float*>(copy);
    }
    float* panel = reinterpret_cast<float*>(to + j / kTileColumns * kTileColumns * padded) + j % kTileColumns;
    transpose_4<kTileColumns>(row, padded / 2, panel);
  }
}

// Two rows of V side by side, 16 columns at a time: [panel of columns][32 keys] tiles.
inline void pack_matrix_values(const Block& block, const Scratch& scratch, int64_t first, int64_t count, uint16_t* to) {
  const Run& run = *block.run;
  const Tensor& v = run.args->v;
  const int64_t columns = run.problem->head_dim_v;
  const int64_t panel = kMatrixTileKeys * kTileColumns;
  const uint16_t* zeros = reinterpret_cast<const uint16_t*>(scratch.zeros);
  for (int64_t j = 0; j < round_up(count, kTileDepth); j += 2) {
    const uint16_t* row[2] = {zeros, zeros};
    for (int64_t r = 0; r < 2 && j + r < count; ++r) {
      row[r] = reinterpret_cast<const uint16_t*>(
          element(v, key_row(*run.problem, *run.args, v, block.sequence, block.batch, first + j + r, block.head_kv)));
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
      for (int64_t n = 0; x + n < columns; ++n) at[2 * n] = row[0][x + n], at[2 * n + 1] = row[1][x + n];
    }
  }
}

inline void pack_matrix_tile(const Block& block, const Scratch& scratch, int64_t first, char* to) {
  const int64_t count = std::min(kMatrixTileKeys, block.sequence.kv_length - first);
  uint16_t* keys = reinterpret_cast<uint16_t*>(to);
  pack_matrix_keys(block, scratch, first, count, keys);
  pack_matrix_values(block, scratch, first, count, keys + packed_key_elements(*block.run->problem, block.run->cut));
}

// f16 into its high and low bf16.
inline void split_halves(const uint16_t* from, int64_t n, uint16_t* high, uint16_t* low) {
  const Floats d;
  const hn::Rebind<uint32_t, Floats> d32;
  const auto upper = hn::Set(d32, 0xFFFF0000u);
  for (int64_t x = 0; x < n; x += kLanes) {
    const Vector v = widen<DType::f16>(from, x);
    const Vector truncated = hn::BitCast(d, hn::And(hn::BitCast(d32, v), upper));
    store_upper(truncated, high + x);
    // Infinity has no low part; against the other operand's zero low part it gives NaN, where the exact product is infinite.
    const auto infinite = hn::Eq(hn::Abs(v), hn::Set(d, INFINITY));
    store_upper(hn::IfThenZeroElse(infinite, hn::Sub(v, truncated)), low + x);
  }
}

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
      const int64_t offset =
          query_row(*run.problem, run.args->q, block.sequence, block.batch, block.query(r), block.head(r));
      memcpy(to, element(run.args->q, offset), static_cast<size_t>(head_dim) * 2);
      if (run.negative) {
        for (int64_t x = 0; x < head_dim; ++x) to[x] = static_cast<uint16_t>(to[x] ^ 0x8000);
      }
    }
    if (run.cut.parts == 2) split_halves(to, scratch.q_stride, to, to + part);
  }
}

// The tiles of one block's operands, part by part.
struct Operands {
  const uint16_t* keys[2];
  const uint16_t* values[2];
};

inline Operands operands_of(const Block& block, const Scratch& scratch, int64_t first) {
  const Run& run = *block.run;
  const uint16_t* packed = reinterpret_cast<const uint16_t*>(packed_tile(block, scratch, first, pack_matrix_tile));
  const int64_t keys = packed_key_elements(*run.problem, run.cut);
  if (run.cut.parts == 1) return {{packed, nullptr}, {packed + keys, nullptr}};
  const int64_t all = packed_elements(*run.problem, run.cut);
  // Keys and values of the whole steps that exist; what lies past them is never multiplied.
  const int64_t count = round_up(std::min(kMatrixTileKeys, block.sequence.kv_length - first), kTileDepth);
  split_halves(packed, keys / kMatrixTileKeys * count, scratch.split, scratch.split + all);
  for (int64_t at = keys; at < all; at += kMatrixTileKeys * kTileColumns) {
    split_halves(packed + at, count * kTileColumns, scratch.split + at, scratch.split + all + at);
  }
  return {{scratch.split, scratch.split + all}, {scratch.split + keys, scratch.split + all + keys}};
}

// One group of rows against one tile of keys. Bf16 stores rounded weights.
template <class Tiles, class Bf16>
inline void attend_matrix_group(const Block& block, const Scratch& scratch, int64_t first, const Operands& operands,
                                int64_t row, const GroupKeys& keys) {
  const Run& run = *block.run;
  const int64_t padded = round_up(run.problem->head_dim, kTileDepth);
  const int64_t rows = std::min(kMatrixRows, block.rows - row);
  const bool two = run.cut.parts == 2;
  const KeyRange panels = whole_panels(keys, kTileDepth);

  const uint16_t* q[2] = {scratch.q16 + row * scratch.q_stride,
                          scratch.q16 + (run.cut.block_rows + row) * scratch.q_stride};
  const TileShape score_shape{scratch.q_stride, padded / kTileDepth, kTileColumns * padded, kMatrixTileKeys};
  for (int64_t j = panels.begin; j < panels.end; j += 2 * kTileColumns) {
    Term terms[kMostTerms];
    int count = 0;
    for (int a = 0; a <= (two ? 1 : 0); ++a) {
      for (int b = 0; b <= (two ? 1 : 0); ++b) terms[count++] = {q[a], operands.keys[b] + j * padded};
    }
    Tiles::template multiply<true, false>(terms, count, score_shape, scratch.scores + j);
  }

  // A row's weights take the first half of its scores' place, each where scores have been read: all stay in the first cache.
  constexpr int64_t kWeightStride = 2 * kMatrixTileKeys;
  bool rescaled = false;
  for (int64_t r = 0; r < rows; ++r) {
    float* scores = scratch.scores + r * kMatrixTileKeys;
    uint16_t* weights = reinterpret_cast<uint16_t*>(scores);
    if (two) {
      uint16_t* low = scratch.low + r * kWeightStride;
      weigh_row(block, scratch, row + r, first, keys.left, panels, scores, ToTwoBf16{weights, low});
    } else {
      weigh_row(block, scratch, row + r, first, keys.left, panels, scores, Bf16{weights});
    }
    rescaled = rescaled || scratch.rescale[row + r] != 1.0f;
  }

  float* out = scratch.out + row * scratch.v_stride;
  if (rescaled) {
    const Floats d;
    for (int64_t r = 0; r < rows; ++r) {
      const Vector factor = hn::Set(d, scratch.rescale[row + r]);
      float* to = out + r * scratch.v_stride;
      for (int64_t x = 0; x < scratch.v_stride; x += kLanes) hn::Store(hn::Mul(factor, hn::Load(d, to + x)), d, to + x);
    }
  }
  const int64_t panel = kMatrixTileKeys * kTileColumns;
  const TileShape value_shape{kWeightStride, (panels.end - panels.begin) / kTileDepth, panel, scratch.v_stride};
  const uint16_t* weights = reinterpret_cast<const uint16_t*>(scratch.scores) + panels.begin;
  const uint16_t* low = two ? scratch.low + panels.begin : nullptr;
  for (int64_t column = 0; column < scratch.v_stride; column += 2 * kTileColumns) {
    const int64_t at = column * kMatrixTileKeys + panels.begin * kTileColumns;
    const Term terms[3] = {{weights, operands.values[0] + at},
                           {low, operands.values[0] + at},
                           {weights, two ? operands.values[1] + at : nullptr}};
    if (column + kTileColumns < scratch.v_stride) {
      Tiles::template multiply<true, true>(terms, two ? 3 : 1, value_shape, out + column);
    } else {
      Tiles::template multiply<false, true>(terms, two ? 3 : 1, value_shape, out + column);
    }
  }
}

template <class Tiles, class Bf16>
void attend_matrix(const Run& run, int64_t index, int32_t worker) {
  if (run.problem->dtype == DType::f32) return attend(run, index, worker);
  const Block block = block_at(run, index);
  if (block.rows <= 0 || is_decode(block.sequence.q_length, run.group)) return;
  const Scratch scratch = scratch_of(run, worker);
  start_scratch(run, scratch);
  pack_matrix_queries(block, scratch);
  const KeyRange seen = start_rows(block, scratch, run.problem->sinks);
  // Rows that fill up the last group have any weights; what they add up is not read.
  std::fill(scratch.out + block.rows * scratch.v_stride,
            scratch.out + round_up(block.rows, kMatrixRows) * scratch.v_stride, 0.0f);
  Tiles::start();
  for (int64_t first = seen.begin / kMatrixTileKeys * kMatrixTileKeys; first < seen.end; first += kMatrixTileKeys) {
    const int64_t count = std::min(kMatrixTileKeys, block.sequence.kv_length - first);
    const Operands operands = operands_of(block, scratch, first);
    const int64_t groups = ceil_div(block.rows, kMatrixRows);
    for (int64_t g = 0; g < groups; ++g) {
      if (run.shared != nullptr && first + kMatrixTileKeys < seen.end) {
        prefetch_part(run,
                      run.shared + (block.pair * run.tiles_per_pair + first / kMatrixTileKeys + 1) * run.tile_bytes, g,
                      groups);
      }
      const int64_t row = g * kMatrixRows;
      const GroupKeys keys = group_keys(block, scratch, row, std::min(kMatrixRows, block.rows - row), first, count);
      if (keys.begin < keys.end) attend_matrix_group<Tiles, Bf16>(block, scratch, first, operands, row, keys);
    }
  }
  Tiles::stop();
  finish_rows(block, scratch);
}

void pack_matrix(const Run& run, int64_t index, int32_t worker) {
  if (run.problem->dtype == DType::f32) return pack(run, index, worker);
  pack_shared(run, index, worker, pack_matrix_tile);
}
