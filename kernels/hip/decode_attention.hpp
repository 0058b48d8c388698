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
#include "kernels/hip/tile/mma_sm80.hpp"
#include "kernels/hip/tile/quad_rows.hpp"

namespace kernels::hip {

// 16 packed rows and 16 keys of one wave. Lane 4 r + c holds rows r and r + 8 (slots 0 and 1), and
// of each the keys 2 c, 2 c + 1, 2 c + 8 and 2 c + 9.
// kLarge: for GPUs with 227 KiB of workgroup memory; the others have 99 KiB or more.
template <class T, int kDimension, bool kLarge>
struct DecodeTile {
  static constexpr int kWave = 32, kWaveRows = 16, kRows = 16, kKeys = 16;
  static constexpr int kSlots = 2, kScoreTiles = 2, kElements = 2;
  static constexpr int kDim = kDimension, kDimSteps = kDim / 16;
  static constexpr int kWaves = (kDim == 256 ? 2 : 4) * (kLarge ? 2 : 1), kThreads = kWave * kWaves;
  static constexpr uint32_t kRowBytes = kDim * 2, kStepBytes = kKeys * kRowBytes;
  static constexpr int kStages =
      static_cast<int>((kLarge ? 192 : 80) * 1024 / (kWaves * 2 * kStepBytes));
  static constexpr int kResident = 1;

  using Element = T;
  using Scores = gpu::Floats<2>[kSlots][kScoreTiles];
  using Query = uint32_t[kDimSteps][4];
  using Weights = uint32_t[kSlots][kScoreTiles];
  using Output = gpu::Floats<2>[kSlots][kDim / 8];
  static constexpr bool kSumIsOfRounded = false;

  GPU_DEVICE static float at(const Scores& s, int slot, int t, int e) { return s[slot][t][e]; }
  GPU_DEVICE static void set(Scores& s, int slot, int t, int e, float value) {
    s[slot][t][e] = value;
  }
  GPU_DEVICE static void leave_undefined(Scores&) {}
  GPU_DEVICE static constexpr int key_offset(int t, int e) { return t * 8 + e; }

  int lane, wave;
  GPU_DEVICE DecodeTile() {
    lane = static_cast<int>(gpu::thread()) % kWave;
    wave = gpu::uniform(static_cast<int>(gpu::thread()) / kWave);
  }
  GPU_DEVICE int row(int slot) const { return slot * 8 + lane / 4; }
  GPU_DEVICE int first_key() const { return lane % 4 * 2; }
  GPU_DEVICE float max_of_row(float x) const { return max_of_quad(x); }
  GPU_DEVICE float sum_of_row(float x) const { return sum_of_quad(x); }

  // ---- Workgroup memory: rows of K and V, swizzled by 16-byte chunks ----
  GPU_DEVICE static uint32_t place(int row, int chunk) {
    return row * kRowBytes + ((chunk ^ (row & 7)) << 4);
  }
  GPU_DEVICE uint32_t keys_at(int stage) const {
    return static_cast<uint32_t>(wave * kStages + stage) * 2 * kStepBytes;
  }
  GPU_DEVICE uint32_t values_at(int stage) const { return keys_at(stage) + kStepBytes; }
  // Behind the rings, where waves merge their results, one slot's rows at a time: rows of O in
  // float, and sums, of each wave. Rows are padded so that a wave's lanes spread over the banks.
  static constexpr int kMergeRows = 8;
  static constexpr uint32_t kRingBytes = kWaves * kStages * 2 * kStepBytes;
  static constexpr uint32_t kOutputRow = (kDim + 8) * 4, kOutputBytes = kMergeRows * kOutputRow;
  GPU_DEVICE static uint32_t output_at(int of_wave, int row) {
    return kRingBytes + static_cast<uint32_t>(of_wave) * kOutputBytes +
           static_cast<uint32_t>(row) * kOutputRow;
  }
  GPU_DEVICE static uint32_t sums_at(int of_wave, int row) {
    return kRingBytes + kWaves * kOutputBytes +
           static_cast<uint32_t>(of_wave * kMergeRows + row) * 8;
  }
  static constexpr uint32_t kSharedBytes = kRingBytes + kWaves * (kOutputBytes + kMergeRows * 8);

