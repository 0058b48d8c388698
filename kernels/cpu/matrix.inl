// kernels/cpu/matrix.inl: one block of f16 or bf16 rows into its rows of out and lse, by matrix tiles of bf16 operands
// (included by targets.cpp, once for each target that has them)
//
// bf16 goes in as it is. f16 is the exact sum of two bf16, a high and a low part: q k is then four products and exact as
// ever, and weights times v are three (what is left out is below 2^-16 of a weight). Weights are rounded to bf16, or to the
// sum of two.
//
// Scores live for one chunk of 32 rows and 32 keys, in the first cache; their weights are kept until a tile of keys is done.
// A maximum that rises by little is not followed: weights may be as large as 2^kSlack, and what was summed stays as it is.

constexpr int64_t kMatrixRows = kTilePairRows;
constexpr int64_t kMatrixTileKeys = 256;
constexpr int64_t kMatrixBlockRows = 512;
constexpr int64_t kChunkKeys = 2 * kTileColumns;
constexpr float kSlack = 8;
static_assert(kChunkKeys == kTileDepth);

Cut matrix_cut(const Problem& problem) {
  if (problem.dtype == DType::f32) return float_cut(problem);
  Cut cut{};
  cut.row_group = kMatrixRows;
  cut.block_rows = kMatrixBlockRows;
  cut.least_rows = kMatrixBlockRows / (problem.dtype == DType::f16 ? 4 : 8);  // each block splits its f16 anew
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

// Two vectors of weights as bf16.
struct ToBf16 {
  void operator()(Vector weight, Vector next, uint16_t* to) const {
    store_upper(nearest_bf16(weight), to);
    store_upper(nearest_bf16(next), to + kLanes);
  }
};

// Rows of K as pairs of elements into columns of a tile's panel; then every 32 elements of depth are one tile.
inline void pack_matrix_keys(const Block& block, const Scratch& scratch, int64_t first, int64_t begin, int64_t end,
                             uint16_t* to) {
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
    transpose_rows<kTileColumns>(row, padded / 2, panel);
  }
}

