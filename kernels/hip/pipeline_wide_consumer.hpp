// kernels/hip/pipeline_wide_consumer.hpp: two warpgroups that share 64 queries, in the loop of
// sm_90a, for a head_dim_v whose O one warpgroup could not hold
//
// Each warpgroup has half of O's columns. The steps of keys are theirs in turn: the owner of a step
// computes its scores and weights, and hands the weights to the other one through workgroup memory.
// Both then add P V of their columns to O. So no score is computed twice, and the tensor cores work
// for one warpgroup while the other one computes a softmax:
//
//   warpgroup 0    softmax(0) | O += P(0) V(0)   S(2)   O += P(1) V(1) | softmax(2) | ...
//   warpgroup 1    S(1)   O += P(0) V(0) | softmax(1) | O += P(1) V(1)   S(3)   ...
//
// The owner multiplies its weights from registers, the other one from workgroup memory. Both have
// the same references: where the owner raises one, it hands over the new one with the weights, and
// the other warpgroup scales its O and its sums by the same factor. At the end of a block they add
// each other's sums.
#pragma once

#include "kernels/hip/pipeline_block.hpp"

namespace kernels::hip {

template <class Tile, Kind kKind>
class WideConsumer : BlockConsumer<Tile, kKind> {
  using Base = BlockConsumer<Tile, kKind>;
  using Base::p_, Base::full, Base::empty, Base::query_barrier, Base::exchange_at,
      Base::kHandsSteps, Base::kKey, Base::kValue, Base::kWeights, Base::kSlots;
  using Base::rows_of, Base::receive, Base::receive_step, Base::store, Base::store_rest,
      Base::release, Base::clear, Base::weigh;
  using typename Base::StageRing, typename Base::StepWord, typename Base::Work, typename Base::Rows,
      typename Base::Scores, typename Base::Output, typename Base::Weights;
  static_assert(Tile::kGroups == 2 && Tile::kQueryStages == 1);
  // A warpgroup waits for K at its own steps only. With an odd number of stages each place would
  // hold steps of both in turn, and a warpgroup would miss every second phase of its barrier.
  static_assert(Tile::kStages % 2 == 0);
  // With two stages a warpgroup would wait for K in a place that it has not released yet.
  static_assert(!Tile::kValuesInKeys || Tile::kStages > 2);

 public:
  using Base::Base;

  GPU_DEVICE void consume(int group) const {
    const Tile tile(group);
    if (group == 0) {
      walk<0>(tile);
    } else {
      walk<1>(tile);
    }
    store_rest(tile);
  }

 private:
  struct Places {
    Ring<Tile::kQueryStages> query;
    StageRing ring;                 // the step that this warpgroup multiplies by V next
    uint32_t given = 0, taken = 0;  // weights of how many steps
  };

  // All steps of all blocks.
  template <int kGroup>
  GPU_DEVICE void walk(const Tile& tile) const {
    Places places;
    Work work;
    Output o;
    while (receive(tile, places.query, &work)) {
      const Rows rows = rows_of(tile, work);
      OnlineSoftmax<Tile> softmax;
      clear(o);
      multiply<kGroup>(tile, rows, places, softmax, o);
      add_sums<kGroup>(tile, places, softmax);
      store(tile, rows, o, softmax);
      places.query.advance();
    }
  }

