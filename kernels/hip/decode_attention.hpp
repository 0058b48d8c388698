// kernels/hip/decode_attention.hpp: attention of few queries to many keys on NVIDIA GPUs, f16 and
// bf16: what a language model does for each token
//
// It is bound by memory: each key and value is used by at most 16 packed rows (see work_list.hpp).
// So the aim is many bytes in flight at all times. The waves of a workgroup share the keys of an
// item, 16 at a time, in turn. Each wave has a ring of kStages places of its own in workgroup
// memory, which it fills by asynchronous copies, and multiplies by mma.sync; no wave waits for
// another until the end of the item, when the waves' results are merged.
//
// A workgroup takes the items between two cuts, where the work is cut into shares.
#pragma once

#include "kernels/hip/flash_attention.hpp"
#include "kernels/hip/partial_results.hpp"
#include "kernels/hip/tile/stored_decode_tile.hpp"

namespace kernels::hip {

// kModifies: whether scores are more than scaled by a positive number: softcap, ALiBi, a mask.
template <class Tile, bool kModifies, bool kSmallPages>
class DecodeAttention {
  using T = typename Tile::Element;
  using Storage = typename T::Storage;
  static_assert(ScoreLayout<Tile>);
  using Stored = typename Tile::Stored::Storage;
  static constexpr bool kIsStored = kSameType<typename Tile::Stored, Bytes>;  // K and V of 8 bits

 public:
  GPU_DEVICE explicit DecodeAttention(const ServingParams& params) : params_(params) {}

  // The copies of the next item begin before this one's results are merged.
  GPU_DEVICE void run() const {
    gpu::wait_for_previous_kernel();
    gpu::start_next_kernel();
    Items items(params_.work);
    const Tile tile;
    Ring ring;
    Task current{}, next{};
    typename Tile::Output o;
    OnlineSoftmax<Tile> softmax;
    for (bool has_current = false;; has_current = true) {
      bool has_next = items.next(&next.item);
      while (has_next && leaves_out(next.item)) has_next = items.next(&next.item);
      if (has_next) begin(tile, &next, &ring);
      if (has_current) merge(tile, current, o, softmax);
      if (!has_next) return;
      current = next;
      attend(tile, current, &ring, o, softmax);
    }
  }

 private:
  // Whether there is nothing to compute for an item: because it is empty or, after storing NaN,
  // because it is stale.
  GPU_DEVICE bool leaves_out(const WorkItem& item) const {
    if (item.rows == 0) return true;
    if (!is_stale(params_.attention, params_.work, item)) return false;
    if (item.slot < 0) {
      store_nan<T>(params_.attention, params_.work, item, static_cast<int32_t>(gpu::thread()),
                   Tile::kThreads);
    }
    return true;
  }

  static constexpr int kApart = Tile::kKeys * Tile::kWaves;  // keys between steps of one wave
  // Whether steps all of whose keys exist have copies of their own, with fewer instructions. Where
  // steps are short, the larger code takes longer to come than that saves.
  static constexpr bool kHasShortPath = kIsStored || kSmallPages || Tile::kDim == 256;
  static constexpr int kAhead = Tile::kStages - 1;  // steps copied ahead

  // An item, and what follows from it.
  struct Task {
    WorkItem item;
    AttentionParams p;
    PackedBlock block;
    Range first, last;  // the keys that its first and its last row see
  };
  // This wave's copies: the next step to copy, and its place; where its keys lie.
  struct Ring {
    int32_t next;
    int to;
    KeyRows::Place place;  // unchecked
  };

  GPU_DEVICE static int32_t end_of(const Task& task) {
    return task.item.key_end < task.last.end ? task.item.key_end : task.last.end;
  }
  GPU_DEVICE KeyRows rows_of(const Task& task) const {
    return {params_.work, task.item.sequence, head_kv_of(task.p, params_.work.section, task.item),
            task.item.kv_first};
  }

  GPU_DEVICE void begin(const Tile& tile, Task* task, Ring* ring) const {
    const WorkItem& item = task->item;
    task->p =
        params_of(params_.attention, params_.work, item.sequence, item.q_length, item.kv_length);
    task->block = block_of(params_.work.section, item);
    task->first = visible_range(task->p, task->block.query(0));
    task->last = visible_range(task->p, task->block.query(item.rows - 1));
    ring->next = item.key_begin + tile.wave * Tile::kKeys, ring->to = 0;
    look_ahead(tile, *task, ring);
    GPU_UNROLL_BY(1)
    for (int n = 0; n < kAhead; ++n) issue(tile, *task, ring);
  }

