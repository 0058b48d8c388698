// kernels/hip/pipeline_block.hpp: what a warpgroup that computes does with a block of queries and
// with one step's scores, in the loops of sm_90a
#pragma once

#include "kernels/hip/items_left_out.hpp"
#include "kernels/hip/pipeline.hpp"
#include "kernels/hip/visible_scores.hpp"

namespace kernels::hip {

template <class Tile, Kind kKind>
class BlockConsumer : protected Pipeline<Tile, kKind> {
 protected:
  using Base = Pipeline<Tile, kKind>;
  using Base::Base;
  using Base::params_, Base::p_, Base::full, Base::empty, Base::query_barrier, Base::work_at,
      Base::numbered, Base::attention, Base::block, Base::block_count, Base::blocks_of_head,
      Base::shift, Base::kListed, Base::copies_mask, Base::mask_is_boolean, Base::kMask,
      Base::kMaskAt, Base::kMaskBytes, Base::kHasMask, Base::kParts, Base::kKeys, Base::kHandsSteps,
      Base::knows_states, Base::step_at;
  using typename Base::StageRing, typename Base::StepWord, typename Base::Work;

  using Scores = typename Tile::Scores;
  using Output = typename Tile::Output;
  using Weights = typename Tile::Weights;
  static constexpr int kSlots = Tile::kSlots;
  // The first scores of a block are computed beside the last O += P V of the block before.
  static constexpr bool kOverlaps = Tile::kQueryStages == 2;
  // Whether a warpgroup skips steps that none of its rows sees. Not with kOverlaps, where a block's
  // first step runs beside the last of the block before. Not with kSharesRows, where all warpgroups
  // see the same steps. Not in nocausal kernels of three warpgroups: there only windows and the end
  // of Q make such steps, and long rows lose more than short ones gain. Not if knows_states():
  // where the producer leaves steps out, a warpgroup cannot count them.
  static constexpr bool kSkipsSteps =
      !kOverlaps && !Tile::kSharesRows && !(kKind == Kind::nocausal && Tile::kGroups > 2);

  // A block, as a warpgroup sees it: only the steps that some of its rows see.
  struct Rows : Work {
    int64_t shift;                  // diagonal_offset, unless attention() has it
    int32_t last_begin, first_end;  // keys [last_begin, first_end) are seen by every row of a wave
    int32_t before, after;          // steps of the block that the warpgroup leaves out
  };
  GPU_DEVICE Rows rows_of(const Tile& tile, const Work& work) const {
    const auto& p = attention(work);
    const auto here = block(work);
    int64_t offset = 0;
    if constexpr (!kListed) offset = shift(work.batch);
    const auto visible = [&](int row) { return visible_range(p, here.query(row) + offset); };
    const int wave_row = tile.first_wave_row();
    Rows rows{work, offset, visible(wave_row + Tile::kWaveRows - 1).begin, visible(wave_row).end,
              0,    0};
    if (kSkipsSteps && !knows_states()) {
      const int32_t row = tile.first_group_row(), left = here.rows - row,
                    last = left < Tile::kGroupRows ? left : Tile::kGroupRows;
      int32_t begin = visible(row).begin / kKeys,
              end = (visible(row + last - 1).end + kKeys - 1) / kKeys;
      if constexpr (kListed) {
        begin = begin > work.steps.begin ? begin : work.steps.begin;
        end = end < work.steps.end ? end : work.steps.end;
      }
      const bool sees = last > 0 && begin < end;
      rows.steps.end = sees ? end : work.steps.begin;
      rows.steps.begin = sees ? begin : work.steps.begin;
      rows.before = work.steps.end - rows.steps.end;
      rows.after = rows.steps.begin - work.steps.begin;
    }
    return rows;
  }

  GPU_DEVICE static bool sees_keys(const Rows& rows) { return rows.steps.begin < rows.steps.end; }

  // Waits for what send() sent. RETURNS false if there is no block.
  GPU_DEVICE bool receive(const Tile& tile, const Ring<Tile::kQueryStages>& query,
                          Work* work) const {
    gpu::mbarrier_wait(full(query_barrier(query, own_part(tile))), query.full_parity());
    const uint32_t from = work_at(query, own_part(tile));
    const auto word = [from](uint32_t n) {
      return gpu::uniform(gpu::shared_load<int32_t>(from + n * 4));
    };
    // The members' places in DenseWork and ListedWork.
    work->steps.end = word(1);
    if (work->steps.end == 0) return false;
    work->steps.begin = word(0);
    if constexpr (kListed) {
      WorkItem& item = work->item;
      work->first_query = word(2), work->lead = word(3);
      item.sequence = word(4), item.head = word(5), item.rows = word(7), item.slot = word(10);
      item.q_first = word(11), item.q_length = word(12), item.kv_length = word(14);
      item.diagonal_offset = word(15);
    } else {
      work->first_query = word(2), work->head = word(3), work->batch = word(4);
    }
    return true;
  }
  // Returns which step's keys are at a stage: `step`, if no step is left out. REQUIRES: K is there.
  GPU_DEVICE static StepWord receive_step(uint32_t stage, int step) {
    if constexpr (kHandsSteps)
      return StepWord::unpacked(gpu::uniform(gpu::shared_load<int32_t>(step_at(stage))));
    return {step, false, false, {}};
  }
  GPU_DEVICE static int own_part(const Tile& tile) { return kParts == 1 ? 0 : tile.group; }

