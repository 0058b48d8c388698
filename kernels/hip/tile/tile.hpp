// kernels/hip/tile/tile.hpp: what the attention kernels require of a tile, as C++20 concepts
//
// A tile is the part of a kernel that depends on the GPU: which lane holds which score, how K and V
// reach workgroup memory, and which instruction multiplies. One workgroup works on a block of kRows
// queries of one head and walks the keys in steps of kKeys. Each of its kWaves waves owns kWaveRows
// of these queries:
//
//                 one step: kKeys keys
//             .-------------------------.
//     wave 0  |                         |  kWaveRows queries
//             |-------------------------|
//     wave 1  |                         |  kWaveRows queries
//             '-------------------------'
//
// S = Q K^T has one score for each query and key. Of its wave's scores a lane holds kSlots x
// kScoreTiles x kElements.
//
// ScoreLayout says which lane holds which score; online softmax, masks, ALiBi and windows need
// nothing else. A main loop that copies and multiplies in its own way reuses them through it.
// ContiguousKeys is a ScoreLayout whose lanes hold keys side by side, so that masks and scores are
// read and written in 16-byte words. AttentionTile adds to it what the main loops of
// flash_attention and unfused_attention call.
#pragma once

#include "kernels/hip/params.hpp"
#include "kernels/hip/tile/copy.hpp"

