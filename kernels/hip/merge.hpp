// kernels/hip/merge.hpp: merges results over parts of the keys into one result
//
// A row is one query of one head. Of each partial i it has a row out_i and a number lse_i:
//
//   largest = max lse_i     sum = sum of exp(lse_i - largest)     lse = largest + log(sum)
//   out     = sum of exp(lse_i - largest) / sum * out_i
//
//            columns ->
//            lane 0  lane 1  lane 2 ...        A lane merges four columns, one partial after the
//   out_0   [ 4    ][ 4    ][ 4    ]           other. Up to 32 lanes share a row, all of one wave.
//   out_1   [ 4    ][ 4    ][ 4    ]           Each finds the row's weights for itself.
//
// Partials are summed in the order of their numbers, so the same call gives the same bits.
// kernels/reference/merge.hpp says what holds for -inf, +inf and NaN, and how far from the exact
// answer a result may be. Weights are divided by sum before they meet out_i: sums of large values
// then do not overflow.
#pragma once

#include "kernels/hip/dtype.hpp"
#include "kernels/hip/merge_params.hpp"

namespace kernels::hip {

// ---- One row, for any kernel that merges ----

// exp(x) for x <= 0, to within one unit in the last place; NaN for NaN. gpu::exp2 may be off by two
// such units, more than the bound of a merge leaves for it.
//   n = x / ln(2) to the nearest integer    r = x - n ln(2), at most 0.35 in size
//   exp(x) = 2^n exp(r), where exp(r) is a Taylor polynomial, off by at most r^8 / 8! = 2^-27.5
GPU_DEVICE float exp_below_zero(float x) {
  constexpr float kLeast = -104;              // exp(-104) rounds to 0, as what is below it does
  constexpr float kLn2Rest = -1.9046543e-9F;  // ln(2) - kLn2
  constexpr float kInteger = 12582912;  // 1.5 * 2^23: a sum with it is rounded to an integer, which
                                        // its lowest bits hold
  const float limited = x < kLeast ? kLeast : x;  // NaN stays
  const float with_n = gpu::fma(limited, gpu::kLog2E, kInteger);
  const float n = with_n - kInteger;
  const float r = gpu::fma(n, -kLn2Rest, gpu::fma(n, -gpu::kLn2, limited));
  constexpr float kTaylor[] = {1 / 720.0F, 1 / 120.0F, 1 / 24.0F, 1 / 6.0F, 0.5F, 1, 1};
  float power = 1 / 5040.0F;
  GPU_UNROLL for (const float coefficient : kTaylor) power = gpu::fma(power, r, coefficient);
  // 2^n in two steps, so that a subnormal result is rounded once.
  const int32_t whole = __builtin_bit_cast(int32_t, with_n) - __builtin_bit_cast(int32_t, kInteger);
  const int32_t half = whole >> 1;
  const auto power_of_2 = [](int32_t exponent) {
    return __builtin_bit_cast(float, static_cast<uint32_t>(exponent + 127) << 23);
  };
  return power * power_of_2(half) * power_of_2(whole - half);
}

// Four columns of a merged row, and the row's lse.
struct MergedColumns {
  gpu::Floats<4> out;
  float lse;
};

// Merges columns [first, first + columns) of one row's partials, columns <= 4; what is past them is
// 0. Parts says where the row's partials are:
//
//   float lse(int i)          natural logarithm; -inf: the partial saw nothing, its row is not read
//   const float* row(int i)   its row of out_i, normalised
//
// wide: every row starts at a multiple of 16 bytes. first: a multiple of 4.
// sink: the row's attention sink, if this merge is to count it: one more lse, whose out is zeros.
template <class Parts>
GPU_DEVICE MergedColumns merge_columns(Parts& parts, int count, int64_t first, int columns,
                                       bool wide, float sink = -gpu::kInfinity) {
  float largest = sink;  // leaves NaN out, but the sum does not
  for (int i = 0; i < count; ++i) largest = gpu::max(largest, parts.lse(i));
  if (largest == -gpu::kInfinity) largest = 0;
  float sum = exp_below_zero(sink - largest);
  for (int i = 0; i < count; ++i) sum += exp_below_zero(parts.lse(i) - largest);
  const bool nothing = sum == 0;
  const float factor = nothing ? 0 : 1 / sum;
  MergedColumns merged{};
  for (int i = 0; i < count; ++i) {
    const float lse = parts.lse(i);
    if (lse == -gpu::kInfinity) continue;
    const float weight = exp_below_zero(lse - largest) * factor;
    const float* const from = parts.row(i) + first;
    if (wide && columns == 4) {
      // Not gpu::load128, whose cache must not see out: it may be one of the partials.
      const gpu::Bits128 value = *reinterpret_cast<const gpu::Bits128*>(from);
      GPU_UNROLL for (int c = 0; c < 4; ++c) {
        merged.out[c] = gpu::fma(weight, __builtin_bit_cast(float, value.word[c]), merged.out[c]);
      }
    } else {
      GPU_UNROLL for (int c = 0; c < 4; ++c) {
        if (c < columns) merged.out[c] = gpu::fma(weight, from[c], merged.out[c]);
      }
    }
  }
  merged.lse = nothing ? -gpu::kInfinity : largest + gpu::log2(sum) * gpu::kLn2;
  return merged;
}

// ---- All rows: the kernel of attnrt.merge/1 ----

// The query and head of a row, which is counted through batch, seq and heads.
struct MergePlace {
  int64_t batch, row, head;
  GPU_DEVICE int64_t offset(const Strides& stride) const {
    return batch * stride.batch + row * stride.row + head * stride.head;
  }
};
GPU_DEVICE MergePlace merge_place(const MergeParams& p, int64_t row) {
  if (p.rows >> 32 == 0) {  // divides in 32 bits, which is much faster on GPUs
    const uint32_t n = static_cast<uint32_t>(row), heads = static_cast<uint32_t>(p.heads),
                   seq = static_cast<uint32_t>(p.seq), query = n / heads;
    return {query / seq, query % seq, n % heads};
  }
  const int64_t query = row / p.heads;
  return {query / p.seq, query % p.seq, row % p.heads};
}

// The partials of one row: see merge_columns.
class MergeParts {
 public:
  GPU_DEVICE MergeParts(const MergeParams& p, const MergePlace& place) : p_(p), place_(place) {}
  GPU_DEVICE float lse(int i) {
    use(p_.layout_of[i]);
    return gpu::global(p_.lses[i])[lse_at_];
  }
  GPU_DEVICE const float* row(int i) {
    use(p_.layout_of[i]);
    return gpu::global(p_.outs[i]) + row_at_;
  }

