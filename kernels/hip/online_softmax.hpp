// kernels/hip/online_softmax.hpp: softmax over keys that arrive step by step, without ever holding
// a whole row
//
// For each query it keeps a reference m (about the largest score so far) and a sum l, and O is kept
// by the caller:
//
//   w  = 2^((s - m) * exp_scale)          one weight for each score s; exp_scale includes log2(e)
//   l  = l + sum of w                     O = O + sum of w * v
//   out = O / l                           lse = m * exp_scale * ln(2) + ln(l)
//
// If m rises from m0 to m1, what was summed before is too large: O and l are multiplied by 2^((m0 -
// m1) * exp_scale), which is at most 1. INVARIANT: O and l are relative to the same m, so out does
// not depend on when m rises. To multiply O as rarely as possible, m rises only if a weight would
// exceed 2^kRescaleThreshold (FlashAttention-4's rule). Until a query has seen a key, m is -inf,
// and O and l are 0.
#pragma once

#include "kernels/hip/tile/tile.hpp"

namespace kernels::hip {

// How far a score may exceed the reference before the reference rises, in powers of two: weights
// stay below 2^8, and f16 weights far below f16's largest number, 2^16.
inline constexpr float kRescaleThreshold = 8;
// Up to this size of m * exp_scale, in powers of two, weights are computed as 2^(s * exp_scale - m
// * exp_scale), one multiply-add for each score. Beyond it the rounding of m * exp_scale, half a
// unit in its last place, would be too large an error of the exponent; below 128 it is at most
// 2^-18.
inline constexpr float kLargestExponentOffset = 128;

template <ScoreLayout Tile>
class OnlineSoftmax {
 public:
  static constexpr int kSlots = Tile::kSlots;
  using Scores = typename Tile::Scores;

  GPU_DEVICE OnlineSoftmax() {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      reference_[slot] = -gpu::kInfinity, sum_[slot] = 0, lse_sum_[slot] = 0;
    }
  }