namespace kernels::hip {

template <class A, class B>
inline constexpr bool kSameType = false;
template <class A>
inline constexpr bool kSameType<A, A> = true;
template <class A, class B>
concept SameAs = kSameType<A, B>;

// Which scores of its wave a lane holds. A score is named by (slot, t, e): slot is one of the
// lane's queries, t a tile of the matrix instruction, e an element of the lane's part of that tile.
template <class T>
concept ScoreLayout = requires(const T tile, typename T::Scores& scores,
                               const typename T::Scores& const_scores, int slot, int t, int e,
                               float value) {
  // ---- Shape ----
  requires(T::kWave == 32 || T::kWave == 64);  // lanes of a wave
  requires(T::kKeys > 0);                      // keys of one step
  requires(T::kWaveRows > 0);                  // queries of one wave
  requires(T::kSlots > 0);                     // queries of which one lane holds scores
  requires(T::kScoreTiles > 0);                // tiles that one lane holds of each of those queries
  requires(T::kElements > 0);                  // scores that one lane holds of one tile and query
  // A wave's lanes hold each of its scores exactly once.
  requires(T::kWave * T::kSlots * T::kScoreTiles * T::kElements == T::kWaveRows * T::kKeys);

  // ---- Scores of one lane: read, write ----
  { T::at(const_scores, slot, t, e) } -> SameAs<float>;
  T::set(scores, slot, t, e, value);
  // Tells the compiler that the scores need not be kept: see gpu::leave_undefined.
  T::leave_undefined(scores);

  // ---- What a lane's scores are the scores of ----
  // The query of a slot, counted from the workgroup's first query. Increases with slot.
  { tile.row(slot) } -> SameAs<int>;
  // The key of score (slot, t, e), counted from the step's first key, is first_key() +
  // key_offset(t, e). The first part depends on the lane and the second does not, so that
  // key_offset is a constant once loops are unrolled.
  { tile.first_key() } -> SameAs<int>;
  { T::key_offset(t, e) } -> SameAs<int>;

  // ---- Rows, across lanes ----
  // Maximum and sum of `value` over the lanes that hold scores of the same queries; all of them get
  // the result. Every lane of the wave takes part.
  { tile.max_of_row(value) } -> SameAs<float>;
  { tile.sum_of_row(value) } -> SameAs<float>;
};

template <ScoreLayout T>
constexpr bool has_contiguous_keys() {
  for (int t = 0; t < T::kScoreTiles; ++t) {
    for (int e = 0; e < T::kElements; ++e) {
      if (T::key_offset(t, e) != t * T::kElements + e) return false;
    }
  }
  return true;
}

// A lane's scores of one query belong to kRun keys side by side, from first_key() on.
template <class T>
concept ContiguousKeys = ScoreLayout<T> && has_contiguous_keys<T>() && requires {
  requires(T::kRun == T::kScoreTiles * T::kElements);
};

// Rows that stand `row` elements apart, the first one at element `first`. (r): the element at which
// row r begins.
struct Offsets {
  int64_t first, row;
  GPU_DEVICE int64_t operator()(int r) const { return first + r * row; }
};
// The rows of a tensor. (r): the first element of row r.
template <class Storage, class Where = Offsets>
struct RowsOf {
  const Storage* tensor;
  Where where;
  GPU_DEVICE const Storage* operator()(int r) const { return tensor + where(r); }
};

// How K and V of 8 bits lie in global memory. Which type they have is known at run time.
struct Bytes {
  using Storage = uint8_t;
  static constexpr int kBytes = 1;
};

// Copies one step's rows of K or V from global to workgroup memory in two calls, so that a kernel
// can compute between them. Calls of one object alternate: issue, commit, issue, commit.
template <class Copy, class Element>
concept StepCopy = requires(Copy copy, uint32_t to, const typename Element::Storage* from,
                            int64_t stride, const RowsOf<typename Element::Storage>& rows, int keys,
                            int first, int end, int head_dim) {
  // Starts the copy of kKeys rows to byte offset `to`. from: the step's first row; stride: elements
  // between rows; keys: how many of the rows exist. Rows from `keys` on and columns from head_dim
  // on become zero and are not read.
  copy.issue(to, from, stride, keys, head_dim);
  // The same from rows that may lie anywhere: rows(n) is the step's n-th. Only [first, end) exist.
  copy.issue_rows(to, rows, first, end, head_dim);
  // Completes it: after this and a barrier, the workgroup sees the rows. REQUIRES: `to` as in
  // issue.
  copy.commit(to);
};

// What flash_attention and unfused_attention call. All offsets and sizes of workgroup memory are in
// bytes.
template <class T>
concept AttentionTile = ContiguousKeys<T> && StepCopy<typename T::KeyCopy, typename T::Stored> &&
    StepCopy<typename T::ValueCopy, typename T::Stored> &&
    requires(const T tile, const AttentionParams& p, typename T::Query& query,
             const typename T::Query& const_query, typename T::Scores& scores,
             const typename T::Scores& const_scores, typename T::Weights& weights,
             const typename T::Weights& const_weights, typename T::Output& o,
             const typename T::Output& const_o, float (&sums)[T::kSlots],
             typename T::KeyCopy& key_copy, const RowsOf<typename T::Element::Storage>& q,
             typename T::Element::Storage* out, float* out_float, int slot, int rows, float factor,
             bool exists) {
  // ---- Types ----
  // Element: F32, F16 or BF16, of q, out and the products. Stored: how k and v lie in memory:
  // Element, or Bytes.
  requires(T::Element::kBytes == 2 || T::Element::kBytes == 4);
  // Query: a lane's part of Q, as the first product takes it; empty or one step where Q stays in
  // workgroup memory. Scores, Weights: a lane's scores of one step, and the softmax weights as the
  // second product takes them. Output: a lane's part of O, in float, not yet divided by the sum of
  // the weights.

  // ---- Shape ----
  requires(T::kThreads == T::kWave * T::kWaves);   // of a workgroup
  requires(T::kRows == T::kWaveRows * T::kWaves);  // queries of a workgroup
  requires(T::kDim % 32 == 0);                     // head_dim, padded: see kDims
  requires(T::kResident > 0);                      // see GPU_KERNEL
  // Whether a lane reads its part of the mask before it computes the scores, and holds it in
  // registers until it is used. Otherwise the mask is read where it is used, which needs fewer
  // registers.
  requires SameAs<decltype(T::kHoldMask), const bool>;

  // ---- Workgroup memory ----
  // Where K and V of a step, and Q if it stays there, begin. kAliased: K and V take turns in one
  // place, so that the kernel puts a barrier between the last read of one and the commit of the
  // other.
  requires(T::kAliased == (T::kKeyAt == T::kValueAt));
  requires(T::kKeyAt < T::kQueryAt && T::kValueAt < T::kQueryAt);
  requires(T::kQueryAt <= T::kSharedBytes);  // all that the tile needs

  // ---- Calls: all lanes of the workgroup make them, in the same order, unless said otherwise ----
  // Number of the lane's wave, which owns rows [wave * kWaveRows, + kWaveRows).
  requires(kSameType<decltype(T::wave), int>);
  // Loads the workgroup's queries. q(r): row r of them; rows: how many of the kRows exist, the
  // others become zero. If the scale is negative (kNegativeScale), Q is negated. Visible
  // after a barrier.
  tile.load_query(p, q, rows, query);
  // S = Q K^T of this wave's queries and the step's keys, unscaled. REQUIRES: K is visible at
  // kKeyAt. One wave may leave it out.
  tile.scores(const_query, scores);
  // Converts weights for the second product, and adds each slot's weights to sums. kSumIsOfRounded:
  // what it adds are the weights as rounded for the product, else the float weights.
  T::pack(const_scores, weights, sums);
  requires T::kSumIsOfRounded || !T::kSumIsOfRounded;
  // O += P V. REQUIRES: V is visible at kValueAt. One wave may leave it out.
  tile.accumulate(const_weights, o);
  // Takes the place of an issue after the last step: see gpu::leave_undefined.
  key_copy.leave_undefined();
  // O of one slot becomes zero; is multiplied by factor.
  T::clear(o, slot);
  T::scale(o, slot, factor);
  // Stores O * factor of one slot, rounded to Element, into `out`, its query's row. exists: whether
  // there is such a query; lanes whose query does not exist take part and store nothing. Columns
  // from head_dim on are not stored.
  tile.store(p, const_o, slot, factor, out, exists);
  tile.store_float(p, const_o, slot, factor, out_float, exists);  // the same, not rounded
};

// Scores of a tile whose lanes hold kRun keys side by side: the part of ScoreLayout that such tiles
// share.
template <int kSlots, int kScoreTiles, int kElements>
struct ContiguousScores {
  using Scores = gpu::Floats<kElements>[kSlots][kScoreTiles];

  GPU_DEVICE static float at(const Scores& s, int slot, int t, int e) { return s[slot][t][e]; }
  GPU_DEVICE static void set(Scores& s, int slot, int t, int e, float value) {
    s[slot][t][e] = value;
  }
  GPU_DEVICE static void leave_undefined(Scores& s) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kScoreTiles; ++t) gpu::leave_undefined<kElements>(s[slot][t]);
    }
  }
  GPU_DEVICE static constexpr int key_offset(int t, int e) { return t * kElements + e; }
};

}  // namespace kernels::hip
