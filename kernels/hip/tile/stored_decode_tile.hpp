// kernels/hip/tile/stored_decode_tile.hpp: the tile of decode_attention for K and V of 8 bits
//
// Both products are of f16, whatever q's dtype is, because 8-bit numbers become f16 in fewer
// instructions than bf16 (see widen.hpp), and f16 weights are more precise. Queries of bf16 are
// multiplied by a power of two that brings a row's largest number to 2^14 or above; its scores are
// divided by that power. What a row then loses is below 2^-24, 2^-38 of its largest number.
//
// ldmatrix moves 16-bit elements, here pairs of 8-bit numbers:
//
//   K  A lane gets columns 4 c to 4 c + 3 of a key, c = lane % 4, of each 16 columns. Widened, they
//      are two words of operand B, for k 2 c and 2 c + 1, and for k 2 c + 8 and 2 c + 9. So columns
//      are permuted within each 16, and Q's are permuted alike: a lane holds columns 4 c to 4 c + 3
//      of its rows.
//   V  Transposed, a lane gets columns 2 n and 2 n + 1 of keys 2 c and 2 c + 1, n = lane / 4. The
//      numbers of a column, bytes 0 and 2, or 1 and 3, are the pair of keys that operand B takes.
//      So the even columns of each 16 are one tile of O, and the odd ones the next, and a lane
//      holds columns 4 c to 4 c + 3 of O: the first tile's elements 0 and 1 are columns 4 c and
//      4 c + 2, the second one's 4 c + 1 and 4 c + 3.
#pragma once

#include "kernels/hip/tile/decode_tile.hpp"
#include "kernels/hip/tile/widening_copy.hpp"

namespace kernels::hip {

// T: of q and out. Behind K and V of a step are 16 scales of K, then 16 of V.
template <class T, int kDimension, bool kLarge>
struct StoredDecodeTile : DecodeLayout<kDimension, kDimension, 128, kLarge> {
  using Layout = DecodeLayout<kDimension, kDimension, 128, kLarge>;
  using Element = T;
  using Stored = Bytes;
  using Layout::kDim;
  using Layout::kDimSteps;
  using Layout::kSlots;
  using Layout::lane;
  using typename Layout::Output;
  using typename Layout::Scores;
  using typename Layout::Weights;

  // At head_dim 256 the waves share Q in workgroup memory, behind the rest: in registers it would
  // spill. Lane l's words of a step are 16 bytes at l * 16.
  static constexpr bool kQueryShared = kDim == 256;
  static constexpr uint32_t kQueryAt = Layout::kSharedBytes, kQueryStep = Layout::kWave * 16,
                            kSharedBytes = kQueryAt + (kQueryShared ? kDimSteps * kQueryStep : 0);
  using WholeQuery = typename Layout::Query;
  using Query = uint32_t[kQueryShared ? 1 : kDimSteps][4];

  // factor: what the scores of a row are multiplied by. All waves call it.
  template <class Rows>
  GPU_DEVICE void load_query(const AttentionParams& p, const Rows& q, int rows, Query& query,
                             float (&factor)[kSlots]) const {
    if constexpr (kQueryShared) {
      WholeQuery all;
      load_rows(p, q, rows, all, factor);
      GPU_UNROLL for (int step = 0; step < kDimSteps; ++step) {
        if (step % Layout::kWaves != this->wave) continue;
        gpu::shared_store(query_at(step),
                          gpu::Bits128{{all[step][0], all[step][1], all[step][2], all[step][3]}});
      }
      gpu::barrier();
    } else {
      load_rows(p, q, rows, query, factor);
    }
  }

  template <DType kStored>
  GPU_DEVICE void scores(const Query& query, int stage, Scores& s) const {
    Layout::clear_scores(s);
    const int key = lane % 8 + lane / 16 * 8, half = lane / 8 % 2;
    GPU_UNROLL for (int step = 0; step < kDimSteps; step += 2) {
      uint32_t a[2][4];
      GPU_UNROLL for (int n = 0; n < 2; ++n) {
        gpu::Bits128 words{};
        if constexpr (kQueryShared) words = gpu::shared_load<gpu::Bits128>(query_at(step + n));
        GPU_UNROLL for (int i = 0; i < 4; ++i) {
          a[n][i] = kQueryShared ? words.word[i] : query[kQueryShared ? 0 : step + n][i];
        }
      }
      uint32_t bytes[4];  // keys 0 to 7: two steps, keys 8 to 15: two steps
      MmaSm80::load_matrices<false>(this->keys_at(stage) + Layout::place(key, step + half), bytes);
      GPU_UNROLL for (int i = 0; i < 4; ++i) {
        uint32_t b[2];
        widen4<F16, kStored, Pairs::side_by_side, false>(bytes[i], b);
        MmaSm80::multiply<F16>(a[i % 2], b[0], b[1], s[0][i / 2], s[1][i / 2]);
      }
    }
  }

