// kernels/cpu/simd/decode.inl: the decode task: the few rows of a decode step against one split of
// K and V, read in place
//
// Each element of K and V is used by a few rows only. Memory bandwidth is the limit, and packing
// would cost more than it saves, so K and V are read where they lie, and elements of 8 or 16 bits
// are widened in registers. Scales of K multiply the scores, and scales of V the weights.
//
//   keys of a pair   | split 0          | split 1          | ...       one task each
//   a split          | tile | tile |                                   kDecodeTileKeys keys
//   a tile           scores of four keys at a time, each the sum of one vector's lanes; softmax;
//                    then out += weight * v, one key at a time
//
// A split's result is a partial: max, sum and out not yet divided. merge_partials adds them up:
//
//   factor_s = 2^((max_s - max) * exponent_scale)
//   out      = sum over splits s of factor_s out_s  /  sum over splits s of factor_s sum_s
//
// Invariant: partials are merged in the order of splits, and splits follow from the tensors alone,
// so that the bits depend neither on the number of threads nor on which split finished first. With
// batch_invariant they follow from the sequence alone (block.hpp, split_keys_of). A sequence of one
// split has no partials, whatever splits the others have.
#if defined(KERNELS_CPU_SIMD_DECODE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_DECODE_INL
#undef KERNELS_CPU_SIMD_DECODE_INL
#else
#define KERNELS_CPU_SIMD_DECODE_INL
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/common/half.hpp"
#include "kernels/common/problem.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/block.hpp"
#include "kernels/cpu/simd/convert.inl"
#include "kernels/cpu/simd/mask.inl"
#include "kernels/cpu/simd/pack.inl"
#include "kernels/cpu/simd/rows.inl"
#include "kernels/cpu/simd/softmax.inl"
#include "kernels/cpu/simd/vectors.inl"
#include "kernels/cpu/workspace.hpp"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

// Rows of a register block: with the vectors of four keys, or four vectors of V, they fill the
// registers.
constexpr int64_t kDecodeBlockRows = kVectors == 4 ? 4 : 2;

// Loads the last elements of a row, [x, end), and zeros.
template <DType kDType>
inline Vector widen_tail(const void* row, int64_t x, int64_t end) {
  HWY_ALIGN float floats[kLanes] = {};
  for (int64_t n = 0; x + n < end; ++n) floats[n] = load_float(kDType, row, x + n);
  return hn::Load(Floats(), floats);
}

// Stores the sums of the lanes of four vectors, in order. Interleaving and adding twice leaves
// blocks of four sums, which add_blocks adds up.
#if HWY_TARGET == HWY_SCALAR
inline void store_sums(const Vector sum[4], float* to) {
  for (int n = 0; n < 4; ++n) to[n] = hn::GetLane(sum[n]);
}
#else
template <class D>
inline hn::Vec<hn::FixedTag<float, 4> > add_blocks([[maybe_unused]] D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return add_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

inline void store_sums(const Vector sum[4], float* to) {
  const Floats d;
  const hn::RepartitionToWide<Floats> wide;
  const Vector ab =
      hn::Add(hn::InterleaveLower(d, sum[0], sum[1]), hn::InterleaveUpper(d, sum[0], sum[1]));
  const Vector ce =
      hn::Add(hn::InterleaveLower(d, sum[2], sum[3]), hn::InterleaveUpper(d, sum[2], sum[3]));
  const auto ab2 = hn::BitCast(wide, ab);
  const auto ce2 = hn::BitCast(wide, ce);
  const Vector all = hn::Add(hn::BitCast(d, hn::InterleaveLower(wide, ab2, ce2)),
                             hn::BitCast(d, hn::InterleaveUpper(wide, ab2, ce2)));
  hn::StoreU(add_blocks(d, all), hn::FixedTag<float, 4>(), to);
}
#endif

// Multiplies kRows queries by four keys.
template <DType kDType, int kRows>
inline void decode_qk(const float* HWY_RESTRICT q, int64_t q_stride, const void* const key[4],
                      int64_t head_dim, float* HWY_RESTRICT scores) {
  const Floats d;
  Vector sum[kRows][4];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int n = 0; n < 4; ++n) sum[r][n] = hn::Zero(d);
  }
  const auto step = [&](int64_t x, const Vector k[4]) HWY_ATTR {
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const Vector query = hn::Load(d, q + r * q_stride + x);
      HWY_UNROLL(8)
      for (int n = 0; n < 4; ++n) sum[r][n] = hn::MulAdd(query, k[n], sum[r][n]);
    }
  };
  int64_t x = 0;
  for (; x + kLanes <= head_dim; x += kLanes) {
    Vector k[4];
    HWY_UNROLL(8)
    for (int n = 0; n < 4; ++n) k[n] = widen<kDType>(key[n], x);
    step(x, k);
  }
  if (x < head_dim) {
    Vector k[4];
    for (int n = 0; n < 4; ++n) k[n] = widen_tail<kDType>(key[n], x, head_dim);
    step(x, k);
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) store_sums(sum[r], scores + r * kDecodeTileKeys);
}

