// kernels/hip/unfused_softmax.hpp: the fourth of the unfused kernels, scores to softmax weights
//
//   max = the row's largest score    sum = exp(sink - max) + sum of exp(s - max)
//   w = exp(s - max) / sum           lse = max + log(sum)
//
// A row is read twice if its threads cannot hold it in registers: once for max and sum together, as
// an online softmax, and once for the weights.
#pragma once

#include "kernels/hip/score_matrix.hpp"

namespace kernels::hip {

// exp(s - max). The difference comes first, so that large scores keep what separates them. A max of
// -inf means that everything is hidden.
GPU_DEVICE float weight_of(float s, float max) {
  return gpu::exp2((s - (max == -gpu::kInfinity ? 0 : max)) * gpu::kLog2E);
}

// The largest score so far, and the sum of weights relative to it.
struct Total {
  float max = -gpu::kInfinity, sum = 0;
  GPU_DEVICE void merge(float other_max, float other_sum) {
    const float top = gpu::max(max, other_max);
    sum = sum * (max == top ? 1 : weight_of(max, top)) +
          other_sum * (other_max == top ? 1 : weight_of(other_max, top));
    max = top;
  }
};

// Merges the totals of the threads that share a row; each of them gets the result. whole_group: the
// workgroup shares it, so that totals also meet in workgroup memory.
template <class Tile>
GPU_DEVICE void merge_team(Total& total, int lane, bool whole_group) {
  GPU_UNROLL for (int bit = 1; bit < kRowLanes; bit *= 2) {
    const float max = gpu::exchange<Tile::kWave>(total.max, bit),
                sum = gpu::exchange<Tile::kWave>(total.sum, bit);
    total.merge(max, sum);
  }
  if (!whole_group) return;
  constexpr int kTeams = kScoreThreads / kRowLanes;
  if (lane % kRowLanes == 0) {
    gpu::shared_store(lane / kRowLanes * 8, total.max);
    gpu::shared_store(lane / kRowLanes * 8 + 4, total.sum);
  }
  gpu::barrier();
  total = Total{};
  GPU_UNROLL for (int t = 0; t < kTeams; ++t) {
    total.merge(gpu::shared_load<float>(t * 8), gpu::shared_load<float>(t * 8 + 4));
  }
  gpu::barrier();
}

// Turns scores into weights, in place, rounded to the dtype, and stores lse. `team` threads share a
// row: kRowLanes of them, or the workgroup.
template <class Tile>
GPU_DEVICE void softmax(const AttentionParams& p) {
  const ScoreHead head(p);
  if (!head.exists(p)) return;
  const int rows = rows_in_turn(p), team = kScoreThreads / rows;
  const int lane = static_cast<int>(gpu::thread()) % team, span = team * kHeld * 4;
  const uint32_t turns = turns_of_head(p);
  for (uint32_t turn = gpu::block_x(); turn < turns; turn += groups_for(turns)) {
    const int64_t query = int64_t{turn} * rows + static_cast<int>(gpu::thread()) / team;
    const bool real = query < p.seq_q;
    const Range columns = real ? columns_of_row<Tile>(p, static_cast<int32_t>(query)) : Range{0, 0};
    float* const row = head.row(p, static_cast<int32_t>(query)) + lane * 4;

    gpu::Floats<4> s[kHeld];
    const auto read = [&](int64_t from) {
      GPU_UNROLL for (int h = 0; h < kHeld; ++h) {
        const int64_t column = from + h * team * 4;
        if (column + lane * 4 < columns.end) {
          s[h] = read_scores(row + column);
        } else {
          GPU_UNROLL for (int i = 0; i < 4; ++i) s[h][i] = -gpu::kInfinity;
        }
      }
    };
    Total total;
    for (int64_t from = columns.begin; from < columns.end; from += span) {
      read(from);
      float max = -gpu::kInfinity, sum = 0;
      GPU_UNROLL for (int h = 0; h < kHeld; ++h) {
        GPU_UNROLL for (int i = 0; i < 4; ++i) max = gpu::max(max, s[h][i]);
      }
      GPU_UNROLL for (int h = 0; h < kHeld; ++h) {
        GPU_UNROLL for (int i = 0; i < 4; ++i) sum += weight_of(s[h][i], max);
      }
      total.merge(max, sum);
    }
    merge_team<Tile>(total, lane, rows == 1);

    Total whole = total;
    if (p.sinks != nullptr)
      whole.merge(p.sinks[head.head * p.sink_stride], 1);  // a key of value zero
    const bool nothing = whole.max == -gpu::kInfinity && !(whole.sum != whole.sum);
    const float kept = total.max == whole.max ? 1 : weight_of(total.max, whole.max);
    const float factor = nothing ? 0 : kept / whole.sum;
    if (p.lse != nullptr && real && lane == 0) {
      p.lse[head.batch * p.lse_batch + head.head * p.lse_head + query * p.lse_row] =
          nothing ? -gpu::kInfinity : whole.max + gpu::log2(whole.sum) * gpu::kLn2;
    }
    for (int64_t from = columns.begin; from < columns.end; from += span) {
      if (columns.end - columns.begin > span) read(from);
      GPU_UNROLL for (int h = 0; h < kHeld; ++h) {
        const int64_t column = from + h * team * 4;
        if (column + lane * 4 >= columns.end) continue;
        gpu::Floats<4> w;
        GPU_UNROLL for (int i = 0; i < 4; ++i) {
          w[i] = rounded(typename Tile::Element{}, weight_of(s[h][i], total.max) * factor);
        }
        write_scores(row + column, w);
      }
    }
  }
}

}  // namespace kernels::hip
