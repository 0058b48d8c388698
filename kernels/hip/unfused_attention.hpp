// kernels/hip/unfused_attention.hpp: attention as five kernels over a score matrix in memory
//
//   q, k -> qk -> scale -> mask -> softmax -> pv <- v
//
// It shows what attention costs without fusion, with each kernel at its best: the products use the
// fused kernel's tiles, and the three kernels between them are bound by memory alone. Scores, and
// after softmax the weights, are float32.
#pragma once

#include "kernels/hip/score_matrix.hpp"
#include "kernels/hip/tile_shapes.hpp"
#include "kernels/hip/unfused_softmax.hpp"

namespace kernels::hip {

// Stores one wave's scores of a step, 16 bytes a lane, neighbouring lanes side by side. at: the
// block's first row, at the step's first column; rows: how many of the block's rows exist.
template <AttentionTile Tile>
GPU_DEVICE void store_scores(const AttentionParams& p, const Tile& tile,
                             const typename Tile::Scores& s, float* at, int rows) {
  using Stage = ScoreStage<Tile>;
  constexpr int kPiece = Tile::kRun % 4 == 0 ? 4 : 2, kRowPieces = Tile::kKeys / 4;
  const uint32_t stage = Stage::kAt + tile.wave * Stage::kWaveBytes;
  const int lane = static_cast<int>(gpu::thread()) % Tile::kWave;
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
    const int first = tile.wave * Tile::kWaveRows + slot * Stage::kSlotRows;
    const uint32_t to = stage + (tile.row(slot) - first) * Stage::kRowBytes + tile.first_key() * 4;
    GPU_UNROLL for (int i = 0; i < Tile::kRun; i += kPiece) {
      uint32_t word[4];
      GPU_UNROLL for (int j = 0; j < kPiece; ++j) {
        word[j] = __builtin_bit_cast(
            uint32_t, Tile::at(s, slot, (i + j) / Tile::kElements, (i + j) % Tile::kElements));
      }
      if constexpr (kPiece == 4) {
        gpu::shared_store(to + i * 4, gpu::Bits128{{word[0], word[1], word[2], word[3]}});
      } else {
        gpu::shared_store(to + i * 4, gpu::Bits64{{word[0], word[1]}});
      }
    }
    gpu::wave_barrier(Tile::kWave);
    GPU_UNROLL for (int i = 0; i < Stage::kSlotRows * kRowPieces; i += Tile::kWave) {
      const int r = (i + lane) / kRowPieces, c = (i + lane) % kRowPieces;
      if (r >= Stage::kSlotRows || first + r >= rows) continue;
      gpu::store128(at + (first + r) * p.scores_row + c * 4,
                    gpu::shared_load<gpu::Bits128>(stage + r * Stage::kRowBytes + c * 16));
    }
    gpu::wave_barrier(Tile::kWave);
  }
}

// Computes q.k for a block of queries and kChunkSteps steps of keys.
template <AttentionTile Tile>
GPU_DEVICE void qk(const AttentionParams& p) {
  using T = typename Tile::Element;
  const ScoreHead at(p);
  if (!at.exists(p)) return;
  const uint32_t chunks = chunks_of_head(p, Tile::kKeys);
  if (chunks == 0) return;
  const int32_t first_query = static_cast<int32_t>(gpu::block_x() / chunks) * Tile::kRows;
  const int32_t first_step = static_cast<int32_t>(gpu::block_x() % chunks) * kChunkSteps;
  const int32_t rows = rows_of_block<Tile>(p, first_query);
  const Range seen = steps_of_block<Tile>(p, first_query);
  const int32_t begin = first_step > seen.begin ? first_step : seen.begin;
  const int32_t end = first_step + kChunkSteps < seen.end ? first_step + kChunkSteps : seen.end;
  if (begin >= end) return;

  const Tile tile;
  const typename T::Storage* q = static_cast<const typename T::Storage*>(p.q) +
                                 at.batch * p.q_stride.batch + at.head * p.q_stride.head +
                                 first_query * p.q_stride.row;
  const typename T::Storage* k = static_cast<const typename T::Storage*>(p.k) +
                                 at.batch * p.k_stride.batch +
                                 at.head / p.heads_per_kv * p.k_stride.head;
  float* const scores = at.row(p, first_query);

  typename Tile::Query query;
  typename Tile::KeyCopy copy;
  const auto issue = [&](int32_t step) {
    const int32_t key = step * Tile::kKeys;
    copy.issue(Tile::kKeyAt, k + key * p.k_stride.row, p.k_stride.row, p.seq_kv - key, p.head_dim);
  };
  issue(begin);
  tile.load_query(p, RowsOf<typename T::Storage>{q, {0, p.q_stride.row}}, rows, query);
  copy.commit(Tile::kKeyAt);
  gpu::barrier();
  for (int32_t step = begin; step < end; ++step) {
    typename Tile::Scores s;
    tile.scores(query, s);
    const bool more = step + 1 < end;
    if (more) {
      gpu::barrier();
      issue(step + 1);
    }
    store_scores(p, tile, s, scores + int64_t{step} * Tile::kKeys, rows);
    if (more) {
      copy.commit(Tile::kKeyAt);
      gpu::barrier();
    }
  }
}