// Computes out = out * rescale + weights times V, for kRows rows and kCount vectors of columns.
template <DType kDType, int kRows, int kCount>
inline void decode_pv(const float* HWY_RESTRICT weights, const char* const* values, int64_t column,
                      int64_t begin, int64_t end, const float* HWY_RESTRICT rescale,
                      float* HWY_RESTRICT out, int64_t out_stride) {
  const Floats d;
  Vector sum[kRows][kCount];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    const Vector factor = hn::Set(d, rescale[r]);
    HWY_UNROLL(8)
    for (int n = 0; n < kCount; ++n)
      sum[r][n] = hn::Mul(factor, hn::Load(d, out + r * out_stride + n * kLanes));
  }
  for (int64_t j = begin; j < end; ++j) {
    Vector value[kCount];
    HWY_UNROLL(8)
    for (int n = 0; n < kCount; ++n) value[n] = widen<kDType>(values[j], column + n * kLanes);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const Vector weight = hn::Set(d, weights[r * kDecodeTileKeys + j]);
      HWY_UNROLL(8)
      for (int n = 0; n < kCount; ++n) sum[r][n] = hn::MulAdd(weight, value[n], sum[r][n]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int n = 0; n < kCount; ++n) hn::Store(sum[r][n], d, out + r * out_stride + n * kLanes);
  }
}

// The same for the columns of V past its last whole vector.
template <DType kDType>
inline void decode_pv_tail(const Scratch& scratch, int64_t rows, const char* const* values,
                           int64_t column, int64_t end_column, int64_t begin, int64_t end) {
  const Floats d;
  for (int64_t r = 0; r < rows; ++r) {
    float* out = scratch.out + r * scratch.v_stride + column;
    Vector sum = hn::Mul(hn::Set(d, scratch.rescale[r]), hn::Load(d, out));
    for (int64_t j = begin; j < end; ++j) {
      const Vector weight = hn::Set(d, scratch.scores[r * kDecodeTileKeys + j]);
      sum = hn::MulAdd(weight, widen_tail<kDType>(values[j], column, end_column), sum);
    }
    hn::Store(sum, d, out);
  }
}

// Calls f(row, count) for register blocks of kDecodeBlockRows rows and for the rest, with count as
// a constant.
template <typename F>
inline void for_row_blocks(int64_t rows, const F& f) {
  int64_t r = 0;
  for (; r + kDecodeBlockRows <= rows; r += kDecodeBlockRows)
    f(r, std::integral_constant<int, int{kDecodeBlockRows}>());
  const int64_t left = rows - r;
  if (left == 1) f(r, std::integral_constant<int, 1>());
  if constexpr (kDecodeBlockRows == 4) {
    if (left == 2) f(r, std::integral_constant<int, 2>());
    if (left == 3) f(r, std::integral_constant<int, 3>());
  }
}

inline void prefetch_row(const char* row, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at);
}