  // Finds where the keys of the next step to copy lie; with kSmallPages, lane n finds key n. So the
  // page table is read long before the number is needed.
  GPU_DEVICE void look_ahead(const Tile& tile, const Task& task, Ring* ring) const {
    ring->place = {};
    const int32_t own = kSmallPages ? ring->next + tile.lane % Tile::kKeys : ring->next;
    if (own < end_of(task) && (!kSmallPages || own >= task.first.begin))
      ring->place = rows_of(task).unchecked_place(own);
  }

  // Starts the copies of a step, if there is one. A page holds whole steps, unless kSmallPages.
  GPU_DEVICE void issue(const Tile& tile, const Task& task, Ring* ring) const {
    const AttentionParams& p = task.p;
    const int32_t key = ring->next, first = task.first.begin, end = end_of(task);
    if (key < end) {
      constexpr int kChunks = Tile::kChunks, kPassRows = Tile::kWave / kChunks;
      constexpr int kWide = 16 / static_cast<int>(sizeof(Stored));  // columns of a chunk
      const int r = tile.lane / kChunks, c = tile.lane % kChunks;
      const KeyRows rows = rows_of(task);
      const KeyRows::Place place = rows.in_range(ring->place);
      const auto bytes_of = [c](int32_t head_dim) {
        const int left = (head_dim - c * kWide) * static_cast<int>(sizeof(Stored));
        return left <= 0 ? 0 : left < 16 ? left : 16;
      };
      const int bytes_k = bytes_of(p.head_dim), bytes_v = bytes_of(p.head_dim_v);
      // A chunk behind head_dim, of which nothing is read, has its row's address.
      const Stored *k = static_cast<const Stored*>(p.k) + (bytes_k > 0 ? c * kWide : 0),
                   *v = static_cast<const Stored*>(p.v) + (bytes_v > 0 ? c * kWide : 0);
      if constexpr (!kSmallPages) {
        const KeyRows::Place at{place.page, place.row + r};
        k += rows.offset(p.k_stride, at), v += rows.offset(p.v_stride, at);
      }
      const int64_t k_pass = kPassRows * p.k_stride.row, v_pass = kPassRows * p.v_stride.row;
      const auto copy_rows = [&](const auto& exists) {
        GPU_UNROLL for (int i = 0; i < Tile::kKeys / kPassRows; ++i) {
          const int row = i * kPassRows + r;
          const uint32_t to = Tile::place(row, c);
          const Stored *from_k = k + i * k_pass, *from_v = v + i * v_pass;
          if constexpr (kSmallPages) {
            const KeyRows::Place at{gpu::value_of_lane<Tile::kWave>(place.page, row),
                                    gpu::value_of_lane<Tile::kWave>(place.row, row)};
            from_k = k + rows.offset(p.k_stride, at), from_v = v + rows.offset(p.v_stride, at);
          }
          const bool reads = exists(row);
          MmaSm80::copy_async(tile.keys_at(ring->to) + to, reads ? from_k : p.k,
                              reads ? bytes_k : 0);
          MmaSm80::copy_async(tile.values_at(ring->to) + to, reads ? from_v : p.v,
                              reads ? bytes_v : 0);
        }
      };
      if (kHasShortPath && key >= first && key + Tile::kKeys <= end) {
        copy_rows([](int) { return true; });
      } else {
        copy_rows([&](int row) { return key + row >= first && key + row < end; });
      }
      if constexpr (kIsStored) {
        if (params_.stored.per_token) copy_scales(tile, rows, place, key, first, end, ring->to);
      }
    }
    MmaSm80::group_copies();
    ring->to = ring->to + 1 == Tile::kStages ? 0 : ring->to + 1;
    ring->next += kApart;
    look_ahead(tile, task, ring);
  }
  // Copies the scales of a step: lane n that of K of key n, lane 16 + n that of V. place: of key n
  // with kSmallPages, else of the step's first.
  GPU_DEVICE void copy_scales(const Tile& tile, const KeyRows& rows, KeyRows::Place place,
                              int32_t key, int32_t first, int32_t end, int stage) const {
    const StoredParams& stored = params_.stored;
    const int n = tile.lane % Tile::kKeys;
    const bool of_k = tile.lane < Tile::kKeys, exists = key + n >= first && key + n < end;
    const KeyRows::Place at{place.page, kSmallPages ? place.row : place.row + n};
    const float* const from = of_k ? stored.k_scale : stored.v_scale;
    const int64_t row = rows.offset(of_k ? stored.k_scale_stride : stored.v_scale_stride, at);
    MmaSm80::copy_float_async(tile.scales_at(stage) + static_cast<uint32_t>(tile.lane) * 4,
                              exists ? from + row : from, exists);
  }