  // All steps of a block.
  template <int kGroup>
  GPU_DEVICE void multiply(const Tile& tile, const Rows& rows, Places& places,
                           OnlineSoftmax<Tile>& softmax, Output& o) const {
    const int begin = rows.steps.begin;
    int number = rows.steps.end - 1;
    Scores s;
    Weights weights;
    StepWord step;
    if constexpr (kGroup == 0) {
      step = start_scores(tile, places, 0, number, s);
      finish_scores<0>(places, s);
      float factor[kSlots];  // O is 0: nothing to scale
      const bool rises = weigh(tile, rows, softmax, s, step, factor);
      Tile::pack(s, weights);
      give<kGroup>(tile, places, softmax, weights, rises);
    } else {
      number = step_of_other(tile, places, 0, number);
      if (number == begin) {
        take_alone<kGroup>(tile, places, softmax, o);
        release(empty(query_barrier(places.query, 0)));
        return;
      }
      step = start_scores(tile, places, 1, number - 1, s);
      take_and_weigh<kGroup>(tile, rows, places, step, softmax, s, weights, o);
    }
    // In each turn: O += P V of an own step, whose weights are there, S of the next own step, O +=
    // P V of the other warpgroup's step in between, and the next own weights. Nothing runs where
    // one iteration ends and the next begins: else ptxas serialises wgmma.
    while (step.step != begin) {
      number = step_of_other(tile, places, 1, step.step - 1);
      if (number == begin) break;
      const uint32_t stage = places.ring.stage();
      start_own_output(tile, places, weights, o);
      step = start_scores(tile, places, 2, number - 1, s);
      wgmma_wait<1>();
      pin(o);
      release(empty(kValue + stage));
      places.ring.advance();
      take_and_weigh<kGroup>(tile, rows, places, step, softmax, s, weights, o);
    }
    start_own_output(tile, places, weights, o);
    wgmma_wait<0>();
    pin(o);
    release(empty(query_barrier(places.query, 0)));
    release(empty(kValue + places.ring.stage()));
    places.ring.advance();
    if (step.step != begin) take_alone<kGroup>(tile, places, softmax, o);
  }

  // Starts S of the step that comes `ahead` after places.ring's. number: the step that it is,
  // unless steps are left out. RETURNS the step.
  GPU_DEVICE StepWord start_scores(const Tile& tile, const Places& places, uint32_t ahead,
                                   int number, Scores& s) const {
    const StageRing ring{places.ring.count + ahead};
    const uint32_t stage = ring.stage();
    gpu::mbarrier_wait(full(kKey + stage), ring.full_parity());
    const StepWord step = receive_step(stage, number);
    pin(s);
    wgmma_fence();
    tile.start_scores(s, Tile::query_at(places.query.stage()),
                      Tile::kKeyAt + stage * Tile::kKeyBytes);
    wgmma_commit();
    return step;
  }
  // RETURNS which step of the other warpgroup comes `ahead` after places.ring's.
  GPU_DEVICE int step_of_other(const Tile& tile, const Places& places, uint32_t ahead,
                               int number) const {
    if constexpr (kHandsSteps) {
      const StageRing ring{places.ring.count + ahead};
      gpu::mbarrier_wait(full(kKey + ring.stage()), ring.full_parity());
      number = receive_step(ring.stage(), number).step;
      arrive_of_wave(tile, empty(kKey + ring.stage()));
    }
    return number;
  }