  // Finds the largest score of each row in this step. RETURNS whether any of them exceeds its
  // reference by more than the threshold, the same answer in all lanes of the wave. The caller then
  // raises every slot's reference.
  GPU_DEVICE bool exceeds_threshold(const Tile& tile, float exp_scale, const Scores& s,
                                    float (&row_max)[kSlots]) const {
    bool exceeds = false;
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      float part[kChains];
      GPU_UNROLL for (int i = 0; i < Tile::kScoreTiles * Tile::kElements; ++i) {
        const float x = Tile::at(s, slot, i / Tile::kElements, i % Tile::kElements);
        part[i % kChains] = i < kChains ? x : gpu::max(part[i % kChains], x);
      }
      float m = part[0];
      GPU_UNROLL for (int i = 1; i < kChains; ++i) m = gpu::max(m, part[i]);
      row_max[slot] = tile.max_of_row(m);
      exceeds |= (row_max[slot] - reference_[slot]) * exp_scale > kRescaleThreshold;
    }
    return gpu::any<Tile::kWave>(exceeds);
  }

  // Raises a slot's reference to row_max, if that is larger. RETURNS the factor by which the caller
  // multiplies O.
  GPU_DEVICE float raise_reference(int slot, float exp_scale, float row_max) {
    const float raised = gpu::max(reference_[slot], row_max);
    const float factor =
        raised == -gpu::kInfinity ? 1 : gpu::exp2((reference_[slot] - raised) * exp_scale);
    if constexpr (kKeepsLarge) {
      large_ = gpu::any<Tile::kWave>(is_large(exponent_offset(raised, exp_scale))) || large_;
    }
    reference_[slot] = raised;
    sum_[slot] *= factor, lse_sum_[slot] *= factor;
    return factor;
  }

  // Turns scores into weights, in place.
  GPU_DEVICE void weigh(float exp_scale, Scores& s) const {
    float offset[kSlots];
    bool large = false;
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      offset[slot] = exponent_offset(reference_[slot], exp_scale);
      large |= is_large(offset[slot]);
    }
    if (kKeepsLarge
            ? large_
            : gpu::any<Tile::kWave>(large)) {  // subtract first: s - m is exact enough at any size
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        const float m = reference_[slot] == -gpu::kInfinity ? 0 : reference_[slot];
        GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
          GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
            Tile::set(s, slot, t, e, Tile::at(s, slot, t, e) - m);
          }
        }
        offset[slot] = 0;
      }
    }
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
          Tile::set(s, slot, t, e,
                    gpu::exp2(gpu::fma(Tile::at(s, slot, t, e), exp_scale, -offset[slot])));
        }
      }
    }
  }

  // Adds weights to the sums, apart from pack(), in four chains of additions. REQUIRES: the tile's
  // pack() adds none.
  GPU_DEVICE void add(const Scores& weights) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      float part[4] = {};
      GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
          part[(t * Tile::kElements + e) % 4] += Tile::at(weights, slot, t, e);
        }
      }
      sum_[slot] += (part[0] + part[1]) + (part[2] + part[3]);
    }
  }

  // Converts weights for the second product and adds them to the sums. wants_lse: whether result()
  // will be asked for lse.
  //
  // This is the only place that knows of two sums. A tile that truncates its weights sums the
  // truncated ones, so that O and its denominator agree. lse needs the sum of the weights before
  // that, so where lse is wanted, they are summed as well.
  GPU_DEVICE void pack(const Scores& weights, bool wants_lse, typename Tile::Weights& packed) {
    if (Tile::kSumIsOfRounded && wants_lse) {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
          GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
            lse_sum_[slot] += Tile::at(weights, slot, t, e);
          }
        }
      }
    }
    Tile::pack(weights, packed, sum_);
  }

  // For a second product that takes other numbers than the weights: RETURNS what a slot's sum
  // becomes by its weights. The caller hands it to set_sum() after pack().
  GPU_DEVICE float sum_with(const Scores& weights, int slot) const {
    float sum = sum_[slot];
    GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
      GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) sum += Tile::at(weights, slot, t, e);
    }
    return sum;
  }
  GPU_DEVICE void set_sum(int slot, float sum) { sum_[slot] = lse_sum_[slot] = sum; }

  // What a row ends with.
  struct Result {
    float
        output_factor;  // out = O * output_factor; 0 where nothing was visible, NaN if the sink is
    float lse;          // -inf where nothing was visible
  };
  // Every lane of the wave calls it. sink: the head's sink, if it has one; it counts as a key of
  // that score whose value is zero.
  GPU_DEVICE Result result(const Tile& tile, int slot, float exp_scale, bool has_sink, float sink,
                           bool wants_lse) const {
    const float sum = tile.sum_of_row(sum_[slot]);
    const float lse_sum =
        Tile::kSumIsOfRounded && wants_lse ? tile.sum_of_row(lse_sum_[slot]) : sum;
    return finish(reference_[slot], sum, lse_sum, exp_scale, has_sink, sink, wants_lse);
  }

  // What a row ends with that has seen only a part of its keys: see partial_results.hpp.
  struct Part {
    float reference, sum;  // sum: of the weights relative to the reference
    float output_factor;   // normalised O = O * output_factor
  };
  GPU_DEVICE Part part(const Tile& tile, int slot) const {
    const float sum = tile.sum_of_row(sum_[slot]);
    const float lse_sum = Tile::kSumIsOfRounded ? tile.sum_of_row(lse_sum_[slot]) : sum;
    return {reference_[slot], lse_sum, is_visible(sum) ? 1 / sum : 0};
  }

  GPU_DEVICE static bool is_visible(float sum) { return sum > 0 || sum != sum; }  // NaN, too

  // RETURNS the result of a row from its reference and its sums, which are relative to it.
  GPU_DEVICE static Result finish(float of_row, float sum, float lse_sum, float exp_scale,
                                  bool has_sink, float sink, bool wants_lse) {
    // In powers of two: the reference, and the larger of it and the sink.
    const float reference = of_row == -gpu::kInfinity ? -gpu::kInfinity : of_row * exp_scale;
    float factor = 1, sink_weight = 0, largest = reference;
    if (has_sink) {
      const float exponent = sink * gpu::kLog2E;
      largest = gpu::max(reference, exponent);
      if (largest != -gpu::kInfinity || sink != sink) {  // max leaves a NaN out
        factor = gpu::exp2(reference - largest), sink_weight = gpu::exp2(exponent - largest);
      }
    }
    sum = sum * factor + sink_weight;
    Result result{is_visible(sum) ? factor / sum : 0, 0};
    if (wants_lse) {
      lse_sum = lse_sum * factor + sink_weight;
      // reference was rounded, or overflowed to infinity; of_row itself was not.
      const float log_of_largest = largest == reference && of_row != -gpu::kInfinity
                                       ? of_row * (exp_scale * gpu::kLn2)
                                       : largest * gpu::kLn2;
      result.lse =
          is_visible(lse_sum) ? log_of_largest + gpu::log2(lse_sum) * gpu::kLn2 : -gpu::kInfinity;
    }
    return result;
  }

 private:
  // kChains: a row's maximum is found in so many chains, whose latencies overlap; AMD's waves hide
  // each other's. kKeepsLarge: large_ is kept from step to step. With that AMD's compiler spills,
  // so there each step finds it.
#if defined(GPU_AMD)
  static constexpr int kChains = 1;
  static constexpr bool kKeepsLarge = false;
#else
  static constexpr int kChains = Tile::kScoreTiles * Tile::kElements < 4 ? 1 : 4;
  static constexpr bool kKeepsLarge = true;
#endif
  GPU_DEVICE static float exponent_offset(float reference, float exp_scale) {
    return reference == -gpu::kInfinity ? 0 : reference * exp_scale;
  }
  GPU_DEVICE static bool is_large(float offset) {
    return !(gpu::absolute(offset) <= kLargestExponentOffset);
  }

  bool large_ = false;       // some reference of the wave was beyond kLargestExponentOffset
  float reference_[kSlots];  // m, the same in all lanes of a row
  float sum_[kSlots];        // l, this lane's part of it
  float lse_sum_[kSlots];  // with kSumIsOfRounded: the sum of the weights before they were rounded
};

}  // namespace kernels::hip
