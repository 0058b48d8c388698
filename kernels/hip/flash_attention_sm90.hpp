// kernels/hip/flash_attention_sm90.hpp: fused attention on sm_90a: one warpgroup copies, the others
// compute
//
// The same arithmetic as flash_attention.hpp, in a loop that keeps the tensor cores busy
// (FlashAttention-3's, arXiv 2407.08608). A workgroup has one warpgroup of producers and
// Tile::kGroups of consumers, with 64 queries each. One thread of the producers copies Q, K and V
// to workgroup memory by tensor maps; where the mask is boolean, its other waves turn the mask into
// bits. K and V have kStages places each, which the two sides hand to each other by barriers in
// workgroup memory, "full" and "empty":
//
//   producer    wait until empty | start the copy, which makes it full
//   consumers   wait until full  | multiply | arrive at empty
//
// Steps of keys are walked from the last to the first. A consumer starts the scores of step n
// before O += P V of the step before, n + 1, and computes the softmax of step n while the tensor
// cores work on that:
//
//   start S(n) = Q K(n)^T | start O += P(n + 1) V(n + 1)
//   wait for S(n)         | softmax: S(n) -> weights
//   wait for O            | P(n) = weights; O is scaled if a reference rose
//
// Up to head_dim 128 the consumers take turns to start their products (named barriers), so that one
// computes its softmax while the other's products run.
#pragma once

#include "kernels/hip/async.hpp"
#include "kernels/hip/flash_attention.hpp"
#include "kernels/hip/mask_bits.hpp"
#include "kernels/hip/tile_shapes_sm90.hpp"

namespace kernels::hip {

// The kernels' argument. The maps have four dimensions: head_dim, sequence, head, batch. A
// dimension along which the tensor does not move (stride 0) has size 1.
struct PipelinedParams {
  gpu::TensorMap q, k, v;
  AttentionParams attention;
};

// Heads whose blocks are taken together, the longest of all of them first, so that K and V of the
// heads in flight stay in the second cache.
inline constexpr int32_t kHeadsOfSection = 16;

// A place in a ring of kStages, and which of the two phases of its barriers comes next.
template <int kStages>
struct Ring {
  uint32_t count = 0;
  GPU_DEVICE uint32_t stage() const { return count % kStages; }
  GPU_DEVICE uint32_t full_parity() const { return count / kStages & 1; }
  GPU_DEVICE uint32_t empty_parity() const { return full_parity() ^ 1; }  // places begin empty
  GPU_DEVICE void advance() { ++count; }
};

template <class Tile, Kind kKind>
class PipelinedAttention {
 public:
  static constexpr int kThreads = (1 + Tile::kGroups) * Tile::kGroupThreads;

  // ---- Workgroup memory behind the tile's ----
  static constexpr bool kHasMask = kKind == Kind::generic;
  static constexpr uint32_t kMaskAt = Tile::kTileEnd,
                            kMaskBytes = kHasMask ? MaskBits<Tile>::kBytes : 0;
  static constexpr uint32_t kBarriersAt = kMaskAt + Tile::kStages * kMaskBytes;
  enum Barrier : uint32_t {
    kQuery,
    kKey,
    kValue = kKey + Tile::kStages,
    kMask = kValue + Tile::kStages,
    kBarriers = kMask + (kHasMask ? Tile::kStages : 0)
  };
  static constexpr uint32_t kSharedBytes = kBarriersAt + 2 * kBarriers * 8;
  static_assert(kSharedBytes <= 227 << 10);
  GPU_DEVICE static uint32_t full(uint32_t barrier) { return kBarriersAt + barrier * 16; }
  GPU_DEVICE static uint32_t empty(uint32_t barrier) { return full(barrier) + 8; }

  GPU_DEVICE explicit PipelinedAttention(const PipelinedParams& params)
      : params_(params), p_(params.attention) {}

  GPU_DEVICE void run() {
    if (gpu::thread() == 0) {
      for (uint32_t n = 0; n < kBarriers; ++n) {
        gpu::mbarrier_init(full(n), n < kMask ? 1 : kMaskThreads);
        gpu::mbarrier_init(empty(n), n < kMask ? Tile::kGroups : Tile::kGroups * kWaves);
      }
      gpu::mbarrier_init_fence();
    }
    gpu::barrier();
    const int group = gpu::uniform(static_cast<int>(gpu::thread()) / Tile::kGroupThreads);
    if (group == 0) {
      gpu::lower_registers<kProducerRegisters>();
      if (gpu::thread() == 0) produce();
      if (kHasMask && gpu::thread() >= kFirstMaskThread && has_boolean_mask()) produce_mask();
    } else {
      gpu::raise_registers<kConsumerRegisters>();
      consume(group - 1);
    }
  }