  GPU_DEVICE void attend(const Tile& tile, const Task& task, Ring* ring, typename Tile::Output& o,
                         OnlineSoftmax<Tile>& softmax) const {
    const AttentionParams& p = task.p;
    typename Tile::Query query;
    const RowsOf<Storage, PackedBlock::Where> q{static_cast<const Storage*>(p.q),
                                                task.block.offsets(p.q_stride)};
    StoredScales stored;
    if constexpr (kIsStored) {
      tile.load_query(p, q, task.item.rows, query, stored.row_factor);
      stored.start(params_.stored, rows_of(task).head);
    } else {
      tile.load_query(p, q, task.item.rows, query);
    }
    softmax = OnlineSoftmax<Tile>();
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) Tile::clear(o, slot);
    int stage = 0;
    GPU_UNROLL_BY(1)
    for (int32_t key = task.item.key_begin + tile.wave * Tile::kKeys; key < task.item.key_end;
         key += kApart) {
      issue(tile, task, ring);
      MmaSm80::wait_for_groups<kAhead>();
      gpu::wave_barrier(Tile::kWave);
      typename Tile::Scores s;
      if constexpr (kIsStored) {
        stored.scores(params_.stored, tile, query, stage, s);
      } else {
        tile.scores(query, stage, s);
      }
      if constexpr (kModifies) modify(p, tile, task.block, s, key);
      if (key < task.last.begin || key + Tile::kKeys > task.first.end)
        hide_invisible(p, tile, s, task.block, key + tile.first_key(), 0);
      typename Tile::Weights weights;
      if constexpr (kIsStored) {
        stored.accumulate(params_.stored, tile, p.exp_scale, stage, s, softmax, weights, o);
      } else {
        float row_max[Tile::kSlots];
        if (softmax.exceeds_threshold(tile, p.exp_scale, s, row_max)) {
          GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
            Tile::scale(o, slot, softmax.raise_reference(slot, p.exp_scale, row_max[slot]));
          }
        }
        softmax.weigh(p.exp_scale, s);
        softmax.pack(s, true, weights);
        tile.accumulate(weights, stage, o);
      }
      gpu::wave_barrier(Tile::kWave);  // before the next copies to this place
      stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
    }
    if constexpr (kIsStored) {
      GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
        Tile::scale(o, slot, stored.output_factor(params_.stored, slot));
      }
    }
  }

  // The products of K and V of 8 bits, and their scales, of one item.
  struct StoredScales {
    float row_factor[Tile::kSlots];  // of scores
    float value_factor;              // of O
    ValueScales<Tile> values;

    GPU_DEVICE void start(const StoredParams& stored, int32_t head) {
      float missing = 1;
      with_stored(stored.dtype,
                  [&](auto as) { missing = kMissingFactor<F16, decltype(as)::kStored>; });
      value_factor = missing;
      float k_factor = missing;
      if (!stored.per_token) {
        k_factor *= scale_of_head(stored.k_scale, stored.k_scale_stride, head);
        value_factor *= scale_of_head(stored.v_scale, stored.v_scale_stride, head);
      }
      GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) row_factor[slot] *= k_factor;
    }

    // The lane's scales of a step. at: of the step's first key.
    using KeyScales = float[Tile::kScoreTiles][Tile::kElements];
    GPU_DEVICE static void load(const Tile& tile, uint32_t at, KeyScales& scales) {
      GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
          scales[t][e] = gpu::shared_load<float>(
              at + static_cast<uint32_t>(tile.first_key() + Tile::key_offset(t, e)) * 4);
        }
      }
    }

    GPU_DEVICE void scores(const StoredParams& stored, const Tile& tile,
                           const typename Tile::Query& query, int stage,
                           typename Tile::Scores& s) const {
      with_stored(stored.dtype,
                  [&](auto as) { tile.template scores<decltype(as)::kStored>(query, stage, s); });
      const auto each = [&](const auto& factor) {
        GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
          GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
            GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
              Tile::set(s, slot, t, e, Tile::at(s, slot, t, e) * factor(slot, t, e));
            }
          }
        }
      };
      each([&](int slot, int, int) { return row_factor[slot]; });
      if (stored.per_token) {
        KeyScales scales;
        load(tile, tile.scales_at(stage), scales);
        each([&](int, int t, int e) { return scales[t][e]; });
      }
    }

    GPU_DEVICE void accumulate(const StoredParams& stored, const Tile& tile, float exp_scale,
                               int stage, typename Tile::Scores& s, OnlineSoftmax<Tile>& softmax,
                               typename Tile::Weights& packed, typename Tile::Output& o) {
      KeyScales scales;
      if (stored.per_token) load(tile, tile.scales_at(stage) + Tile::kKeys * 4, scales);
      weigh_stored(
          tile, exp_scale, stored.per_token, [&](int t, int e) { return scales[t][e]; }, s, softmax,
          values, o, packed);
      with_stored(stored.dtype, [&](auto as) {
        tile.template accumulate<decltype(as)::kStored>(packed, stage, o);
      });
    }

    GPU_DEVICE float output_factor(const StoredParams& stored, int slot) const {
      return stored.per_token ? value_factor * values.r(slot) : value_factor;
    }
  };

  // key: of the step's first score.
  GPU_DEVICE void modify(const AttentionParams& p, const Tile& tile, const PackedBlock& block,
                         typename Tile::Scores& s, int32_t key) const {
    if (p.flags & kNegativeScale) transform_scores<Tile>(s, [](float x) { return -x; });
    if (p.flags & kScaledScores) scale_and_cap<Tile>(p, s);
    const int32_t lane_key = key + tile.first_key();
    if (p.slopes != nullptr) {
      int64_t diagonal[Tile::kSlots];
      GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
        diagonal[slot] = block.query(tile.row(slot)) + p.diagonal;
      }
      const float* slopes = p.slopes + block.batch * p.slope_batch;
      add_alibi<Tile>(
          s,
          [&](int slot) {
            const int r = tile.row(slot);
            return slopes[block.head(r < block.rows ? r : 0) * p.slope_head];
          },
          diagonal, lane_key);
    }
    if (p.mask == nullptr) return;
    const auto mask_row = block.offsets(mask_strides(p));
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      const int r = tile.row(slot);
      const int64_t row = mask_row(r < block.rows ? r : block.rows - 1);
      GPU_UNROLL for (int i = 0; i < 4; ++i) {
        const int t = i / 2, e = i % 2, at = lane_key + Tile::key_offset(t, e);
        if (at >= p.seq_kv) continue;  // hidden later
        const float bias = mask_bias(p, row + at * p.mask_key);
        const float sum = gpu::fma(Tile::at(s, slot, t, e), p.mask_scale, bias);
        Tile::set(s, slot, t, e,
                  bias == -gpu::kInfinity         ? bias
                  : (p.flags & kBooleanMask) != 0 ? Tile::at(s, slot, t, e)
                                                  : sum);
      }
    }
  }
  // What an element of the mask adds to a score.
  GPU_DEVICE static float mask_bias(const AttentionParams& p, int64_t element) {
    if (p.flags & kBooleanMask)
      return static_cast<const uint8_t*>(p.mask)[element] != 0 ? 0 : -gpu::kInfinity;
    if (p.flags & kMaskF32) return static_cast<const float*>(p.mask)[element];
    return to_float(T{}, static_cast<const Storage*>(p.mask)[element]);
  }

  // Merges the waves' results, and stores them.
  GPU_DEVICE void merge(const Tile& tile, const Task& task, const typename Tile::Output& o,
                        const OnlineSoftmax<Tile>& softmax) const {
    const AttentionParams& p = task.p;
    const WorkItem& item = task.item;
    const bool whole = item.slot < 0, has_sink = whole && p.sinks != nullptr;
    const int32_t columns = p.head_dim_v / 4;
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      const int32_t first_row = slot * Tile::kMergeRows;
      if (first_row >= item.rows) break;
      const auto part = softmax.part(tile, slot);
      tile.store_for_merge(o, slot, part.output_factor);
      if (tile.lane % 4 == 0) {
        gpu::shared_store(Tile::sums_at(tile.wave, tile.lane / 4),
                          PartSums{part.reference, part.sum});
      }
      gpu::barrier();
      const int32_t rows =
          item.rows - first_row < Tile::kMergeRows ? item.rows - first_row : Tile::kMergeRows;
      for (int32_t i = static_cast<int32_t>(gpu::thread()); i < rows * columns;
           i += Tile::kThreads) {
        const int32_t in_slot = i / columns, column = (i - in_slot * columns) * 4,
                      row = first_row + in_slot;
        PartSums all;
        MergedColumns merged = merge_parts<Tile::kWaves, OnlineSoftmax<Tile>>(
            p, [&](int n) { return gpu::shared_load<PartSums>(Tile::sums_at(n, in_slot)); },
            [&](int n) {
              return gpu::shared_load<gpu::Bits128>(Tile::output_at(n, in_slot) +
                                                    static_cast<uint32_t>(column) * 4);
            },
            &all);
        if (whole) {
          const float sink = has_sink ? p.sinks[task.block.head(row) * p.sink_stride] : 0;
          merged = finished<OnlineSoftmax<Tile>>(p, merged, all.reference, all.sum, has_sink, sink);
          store_columns<T>(p, task.block, row, column, merged);
        } else {
          const WorkSection& section = params_.work.section;
          const float factor = all.sum == 0 ? 0 : 1 / all.sum;
          store4(F32{}, partial_out(p, section, item.slot, row) + column, merged.out[0] * factor,
                 merged.out[1] * factor, merged.out[2] * factor, merged.out[3] * factor);
          if (column == 0) *partial_sums(section, item.slot, row) = all;
        }
      }
      gpu::barrier();  // before the next results
    }
  }

  const ServingParams& params_;
};

}  // namespace kernels::hip