  // ---- Products ----
  template <class Rows>
  GPU_DEVICE void load_query(const AttentionParams& p, const Rows& q, int rows,
                             Query& query) const {
    GPU_UNROLL for (int half = 0; half < 2; ++half) {
      const int r = row(half);
      const typename T::Storage* from = q(r < rows ? r : 0);
      GPU_UNROLL for (int step = 0; step < kDimSteps; ++step) {
        GPU_UNROLL for (int i = 0; i < 2; ++i) {
          const int d = step * 16 + lane % 4 * 2 + i * 8;
          uint32_t word = 0;
          if (r < rows && d < p.head_dim) word = *reinterpret_cast<const uint32_t*>(from + d);
          query[step][half + 2 * i] = word;
        }
      }
    }
  }

  GPU_DEVICE void scores(const Query& query, int stage, Scores& s) const {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kScoreTiles; ++t) s[slot][t][0] = s[slot][t][1] = 0;
    }
    const int key = lane % 8 + lane / 16 * 8, half = lane / 8 % 2;
    GPU_UNROLL for (int step = 0; step < kDimSteps; ++step) {
      uint32_t b[4];
      MmaSm80::load_matrices<false>(keys_at(stage) + place(key, step * 2 + half), b);
      MmaSm80::multiply<T>(query[step], b[0], b[1], s[0][0], s[1][0]);
      MmaSm80::multiply<T>(query[step], b[2], b[3], s[0][1], s[1][1]);
    }
  }

  GPU_DEVICE static void pack(const Scores& p, Weights& weights, float (&sum)[kSlots]) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kScoreTiles; ++t) {
        weights[slot][t] = pack2(T{}, p[slot][t][0], p[slot][t][1]);
        sum[slot] += p[slot][t][0] + p[slot][t][1];
      }
    }
  }

  GPU_DEVICE void accumulate(const Weights& weights, int stage, Output& o) const {
    const uint32_t a[4] = {weights[0][0], weights[1][0], weights[0][1], weights[1][1]};
    GPU_UNROLL for (int u = 0; u < kDim / 8; u += 2) {
      uint32_t b[4];
      MmaSm80::load_matrices<true>(values_at(stage) + place(lane % 16, u + lane / 16), b);
      MmaSm80::multiply<T>(a, b[0], b[1], o[0][u], o[1][u]);
      MmaSm80::multiply<T>(a, b[2], b[3], o[0][u + 1], o[1][u + 1]);
    }
  }

  GPU_DEVICE static void clear(Output& o, int slot) {
    GPU_UNROLL for (int u = 0; u < kDim / 8; ++u) o[slot][u][0] = o[slot][u][1] = 0;
  }
  GPU_DEVICE static void scale(Output& o, int slot, float factor) {
    GPU_UNROLL for (int u = 0; u < kDim / 8; ++u) o[slot][u][0] *= factor, o[slot][u][1] *= factor;
  }
};