// Calls f(at, query, column) for every 4 columns that exist of the head's rows.
template <class Tile, class F>
GPU_DEVICE void for_each_quad(const AttentionParams& p, const ScoreHead& head, const F& f) {
  const Pieces pieces = pieces_of_head(p);
  const int r = static_cast<int>(gpu::thread()) / pieces.lanes,
            c = static_cast<int>(gpu::thread()) % pieces.lanes;
  for (uint32_t turn = gpu::block_x(); turn < pieces.count; turn += groups_for(pieces.count)) {
    const int64_t query = int64_t{turn / pieces.chunks} * pieces.rows + r;
    const int64_t column = (int64_t{turn % pieces.chunks} * pieces.lanes + c) * 4;
    if (query >= p.seq_q) continue;
    const Range columns = columns_of_row<Tile>(p, static_cast<int32_t>(query));
    if (column < columns.begin || column >= columns.end) continue;
    f(head.row(p, static_cast<int32_t>(query)) + column, static_cast<int32_t>(query),
      static_cast<int32_t>(column));
  }
}

// Scales scores, and applies the softcap.
template <class Tile>
GPU_DEVICE void scale(const AttentionParams& p) {
  const ScoreHead head(p);
  if (!head.exists(p)) return;
  for_each_quad<Tile>(p, head, [&](float* at, int32_t, int32_t) {
    gpu::Floats<4> s = read_scores(at);
    GPU_UNROLL for (int i = 0; i < 4; ++i) {
      s[i] *= p.score_scale;
      if (p.softcap != 0) s[i] = p.softcap * gpu::tanh(s[i]);
    }
    write_scores(at, s);
  });
}

// Reads an additive mask's values for 4 keys; keys past the last are not read. row: the mask's row.
template <class M>
GPU_DEVICE gpu::Floats<4> read_bias(const AttentionParams& p, const typename M::Storage* row,
                                    int32_t key) {
  gpu::Floats<4> bias;
  if ((p.flags & kMaskVector) && key + 4 <= p.seq_kv) {
    if constexpr (M::kBytes == 4) {
      const gpu::Bits128 bits = gpu::load128(row + key);
      GPU_UNROLL for (int i = 0; i < 4; ++i) bias[i] = __builtin_bit_cast(float, bits.word[i]);
    } else {
      const gpu::Bits64 bits = *reinterpret_cast<const gpu::Bits64*>(row + key);
      GPU_UNROLL for (int i = 0; i < 4; ++i) {
        bias[i] = i % 2 == 0 ? low_half<M>(bits.word[i / 2]) : high_half<M>(bits.word[i / 2]);
      }
    }
    return bias;
  }
  GPU_UNROLL for (int i = 0; i < 4; ++i) {
    bias[i] = key + i < p.seq_kv ? to_float(M{}, row[(key + i) * p.mask_key]) : 0;
  }
  return bias;
}

// Reads a boolean mask as the additive one that does the same.
GPU_DEVICE gpu::Floats<4> read_boolean(const AttentionParams& p, const uint8_t* row, int32_t key) {
  gpu::Floats<4> bias;
  if ((p.flags & kMaskVector) && key + 4 <= p.seq_kv) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(row + key);
    GPU_UNROLL for (int i = 0; i < 4; ++i) bias[i] =
        (word & (0xFFu << i * 8)) == 0 ? -gpu::kInfinity : 0;
    return bias;
  }
  GPU_UNROLL for (int i = 0; i < 4; ++i) {
    bias[i] = key + i < p.seq_kv && row[(key + i) * p.mask_key] == 0 ? -gpu::kInfinity : 0;
  }
  return bias;
}

template <class T>
GPU_DEVICE gpu::Floats<4> read_mask(const AttentionParams& p, int64_t row, int32_t key) {
  if (p.flags & kBooleanMask)
    return read_boolean(p, static_cast<const uint8_t*>(p.mask) + row, key);
  if constexpr (T::kBytes == 2) {
    if (!(p.flags & kMaskF32))
      return read_bias<T>(p, static_cast<const uint16_t*>(p.mask) + row, key);
  }
  return read_bias<F32>(p, static_cast<const float*>(p.mask) + row, key);
}

