// kernels/cpu/amx/softmax.inl: turns one chunk of scores, 32 rows by 32 keys, into bf16 weights by
// online softmax
//
//   weight(score) = 2^((score - score_offset) * exponent_scale - exponent_offset)           per row
//
// A row's softmax reference is the score `max` that its weights are measured against. set_reference
// chooses:
//
//   |max * exponent_scale|   score_offset   exponent_offset                 why
//   below 2^10               0              max * exponent_scale + slack    one multiply-add each
//   2^10 or more             max            slack                           exact for max itself
//
// slack is kSlack, unless out is wider than the weights (has_wide_out): then it is 0, and
// score_offset is always max, so that the largest weight is exactly 1. Rounded to 16 bits, a weight
// near a row's largest would be off by 2^-9 otherwise, and nothing but a 16-bit out hides that.
// With slack, either way the weight of max is 2^-kSlack, or within 2^-14 of it. If a later score is
// higher by less than kSlack in the exponent, the reference stays, and neither out nor sum is
// rescaled. The weight of that score is still below 1, so that sums of weights times values
// overflow no earlier than without the slack. A score above rescale_threshold = max + kSlack /
// exponent_scale raises the reference: raise_reference scales sum and out down.
//
//   scores   [32 rows][32 keys] floats: written by q k, read once
//   weights  [parts][2 tiles of rows][chunks][16 rows][32 keys] bf16: operand a of p v (tiles.hpp),
//            multiplied by v_scale, if each key has its own: the sum of weights is not
//
// Invariant: when softmax_chunk returns true, every row's sum, out and weights refer to the same
// reference.
#if defined(KERNELS_CPU_AMX_SOFTMAX_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_AMX_SOFTMAX_INL
#undef KERNELS_CPU_AMX_SOFTMAX_INL
#else
#define KERNELS_CPU_AMX_SOFTMAX_INL
#endif

#include <cmath>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/common/problem.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/amx/bf16.inl"
#include "kernels/cpu/amx/pack.inl"
#include "kernels/cpu/amx/tiles.hpp"
#include "kernels/cpu/block.hpp"
#include "kernels/cpu/simd/mask.inl"
#include "kernels/cpu/simd/softmax.inl"
#include "kernels/cpu/simd/vectors.inl"
#include "kernels/cpu/workspace.hpp"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE::amx {

// How far a row's maximum may rise, as an exponent of 2, before its sum and out are scaled down:
// scaling costs a pass over out.
constexpr float kSlack = 8;

// Whether out shows the rounding of single weights.
inline bool has_wide_out(const Run& run) { return out_dtype(*run.problem) != run.problem->dtype; }
inline float slack_of(const Run& run) { return has_wide_out(run) ? 0 : kSlack; }

// A row group and a tile of keys.
struct GroupTile {
  int64_t row;            // the group's first row in the block
  int64_t rows;           // rows of the group that exist
  int64_t first;          // the tile's first key
  GroupKeys keys;         // keys that some row sees
  KeyRange inside;        // keys that every row sees, but for the mask
  const float* k_scales;  // of the tile's keys; null: none
  const float* v_scales;  // of the tile's keys; null: none, or one for all keys
};

// Makes `max` the row's softmax reference.
inline void set_reference(const Run& run, const Scratch& scratch, int64_t row, float max) {
  scratch.max[row] = max;
  const float exponent = max * run.exponent_scale;
  const bool large = has_wide_out(run) || !(std::abs(exponent) < 0x1p10f);
  const float slack = slack_of(run);
  scratch.score_offset[row] = large ? max : 0;
  scratch.exponent_offset[row] = (large ? 0 : exponent) + slack;
  scratch.rescale_threshold[row] = max + slack / run.exponent_scale;
}

// The weight of the row's max: 2^-slack or nearly so, and some number other than zero if max is
// not finite.
inline float weight_of_max(const Run& run, const Scratch& scratch, int64_t row) {
  const float distance =
      std::isfinite(scratch.max[row]) ? scratch.max[row] - scratch.score_offset[row] : 0.0f;
  return std::exp2(std::fma(distance, run.exponent_scale, -scratch.exponent_offset[row]));
}