// Computes the scores of a tile's keys, four at a time, and prefetches: K a few keys ahead, and V,
// which is read next.
template <DType kDType>
inline void decode_scores(const Block& block, const Scratch& scratch, const GroupKeys& keys,
                          const char* const* k, const char* const* v) {
  const Problem& p = *block.run->problem;
  const bool prefetch_values = !p.v_in_k;
  const int64_t k_bytes = p.head_dim * element_bytes(kDType);
  const int64_t v_bytes = p.head_dim_v * element_bytes(kDType);
  constexpr int64_t kKeysAhead = 8;
  for (int64_t j = keys.begin / 4 * 4; j < keys.end; j += 4) {
    for (int64_t n = j; n < std::min(j + 4, keys.end); ++n) {
      if (n + kKeysAhead < keys.end) prefetch_row(k[n + kKeysAhead], k_bytes);
      if (prefetch_values && n >= keys.begin) prefetch_row(v[n], v_bytes);
    }
    const void* const key[4] = {k[j], k[j + 1], k[j + 2], k[j + 3]};
    for_row_blocks(block.rows, [&](int64_t r, auto count) HWY_ATTR {
      decode_qk<kDType, count()>(scratch.q + r * scratch.q_stride, scratch.q_stride, key,
                                 p.head_dim, scratch.scores + r * kDecodeTileKeys + j);
    });
  }
}

// Adds the tile's weights times V to out.
template <DType kDType>
inline void decode_values(const Block& block, const Scratch& scratch, const GroupKeys& keys,
                          const char* const* v) {
  const int64_t head_dim_v = block.run->problem->head_dim_v;
  const int64_t whole = head_dim_v / kLanes * kLanes;
  for_row_blocks(block.rows, [&](int64_t r, auto rows) HWY_ATTR {
    const float* weights = scratch.scores + r * kDecodeTileKeys;
    const auto columns = [&](int64_t x, auto count) HWY_ATTR {
      decode_pv<kDType, rows(), count()>(weights, v, x, keys.begin, keys.end, scratch.rescale + r,
                                         scratch.out + r * scratch.v_stride + x, scratch.v_stride);
    };
    int64_t x = 0;
    for (; x + 4 * kLanes <= whole; x += 4 * kLanes) columns(x, std::integral_constant<int, 4>());
    for (; x < whole; x += kLanes) columns(x, std::integral_constant<int, 1>());
  });
  if (whole < head_dim_v) {
    decode_pv_tail<kDType>(scratch, block.rows, v, whole, head_dim_v, keys.begin, keys.end);
  }
}

// Multiplies the weights of `panels` by their keys' scales of V.
inline void multiply(const float* v_scales, KeyRange panels, float* weights) {
  const Floats d;
  for (int64_t j = panels.begin; j < panels.end; j += kLanes)
    hn::Store(hn::Mul(hn::Load(d, v_scales + j), hn::Load(d, weights + j)), d, weights + j);
}

// Computes the rows against keys [keys.begin, keys.end) of the tile that begins at key `first`.
template <DType kDType>
inline void decode_tile(const Block& block, const Scratch& scratch, int64_t first,
                        const GroupKeys& keys) {
  const Args& args = *block.run->args;
  const char* k[kDecodeTileKeys + 4];
  const char* own_v[kDecodeTileKeys];
  const bool v_in_k = block.run->problem->v_in_k;
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    k[j] = key_data(block, args.k, first + j);
    if (!v_in_k) own_v[j] = key_data(block, args.v, first + j);
  }
  const char* const* v = v_in_k ? k : own_v;
  // Fills up the first and the last four with a key that exists; softmax_row hides their scores.
  for (int64_t j = keys.begin / 4 * 4; j < keys.begin; ++j) k[j] = k[keys.begin];
  for (int64_t j = keys.end; j < round_up(keys.end, 4); ++j) k[j] = k[keys.begin];
  decode_scores<kDType>(block, scratch, keys, k, v);
  const KeyRange panels = whole_panels(keys, kLanes * 2);
  const float* k_scales = load_key_scales(block, scratch, first, keys.begin, keys.end);
  const float* v_scales = load_value_scales(block, scratch, first, keys.begin, keys.end);
  adjust_scores(block, scratch,
                {0, block.rows, first + panels.begin, panels.end - panels.begin,
                 scratch.scores + panels.begin, kDecodeTileKeys,
                 k_scales == nullptr ? nullptr : k_scales + panels.begin},
                keys.mask);
  for (int64_t r = 0; r < block.rows; ++r) {
    float* scores = scratch.scores + r * kDecodeTileKeys;
    softmax_row(block, scratch, r, first, panels, scores);
    if (v_scales != nullptr) multiply(v_scales, panels, scores);
  }
  decode_values<kDType>(block, scratch, keys, v);
}