// Two rows of V side by side, 16 columns at a time: [panel of columns][32 keys] tiles.
inline void pack_matrix_values(const Block& block, const Scratch& scratch, int64_t first, int64_t begin, int64_t end,
                               uint16_t* to) {
  const Run& run = *block.run;
  const Tensor& v = run.args->v;
  const int64_t columns = run.problem->head_dim_v;
  const int64_t panel = kMatrixTileKeys * kTileColumns;
  const uint16_t* zeros = reinterpret_cast<const uint16_t*>(scratch.zeros);
  for (int64_t j = begin; j < round_up(end, kTileDepth); j += 2) {
    const uint16_t* row[2] = {zeros, zeros};
    for (int64_t r = 0; r < 2 && j + r < end; ++r) {
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

inline void pack_matrix_tile(const Block& block, const Scratch& scratch, int64_t first, int64_t begin, int64_t end,
                             char* to) {
  uint16_t* keys = reinterpret_cast<uint16_t*>(to);
  pack_matrix_keys(block, scratch, first, begin, end, keys);
  pack_matrix_values(block, scratch, first, begin, end, keys + packed_key_elements(*block.run->problem, block.run->cut));
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

// A group of rows and a tile of keys.
struct GroupTile {
  int64_t row;      // the group's first
  int64_t rows;     // that exist
  int64_t first;    // the tile's first key
  GroupKeys keys;   // that some row sees
  KeyRange inside;  // that every row sees, but for the mask
};

// Weights of a row are 2^((score - less) * exponent - shift), and one of the two is zero: less, as long as the maximum's
// exponent, rounded to a float, is so small that the maximum's weight is 1 within 2^-15; shift, where it is not, and the
// maximum is taken away first, which is exact at it.
inline void refer_to(const Run& run, const Scratch& scratch, int64_t row, float highest) {
  const float exponent = highest * run.exponent;
  const bool far = !(std::abs(exponent) < 0x1p10f);
  scratch.less[row] = far ? highest : 0;
  scratch.shift[row] = far ? 0 : exponent;
  scratch.limit[row] = highest + kSlack / run.exponent;
}

inline void start_references(const Block& block, const Scratch& scratch) {
  for (int64_t r = 0; r < block.rows; ++r) {
    const float sink = scratch.max[r];
    if (sink == -INFINITY) {
      scratch.less[r] = scratch.shift[r] = 0;
      scratch.limit[r] = -INFINITY;
    } else {
      refer_to(*block.run, scratch, r, sink);
      scratch.sum[r * kSumLanes] = std::exp2(std::fma(sink - scratch.less[r], block.run->exponent, -scratch.shift[r]));
    }
  }
}

// Follows a row's maximum up to `highest`: what was summed so far is scaled down.
inline void raise_reference(const Run& run, const Scratch& scratch, int64_t row, float highest) {
  const float less = scratch.less[row], shift = scratch.shift[row];
  const bool first = scratch.limit[row] == -INFINITY;
  refer_to(run, scratch, row, highest);
  if (first) return;
  const Floats d;
  const Vector factor =
      hn::Set(d, std::exp2(std::fma(less - scratch.less[row], run.exponent, shift - scratch.shift[row])));
  float* sum = scratch.sum + row * kSumLanes;
  for (int64_t n = 0; n < kSumLanes; n += kLanes) hn::Store(hn::Mul(factor, hn::Load(d, sum + n)), d, sum + n);
  float* out = scratch.out + row * scratch.v_stride;
  for (int64_t x = 0; x < scratch.v_stride; x += kLanes) hn::Store(hn::Mul(factor, hn::Load(d, out + x)), d, out + x);
}

// The chunk's highest score of one of its rows, by lane.
inline Vector highest_scores(const Scratch& scratch, int64_t r) {
  const Floats d;
  const float* scores = scratch.scores + r * kChunkKeys;
  Vector highest = hn::Load(d, scores);
  HWY_UNROLL(8)
  for (int64_t j = kLanes; j < kChunkKeys; j += kLanes) highest = hn::Max(highest, hn::Load(d, scores + j));
  return highest;
}

// Whether a score of the chunk is above its row's limit.
inline bool exceeds(const Scratch& scratch, const GroupTile& at) {
  const Floats d;
  auto above = hn::FirstN(d, 0);
  for (int64_t r = 0; r < at.rows; ++r) {
    above = hn::Or(above, hn::Gt(highest_scores(scratch, r), hn::Set(d, scratch.limit[at.row + r])));
  }
  return !hn::AllFalse(d, above);
}

// The chunk's scores into weights and sums. Weights lie as [part][two tiles of rows][chunk][16 rows][32 keys].
// kLess: some row's less is not zero.
template <class Bf16, bool kTwo, bool kLess>
inline void weigh_chunk(const Run& run, const Scratch& scratch, const GroupTile& at, int64_t key) {
  const Floats d;
  const Vector exponent = hn::Set(d, run.exponent);
  constexpr int64_t kPart = kMatrixRows * kMatrixTileKeys;
  for (int64_t r = 0; r < at.rows; ++r) {
    const int64_t row = at.row + r;
    const float* scores = scratch.scores + r * kChunkKeys;
    uint16_t* to =
        scratch.weights + r / kTileRows * kTileRows * kMatrixTileKeys + key * kTileRows + r % kTileRows * kChunkKeys;
    const Vector less = hn::Set(d, scratch.less[row]);
    const Vector shift = hn::Set(d, scratch.shift[row]);
    Vector sum = hn::Load(d, scratch.sum + row * kSumLanes);
    HWY_UNROLL(4)
    for (int64_t j = 0; j < kChunkKeys; j += 2 * kLanes) {
      Vector s = hn::Load(d, scores + j), s2 = hn::Load(d, scores + j + kLanes);
      if (kLess) s = hn::Sub(s, less), s2 = hn::Sub(s2, less);
      const Vector p = exp2(hn::MulSub(s, exponent, shift));
      const Vector p2 = exp2(hn::MulSub(s2, exponent, shift));
      sum = hn::Add(sum, hn::Add(p, p2));
      if (kTwo) {
        const Vector high = nearest_bf16(p), high2 = nearest_bf16(p2);
        store_upper(high, to + j);
        store_upper(high2, to + j + kLanes);
        store_upper(hn::Sub(p, high), to + kPart + j);
        store_upper(hn::Sub(p2, high2), to + kPart + j + kLanes);
      } else {
        Bf16()(p, p2, to + j);
      }
    }
    hn::Store(sum, d, scratch.sum + row * kSumLanes);
  }
}

template <class Bf16>
inline void weigh_chunk(const Run& run, const Scratch& scratch, const GroupTile& at, int64_t key, bool less) {
  const bool two = run.cut.parts == 2;
  if (two && less) return weigh_chunk<Bf16, true, true>(run, scratch, at, key);
  if (two) return weigh_chunk<Bf16, true, false>(run, scratch, at, key);
  if (less) return weigh_chunk<Bf16, false, true>(run, scratch, at, key);
  return weigh_chunk<Bf16, false, false>(run, scratch, at, key);
}

// The group's rows of q times the tile's keys from `key` on.
template <class Tiles>
inline void multiply_chunk(const Run& run, const Scratch& scratch, const GroupTile& at, const Operands& operands,
                           int64_t key) {
  const int64_t padded = round_up(run.problem->head_dim, kTileDepth);
  const TileShape shape{.a_stride = scratch.q_stride,
                        .a_lower = kTileRows * scratch.q_stride,
                        .a_step = kTileDepth,
                        .steps = padded / kTileDepth,
                        .b_stride = kTileColumns * padded,
                        .c_stride = kChunkKeys};
  const uint16_t* q[2] = {scratch.q16 + at.row * scratch.q_stride,
                          scratch.q16 + (run.cut.block_rows + at.row) * scratch.q_stride};
  const int parts = static_cast<int>(run.cut.parts);
  Term terms[2];
  for (int b = 0; b < parts; ++b) terms[b] = {q[0], parts == 2 ? q[1] : nullptr, operands.keys[b] + key * padded};
  Tiles::template multiply<true, false>(terms, parts, shape, scratch.scores);
}

// Weights of the tile's keys [begin, end) times their values, added to out.
template <class Tiles>
inline void add_values(const Run& run, const Scratch& scratch, const GroupTile& at, const Operands& operands,
                       int64_t begin, int64_t end) {
  if (begin >= end) return;
  const bool two = run.cut.parts == 2;
  const TileShape shape{.a_stride = kChunkKeys,
                        .a_lower = kTileRows * kMatrixTileKeys,
                        .a_step = kTileRows * kChunkKeys,
                        .steps = (end - begin) / kTileDepth,
                        .b_stride = kMatrixTileKeys * kTileColumns,
                        .c_stride = scratch.v_stride};
  const uint16_t* weights = scratch.weights + begin * kTileRows;
  const uint16_t* low = weights + kMatrixRows * kMatrixTileKeys;
  float* out = scratch.out + at.row * scratch.v_stride;
  for (int64_t column = 0; column < scratch.v_stride; column += 2 * kTileColumns) {
    const int64_t from = column * kMatrixTileKeys + begin * kTileColumns;
    const Term terms[2] = {{weights, two ? low : nullptr, operands.values[0] + from},
                           {weights, nullptr, two ? operands.values[1] + from : nullptr}};
    if (column + kTileColumns < scratch.v_stride) {
      Tiles::template multiply<true, true>(terms, two ? 2 : 1, shape, out + column);
    } else {
      Tiles::template multiply<false, true>(terms, two ? 2 : 1, shape, out + column);
    }
  }
}

// The scores of keys from `key` on: softcap, mask and what else the Problem asks for, and -inf outside of a row's interval.
inline void adjust_chunk(const Block& block, const Scratch& scratch, const GroupTile& at, int64_t key) {
  adjust_scores(block, scratch, {at.row, at.rows, at.first + key, kChunkKeys, scratch.scores, kChunkKeys}, at.keys.left);
  if (key >= at.inside.begin && key + kChunkKeys <= at.inside.end) return;
  for (int64_t r = 0; r < at.rows; ++r) {
    float* scores = scratch.scores + r * kChunkKeys;
    const KeyRange seen = scratch.seen[at.row + r];
    const int64_t begin = std::clamp(seen.begin - at.first - key, int64_t{0}, kChunkKeys);
    const int64_t end = std::clamp(seen.end - at.first - key, begin, kChunkKeys);
    std::fill(scores, scores + begin, -INFINITY);
    std::fill(scores + end, scores + kChunkKeys, -INFINITY);
  }
}

template <class Tiles, class Bf16>
inline void attend_matrix_group(const Block& block, const Scratch& scratch, const GroupTile& at,
                                const Operands& operands) {
  const Run& run = *block.run;
  const float* less = scratch.less + at.row;
  const auto some_less = [&] { return std::any_of(less, less + at.rows, [](float x) { return x != 0; }); };
  bool far = some_less();
  const KeyRange panels = whole_panels(at.keys, kChunkKeys);
  int64_t added = panels.begin;
  for (int64_t key = panels.begin; key < panels.end; key += kChunkKeys) {
    multiply_chunk<Tiles>(run, scratch, at, operands, key);
    adjust_chunk(block, scratch, at, key);
    if (exceeds(scratch, at)) {
      add_values<Tiles>(run, scratch, at, operands, added, key);  // their weights go by the old references
      added = key;
      for (int64_t r = 0; r < at.rows; ++r) {
        const float highest = hn::GetLane(hn::MaxOfLanes(Floats(), highest_scores(scratch, r)));
        if (highest > scratch.limit[at.row + r]) raise_reference(run, scratch, at.row + r, highest);
      }
      far = some_less();
    }
    weigh_chunk<Bf16>(run, scratch, at, key, far);
  }
  add_values<Tiles>(run, scratch, at, operands, added, panels.end);
}

// References are to finish_rows what maxima are.
inline void finish_references(const Block& block, const Scratch& scratch) {
  for (int64_t r = 0; r < block.rows; ++r) {
    scratch.max[r] = scratch.less[r] + scratch.shift[r] / block.run->exponent;
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
  start_references(block, scratch);
  // Rows that fill up the last group have any weights; what they add up is not read.
  std::fill(scratch.out + block.rows * scratch.v_stride,
            scratch.out + round_up(block.rows, kMatrixRows) * scratch.v_stride, 0.0f);
  Tiles::start();
  for (int64_t first = seen.begin / kMatrixTileKeys * kMatrixTileKeys; first < seen.end; first += kMatrixTileKeys) {
    const int64_t count = std::min(kMatrixTileKeys, block.sequence.kv_length - first);
    const Operands operands = operands_of(block, scratch, first);
    const auto rows_from = [&](int64_t row) { return std::min(kMatrixRows, block.rows - row); };
    prefetch_mask(block, scratch, 0, rows_from(0), first, count);
    for (int64_t row = 0; row < block.rows; row += kMatrixRows) {
      const int64_t rows = rows_from(row);
      if (row + rows < block.rows) prefetch_mask(block, scratch, row + rows, rows_from(row + rows), first, count);
      const GroupKeys keys = group_keys(block, scratch, row, rows, first, count);
      if (keys.begin >= keys.end) continue;
      // Both ends never decrease from row to row.
      const KeyRange inside{scratch.seen[row + rows - 1].begin - first, scratch.seen[row].end - first};
      attend_matrix_group<Tiles, Bf16>(block, scratch, {row, rows, first, keys, inside}, operands);
    }
  }
  Tiles::stop();
  finish_references(block, scratch);
  finish_rows(block, scratch);
}

void pack_matrix(const Run& run, int64_t index, int32_t worker) {
  if (run.problem->dtype == DType::f32) return pack(run, index, worker);
  pack_shared(run, index, worker, pack_matrix_tile);
}