// kModifies: whether scores are more than scaled: softcap, ALiBi, a mask.
template <class Tile, bool kModifies, bool kSmallPages>
class DecodeAttention {
  using T = typename Tile::Element;
  using Storage = typename T::Storage;
  static_assert(ScoreLayout<Tile>);
  static constexpr int kDim = Tile::kDim;

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
    if (!is_stale(params_, item)) return false;
    if (item.slot < 0) store_nan<T, Tile::kThreads>(params_, item);
    return true;
  }

  static constexpr int kApart = Tile::kKeys * Tile::kWaves;  // keys between steps of one wave
  static constexpr int kAhead = Tile::kStages - 1;           // steps copied ahead

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
    return {params_.work, task.item.sequence, task.item.head_kv, task.item.kv_first};
  }

  GPU_DEVICE void begin(const Tile& tile, Task* task, Ring* ring) const {
    const WorkItem& item = task->item;
    task->p =
        params_of(params_.attention, params_.work, item.sequence, item.q_length, item.kv_length);
    task->block = block_of(params_.work, item);
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
      constexpr int kChunks = kDim / 8, kPassRows = Tile::kWave / kChunks;
      const int r = tile.lane / kChunks, c = tile.lane % kChunks;
      const KeyRows rows = rows_of(task);
      const KeyRows::Place place = rows.in_range(ring->place);
      const Storage *k = static_cast<const Storage*>(p.k) + c * 8,
                    *v = static_cast<const Storage*>(p.v) + c * 8;
      if constexpr (!kSmallPages) {
        const KeyRows::Place at{place.page, place.row + r};
        k += rows.offset(p.k_stride, at), v += rows.offset(p.v_stride, at);
      }
      const int64_t k_pass = kPassRows * p.k_stride.row, v_pass = kPassRows * p.v_stride.row;
      GPU_UNROLL for (int i = 0; i < Tile::kKeys / kPassRows; ++i) {
        const int row = i * kPassRows + r;
        const bool exists = key + row >= first && key + row < end;
        const bool exists_k = exists && c * 8 < p.head_dim,
                   exists_v = exists && c * 8 < p.head_dim_v;
        const uint32_t to = Tile::place(row, c);
        if constexpr (kSmallPages) {
          const KeyRows::Place at{gpu::value_of_lane<Tile::kWave>(place.page, row),
                                  gpu::value_of_lane<Tile::kWave>(place.row, row)};
          copy(tile.keys_at(ring->to) + to, k + rows.offset(p.k_stride, at), exists_k, p.k);
          copy(tile.values_at(ring->to) + to, v + rows.offset(p.v_stride, at), exists_v, p.v);
        } else {
          copy(tile.keys_at(ring->to) + to, k, exists_k, p.k);
          copy(tile.values_at(ring->to) + to, v, exists_v, p.v);
          k += k_pass, v += v_pass;
        }
      }
    }
    MmaSm80::group_copies();
    ring->to = ring->to + 1 == Tile::kStages ? 0 : ring->to + 1;
    ring->next += kApart;
    look_ahead(tile, task, ring);
  }
  GPU_DEVICE static void copy(uint32_t to, const Storage* from, bool exists, const void* any) {
    MmaSm80::copy_async(to, exists ? from : any, exists);
  }

  GPU_DEVICE void attend(const Tile& tile, const Task& task, Ring* ring, typename Tile::Output& o,
                         OnlineSoftmax<Tile>& softmax) const {
    const AttentionParams& p = task.p;
    typename Tile::Query query;
    tile.load_query(p,
                    RowsOf<Storage, PackedBlock::Where>{static_cast<const Storage*>(p.q),
                                                        task.block.offsets(p.q_stride)},
                    task.item.rows, query);
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
      tile.scores(query, stage, s);
      if constexpr (kModifies) modify(p, tile, task.block, s, key);
      if (key < task.last.begin || key + Tile::kKeys > task.first.end)
        hide_invisible(p, tile, s, task.block, key + tile.first_key(), 0);
      float row_max[Tile::kSlots];
      if (softmax.exceeds_threshold(tile, p.exp_scale, s, row_max)) {
        GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
          Tile::scale(o, slot, softmax.raise_reference(slot, p.exp_scale, row_max[slot]));
        }
      }
      softmax.weigh(p.exp_scale, s);
      typename Tile::Weights weights;
      softmax.pack(s, true, weights);
      tile.accumulate(weights, stage, o);
      gpu::wave_barrier(Tile::kWave);  // before the next copies to this place
      stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
    }
  }

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
      const int r = tile.lane / 4;
      GPU_UNROLL for (int u = 0; u < kDim / 8; ++u) {
        gpu::Bits64 pair;
        GPU_UNROLL for (int e = 0; e < 2; ++e) {
          pair.word[e] = __builtin_bit_cast(uint32_t, o[slot][u][e] * part.output_factor);
        }
        gpu::shared_store(Tile::output_at(tile.wave, r) + (u * 8 + tile.lane % 4 * 2) * 4, pair);
      }
      if (tile.lane % 4 == 0) {
        gpu::shared_store(Tile::sums_at(tile.wave, r), PartSums{part.reference, part.sum});
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