// Stores what the split has seen of each row: max, sum, and out not yet divided.
inline void store_partials(const Block& block, const Scratch& scratch, int64_t split) {
  const Floats d;
  for (int64_t r = 0; r < block.rows; ++r) {
    float* partial = partial_of(*block.run, block.pair, split, r);
    partial[0] = scratch.max[r];
    partial[1] = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, scratch.sum + r * kSumLanes)));
    memcpy(partial + kPadFloats, scratch.out + r * scratch.v_stride,
           static_cast<size_t>(partial_floats(*block.run->problem) - kPadFloats) * sizeof(float));
  }
}

void decode(const Run& run, int64_t index, int32_t worker) {
  const int64_t split = index % run.splits_per_pair;
  const Block block = block_of_pair(run, index / run.splits_per_pair, 0, kDecodeRows);
  if (block.rows <= 0 || !is_decode(block.sequence.q_length, run.heads_per_kv)) return;
  const int64_t split_keys = split_keys_of(run, block.sequence);
  const int64_t begin = split * split_keys;
  if (split > 0 && begin >= block.sequence.kv_length) return;
  const Scratch scratch = scratch_of(run, worker);
  start_scratch(scratch);
  pack_queries(block, scratch);
  const KeyRange seen = start_rows(block, scratch, run.problem->sinks && split == 0);
  const int64_t end = std::min(seen.end, begin + split_keys);
  for (int64_t first = std::max(seen.begin / kDecodeTileKeys * kDecodeTileKeys, begin); first < end;
       first += kDecodeTileKeys) {
    const int64_t count = std::min(kDecodeTileKeys, block.sequence.kv_length - first);
    const GroupKeys keys = group_keys(block, scratch, 0, block.rows, first, count);
    if (keys.begin >= keys.end) continue;
    with_kv_dtype(kv_dtype(*run.problem), [&](auto constant) HWY_ATTR {
      decode_tile<constant()>(block, scratch, first, keys);
    });
  }
  if (splits_of(run, block.sequence) == 1) {
    finish_rows(block, scratch);
  } else {
    store_partials(block, scratch, split);
  }
}

void merge_partials(const Run& run, int64_t pair, int32_t worker) {
  const Block block = block_of_pair(run, pair, 0, kDecodeRows);
  if (block.rows <= 0 || !is_decode(block.sequence.q_length, run.heads_per_kv)) return;
  const int64_t splits = splits_of(run, block.sequence);
  if (splits == 1) return;
  const Scratch scratch = scratch_of(run, worker);
  const Floats d;
  for (int64_t r = 0; r < block.rows; ++r) {
    float max = -INFINITY;
    for (int64_t s = 0; s < splits; ++s) {
      const float split_max = partial_of(run, block.pair, s, r)[0];
      max = max < split_max ? split_max : max;
    }
    float* out = scratch.out + r * scratch.v_stride;
    std::fill(out, out + scratch.v_stride, 0.0f);
    float sum = 0;
    for (int64_t s = 0; s < splits; ++s) {
      const float* partial = partial_of(run, block.pair, s, r);
      const float difference = partial[0] == max ? 0.0f : partial[0] - max;  // max may be infinite
      const Vector factor = exp2(hn::Set(d, difference * run.exponent_scale));
      sum += partial[1] * hn::GetLane(factor);
      for (int64_t x = 0; x < partial_floats(*run.problem) - kPadFloats; x += kLanes) {
        hn::Store(hn::MulAdd(factor, hn::Load(d, partial + kPadFloats + x), hn::Load(d, out + x)),
                  d, out + x);
      }
    }
    scratch.max[r] = max;
    std::fill(scratch.sum + r * kSumLanes, scratch.sum + (r + 1) * kSumLanes, 0.0f);
    scratch.sum[r * kSumLanes] = sum;
  }
  finish_rows(block, scratch);
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_DECODE_INL