  // The blocks that see no key, which the producers leave out.
  GPU_DEVICE void store_blocks_without_keys(const Tile& tile) const {
    const auto sees = [&](uint32_t x) {
      const Range keys = steps_of_block<Tile>(p_, static_cast<int32_t>(x) * Tile::kRows);
      return keys.begin < keys.end;
    };
    // What a query sees only moves forward, so those without keys are the first or the last.
    if (p_.diagonal_offsets == nullptr && sees(0) && sees(blocks_of_head() - 1)) return;
    const uint32_t count = block_count();
    for (uint32_t n = gpu::block_x(); n < count; n += gpu::grid_x()) {
      const Work work = numbered(n);
      if (work.sees_keys()) continue;
      Output o;
      clear(o);
      store(tile, work, o, OnlineSoftmax<Tile>());
    }
  }

  // Stores what no item or block of the walk had: of items and blocks without keys.
  GPU_DEVICE void store_rest(const Tile& tile) const {
    if constexpr (kListed) {
      store_items_left_out<typename Tile::Element, OnlineSoftmax<Tile>>(
          p_, params_.work, tile.group * Base::kWaves + tile.wave, Tile::kGroups * Base::kWaves);
    } else {
      store_blocks_without_keys(tile);
    }
  }

  GPU_DEVICE void store(const Tile& tile, const Work& work, const Output& o,
                        const OnlineSoftmax<Tile>& softmax) const {
    const auto& p = attention(work);
    if constexpr (kListed) {
      if (work.item.slot >= 0)
        return store_partial_rows(p, params_.work.section, work.item, tile, o, softmax);
    }
    store_rows(p, tile, block(work), o, softmax);
  }

  // Arrives for the whole warpgroup, by one thread. Call it after wgmma_wait or meet(), when all
  // four waves are done with the place.
  GPU_DEVICE static void release(uint32_t barrier) {
    if (gpu::thread() % Tile::kGroupThreads == 0) gpu::mbarrier_arrive(barrier);
  }
  GPU_DEVICE static void clear(Output& o) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) Tile::clear(o, slot);
  }

  // Turns scores into weights, in place. RETURNS whether O is to be scaled, and by what.
  GPU_DEVICE bool weigh(const Tile& tile, const Rows& rows, OnlineSoftmax<Tile>& softmax, Scores& s,
                        const StepWord& at, float (&factor)[kSlots]) const {
    const int key = at.step * kKeys, lane_key = key + tile.first_key();
    if constexpr (kKind == Kind::generic) {
      modify(tile, rows, s, lane_key);
    }
    if constexpr (kTakesMasks<kKind>) {
      if (at.masked) {
        apply_mask(tile, rows, s, lane_key, at.mask);
      } else if (at.scaled) {  // as with biases of 0
        transform_scores<Tile>(s, [&](float x) { return gpu::fma(x, p_.mask_scale, 0); });
      }
    }
    if (key < rows.last_begin || key + kKeys > rows.first_end)
      hide_invisible_by_bits(attention(rows), tile, s, block(rows), lane_key, rows.shift);
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
  }

  // Applies a negative scale, softcap and ALiBi. key: of the lane's first score.
  GPU_DEVICE void modify(const Tile& tile, const Rows& rows, Scores& s, int32_t key) const {
    // The copies bring Q as it is, so the sign of the scale is left to the scores.
    if (p_.flags & kNegativeScale) transform_scores<Tile>(s, [](float x) { return -x; });
    if (p_.flags & kScaledScores) scale_and_cap<Tile>(p_, s);
    if (p_.slopes == nullptr) return;
    int64_t diagonal[kSlots];
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      diagonal[slot] = rows.first_query + tile.row(slot) + p_.diagonal + rows.shift;
    }
    const float slope = p_.slopes[rows.batch * p_.slope_batch + rows.head * p_.slope_head];
    add_alibi<Tile>(
        s, [&](int) { return slope; }, diagonal, key);
  }
  GPU_DEVICE void apply_mask(const Tile& tile, const Rows& rows, Scores& s, int32_t key,
                             const StageRing& ring) const {
    using Mask = MaskTile<Tile>;
    if constexpr (kHasMask) {
      if (copies_mask()) {
        const uint32_t stage = ring.stage(), from = kMaskAt + stage * kMaskBytes;
        gpu::mbarrier_wait(full(kMask + stage), ring.full_parity());
        if (mask_is_boolean()) {
          Mask::hide(tile, from, params_.mask_rows, s);
        } else {
          Mask::add(tile, from, params_.mask_rows, p_.mask_scale, s);
        }
        return release_mask(tile, stage);
      }
    }
    if constexpr (kKind == Kind::generic) read_mask(tile, rows, s, key);
  }
  // As apply_mask, key by key from global memory.
  GPU_DEVICE void read_mask(const Tile& tile, const Rows& rows, Scores& s, int32_t key) const {
    using Mask = MaskTile<Tile>;
    const int64_t row_0 =
        rows.batch * p_.mask_batch + rows.head * p_.mask_head + rows.first_query * p_.mask_row;
    const int32_t count = rows_of_block<Tile>(p_, rows.first_query);
    if (mask_is_boolean()) {
      Mask::read_boolean(p_, tile, row_0, count, key, s);
    } else if (p_.flags & kMaskF32) {
      Mask::template read<F32>(p_, tile, row_0, count, key, s);
    } else {
      Mask::template read<typename Tile::Element>(p_, tile, row_0, count, key, s);
    }
  }
  // Each wave arrives for itself.
  GPU_DEVICE static void release_mask(const Tile& tile, uint32_t stage) {
    gpu::wave_barrier(Tile::kWave);
    if (tile.lane == 0) gpu::mbarrier_arrive(empty(kMask + stage));
  }
};

}  // namespace kernels::hip
