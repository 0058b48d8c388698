// kernels/cpu/amx/softmax.inl: one chunk of scores, 32 rows by 32 keys, into weights of bf16 and the rows' sums onwards
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
  const float distance =
      std::isfinite(scratch.max[row]) ? scratch.max[row] - scratch.less[row] : 0.0f;
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
  const Vector factor = hn::Set(
      d, std::exp2(std::fma(less - scratch.less[row], run.exponent, shift - scratch.shift[row])));
  float* sum = scratch.sum + row * kSumLanes;
  for (int64_t n = 0; n < kSumLanes; n += kLanes)
    hn::Store(hn::Mul(factor, hn::Load(d, sum + n)), d, sum + n);
  float* out = scratch.out + row * scratch.v_stride;
  for (int64_t x = 0; x < scratch.v_stride; x += kLanes)
    hn::Store(hn::Mul(factor, hn::Load(d, out + x)), d, out + x);
}

// The highest of a row's scores of the chunk, by lane.
inline Vector highest_scores(const Scratch& scratch, int64_t r) {
  const Floats d;
  const float* scores = scratch.scores + r * kChunkKeys;
  Vector highest = hn::Load(d, scores);
  HWY_UNROLL(8)
  for (int64_t j = kLanes; j < kChunkKeys; j += kLanes)
    highest = hn::Max(highest, hn::Load(d, scores + j));
  return highest;
}

// Whether a score of the chunk is above its row's limit.
inline bool exceeds(const Scratch& scratch, const GroupTile& at) {
  const Floats d;
  auto above = hn::FirstN(d, 0);
  for (int64_t r = 0; r < at.rows; ++r) {
    above =
        hn::Or(above, hn::Gt(highest_scores(scratch, r), hn::Set(d, scratch.limit[at.row + r])));
  }
  return !hn::AllFalse(d, above);
}

// What is known of the references of a group's rows.
struct References {
  bool all;   // each row has one, and none is NaN
  bool less;  // some row's less is not zero
};

inline References references_of(const Scratch& scratch, const GroupTile& at) {
  References known{true, false};
  for (int64_t r = at.row; r < at.row + at.rows; ++r) {
    known.all = known.all && scratch.limit[r] > -INFINITY;
    known.less = known.less || scratch.less[r] != 0;
  }
  return known;
}

// The chunk's scores into weights and sums; scratch.before keeps the sums as they were. Weights lie as
// [part][two tiles of rows][chunk][16 rows][32 keys]. Returns whether all exponents are below 0; if so, no score is above its
// row's limit. If not, one may be, and what was written is for nothing then.
template <class Bf16, class Polynomial, bool kTwo, bool kLess>
inline bool weigh_chunk(const Run& run, const Scratch& scratch, const GroupTile& at, int64_t key) {
  const Floats d;
  const Vector exponent = hn::Set(d, run.exponent);
  constexpr int64_t kPart = kMatrixRows * kMatrixTileKeys;
  Vector negative = hn::Set(d, -0.0f);  // the sign, of each lane
  for (int64_t r = 0; r < at.rows; ++r) {
    const int64_t row = at.row + r;
    const float* scores = scratch.scores + r * kChunkKeys;
    uint16_t* to = scratch.weights + r / kTileRows * kTileRows * kMatrixTileKeys + key * kTileRows +
                   r % kTileRows * kChunkKeys;
    const Vector less = hn::Set(d, scratch.less[row]);
    const Vector shift = hn::Set(d, scratch.shift[row]);
    Vector sum = hn::Load(d, scratch.sum + row * kSumLanes);
    hn::Store(sum, d, scratch.before + r * kSumLanes);
    HWY_UNROLL(4)
    for (int64_t j = 0; j < kChunkKeys; j += 2 * kLanes) {
      Vector s = hn::Load(d, scores + j), s2 = hn::Load(d, scores + j + kLanes);
      if (kLess) s = hn::Sub(s, less), s2 = hn::Sub(s2, less);
      const Vector y = hn::MulSub(s, exponent, shift), y2 = hn::MulSub(s2, exponent, shift);
      negative = hn::And(negative, hn::And(y, y2));
      const Vector p = exp2<Polynomial>(y), p2 = exp2<Polynomial>(y2);
      sum = hn::Add(sum, hn::Add(p, p2));
      if (kTwo) {
        store_parts<Bf16>(p, p2, to + j, to + kPart + j);
      } else {
        Bf16()(p, p2, to + j);
      }
    }
    hn::Store(sum, d, scratch.sum + row * kSumLanes);
  }
  return hn::AllTrue(d, hn::Lt(hn::CopySign(hn::Set(d, 1.0f), negative), hn::Zero(d)));
}

template <class Bf16, bool kTwo>
inline bool weigh_chunk(const Run& run, const Scratch& scratch, const GroupTile& at, int64_t key,
                        bool less) {
  if (less) return weigh_chunk<Bf16, Exp2, kTwo, true>(run, scratch, at, key);
  if (run.problem->lse)
    return weigh_chunk<Bf16, Exp2, kTwo, false>(run, scratch, at, key);  // a float: it shows more
  return weigh_chunk<Bf16, Exp2For16Bits, kTwo, false>(run, scratch, at, key);
}

template <class Bf16>
inline bool weigh_chunk(const Run& run, const Scratch& scratch, const GroupTile& at, int64_t key,
                        bool less) {
  return run.cut.parts == 2 ? weigh_chunk<Bf16, true>(run, scratch, at, key, less)
                            : weigh_chunk<Bf16, false>(run, scratch, at, key, less);
}

// The sums as they were before the last chunk.
inline void restore_sums(const Scratch& scratch, const GroupTile& at) {
  const Floats d;
  for (int64_t r = 0; r < at.rows; ++r) {
    hn::Store(hn::Load(d, scratch.before + r * kSumLanes), d,
              scratch.sum + (at.row + r) * kSumLanes);
  }
}
