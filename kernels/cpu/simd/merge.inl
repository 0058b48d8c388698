// kernels/cpu/simd/merge.inl: merges rows of partial results, a few vectors at a time
//
//                 lanes ->
//   out_0   w_0 * [ chunk ][ chunk ] ...      A chunk of every partial is read before the merged
//   out_1   w_1 * [ chunk ][ chunk ] ...      chunk is written, so out may be one of the partials.
//           + ------------------------
//   out           [ chunk ][ chunk ] ...
#if defined(KERNELS_CPU_SIMD_MERGE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_MERGE_INL
#undef KERNELS_CPU_SIMD_MERGE_INL
#else
#define KERNELS_CPU_SIMD_MERGE_INL
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/cpu/merge.hpp"
#include "kernels/cpu/simd/convert.inl"
#include "kernels/cpu/simd/vectors.inl"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

// Partials whose weights are kept for the whole row. Those of further ones are computed again for
// each chunk, so that any number of partials needs no more memory.
constexpr int64_t kKeptWeights = 64;
// Floats that are summed at a time.
constexpr int64_t kMergeChunk = kVectors * kLanes;

// Where one row lies.
struct MergePlace {
  int64_t b, s, h;
};

inline MergePlace merge_place(const Tensor& out, int64_t row) {
  const int64_t heads = out.shape[out.ndim - 2], seq = out.shape[out.ndim - 3];
  return {row / heads / seq, row / heads % seq, row % heads};
}

// Offsets in elements: of a row of out or of a partial, and of a number of lse. Packed tensors have
// no batch.
inline int64_t row_at(const Tensor& out, const MergePlace& p) {
  const int64_t* stride = out.stride + out.ndim - 3;
  return p.s * stride[0] + p.h * stride[1] + (out.ndim == 4 ? p.b * out.stride[0] : 0);
}
inline int64_t lse_at(const Tensor& lse, const MergePlace& p) {
  const int64_t* stride = lse.stride + lse.ndim - 2;
  return p.h * stride[0] + p.s * stride[1] + (lse.ndim == 3 ? p.b * lse.stride[0] : 0);
}
inline float lse_of(const Tensor& lse, const MergePlace& p) {
  return static_cast<const float*>(lse.data)[lse_at(lse, p)];
}

// The weights of one row's partials.
struct MergeWeights {
  float largest = -std::numeric_limits<float>::infinity();  // NaN if an lse is
  float sum = 0;
  float kept[kKeptWeights];

  MergeWeights(const Merge& merge, const MergePlace& place) {
    for (int64_t i = 0; i < merge.count; ++i) {
      const float lse = lse_of(merge.lses[i], place);
      if (!(lse <= largest) && !std::isnan(largest)) largest = lse;
    }
    if (nothing()) return;
    for (int64_t i = 0; i < merge.count; ++i)
      sum += std::exp(lse_of(merge.lses[i], place) - largest);
    for (int64_t i = 0; i < std::min(merge.count, kKeptWeights); ++i)
      kept[i] = weight(lse_of(merge.lses[i], place));
  }
  bool nothing() const { return largest == -std::numeric_limits<float>::infinity(); }
  // 0 exactly where the partial saw nothing, or next to nothing.
  float weight(float lse) const { return std::exp(lse - largest) / sum; }
};

// Whether the partial's row counts. If not, it may hold anything.
inline bool counts(const Merge& merge, int64_t i, const MergePlace& place) {
  return lse_of(merge.lses[i], place) != -std::numeric_limits<float>::infinity();
}

// Computes floats [x, x + n) of a row, n <= kMergeChunk.
inline void merge_chunk(const Merge& merge, const MergePlace& place, const MergeWeights& weights,
                        int64_t x, int64_t n, float* sums) {
  const Floats d;
  if (weights.nothing()) {
    std::fill(sums, sums + n, 0.0F);
    return;
  }
  const bool whole = n == kMergeChunk;
  Vector acc[kVectors];
  for (Vector& each : acc) each = hn::Zero(d);
  std::fill(sums, sums + n, 0.0F);
  for (int64_t i = 0; i < merge.count; ++i) {
    if (!counts(merge, i, place)) continue;
    const float weight =
        i < kKeptWeights ? weights.kept[i] : weights.weight(lse_of(merge.lses[i], place));
    const Tensor& out = merge.outs[i];
    const float* row = static_cast<const float*>(out.data) + row_at(out, place) + x;
    if (!whole) {
      for (int64_t k = 0; k < n; ++k) sums[k] += weight * row[k];
      continue;
    }
    const Vector w = hn::Set(d, weight);
    for (int v = 0; v < kVectors; ++v)
      acc[v] = hn::MulAdd(w, hn::LoadU(d, row + v * kLanes), acc[v]);
  }
  if (!whole) return;
  for (int v = 0; v < kVectors; ++v) hn::Store(acc[v], d, sums + v * kLanes);
}

// Merges rows [first, end), counted through batch, seq and heads.
void merge_rows(const Merge& merge, int64_t first, int64_t end) {
  const int64_t dim = merge.out.shape[merge.out.ndim - 1];
  HWY_ALIGN float sums[kMergeChunk];
  for (int64_t row = first; row < end; ++row) {
    const MergePlace place = merge_place(merge.out, row);
    const MergeWeights weights(merge, place);
    char* to = static_cast<char*>(merge.out.data) +
               row_at(merge.out, place) * element_bytes(merge.out.dtype);
    for (int64_t x = 0; x < dim; x += kMergeChunk) {
      const int64_t n = std::min(dim - x, kMergeChunk);
      merge_chunk(merge, place, weights, x, n, sums);
      store_row(merge.out.dtype, sums, n, to + x * element_bytes(merge.out.dtype));
    }
    if (merge.lse.data == nullptr) continue;
    const float lse = weights.nothing() ? weights.largest : weights.largest + std::log(weights.sum);
    static_cast<float*>(merge.lse.data)[lse_at(merge.lse, place)] = lse;
  }
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_MERGE_INL