// Applies ALiBi, the mask, causal and the window. A hidden key's score becomes -inf, whatever it
// was. Without a mask and ALiBi, only scores at the edges of the visible range are touched.
template <class Tile>
GPU_DEVICE void mask(const AttentionParams& p) {
  const ScoreHead head(p);
  if (!head.exists(p)) return;
  const bool biased = p.mask != nullptr || p.slopes != nullptr;
  const float slope =
      p.slopes != nullptr ? p.slopes[head.batch * p.slope_batch + head.head * p.slope_head] : 0;
  const int64_t mask_head = head.batch * p.mask_batch + head.head * p.mask_head;
  for_each_quad<Tile>(p, head, [&](float* at, int32_t query, int32_t key) {
    const Range range = visible_range(p, query);
    gpu::Floats<4> s;
    if (key + 4 <= range.begin || key >= range.end) {
      GPU_UNROLL for (int i = 0; i < 4; ++i) s[i] = -gpu::kInfinity;
      write_scores(at, s);
      return;
    }
    if (!biased && key >= range.begin && key + 4 <= range.end) return;
    s = read_scores(at);
    if (p.slopes != nullptr) {
      const int32_t from = static_cast<int32_t>(query + p.diagonal - key);
      GPU_UNROLL for (int i = 0; i < 4; ++i) s[i] -=
          slope * static_cast<float>(from < i ? i - from : from - i);
    }
    if (p.mask != nullptr) {
      const gpu::Floats<4> bias =
          read_mask<typename Tile::Element>(p, mask_head + query * p.mask_row, key);
      GPU_UNROLL for (int i = 0; i < 4; ++i) s[i] =
          bias[i] == -gpu::kInfinity ? -gpu::kInfinity : s[i] + bias[i];
    }
    GPU_UNROLL for (int i = 0; i < 4; ++i) {
      if (key + i < range.begin || key + i >= range.end) s[i] = -gpu::kInfinity;
    }
    write_scores(at, s);
  });
}

// Loads a lane's weights of a step. at: the block's first row, at the lane's first key; rows: how
// many of the block's rows exist.
template <AttentionTile Tile>
GPU_DEVICE void load_weights(const AttentionParams& p, const Tile& tile, const float* at, int rows,
                             typename Tile::Scores& s) {
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
    const int r = tile.row(slot);
    const float* from = at + r * p.scores_row;
    constexpr int kPiece = Tile::kRun % 4 == 0 ? 4 : 2;
    GPU_UNROLL for (int i = 0; i < Tile::kRun; i += kPiece) {
      uint32_t word[4] = {};
      if (r < rows) {
        if constexpr (kPiece == 4) {
          const gpu::Bits128 bits = gpu::load128(from + i);
          GPU_UNROLL for (int j = 0; j < 4; ++j) word[j] = bits.word[j];
        } else {
          const gpu::Bits64 bits = *reinterpret_cast<const gpu::Bits64*>(from + i);
          GPU_UNROLL for (int j = 0; j < 2; ++j) word[j] = bits.word[j];
        }
      }
      GPU_UNROLL for (int j = 0; j < kPiece; ++j) {
        Tile::set(s, slot, (i + j) / Tile::kElements, (i + j) % Tile::kElements,
                  __builtin_bit_cast(float, word[j]));
      }
    }
  }
}

// Multiplies weights and V for a block of queries, over all steps that it sees, and stores out.
template <AttentionTile Tile>
GPU_DEVICE void pv(const AttentionParams& p) {
  using T = typename Tile::Element;
  const ScoreHead at(p);
  if (!at.exists(p)) return;
  const int32_t first_query = static_cast<int32_t>(gpu::block_x()) * Tile::kRows;
  const int32_t rows = rows_of_block<Tile>(p, first_query);
  const Range steps = steps_of_block<Tile>(p, first_query);

  const Tile tile;
  const typename T::Storage* v = static_cast<const typename T::Storage*>(p.v) +
                                 at.batch * p.v_stride.batch +
                                 at.head / p.heads_per_kv * p.v_stride.head;
  const float* const weights_at = at.row(p, first_query) + tile.first_key();
  const int32_t wave_row = first_query + tile.wave * Tile::kWaveRows;
  const Range wave_first = visible_range(p, wave_row),
              wave_last = visible_range(p, wave_row + Tile::kWaveRows - 1);

  typename Tile::Output o;
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) Tile::clear(o, slot);
  typename Tile::ValueCopy copy;
  for (int32_t step = steps.begin; step < steps.end; ++step) {
    const int32_t key = step * Tile::kKeys;
    copy.issue(Tile::kValueAt, v + key * p.v_stride.row, p.v_stride.row, p.seq_kv - key,
               p.head_dim_v);
    // A wave whose queries see nothing of this step only helps to copy.
    const bool sees = key + Tile::kKeys > wave_first.begin && key < wave_last.end;
    typename Tile::Weights weights;
    if (sees) {
      typename Tile::Scores s;
      load_weights(p, tile, weights_at + key, rows, s);
      float sum[Tile::kSlots] = {};
      Tile::pack(s, weights, sum);
    }
    copy.commit(Tile::kValueAt);
    gpu::barrier();
    if (sees) tile.accumulate(weights, o);
    if (step + 1 < steps.end) gpu::barrier();
  }

  typename T::Storage* out = static_cast<typename T::Storage*>(p.out) +
                             at.batch * p.out_stride.batch + at.head * p.out_stride.head +
                             first_query * p.out_stride.row;
  // The weights hold the denominator. Where a row has none, a NaN sink is missing from them.
  float factor = 1;
  if (p.sinks != nullptr) {
    const float sink = p.sinks[at.head * p.sink_stride];
    factor = sink == sink ? 1 : sink;
  }
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
    const int r = tile.row(slot);
    tile.store(p, o, slot, factor, out + r * p.out_stride.row, r < rows);
  }
}

}  // namespace kernels::hip
