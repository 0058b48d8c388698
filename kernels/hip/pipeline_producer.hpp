// kernels/hip/pipeline_producer.hpp: the thread that copies, in the loop of sm_90a
#pragma once

#include "kernels/hip/pipeline.hpp"

namespace kernels::hip {

template <class Tile, Kind kKind>
class Producer : Pipeline<Tile, kKind> {
  using Base = Pipeline<Tile, kKind>;
  using Base::params_, Base::p_, Base::full, Base::empty, Base::query_barrier, Base::work_at,
      Base::numbered, Base::block_count, Base::copies_mask, Base::mask_is_boolean, Base::kKey,
      Base::kValue, Base::kMask, Base::kMaskAt, Base::kMaskBytes, Base::kHasMask, Base::kParts,
      Base::kKeys, Base::kHandsSteps, Base::kSplitsCopies, Base::knows_states, Base::step_at;
  using typename Base::StageRing, typename Base::StepWord, typename Base::Work;

 public:
  using Base::Base;

  // Copies K, V and the mask of the steps of every block that this workgroup takes. Leaves out the
  // steps whose mask hides everything, and the masks that hide nothing.
  GPU_DEVICE void produce() const {
    constexpr bool kAhead = Tile::kQueryStages == 2;  // Q is sent early in the block before
    // The values of a step come after the keys of the next one: that is the order in which two
    // warpgroups with the same rows need them.
    constexpr bool kValuesLate = Tile::kSharesRows;
    Ring<Tile::kQueryStages> query;
    StageRing ring, mask_ring;
    Work now, next;
    const bool scales = kHandsSteps && has_mask() && !mask_is_boolean();
    bool exists = find(gpu::block_x(), &now);
    if (kAhead || !exists) send(exists, now, query);
    while (exists) {
      const uint32_t number = take();
      bool follows = false, found = false;
      const int32_t head_kv = now.head / p_.heads_per_kv;
      int before = 0;
      States states(*this, now);
      for (int step = now.steps.end - 1; step >= now.steps.begin; step = states.step_before(step)) {
        const bool first = step == now.steps.end - 1;
        const uint32_t stage = ring.stage(), parity = ring.empty_parity();
        // Read before the wait, which hides how long it takes.
        const bool masked = kHandsSteps && has_mask() && !states.is_clear(step);
        gpu::mbarrier_wait(empty(kKey + stage), parity);
        if constexpr (kHandsSteps)
          gpu::shared_store(step_at(stage),
                            StepWord{step, masked, !masked && scales, mask_ring}.packed());
        gpu::mbarrier_arrive_expect(full(kKey + stage), Tile::kKeyBytes);
        copy(params_.k, p_.k_stride, Tile::kKeyAt + stage * Tile::kKeyBytes, Tile::kKeyPanelBytes,
             Tile::kPanels, full(kKey + stage), step * kKeys, head_kv, now.batch);
        if (!kAhead && first) send(true, now, query);
        if constexpr (kHasMask) {
          if (masked && copies_mask()) copy_mask(now, step, mask_ring);
        }
        if constexpr (kValuesLate) {
          if (!first) copy_values(now, head_kv, before, {ring.count - 1});
        } else if (!kSplitsCopies) {
          copy_values(now, head_kv, step, ring);
        }
        before = step;
        ring.advance();
        // In the second step the number has come. Where steps are handed over, the next block
        // waits until the last one, so that it takes no registers in between.
        if (!found && (step == now.steps.begin || (!kHandsSteps && step == now.steps.end - 2))) {
          found = true;
          follows = find(number, &next);
          if (kAhead) send(follows, next, query);
        }
      }
      if (kValuesLate) copy_values(now, head_kv, before, {ring.count - 1});
      if (!kAhead && !follows) send(false, next, query);
      now = next;
      exists = follows;
    }
  }

  // Copies V of the same steps. Learns the blocks as the consumers of Q's first part do.
  GPU_DEVICE void produce_values() const {
    Ring<Tile::kQueryStages> query;
    StageRing ring;
    for (;; query.advance()) {
      const uint32_t barrier = query_barrier(query, 0);
      gpu::mbarrier_wait(full(barrier), query.full_parity());
      const Work now = gpu::shared_load<Work>(work_at(query, 0));
      if (!now.sees_keys()) return;
      gpu::mbarrier_arrive(empty(barrier));
      const int32_t head_kv = now.head / p_.heads_per_kv;
      States states(*this, now);
      for (int step = now.steps.end - 1; step >= now.steps.begin; step = states.step_before(step)) {
        copy_values(now, head_kv, step, ring);
        ring.advance();
      }
    }
  }

 private:
  // Takes the number of the next block.
  GPU_DEVICE uint32_t take() const {
    return params_.taken == nullptr ? UINT32_MAX
                                    : gpu::grid_x() + gpu::atomic_add(params_.taken, 1);
  }
  // Tries block `number`, then those that take() gives, until one sees a key. RETURNS false if none
  // is left.
  GPU_DEVICE bool find(uint32_t number, Work* found) const {
    const uint32_t count = block_count();
    for (; number < count; number = take()) {
      *found = numbered(number);
      if (!found->sees_keys()) continue;
      if (knows_states()) trim(found);
      return true;
    }
    return false;
  }

