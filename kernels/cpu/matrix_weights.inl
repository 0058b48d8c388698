// kernels/cpu/matrix_weights.inl: one chunk of scores, 32 rows by 32 keys, into weights of bf16 and the rows' sums onwards
// (included by targets.cpp, once for each target that has matrix tiles)
//
// A maximum that rises by little, up to about 2^kSlack, is not followed: what was summed stays as it is. Weights begin that
// much below 1, so that they stay below about 1.

constexpr float kSlack = 8;

// A group of rows and a tile of keys.
struct GroupTile {
  int64_t row;      // the group's first
  int64_t rows;     // that exist
  int64_t first;    // the tile's first key
  GroupKeys keys;   // that some row sees
  KeyRange inside;  // that every row sees, but for the mask
};

// Weights of a row are 2^((score - less) * exponent - shift). less is zero as long as the maximum's exponent, rounded to a
// float, is so small that the maximum's weight is 2^-kSlack within 2^-14 of itself; beyond, it is the maximum, and taking it
// away first is exact at it.
inline void refer_to(const Run& run, const Scratch& scratch, int64_t row, float highest) {
  scratch.max[row] = highest;
  const float exponent = highest * run.exponent;
  const bool far = !(std::abs(exponent) < 0x1p10f);
  scratch.less[row] = far ? highest : 0;
  scratch.shift[row] = (far ? 0 : exponent) + kSlack;
  scratch.limit[row] = highest + kSlack / run.exponent;
}

// The weight of scratch.max[row], which is 2^-kSlack or nearly so, and whatever is not zero if the maximum is not finite.
inline float weight_of_max(const Run& run, const Scratch& scratch, int64_t row) {
  const float distance = std::isfinite(scratch.max[row]) ? scratch.max[row] - scratch.less[row] : 0.0f;
  return std::exp2(std::fma(distance, run.exponent, -scratch.shift[row]));
}

inline void start_references(const Block& block, const Scratch& scratch) {
  for (int64_t r = 0; r < block.rows; ++r) {
    const float sink = scratch.max[r];
    if (sink == -INFINITY) {
      scratch.less[r] = scratch.shift[r] = 0;
      scratch.limit[r] = -INFINITY;
    } else {
      refer_to(*block.run, scratch, r, sink);
      scratch.sum[r * kSumLanes] = weight_of_max(*block.run, scratch, r);
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