  GPU_DEVICE static void pack(const Scores& p, Weights& weights, float (&sum)[kSlots]) {
    Layout::template pack_as<F16>(p, weights, sum);
  }

  template <DType kStored>
  GPU_DEVICE void accumulate(const Weights& weights, int stage, Output& o) const {
    const uint32_t a[4] = {weights[0][0], weights[1][0], weights[0][1], weights[1][1]};
    GPU_UNROLL for (int chunk = 0; chunk < Layout::kChunks; chunk += 2) {
      uint32_t bytes[4];  // of two chunks: keys 0 to 7, keys 8 to 15
      MmaSm80::load_matrices<true>(
          this->values_at(stage) + Layout::place(lane % 16, chunk + lane / 16), bytes);
      GPU_UNROLL for (int i = 0; i < 2; ++i) {
        uint32_t first[2], second[2];
        widen4<F16, kStored, Pairs::alternate, false>(bytes[2 * i], first);
        widen4<F16, kStored, Pairs::alternate, false>(bytes[2 * i + 1], second);
        GPU_UNROLL for (int odd = 0; odd < 2; ++odd) {
          const int u = (chunk + i) * 2 + odd;
          MmaSm80::multiply<F16>(a, first[odd], second[odd], o[0][u], o[1][u]);
        }
      }
    }
  }

  // Stores a slot's rows of O * factor to this wave's place for merging.
  GPU_DEVICE void store_for_merge(const Output& o, int slot, float factor) const {
    const uint32_t to = Layout::output_at(this->wave, lane / 4) + lane % 4 * 16;
    GPU_UNROLL for (int u = 0; u < kDim / 8; u += 2) {
      gpu::Bits128 four;
      GPU_UNROLL for (int i = 0; i < 4; ++i) {
        four.word[i] = __builtin_bit_cast(uint32_t, o[slot][u + i % 2][i / 2] * factor);
      }
      gpu::shared_store(to + u * 32, four);
    }
  }

 private:
  GPU_DEVICE uint32_t query_at(int step) const {
    return kQueryAt + static_cast<uint32_t>(step) * kQueryStep + static_cast<uint32_t>(lane) * 16;
  }
  template <class Rows>
  GPU_DEVICE void load_rows(const AttentionParams& p, const Rows& q, int rows, WholeQuery& query,
                            float (&factor)[kSlots]) const {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      const int r = this->row(slot);
      const typename T::Storage* from = q(r < rows ? r : 0);
      GPU_UNROLL for (int step = 0; step < kDimSteps; ++step) {
        const int d = step * 16 + lane % 4 * 4;
        gpu::Bits64 bits{};
        if (r < rows && d < p.head_dim) bits = gpu::load64(from + d);
        query[step][slot] = bits.word[0], query[step][slot + 2] = bits.word[1];
      }
      factor[slot] = 1;
      if constexpr (T::kDType == DType::bf16) factor[slot] = to_f16(query, slot);
    }
  }

  // Turns a slot's bf16 into f16, times a power of two. RETURNS the inverse of that power.
  GPU_DEVICE float to_f16(WholeQuery& query, int slot) const {
    float largest = 0;
    GPU_UNROLL for (int step = 0; step < kDimSteps; ++step) {
      GPU_UNROLL for (int i = slot; i < 4; i += 2) {
        largest = gpu::max(largest, gpu::absolute(low_half<T>(query[step][i])));
        largest = gpu::max(largest, gpu::absolute(high_half<T>(query[step][i])));
      }
    }
    // 2^(14 - exponent) and its inverse, both in the range of normal numbers.
    uint32_t exponent = __builtin_bit_cast(uint32_t, this->max_of_row(largest)) >> 23;
    if (exponent < 15) exponent = 15;
    const float power = __builtin_bit_cast(float, (268 - exponent) << 23);
    GPU_UNROLL for (int step = 0; step < kDimSteps; ++step) {
      GPU_UNROLL for (int i = slot; i < 4; i += 2) {
        const uint32_t pair = query[step][i];
        query[step][i] = pack2(F16{}, low_half<T>(pair) * power, high_half<T>(pair) * power);
      }
    }
    return __builtin_bit_cast(float, (exponent - 14) << 23);
  }
};

}  // namespace kernels::hip