// Sets every row's first reference: its sink, or none (a threshold of -inf, which every score
// exceeds).
inline void start_references(const Block& block, const Scratch& scratch) {
  for (int64_t r = 0; r < block.rows; ++r) {
    const float sink = scratch.max[r];
    if (sink == -INFINITY) {
      scratch.score_offset[r] = scratch.exponent_offset[r] = 0;
      scratch.rescale_threshold[r] = -INFINITY;
    } else {
      set_reference(*block.run, scratch, r, sink);
      // A NaN sink has left the sum NaN.
      if (!std::isnan(sink)) scratch.sum[r * kSumLanes] = weight_of_max(*block.run, scratch, r);
    }
  }
}

// Raises a row's reference to `max` and scales down what was summed so far.
inline void raise_reference(const Run& run, const Scratch& scratch, int64_t row, float max) {
  const float score_offset = scratch.score_offset[row];
  const float exponent_offset = scratch.exponent_offset[row];
  const bool first = scratch.rescale_threshold[row] == -INFINITY;
  set_reference(run, scratch, row, max);
  if (first) return;
  const Floats d;
  const Vector factor =
      hn::Set(d, std::exp2(std::fma(score_offset - scratch.score_offset[row], run.exponent_scale,
                                    exponent_offset - scratch.exponent_offset[row])));
  float* sum = scratch.sum + row * kSumLanes;
  for (int64_t n = 0; n < kSumLanes; n += kLanes)
    hn::Store(hn::Mul(factor, hn::Load(d, sum + n)), d, sum + n);
  float* out = scratch.out + row * scratch.v_stride;
  for (int64_t x = 0; x < scratch.v_stride; x += kLanes)
    hn::Store(hn::Mul(factor, hn::Load(d, out + x)), d, out + x);
}

// The highest of the chunk's scores in one row of the group, by lane.
inline Vector highest_scores(const Scratch& scratch, int64_t r) {
  const Floats d;
  const float* scores = scratch.scores + r * kChunkKeys;
  Vector highest = hn::Load(d, scores);
  HWY_UNROLL(8)
  for (int64_t j = kLanes; j < kChunkKeys; j += kLanes)
    highest = hn::Max(highest, hn::Load(d, scores + j));
  return highest;
}

// Whether some score of the chunk is above its row's rescale_threshold.
inline bool exceeds_threshold(const Scratch& scratch, const GroupTile& at) {
  const Floats d;
  auto above = hn::FirstN(d, 0);
  for (int64_t r = 0; r < at.rows; ++r) {
    above = hn::Or(above, hn::Gt(highest_scores(scratch, r),
                                 hn::Set(d, scratch.rescale_threshold[at.row + r])));
  }
  return !hn::AllFalse(d, above);
}

// Raises the reference of every row that has a score above its rescale_threshold.
inline void raise_references(const Run& run, const Scratch& scratch, const GroupTile& at) {
  for (int64_t r = 0; r < at.rows; ++r) {
    const float highest = hn::GetLane(hn::MaxOfLanes(Floats(), highest_scores(scratch, r)));
    if (highest > scratch.rescale_threshold[at.row + r])
      raise_reference(run, scratch, at.row + r, highest);
  }
}

// What a row group's references have in common.
struct GroupReferences {
  bool all_set;           // every row has a reference, and none is NaN
  bool has_score_offset;  // some row's score_offset is not zero
};

inline GroupReferences group_references(const Scratch& scratch, const GroupTile& at) {
  GroupReferences references{true, false};
  for (int64_t r = at.row; r < at.row + at.rows; ++r) {
    references.all_set = references.all_set && scratch.rescale_threshold[r] > -INFINITY;
    references.has_score_offset = references.has_score_offset || scratch.score_offset[r] != 0;
  }
  return references;
}

