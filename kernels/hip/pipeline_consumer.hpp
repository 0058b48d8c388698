// kernels/hip/pipeline_consumer.hpp: a warpgroup that computes, in the loop of sm_90a
#pragma once

#include "kernels/hip/pipeline_block.hpp"

namespace kernels::hip {

template <class Tile, Kind kKind>
class Consumer : BlockConsumer<Tile, kKind> {
  using Base = BlockConsumer<Tile, kKind>;
  using Base::full, Base::empty, Base::query_barrier, Base::kListed, Base::copies_mask, Base::kKey,
      Base::kValue, Base::kMask, Base::kHasMask, Base::kSlots, Base::kOverlaps, Base::kSkipsSteps;
  using Base::rows_of, Base::sees_keys, Base::receive, Base::receive_step, Base::own_part,
      Base::store, Base::store_rest, Base::release, Base::release_mask, Base::clear, Base::weigh;
  using typename Base::StageRing, typename Base::StepWord, typename Base::Work, typename Base::Rows,
      typename Base::Scores, typename Base::Output, typename Base::Weights;

 public:
  using Base::Base;

  GPU_DEVICE void consume(int group) const {
    const Tile tile(group);
    if (group == 0) gpu::named_barrier_arrive(turn_of(0), kTurnThreads);  // the first turn is its
    walk(tile);
    store_rest(tile);
  }

 private:
  GPU_DEVICE static void meet(int group) {
    gpu::named_barrier_wait(1 + Tile::kGroups + static_cast<uint32_t>(group), Tile::kGroupThreads);
  }
  static constexpr uint32_t kTurnThreads = 2 * Tile::kGroupThreads;
  GPU_DEVICE static uint32_t turn_of(int group) { return 1 + static_cast<uint32_t>(group); }
  GPU_DEVICE static void take_turn(int group) {
    gpu::named_barrier_wait(turn_of(group), kTurnThreads);
  }
  GPU_DEVICE static void pass_turn(int group) {
    gpu::named_barrier_arrive(turn_of((group + 1) % Tile::kGroups), kTurnThreads);
  }

