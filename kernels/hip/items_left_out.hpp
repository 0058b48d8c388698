// kernels/hip/items_left_out.hpp: stores the results of the items that the loop of sm_90a leaves
// out: those without keys, and stale ones
#pragma once

#include "kernels/hip/partial_results.hpp"

namespace kernels::hip {

// Stores the results of an item without keys: zeros (or partial results of weight 0), and the
// sink's lse. All lanes of a wave call it.
template <class T, class Softmax>
GPU_DEVICE void store_empty(const AttentionParams& p, const WorkSection& section,
                            const WorkItem& item) {
  const PackedBlock block = block_of(section, item);
  const int32_t columns = p.head_dim_v / 4;
  MergedColumns zeros{};
  GPU_UNROLL for (int c = 0; c < 4; ++c) zeros.out[c] = 0;
  for (int32_t i = static_cast<int32_t>(gpu::thread() % 32); i < item.rows * columns; i += 32) {
    const int32_t row = i / columns, column = (i - row * columns) * 4;
    if (item.slot >= 0) {
      store4(F32{}, partial_out(p, section, item.slot, row) + column, 0, 0, 0, 0);
      if (column == 0) *partial_sums(section, item.slot, row) = {-gpu::kInfinity, 0};
      continue;
    }
    const bool has_sink = p.sinks != nullptr;
    const float sink = has_sink ? p.sinks[block.head(row) * p.sink_stride] : 0;
    store_columns<T>(p, block, row, column,
                     finished<Softmax>(p, zeros, -gpu::kInfinity, 0, has_sink, sink));
  }
}

// Each wave looks at 32 items at a time, one for each lane. wave: the calling one's number among
// the `waves` of its workgroup that do this.
template <class T, class Softmax>
GPU_DEVICE void store_items_left_out(const AttentionParams& p, const WorkParams& w, int wave,
                                     int waves) {
  const WorkSection& section = w.section;
  const bool listed = section.items != nullptr;
  if (listed ? w.compares == 0 && gpu::global(section.head)->has_empty == 0
             : w.tile_begin < w.tile_end)
    return;
  const int32_t count =
      listed ? cut_at(section, section.cut_count).item : w.sequences * section.heads;
  const auto item_of = [&](int32_t index) {
    return listed ? gpu::global(section.items)[index]
                  : uniform_item(w, static_cast<uint32_t>(index));
  };
  const int lane = static_cast<int>(gpu::thread() % 32);
  const auto apart = static_cast<int32_t>(gpu::grid_x()) * waves * 32;
  for (int32_t first = (static_cast<int32_t>(gpu::block_x()) * waves + wave) * 32; first < count;
       first += apart) {
    bool empty = false, stale = false;
    if (first + lane < count) {
      const WorkItem item = item_of(first + lane);
      stale = item.rows > 0 && is_stale(p, w, item);
      empty = item.rows > 0 && !stale && item.key_begin >= item.key_end;
    }
    if (!gpu::any<32>(empty || stale)) continue;
    // 1: no keys; 2: stale. Stale pieces of a cut tile store nothing: combine() stores their NaN.
    for (int n = 0; n < 32; ++n) {
      const int32_t what = gpu::value_of_lane<32>(empty ? 1 : stale ? 2 : 0, n);
      if (what == 0) continue;
      const WorkItem item = item_of(first + n);
      if (what == 1) {
        store_empty<T, Softmax>(p, section, item);
      } else if (item.slot < 0) {
        store_nan<T>(p, w, item, lane, 32);
      }
    }
  }
}

}  // namespace kernels::hip