 private:
  using Scores = typename Tile::Scores;
  using Output = typename Tile::Output;
  using Weights = typename Tile::Weights;
  static constexpr int kKeys = Tile::kKeys, kSlots = Tile::kSlots;
  static constexpr int kWaves = Tile::kGroupThreads / Tile::kWave;  // of a warpgroup
  // Registers of a thread; over all warpgroups they make up a multiprocessor's 64 Ki. Turning a
  // mask into bits takes more of them than copying.
  static constexpr int kProducerRegisters = Tile::kGroups == 2 ? kHasMask ? 56 : 24
                                            : kHasMask         ? 56
                                                               : 32;
  static constexpr int kConsumerRegisters = Tile::kGroups == 2 ? kHasMask ? 224 : 240
                                            : kHasMask         ? 152
                                                               : 160;
  // The threads that turn the mask into bits: the producers' other three waves.
  static constexpr int kFirstMaskThread = 32, kMaskThreads = Tile::kGroupThreads - 32;
  static constexpr bool kTakesTurns = Tile::kGroups > 1 && Tile::kDim <= 128;

  GPU_DEVICE bool has_boolean_mask() const {
    return kHasMask && p_.mask != nullptr && (p_.flags & kBooleanMask);
  }

  // ---- Which blocks of queries this workgroup takes ----
  GPU_DEVICE int64_t blocks_of_head() const { return (p_.seq_q + Tile::kRows - 1) / Tile::kRows; }
  GPU_DEVICE int64_t block_count() const { return blocks_of_head() * p_.batch * p_.heads_q; }
  // The n-th block: head by head within a section, and the longest blocks of a section first.
  GPU_DEVICE QueryBlock block(int64_t n) const {
    const int64_t blocks = blocks_of_head(), heads = int64_t{p_.batch} * p_.heads_q;
    const int64_t first_head = n / (blocks * kHeadsOfSection) * kHeadsOfSection;
    const int64_t left = heads - first_head,
                  width = left < kHeadsOfSection ? left : kHeadsOfSection;
    const int64_t within = n - first_head * blocks;
    const int64_t x = within / width, head = first_head + within % width;
    const int32_t first_query =
        static_cast<int32_t>(kKind == Kind::nocausal ? x : blocks - 1 - x) * Tile::kRows;
    return {static_cast<int32_t>(head / p_.heads_q), static_cast<int32_t>(head % p_.heads_q),
            first_query, rows_of_block<Tile>(p_, first_query)};
  }
  GPU_DEVICE int64_t shift(const QueryBlock& block) const {
    return kKind == Kind::generic ? diagonal_offset(p_, block.batch) : 0;
  }
  GPU_DEVICE Range steps(const QueryBlock& block) const {
    return steps_of_block<Tile>(p_, block.first_query, shift(block));
  }
  // Calls f(block, steps) for each of this workgroup's blocks.
  template <class F>
  GPU_DEVICE void each_block(const F& f) const {
    const int64_t count = block_count();
    for (int64_t n = gpu::block_x(); n < count; n += gpu::grid_x()) {
      const QueryBlock b = block(n);
      f(b, steps(b));
    }
  }