  // All steps of all blocks. With kOverlaps the first scores of a block are computed beside the
  // last O += P V of the block before.
  GPU_DEVICE void walk(const Tile& tile) const {
    Ring<Tile::kQueryStages> query;
    StageRing ring;
    Work work;
    if (!receive(tile, query, &work)) return;
    OnlineSoftmax<Tile> softmax;
    Weights weights;
    Output o;
    Rows rows = rows_of(tile, work);
    int step = begin(tile, rows, query, ring, softmax, weights, o);
    for (;;) {
      while (step > rows.steps.begin) {
        --step;
        float factor[kSlots];
        Scores s;
        const bool rises = multiply(tile, rows, &step, query, ring, softmax, weights, s, o, factor);
        Tile::pack(s, weights);
        if (rises) {
          GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) Tile::scale(o, slot, factor[slot]);
        }
      }
      query.advance();
      if constexpr (kOverlaps) {
        const Work ended = rows;
        if (receive(tile, query, &work)) {
          const OnlineSoftmax<Tile> before = softmax;
          softmax = OnlineSoftmax<Tile>();
          rows = rows_of(tile, work);
          step = rows.steps.end - 1;
          float factor[kSlots];
          Scores s;
          multiply(tile, rows, &step, query, ring, softmax, weights, s, o, factor);
          Tile::pack(s, weights);
          store(tile, ended, o, before);
          pin(o);  // without it ptxas serialises wgmma
          clear(o);
          continue;
        }
      }
      if (!kSkipsSteps || sees_keys(rows)) finish(tile, weights, ring, o);
      if constexpr (kSkipsSteps) skip_steps(tile, rows.after, true, ring);
      store(tile, rows, o, softmax);
      if (kOverlaps || !receive(tile, query, &work)) return;
      softmax = OnlineSoftmax<Tile>();
      rows = rows_of(tile, work);
      step = begin(tile, rows, query, ring, softmax, weights, o);
    }
  }
  // Skips `count` steps that this warpgroup's rows do not see. turns: whether the first of them
  // takes a turn. INVARIANT: a warpgroup takes one turn for each step of a block but one, so that
  // all take the same number.
  GPU_DEVICE void skip_steps(const Tile& tile, int count, bool turns, StageRing& ring) const {
    GPU_UNROLL_BY(1) for (int n = 0; n < count; ++n) {
      const uint32_t stage = ring.stage(), parity = ring.full_parity();
      gpu::mbarrier_wait(full(kKey + stage), parity);
      gpu::mbarrier_wait(full(kValue + stage), parity);
      if constexpr (kHasMask) {
        const StepWord at = receive_step(stage, 0);
        if (at.masked && copies_mask()) {
          gpu::mbarrier_wait(full(kMask + at.mask.stage()), at.mask.full_parity());
          release_mask(tile, at.mask.stage());
        }
      }
      meet(tile.group);
      release(empty(kKey + stage));
      release(empty(kValue + stage));
      ring.advance();
      if (turns || n > 0) {
        take_turn(tile.group);
        pass_turn(tile.group);
      }
    }
  }
  // Computes S of a step beside O += P V of the step before, then turns S into weights. *step: the
  // step before it less 1; becomes the step that it is, which differs where steps are left out.
  // RETURNS whether O is to be scaled, and by what.
  GPU_DEVICE bool multiply(const Tile& tile, const Rows& rows, int* step,
                           const Ring<Tile::kQueryStages>& query, StageRing& ring,
                           OnlineSoftmax<Tile>& softmax, const Weights& weights, Scores& s,
                           Output& o, float (&factor)[kSlots]) const {
    const uint32_t value_stage = ring.stage(), value_parity = ring.full_parity();
    ring.advance();
    const uint32_t stage = ring.stage(), parity = ring.full_parity();
    gpu::mbarrier_wait(full(kKey + stage), parity);
    const StepWord at = receive_step(stage, *step);
    *step = at.step;
    take_turn(tile.group);
    pin(s);
    pin(o);
    wgmma_fence();
    tile.start_scores(s, Tile::query_at(query.stage()), Tile::kKeyAt + stage * Tile::kKeyBytes);
    wgmma_commit();
    gpu::mbarrier_wait(full(kValue + value_stage), value_parity);
    tile.start_output(o, weights, Tile::kValueAt + value_stage * Tile::kValueBytes);
    wgmma_commit();
    pass_turn(tile.group);
    wgmma_wait<1>();
    pin(s);
    release(empty(kKey + stage));
    if (at.step == rows.steps.begin) release(empty(query_barrier(query, own_part(tile))));
    const bool rises = weigh(tile, rows, softmax, s, at, factor);
    wgmma_wait<0>();
    pin(o);
    release(empty(kValue + value_stage));
    return rises;
  }
  // O += P V of the last step.
  GPU_DEVICE void finish(const Tile& tile, const Weights& weights, StageRing& ring,
                         Output& o) const {
    const uint32_t stage = ring.stage();
    gpu::mbarrier_wait(full(kValue + stage), ring.full_parity());
    ring.advance();
    pin(o);
    wgmma_fence();
    tile.start_output(o, weights, Tile::kValueAt + stage * Tile::kValueBytes);
    wgmma_commit();
    wgmma_wait<0>();
    pin(o);
    release(empty(kValue + stage));
  }

  // Computes the weights of a block's first step, that of its last keys, with no product beside.
  // RETURNS the step.
  GPU_DEVICE int begin(const Tile& tile, const Rows& rows, const Ring<Tile::kQueryStages>& query,
                       StageRing& ring, OnlineSoftmax<Tile>& softmax, Weights& weights,
                       Output& o) const {
    const uint32_t query_number = query_barrier(query, own_part(tile));
    const int step = rows.steps.end - 1;
    clear(o);
    if (kSkipsSteps && !sees_keys(rows)) {
      meet(tile.group);
      release(empty(query_number));
      skip_steps(tile, rows.before, false, ring);
      return step;
    }
    if constexpr (kSkipsSteps) skip_steps(tile, rows.before, true, ring);
    const uint32_t stage = ring.stage(), parity = ring.full_parity();
    Scores s;
    gpu::mbarrier_wait(full(kKey + stage), parity);
    const StepWord at = receive_step(stage, step);
    pin(s);
    wgmma_fence();
    tile.start_scores(s, Tile::query_at(query.stage()), Tile::kKeyAt + stage * Tile::kKeyBytes);
    wgmma_commit();
    wgmma_wait<0>();
    pin(s);
    // No turn has shown that all waves have read the words that were handed over.
    if (Base::kHandsSteps || step == rows.steps.begin) meet(tile.group);
    release(empty(kKey + stage));
    if (step == rows.steps.begin) release(empty(query_number));
    float factor[kSlots];
    weigh(tile, rows, softmax, s, at, factor);  // O is 0: nothing to scale
    Tile::pack(s, weights);
    return step;
  }
};

}  // namespace kernels::hip
