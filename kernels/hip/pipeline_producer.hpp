// kernels/hip/pipeline_producer.hpp: the thread that copies, in the loop of sm_90a
#pragma once

#include "kernels/hip/pipeline.hpp"

namespace kernels::hip {

template <class Tile, Kind kKind>
class Producer : Pipeline<Tile, kKind> {
  using Base = Pipeline<Tile, kKind>;
  using Base::params_, Base::p_, Base::full, Base::empty, Base::query_barrier, Base::work_at,
      Base::work_item, Base::block_count, Base::copies_mask, Base::mask_is_boolean, Base::kKey,
      Base::kValue, Base::kMask, Base::kMaskAt, Base::kMaskBytes, Base::kHasMask, Base::kParts,
      Base::kKeys;
  using typename Base::WorkItem;

 public:
  using Base::Base;

  // Copies K, V and the mask of every step of every block that this workgroup takes.
  GPU_DEVICE void produce() const {
    constexpr bool kAhead = Tile::kQueryStages == 2;  // Q is sent early in the block before
    Ring<Tile::kQueryStages> query;
    Ring<Tile::kStages> ring;
    WorkItem now, next;
    bool exists = find(gpu::block_x(), &now);
    if (kAhead || !exists) send(exists, now, query);
    while (exists) {
      const uint32_t number = take();
      bool follows = false, found = false;
      const int32_t head_kv = now.head / p_.heads_per_kv;
      for (int step = now.steps.end - 1; step >= now.steps.begin; --step) {
        const bool first = step == now.steps.end - 1;
        const uint32_t stage = ring.stage(), parity = ring.empty_parity();
        gpu::mbarrier_wait(empty(kKey + stage), parity);
        gpu::mbarrier_arrive_expect(full(kKey + stage), Tile::kKeyBytes);
        copy(params_.k, p_.k_stride, Tile::kKeyAt + stage * Tile::kKeyBytes, Tile::kKeyPanelBytes,
             Tile::kPanels, full(kKey + stage), step * kKeys, head_kv, now.batch);
        if (!kAhead && first) send(true, now, query);
        if constexpr (kHasMask) {
          if (copies_mask()) copy_mask(now, step, stage, parity);
        }
        gpu::mbarrier_wait(empty(kValue + stage), parity);
        gpu::mbarrier_arrive_expect(full(kValue + stage), Tile::kValueBytes);
        copy(params_.v, p_.v_stride, Tile::kValueAt + stage * Tile::kValueBytes,
             Tile::kKeyPanelBytes, Tile::kValuePanels, full(kValue + stage), step * kKeys, head_kv,
             now.batch);
        ring.advance();
        // In the second step the number has come.
        if (!found && (step == now.steps.begin || step == now.steps.end - 2)) {
          found = true;
          follows = find(number, &next);
          if (kAhead) send(follows, next, query);
        }
      }
      if (!kAhead && !follows) send(false, next, query);
      now = next;
      exists = follows;
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
  GPU_DEVICE bool find(uint32_t number, WorkItem* found) const {
    const uint32_t count = block_count();
    for (; number < count; number = take()) {
      *found = work_item(number);
      if (found->sees_keys()) return true;
    }
    return false;
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
  GPU_DEVICE void send(bool exists, const WorkItem& work, Ring<Tile::kQueryStages>& query) const {
    for (int part = 0; part < kParts; ++part) {
      const uint32_t barrier = query_barrier(query, part), to = work_at(query, part);
      gpu::mbarrier_wait(empty(barrier), query.empty_parity());
      gpu::shared_store(to, exists ? work.steps.end : 0);
      if (!exists) {
        gpu::mbarrier_arrive(full(barrier));
        continue;
      }
      gpu::shared_store(to + 4, work.steps.begin);
      gpu::shared_store(to + 8, work.first_query);
      gpu::shared_store(to + 12, work.head);
      gpu::shared_store(to + 16, work.batch);
      gpu::mbarrier_arrive_expect(full(barrier), Tile::kQueryBytes / kParts);
      copy(params_.q, p_.q_stride,
           Tile::query_at(query.stage()) + part * Tile::kGroupRows * Tile::kPanelRowBytes,
           Tile::kQueryPanelBytes, Tile::kPanels, full(barrier),
           work.first_query + part * Tile::kGroupRows, work.head, work.batch);
    }
    query.advance();
  }
  GPU_DEVICE void copy_mask(const WorkItem& work, int step, uint32_t stage, uint32_t parity) const {
    using Mask = MaskTile<Tile>;
    const bool boolean = mask_is_boolean();
    const uint32_t bytes = params_.mask_rows * Mask::row_bytes(boolean);  // of a panel
    gpu::mbarrier_wait(empty(kMask + stage), parity);
    gpu::mbarrier_arrive_expect(full(kMask + stage), Mask::panels(boolean) * bytes);
    for (uint32_t panel = 0; panel < Mask::panels(boolean); ++panel) {
      const int32_t key = step * kKeys + static_cast<int32_t>(panel) * 64;
      const int32_t at[4] = {boolean ? key / 2 : key, params_.mask_rows == 1 ? 0 : work.first_query,
                             p_.mask_head == 0 ? 0 : work.head,
                             p_.mask_batch == 0 ? 0 : work.batch};
      gpu::copy_tile(kMaskAt + stage * kMaskBytes + panel * Mask::kPanelBytes, params_.mask,
                     full(kMask + stage), at);
    }
  }
};

}  // namespace kernels::hip