  // ---- The producers ----
  // Starts the copies of all panels of rows [row, + a box) of one head.
  GPU_DEVICE static void copy(const gpu::TensorMap& map, const Strides& stride, uint32_t to,
                              uint32_t panel_bytes, int panels, uint32_t barrier, int32_t row,
                              int32_t head, int32_t batch) {
    for (int panel = 0; panel < panels; ++panel) {
      const int32_t at[4] = {panel * Tile::kPanel, row, stride.head == 0 ? 0 : head,
                             stride.batch == 0 ? 0 : batch};
      gpu::copy_tile(to + panel * panel_bytes, map, barrier, at);
    }
  }
  GPU_DEVICE void produce() const {
    Ring<1> query;
    Ring<Tile::kStages> step_ring;
    each_block([&](const QueryBlock& block, const Range& steps) {
      const int32_t head_kv = block.head / p_.heads_per_kv;
      gpu::mbarrier_wait(empty(kQuery), query.empty_parity());
      gpu::mbarrier_arrive_expect(full(kQuery), Tile::kQueryBytes);
      copy(params_.q, p_.q_stride, Tile::kQueryAt, Tile::kQueryPanelBytes, Tile::kPanels,
           full(kQuery), block.first_query, block.head, block.batch);
      query.advance();
      for (int step = steps.end - 1; step >= steps.begin; --step) {
        const uint32_t stage = step_ring.stage(), parity = step_ring.empty_parity();
        gpu::mbarrier_wait(empty(kKey + stage), parity);
        gpu::mbarrier_arrive_expect(full(kKey + stage), Tile::kKeyBytes);
        copy(params_.k, p_.k_stride, Tile::kKeyAt + stage * Tile::kKeyBytes, Tile::kKeyPanelBytes,
             Tile::kPanels, full(kKey + stage), step * kKeys, head_kv, block.batch);
        gpu::mbarrier_wait(empty(kValue + stage), parity);
        gpu::mbarrier_arrive_expect(full(kValue + stage), Tile::kValueBytes);
        copy(params_.v, p_.v_stride, Tile::kValueAt + stage * Tile::kValueBytes,
             Tile::kKeyPanelBytes, Tile::kValuePanels, full(kValue + stage), step * kKeys, head_kv,
             block.batch);
        step_ring.advance();
      }
    });
  }
  GPU_DEVICE int64_t mask_row(const QueryBlock& block) const {
    return block.batch * p_.mask_batch + block.head * p_.mask_head +
           block.first_query * p_.mask_row;
  }
  GPU_DEVICE void produce_mask() const {
    const int thread = static_cast<int>(gpu::thread()) - kFirstMaskThread;
    Ring<Tile::kStages> ring;
    each_block([&](const QueryBlock& block, const Range& steps) {
      for (int step = steps.end - 1; step >= steps.begin; --step) {
        const uint32_t stage = ring.stage();
        gpu::mbarrier_wait(empty(kMask + stage), ring.empty_parity());
        MaskBits<Tile>::fill(p_, kMaskAt + stage * kMaskBytes, mask_row(block), block.rows,
                             step * kKeys, thread, kMaskThreads);
        gpu::mbarrier_arrive(full(kMask + stage));
        ring.advance();
      }
    });
  }

  // ---- A warpgroup of consumers ----
  GPU_DEVICE void consume(int group) const {
    const Tile tile(group);
    Ring<1> query;
    Ring<Tile::kStages> ring;
    if (kTakesTurns && group == 0) gpu::named_barrier_arrive(turn_of(0), kTurnThreads);
    each_block([&](const QueryBlock& block, const Range& steps) {
      gpu::mbarrier_wait(full(kQuery), query.full_parity());
      query.advance();
      Output o;
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) Tile::clear(o, slot);
      OnlineSoftmax<Tile> softmax;
      if (steps.begin < steps.end) {
        walk(tile, block, steps, ring, softmax, o);
      } else {
        release(empty(kQuery));
      }
      store_rows(p_, tile, block, o, softmax);
    });
  }

  // One thread of each warpgroup arrives for it.
  GPU_DEVICE static void release(uint32_t barrier) {
    if (gpu::thread() % Tile::kGroupThreads == 0) gpu::mbarrier_arrive(barrier);
  }
  static constexpr uint32_t kTurnThreads = 2 * Tile::kGroupThreads;
  GPU_DEVICE static uint32_t turn_of(int group) { return 1 + static_cast<uint32_t>(group); }
  GPU_DEVICE static void take_turn(int group) {
    if constexpr (kTakesTurns) gpu::named_barrier_wait(turn_of(group), kTurnThreads);
  }
  GPU_DEVICE static void pass_turn(int group) {
    if constexpr (kTakesTurns)
      gpu::named_barrier_arrive(turn_of((group + 1) % Tile::kGroups), kTurnThreads);
  }

  // All steps of a block. On return O is complete but for the division.
  GPU_DEVICE void walk(const Tile& tile, const QueryBlock& block, const Range& steps,
                       Ring<Tile::kStages>& ring, OnlineSoftmax<Tile>& softmax, Output& o) const {
    const int64_t offset = shift(block);
    const int64_t wave_row = block.first_query + tile.first_wave_row() + offset;
    const Range first = visible_range(p_, wave_row),
                last = visible_range(p_, wave_row + Tile::kWaveRows - 1);
    // Turns scores into weights, in place. RETURNS whether O is to be scaled, and by what.
    const auto weigh = [&](Scores& s, int step, uint32_t stage, uint32_t parity,
                           float(&factor)[kSlots]) {
      const int key = step * kKeys, lane_key = key + tile.first_key();
      if constexpr (kKind == Kind::generic) {
        modify(tile, block, s, lane_key, offset);
        if (has_boolean_mask()) {
          gpu::mbarrier_wait(full(kMask + stage), parity);
          MaskBits<Tile>::apply(tile, kMaskAt + stage * kMaskBytes, s);
          gpu::wave_barrier(Tile::kWave);
          if (tile.lane == 0) gpu::mbarrier_arrive(empty(kMask + stage));
        }
      }
      if (key < last.begin || key + kKeys > first.end)
        hide_invisible(p_, tile, s, block.first_query, lane_key, offset);
      float row_max[kSlots];
      const bool rises = softmax.exceeds_threshold(tile, p_.exp_scale, s, row_max);
      if (rises) {
        GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
          factor[slot] = softmax.raise_reference(slot, p_.exp_scale, row_max[slot]);
        }
      }
      softmax.weigh(p_.exp_scale, s);
      softmax.add(s);
      return rises;
    };

