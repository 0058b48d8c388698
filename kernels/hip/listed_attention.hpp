// kernels/hip/listed_attention.hpp: fused attention over a list of work items: sequences of
// different lengths, paged keys, packed queries of grouped heads, keys that workgroups share
//
// The main loop is flash_attention's. See work_list.hpp for the list.
#pragma once

#include "kernels/hip/flash_attention.hpp"
#include "kernels/hip/partial_results.hpp"

namespace kernels::hip {

// K and V of one item. Keys before `begin` and from `end` on, which no row sees, become zero and
// are not read: their page may belong to another sequence by now.
template <class Tile>
struct ListedKeys {
  static constexpr bool kStored = false;
  using Storage = typename Tile::Element::Storage;
  const AttentionParams& p;
  KeyRows rows;
  int32_t begin, end;

  struct Where {
    const KeyRows& rows;
    const Strides& stride;
    int32_t key;  // the step's first
    GPU_DEVICE int64_t operator()(int r) const { return rows.offset(stride, rows.place(key + r)); }
  };
  GPU_DEVICE void issue_keys(typename Tile::KeyCopy& copy, int32_t key) const {
    const RowsOf<Storage, Where> from{static_cast<const Storage*>(p.k), {rows, p.k_stride, key}};
    copy.issue_rows(Tile::kKeyAt, from, begin - key, end - key, p.head_dim);
  }
  GPU_DEVICE void issue_values(typename Tile::ValueCopy& copy, int32_t key) const {
    const RowsOf<Storage, Where> from{static_cast<const Storage*>(p.v), {rows, p.v_stride, key}};
    copy.issue_rows(Tile::kValueAt, from, begin - key, end - key, p.head_dim_v);
  }
};

// Whether a tile's K and V are of 8 bits.
template <class Tile>
inline constexpr bool kIsStored = kSameType<typename Tile::Stored, Bytes>;

template <class Tile>
GPU_DEVICE auto keys_of(const ServingParams& params, const AttentionParams& p, const KeyRows& rows,
                        Range seen) {
  if constexpr (kIsStored<Tile>) {
    return StoredKeys<Tile>(p, params.stored, rows, seen.begin, seen.end);
  } else {
    return ListedKeys<Tile>{p, rows, seen.begin, seen.end};
  }
}

template <AttentionTile Tile, Kind kKind>
GPU_DEVICE void listed_item(const ServingParams& params, const WorkItem& item) {
  const AttentionParams p =
      params_of(params.attention, params.work, item.sequence, item.q_length, item.kv_length);
  const PackedBlock block = block_of(params.work.section, item);
  const Range seen = {visible_range(p, block.query(0)).begin,
                      visible_range(p, block.query(item.rows - 1)).end};
  const auto keys = keys_of<Tile>(
      params, p,
      {params.work, item.sequence, head_kv_of(p, params.work.section, item), item.kv_first}, seen);
  const Range steps = {item.key_begin / Tile::kKeys,
                       (item.key_end + Tile::kKeys - 1) / Tile::kKeys};
  const Tile tile;
  typename Tile::Output o;
  OnlineSoftmax<Tile> softmax;
  attend<Tile, kKind>(p, tile, block, keys, steps, 0, o, softmax);
  if (item.slot < 0) {
    store_rows(p, tile, block, o, softmax);
  } else {
    store_partial_rows(p, params.work.section, item, tile, o, softmax);
  }
  gpu::barrier();  // before the next item's copies
}

template <AttentionTile Tile, Kind kKind>
GPU_DEVICE void listed_attention(const ServingParams& params) {
  gpu::wait_for_previous_kernel();
  Items items(params.work);
  for (WorkItem item; items.next(&item);) {
    if (item.rows == 0) continue;
    if (!is_stale(params.attention, params.work, item)) {
      listed_item<Tile, kKind>(params, item);
    } else if (item.slot < 0) {
      store_nan<typename Tile::Element>(params.attention, params.work, item,
                                        static_cast<int32_t>(gpu::thread()), Tile::kThreads);
    }
  }
}

}  // namespace kernels::hip