  GPU_DEVICE void start_own_output(const Tile& tile, const Places& places, const Weights& weights,
                                   Output& o) const {
    const uint32_t stage = places.ring.stage();
    gpu::mbarrier_wait(full(kValue + stage), places.ring.full_parity());
    pin(o);
    wgmma_fence();
    tile.start_output(o, weights, value_at(stage));
    wgmma_commit();
  }
  // Waits for S of the own step, but not for kBeside groups of products after it.
  template <int kBeside>
  GPU_DEVICE static void finish_scores(const Places& places, Scores& s) {
    wgmma_wait<kBeside>();
    pin(s);
    if constexpr (!Tile::kValuesInKeys) release(empty(kKey + places.ring.stage()));
  }
  // Turns S of an own step into weights beside O += P V of the step before, which is the other
  // warpgroup's, and hands them over.
  template <int kGroup>
  GPU_DEVICE void take_and_weigh(const Tile& tile, const Rows& rows, Places& places,
                                 const StepWord& step, OnlineSoftmax<Tile>& softmax, Scores& s,
                                 Weights& weights, Output& o) const {
    take<kGroup>(tile, places, softmax, o);
    finish_scores<1>(places, s);
    float factor[kSlots];
    const bool rises = weigh(tile, rows, softmax, s, step, factor);
    Tile::pack(s, weights);
    give<kGroup>(tile, places, softmax, weights, rises);
    wgmma_wait<0>();
    pin(o);
    release_taken<kGroup>(tile, places);
    if (rises) {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) Tile::scale(o, slot, factor[slot]);
    }
  }
  // Hands the weights of an own step over.
  template <int kGroup>
  GPU_DEVICE void give(const Tile& tile, Places& places, const OnlineSoftmax<Tile>& softmax,
                       const Weights& weights, bool rises) const {
    const uint32_t to = exchange_at(kGroup);
    gpu::mbarrier_wait(empty(kWeights + kGroup), (places.given & 1) ^ 1);
    ++places.given;
    tile.store_weights(weights);
    if (rises) {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        const float reference = softmax.part(tile, slot).reference;
        if (tile.first_key() == 0)
          gpu::shared_store(to + static_cast<uint32_t>(tile.row(slot)) * 4, reference);
      }
    }
    if (tile.lane == 0) gpu::shared_store(rises_at(to, tile), static_cast<int32_t>(rises));
    gpu::fence_async_proxy();
    arrive_of_wave(tile, full(kWeights + kGroup));
  }
  // Starts O += P V of a step of the other warpgroup.
  template <int kGroup>
  GPU_DEVICE void take(const Tile& tile, Places& places, OnlineSoftmax<Tile>& softmax,
                       Output& o) const {
    constexpr int kOther = 1 - kGroup;
    const uint32_t stage = places.ring.stage(), from = exchange_at(kOther);
    gpu::mbarrier_wait(full(kWeights + kOther), places.taken & 1);
    ++places.taken;
    if (gpu::uniform(gpu::shared_load<int32_t>(rises_at(from, tile))) != 0) {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        const float reference =
            gpu::shared_load<float>(from + static_cast<uint32_t>(tile.row(slot)) * 4);
        Tile::scale(o, slot, softmax.raise_reference(slot, p_.exp_scale, reference));
      }
    }
    gpu::mbarrier_wait(full(kValue + stage), places.ring.full_parity());
    pin(o);
    wgmma_fence();
    tile.start_output(o, Tile::weights_at(kOther), value_at(stage));
    wgmma_commit();
    places.ring.advance();
  }
  // Lets go of what take() read, when its products are complete.
  template <int kGroup>
  GPU_DEVICE static void release_taken(const Tile& tile, const Places& places) {
    const StageRing before{places.ring.count - 1};
    release(empty(kValue + before.stage()));
    arrive_of_wave(tile, empty(kWeights + 1 - kGroup));
  }
  // O += P V of a step of the other warpgroup, with nothing beside.
  template <int kGroup>
  GPU_DEVICE void take_alone(const Tile& tile, Places& places, OnlineSoftmax<Tile>& softmax,
                             Output& o) const {
    take<kGroup>(tile, places, softmax, o);
    wgmma_wait<0>();
    pin(o);
    release_taken<kGroup>(tile, places);
  }
  // Adds both warpgroups' sums of weights. The places for sums alternate: a warpgroup may come to
  // the next block's end before the other one has read this block's.
  template <int kGroup>
  GPU_DEVICE void add_sums(const Tile& tile, const Places& places,
                           OnlineSoftmax<Tile>& softmax) const {
    const uint32_t place = static_cast<uint32_t>(__builtin_offsetof(Exchange, sums)) +
                           places.query.count % 2 * kWgmmaRows * 4;
    const auto at = [&](int group, int slot) {
      return exchange_at(group) + place + static_cast<uint32_t>(tile.row(slot)) * 4;
    };
    float sum[kSlots];
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      sum[slot] = softmax.part(tile, slot).sum;
      if (tile.first_key() == 0) gpu::shared_store(at(kGroup, slot), sum[slot]);
    }
    gpu::named_barrier_wait(1, 2 * Tile::kGroupThreads);
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      const float both = sum[slot] + gpu::shared_load<float>(at(1 - kGroup, slot));
      softmax.set_sum(slot, tile.first_key() == 0 ? both : 0);  // the row's lanes are added
    }
  }

  GPU_DEVICE static uint32_t value_at(uint32_t stage) {
    return Tile::kValueAt + stage * Tile::kValueStageBytes;
  }
  GPU_DEVICE static uint32_t rises_at(uint32_t exchange, const Tile& tile) {
    return exchange + static_cast<uint32_t>(__builtin_offsetof(Exchange, rises)) +
           static_cast<uint32_t>(tile.wave) * 4;
  }
  // Each wave arrives for itself.
  GPU_DEVICE static void arrive_of_wave(const Tile& tile, uint32_t barrier) {
    gpu::wave_barrier(Tile::kWave);
    if (tile.lane == 0) gpu::mbarrier_arrive(barrier);
  }
};

}  // namespace kernels::hip