  // ---- The states of the mask's tiles ----
  GPU_DEVICE bool has_mask() const { return kKind == Kind::masked || p_.mask != nullptr; }
  GPU_DEVICE const uint8_t* states_of(const Work& work) const {
    const MaskStates& states = params_.mask_states;
    return states.first + work.batch * states.batch + work.head * states.head +
           work.first_query / Tile::kRows * states.block;
  }
  // Leaves out the hidden steps at both ends. A block of nothing else keeps one step, whose mask
  // makes its rows those that see no key.
  GPU_DEVICE void trim(Work* work) const {
    const uint8_t* states = states_of(*work);
    const int last = last_unhidden(states, work->steps.begin, work->steps.end);
    if (last < work->steps.begin) {
      work->steps.end = work->steps.begin + 1;
    } else {
      work->steps = {first_unhidden(states, work->steps.begin), last + 1};
    }
  }
  // The states of a block's tiles, read eight at once.
  class States {
   public:
    GPU_DEVICE States(const Producer& producer, const Work& work)
        : first_(producer.knows_states() ? producer.states_of(work) : nullptr),
          begin_(work.steps.begin) {}

    GPU_DEVICE bool is_clear(int32_t step) {
      return first_ != nullptr && state(step) == kTileClear;
    }
    // Returns the step to copy after `step`; below the block's first one if there is none.
    GPU_DEVICE int32_t step_before(int32_t step) {
      --step;
      if constexpr (kHandsSteps) {
        if (first_ == nullptr) return step;
        while (step >= begin_ && state(step) == kTileHidden) step -= word_ == 0 ? step % 8 + 1 : 1;
      }
      return step;
    }

   private:
    GPU_DEVICE uint32_t state(int32_t step) {
      if (step / 8 != at_) {
        at_ = step / 8;
        word_ = reinterpret_cast<const uint64_t*>(first_)[at_];
      }
      return static_cast<uint32_t>(word_ >> step % 8 * 8) & 0xFF;
    }
    const uint8_t* first_;
    int32_t begin_, at_ = -1;
    uint64_t word_ = 0;
  };

  GPU_DEVICE void copy_values(const Work& work, int32_t head_kv, int step,
                              const StageRing& ring) const {
    const uint32_t stage = ring.stage();
    gpu::mbarrier_wait(empty(kValue + stage), ring.empty_parity());
    gpu::mbarrier_arrive_expect(full(kValue + stage), Tile::kValueBytes);
    copy(params_.v, p_.v_stride, Tile::kValueAt + stage * Tile::kValueBytes, Tile::kKeyPanelBytes,
         Tile::kValuePanels, full(kValue + stage), step * kKeys, head_kv, work.batch);
  }
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
  // Tells the consumers their next block, or that there is none, and copies its queries. Each part
  // of Q has its own barrier, so that no warpgroup waits for another.
  GPU_DEVICE void send(bool exists, const Work& work, Ring<Tile::kQueryStages>& query) const {
    for (int part = 0; part < kParts; ++part) {
      const uint32_t barrier = query_barrier(query, part), to = work_at(query, part);
      gpu::mbarrier_wait(empty(barrier), query.empty_parity());
      if (!exists) {
        gpu::shared_store(to, DenseWork{});
        gpu::mbarrier_arrive(full(barrier));
        continue;
      }
      gpu::shared_store(to, work);
      gpu::mbarrier_arrive_expect(full(barrier), Tile::kQueryBytes / kParts);
      copy(params_.q, p_.q_stride,
           Tile::query_at(query.stage()) + part * Tile::kGroupRows * Tile::kPanelRowBytes,
           Tile::kQueryPanelBytes, Tile::kPanels, full(barrier),
           work.first_query + part * Tile::kGroupRows, work.head, work.batch);
    }
    query.advance();
  }
  GPU_DEVICE void copy_mask(const Work& work, int step, StageRing& ring) const {
    using Mask = MaskTile<Tile>;
    const uint32_t stage = ring.stage();
    const bool boolean = mask_is_boolean();
    const uint32_t bytes = params_.mask_rows * Mask::row_bytes(boolean);  // of a panel
    gpu::mbarrier_wait(empty(kMask + stage), ring.empty_parity());
    gpu::mbarrier_arrive_expect(full(kMask + stage), Mask::panels(boolean) * bytes);
    for (uint32_t panel = 0; panel < Mask::panels(boolean); ++panel) {
      const int32_t key = step * kKeys + static_cast<int32_t>(panel) * 64;
      const int32_t at[4] = {boolean ? key / 2 : key, params_.mask_rows == 1 ? 0 : work.first_query,
                             p_.mask_head == 0 ? 0 : work.head,
                             p_.mask_batch == 0 ? 0 : work.batch};
      gpu::copy_tile(kMaskAt + stage * kMaskBytes + panel * Mask::kPanelBytes, params_.mask,
                     full(kMask + stage), at);
    }
    ring.advance();
  }
};

}  // namespace kernels::hip