 private:
  // Computes the row's offsets where they change: most merges have partials of one layout.
  GPU_DEVICE void use(int32_t layout) {
    if (layout == layout_) return;
    layout_ = layout;
    row_at_ = place_.offset(p_.layouts[layout].out);
    lse_at_ = place_.offset(p_.layouts[layout].lse);
  }

  const MergeParams& p_;
  MergePlace place_;
  int32_t layout_ = -1;
  int64_t row_at_ = 0, lse_at_ = 0;
};

// Rounds a float to T and stores it.
GPU_DEVICE void store1(F32, float* at, float value) { *at = value; }
template <class T>
GPU_DEVICE void store1(T, uint16_t* at, float value) {
  *at = static_cast<uint16_t>(pack2(T{}, value, 0));
}

template <class T>
GPU_DEVICE void store_columns(const MergeParams& p, int64_t at, int columns,
                              const gpu::Floats<4>& value) {
  auto* const to = static_cast<typename T::Storage*>(p.out) + at;
  if (p.wide && columns == 4) return store4(T{}, to, value[0], value[1], value[2], value[3]);
  GPU_UNROLL for (int c = 0; c < 4; ++c) {
    if (c < columns) store1(T{}, to + c, value[c]);
  }
}

// Merges all rows. T: of out.
template <class T>
GPU_DEVICE void merge(const MergeParams& p) {
  const int thread = static_cast<int>(gpu::thread()), lane = thread % p.lanes;
  const int64_t group_rows = kMergeThreads / p.lanes;
  for (int64_t first = gpu::block_x() * group_rows; first < p.rows; first += p.grid_rows) {
    const int64_t row = first + thread / p.lanes;
    const bool exists = row < p.rows;
    const MergePlace place = merge_place(p, exists ? row : 0);
    float lse = 0;
    if (exists) {
      MergeParts parts(p, place);
      const int64_t out_at = place.offset(p.layout.out);
      for (int64_t x = lane * 4; x < p.dim; x += p.lanes * 4) {
        const int columns = p.dim - x < 4 ? static_cast<int>(p.dim - x) : 4;
        const MergedColumns merged = merge_columns(parts, p.count, x, columns, p.wide != 0);
        store_columns<T>(p, out_at + x, columns, merged.out);
        lse = merged.lse;
      }
    }
    // lse may be one of the partials': its row is read by now. (A lane of out reads its columns
    // itself.)
    gpu::wave_barrier(kMergeLanes);
    if (exists && lane == 0 && p.lse != nullptr) p.lse[place.offset(p.layout.lse)] = lse;
  }
}

}  // namespace kernels::hip