    Weights weights;
    float factor[kSlots];
    {
      const uint32_t stage = ring.stage(), parity = ring.full_parity();
      Scores s;
      gpu::mbarrier_wait(full(kKey + stage), parity);
      pin(s);
      wgmma_fence();
      tile.start_scores(s, Tile::kKeyAt + stage * Tile::kKeyBytes);
      wgmma_commit();
      wgmma_wait<0>();
      pin(s);
      release(empty(kKey + stage));
      weigh(s, steps.end - 1, stage, parity, factor);  // O is 0: nothing to scale
      Tile::pack(s, weights);
    }
    for (int step = steps.end - 2; step >= steps.begin; --step) {
      const uint32_t value_stage = ring.stage(), value_parity = ring.full_parity();
      ring.advance();
      const uint32_t stage = ring.stage(), parity = ring.full_parity();
      Scores s;
      gpu::mbarrier_wait(full(kKey + stage), parity);
      take_turn(tile.group);
      pin(s);
      pin(o);
      wgmma_fence();
      tile.start_scores(s, Tile::kKeyAt + stage * Tile::kKeyBytes);
      wgmma_commit();
      gpu::mbarrier_wait(full(kValue + value_stage), value_parity);
      Tile::start_output(o, weights, Tile::kValueAt + value_stage * Tile::kValueBytes);
      wgmma_commit();
      pass_turn(tile.group);
      wgmma_wait<1>();
      pin(s);
      release(empty(kKey + stage));
      const bool rises = weigh(s, step, stage, parity, factor);
      wgmma_wait<0>();
      pin(o);
      release(empty(kValue + value_stage));
      Tile::pack(s, weights);
      if (rises) {
        GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) Tile::scale(o, slot, factor[slot]);
      }
    }
    release(empty(kQuery));
    const uint32_t stage = ring.stage();
    gpu::mbarrier_wait(full(kValue + stage), ring.full_parity());
    ring.advance();
    pin(o);
    wgmma_fence();
    Tile::start_output(o, weights, Tile::kValueAt + stage * Tile::kValueBytes);
    wgmma_commit();
    wgmma_wait<0>();
    pin(o);
    release(empty(kValue + stage));
  }

  // What only the generic kernel does to scores, but for boolean masks. key: of the lane's first
  // score.
  GPU_DEVICE void modify(const Tile& tile, const QueryBlock& block, Scores& s, int32_t key,
                         int64_t offset) const {
    // The copies bring Q as it is, so the sign of the scale is left to the scores.
    if (p_.flags & kNegativeScale) transform_scores<Tile>(s, [](float x) { return -x; });
    if (p_.flags & kScaledScores) scale_and_cap<Tile>(p_, s);
    if (p_.slopes != nullptr) {
      int64_t diagonal[kSlots];
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        diagonal[slot] = block.first_query + tile.row(slot) + p_.diagonal + offset;
      }
      add_alibi<Tile>(s, p_.slopes[block.batch * p_.slope_batch + block.head * p_.slope_head],
                      diagonal, key);
    }
    if (p_.mask == nullptr || has_boolean_mask()) return;
    if (p_.flags & kMaskF32) {
      add_mask<F32>(tile, block, s, key);
    } else {
      add_mask<typename Tile::Element>(tile, block, s, key);
    }
  }
  template <class M>
  GPU_DEVICE void add_mask(const Tile& tile, const QueryBlock& block, Scores& s,
                           int32_t key) const {
    const typename M::Storage* mask =
        static_cast<const typename M::Storage*>(p_.mask) + mask_row(block);
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      const int r = tile.row(slot);
      const typename M::Storage* row = mask + (r < block.rows ? r : block.rows - 1) * p_.mask_row;
      GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
          const int32_t k = key + Tile::key_offset(t, e);
          if (k >= p_.seq_kv) continue;  // hide_invisible() hides it
          const float bias = to_float(M{}, row[k * p_.mask_key]);
          const float sum = gpu::fma(Tile::at(s, slot, t, e), p_.mask_scale, bias);
          // -inf hides the score whatever it is, so that NaN in its key stays unseen.
          Tile::set(s, slot, t, e, bias == -gpu::kInfinity ? -gpu::kInfinity : sum);
        }
      }
    }
  }

  const PipelinedParams& params_;
  const AttentionParams& p_;
};

}  // namespace kernels::hip