// Computes the weights of the chunk that begins at key `key` of the tile and adds them to the rows'
// sums.
// RETURNS whether all exponents are below 0. If so, no score is above its row's rescale_threshold.
//         If not, one may be: the caller then restores the sums (restore_sums), raises the
//         references and calls again.
template <class Rounder, class Polynomial, bool kTwoParts, bool kHasScoreOffset, bool kScalesValues>
inline bool softmax_chunk(const Run& run, const Scratch& scratch, const GroupTile& at,
                          int64_t key) {
  const Floats d;
  const Vector exponent_scale = hn::Set(d, run.exponent_scale);
  constexpr int64_t kPart = kAmxGroupRows * kAmxTileKeys;
  Vector negative = hn::Set(d, -0.0f);  // lane by lane, whether all exponents have the sign bit
  for (int64_t r = 0; r < at.rows; ++r) {
    const int64_t row = at.row + r;
    const float* scores = scratch.scores + r * kChunkKeys;
    uint16_t* to = scratch.weights + r / kTileRows * kTileRows * kAmxTileKeys + key * kTileRows +
                   r % kTileRows * kChunkKeys;
    const Vector score_offset = hn::Set(d, scratch.score_offset[row]);
    const Vector exponent_offset = hn::Set(d, scratch.exponent_offset[row]);
    Vector sum = hn::Load(d, scratch.sum + row * kSumLanes);
    hn::Store(sum, d, scratch.sum_before_chunk + r * kSumLanes);
    HWY_UNROLL(4)
    for (int64_t j = 0; j < kChunkKeys; j += 2 * kLanes) {
      Vector s = hn::Load(d, scores + j), s2 = hn::Load(d, scores + j + kLanes);
      if (kHasScoreOffset) s = hn::Sub(s, score_offset), s2 = hn::Sub(s2, score_offset);
      const Vector y = hn::MulSub(s, exponent_scale, exponent_offset);
      const Vector y2 = hn::MulSub(s2, exponent_scale, exponent_offset);
      negative = hn::And(negative, hn::And(y, y2));
      Vector p = exp2<Polynomial>(y), p2 = exp2<Polynomial>(y2);
      sum = hn::Add(sum, hn::Add(p, p2));
      if (kScalesValues) {
        p = hn::Mul(p, hn::Load(d, at.v_scales + key + j));
        p2 = hn::Mul(p2, hn::Load(d, at.v_scales + key + j + kLanes));
      }
      if (kTwoParts) {
        split_bf16<Rounder>(p, p2, to + j, to + kPart + j);
      } else {
        Rounder()(p, p2, to + j);
      }
    }
    hn::Store(sum, d, scratch.sum + row * kSumLanes);
  }
  return hn::AllTrue(d, hn::Lt(hn::CopySign(hn::Set(d, 1.0f), negative), hn::Zero(d)));
}

// The same, with the polynomial that the result needs: lse is a float and shows errors that 16 bits
// hide. (So is a wide out, which always has a score_offset.) Where V has scales, the better
// polynomial always serves.
template <class Rounder, bool kTwoParts>
inline bool softmax_chunk(const Run& run, const Scratch& scratch, const GroupTile& at, int64_t key,
                          bool has_score_offset) {
  if (at.v_scales != nullptr) {
    return has_score_offset
               ? softmax_chunk<Rounder, Exp2, kTwoParts, true, true>(run, scratch, at, key)
               : softmax_chunk<Rounder, Exp2, kTwoParts, false, true>(run, scratch, at, key);
  }
  if (has_score_offset)
    return softmax_chunk<Rounder, Exp2, kTwoParts, true, false>(run, scratch, at, key);
  if (run.problem->lse)
    return softmax_chunk<Rounder, Exp2, kTwoParts, false, false>(run, scratch, at, key);
  return softmax_chunk<Rounder, Exp2For16Bits, kTwoParts, false, false>(run, scratch, at, key);
}

template <class Rounder>
inline bool softmax_chunk(const Run& run, const Scratch& scratch, const GroupTile& at, int64_t key,
                          bool has_score_offset) {
  return run.tiling.bf16_parts == 2
             ? softmax_chunk<Rounder, true>(run, scratch, at, key, has_score_offset)
             : softmax_chunk<Rounder, false>(run, scratch, at, key, has_score_offset);
}

// Sets the sums back to what they were before the last softmax_chunk.
inline void restore_sums(const Scratch& scratch, const GroupTile& at) {
  const Floats d;
  for (int64_t r = 0; r < at.rows; ++r) {
    hn::Store(hn::Load(d, scratch.sum_before_chunk + r * kSumLanes), d,
              scratch.sum + (at.row + r) * kSumLanes);
  }
}

}  // namespace kernels::cpu::HWY_NAMESPACE::amx
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_AMX_SOFTMAX_INL
