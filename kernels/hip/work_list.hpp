// kernels/hip/work_list.hpp: the work of one run as a list of items, for sequences of different
// lengths, paged keys, and keys split over workgroups
//
// The queries of section.group heads are packed as rows: row r is query r / group of head
// head * group + r % group. The group is all heads that share a head of K and V or, where the
// kernel cannot pack so many, 1. A tile is section.rows of these rows, of one sequence and one
// group. An item is a tile and the range of its keys that one workgroup reads:
//
//   tile 0        tile 1                    tile 2
//   |-- item 0 --|-- item 1 --|-- item 2 --|-- item 3 --|-- item 4 --| ...
//                             ^ cut 1                   ^ cut 2
//
// All tiles of a sequence cost the same: the steps of section.cut_keys keys that any of its rows
// sees, at least 1. (With causal the first ones have less work.) All costs, in the order of the
// tiles, are one line, cut at each multiple of `share`. A cut inside of a tile
// makes two items of it; one between tiles makes none. The items of a tile that is cut write
// partial results to slots, and combine() merges them in the order of the keys. Where there are
// many tiles and no workgroup would wait long for another, nothing is cut, and workgroups take the
// items in their order.
//
// INVARIANT: tile i, which begins at cost u, begins with item i + u / share, and the item that
// begins at cut m, or the first one after it, is item t + m, where t is the tile that holds the
// cut. (So a cut between two tiles leaves a number without an item: an empty item, rows 0.) Thus
// every thread finds the place of its items by itself.
#pragma once

#include "kernels/hip/query_block.hpp"
#include "kernels/hip/score_modifiers.hpp"

namespace kernels::hip {

// Heads whose blocks or tiles are taken in turn, so that their K and V stay in L2.
inline constexpr int32_t kHeadsTogether = 16;

// ---- Where a tile is cut ----

// One tile: the keys that some of its rows see, begin rounded down to a step, and its place on the
// line of all costs.
struct TileOfWork {
  Range keys;
  int64_t cost, before;  // before: the cost of all tiles before it
};

struct Cuts {
  int64_t first;   // the first cut past the tile's beginning
  int32_t pieces;  // items of the tile
  bool at_begin, at_end;
};
GPU_DEVICE Cuts cuts_of(const TileOfWork& tile, int64_t share) {
  const int64_t end = tile.before + tile.cost, before = tile.before / share,
                last = (end - 1) / share;
  return {before + 1, static_cast<int32_t>(last - before) + 1, before * share == tile.before,
          (last + 1) * share == end};
}

// The slot of piece number `piece` of a tile whose first inner cut is `cut`.
GPU_DEVICE int32_t slot_of(int64_t cut, int32_t piece) {
  return static_cast<int32_t>(piece == 0 ? 2 * cut : 2 * (cut + piece - 1) + 1);
}

// Sets the keys and the slot of a piece of a tile.
GPU_DEVICE void set_piece(const TileOfWork& tile, const Cuts& cuts, int64_t share, int32_t cut_keys,
                          int32_t piece, WorkItem* item) {
  const auto key_at = [&](int64_t cut) {
    const int64_t key = tile.keys.begin + (cut * share - tile.before) * cut_keys;
    return key < tile.keys.end ? static_cast<int32_t>(key) : tile.keys.end;
  };
  item->key_begin = piece == 0 ? tile.keys.begin : key_at(cuts.first + piece - 1);
  item->key_end = piece + 1 < cuts.pieces ? key_at(cuts.first + piece) : tile.keys.end;
  item->slot = cuts.pieces > 1 ? slot_of(cuts.first, piece) : -1;
  // A tile may cost more than its keys do. Nothing is left then for its last pieces.
  if (item->key_begin >= item->key_end) item->key_begin = item->key_end = tile.keys.begin;
}

// ---- Items, from a list ----

GPU_DEVICE WorkItem item_at(const WorkSection& section, int32_t index) {
  static_assert(sizeof(WorkItem) == 48);
  struct {
    gpu::Bits128 part[3];
  } bits;
  GPU_UNROLL for (int i = 0; i < 3; ++i) bits.part[i] =
      reinterpret_cast<const gpu::Bits128*>(gpu::global(section.items + index))[i];
  WorkItem item = __builtin_bit_cast(WorkItem, bits);
  const auto uniform = [](int32_t& field) { field = gpu::uniform(field); };
  uniform(item.sequence), uniform(item.head), uniform(item.first_row), uniform(item.rows);
  uniform(item.key_begin), uniform(item.key_end), uniform(item.slot);
  uniform(item.q_first), uniform(item.q_length), uniform(item.kv_first), uniform(item.kv_length);
  uniform(item.diagonal_offset);
  return item;
}

GPU_DEVICE Cut cut_at(const WorkSection& section, int32_t cut) {
  const Cut* at = gpu::global(section.cuts) + cut;
  return {gpu::uniform(at->item), gpu::uniform(at->pieces)};
}

// ---- Items of sequences that are all alike, without a list; in 32 bits, as division is slow ----

GPU_DEVICE uint32_t uniform_total(const WorkParams& w) {
  return static_cast<uint32_t>(w.sequences) * w.section.heads * w.tile_cost;
}

GPU_DEVICE WorkItem uniform_item(const WorkParams& w, uint32_t tile) {
  WorkItem item{};
  const auto heads = static_cast<uint32_t>(w.section.heads);
  item.sequence = static_cast<int32_t>(tile / heads);
  item.head = static_cast<int32_t>(tile - item.sequence * heads);
  item.rows = w.tile_rows;
  item.key_begin = w.tile_begin, item.key_end = w.tile_end;
  item.slot = -1;
  item.q_length = w.most_q, item.kv_length = w.most_kv;
  return item;
}

// The items of this workgroup, one after another. All threads of a wave call its functions.
class Items {
 public:
  GPU_DEVICE explicit Items(const WorkParams& w) : w_(w) {
    const WorkSection& section = w.section;
    const auto workgroup = static_cast<int32_t>(gpu::block_x());
    if (section.items == nullptr) {
      share_ = workgroup;
      enter_share();
    } else {
      // All loads at once: each takes long.
      const int32_t end = cut_at(section, section.cut_count).item;
      int32_t cuts = 0;
      Cut own{}, after{};
      if (section.by_shares != 0) {
        own = cut_at(section, workgroup), after = cut_at(section, workgroup + 1);
        cuts = gpu::global(section.head)->by_shares;
      }
      const bool by_shares = gpu::uniform(cuts) != 0;
      at_ = by_shares ? static_cast<uint32_t>(own.item) : gpu::block_x();
      end_ = static_cast<uint32_t>(by_shares ? after.item : end);
      apart_ = by_shares ? 1 : static_cast<uint32_t>(section.workgroups);
      takes_ = !by_shares && section.taken != nullptr;
    }
  }

  // RETURNS false after the last one. An item may have no rows: there is nothing to do then.
  GPU_DEVICE bool next(WorkItem* item) {
    if (w_.section.items != nullptr) {
      if (takes_ && !is_first_) {
        int32_t taken = 0;
        if (gpu::thread() % 32 == 0)
          taken = static_cast<int32_t>(gpu::atomic_add(w_.section.taken, 1));
        at_ = apart_ + static_cast<uint32_t>(gpu::uniform(gpu::value_of_lane<32>(taken, 0)));
      }
      is_first_ = false;
      if (at_ >= end_) return false;
      *item = item_at(w_.section, static_cast<int32_t>(at_));
      if (!takes_) at_ += apart_;
      return true;
    }
    if (at_ >= end_) {
      share_ += w_.section.workgroups;
      if (share_ >= w_.section.cut_count) return false;
      enter_share();
    }
    const auto cost = static_cast<uint32_t>(w_.tile_cost);
    const uint32_t tile = at_ / cost, before = tile * cost;
    const uint32_t stop = before + cost < end_ ? before + cost : end_;
    *item = uniform_item(w_, tile);
    if (stop - before < cost) {
      item->key_end = w_.tile_begin + static_cast<int32_t>(stop - before) * w_.section.cut_keys;
      item->slot = slot_of(int64_t{share_} + 1, 0);
    }
    if (at_ > before) {
      item->key_begin = w_.tile_begin + static_cast<int32_t>(at_ - before) * w_.section.cut_keys;
      item->slot = slot_of(share_, 1);
    }
    at_ = stop;
    return true;
  }

 private:
  // Without a list, at_ and end_ are places on the line of all costs.
  GPU_DEVICE void enter_share() {
    const auto share = static_cast<uint32_t>(w_.section.share), total = uniform_total(w_);
    at_ = static_cast<uint32_t>(share_) * share;
    end_ = at_ + share < total ? at_ + share : total;
  }

  const WorkParams& w_;
  uint32_t at_ = 0, end_ = 0, apart_ = 0;
  int32_t share_ = 0;
  bool takes_ = false, is_first_ = true;
};

// A tile that was cut: its first item, how many there are, and its first inner cut. pieces 0: there
// is none.
struct CutTile {
  WorkItem item;
  int32_t pieces;
  uint32_t cut;
};
// Returns the tile whose first inner cut is number n; without a list, tile n.
GPU_DEVICE CutTile cut_tile(const WorkParams& w, uint32_t n) {
  const WorkSection& section = w.section;
  if (section.items != nullptr) {
    const Cut at = cut_at(section, static_cast<int32_t>(n));
    if (at.pieces == 0) return {{}, 0, 0};
    return {item_at(section, at.item - 1), at.pieces, n};
  }
  const auto cost = static_cast<uint32_t>(w.tile_cost),
             share = static_cast<uint32_t>(section.share), before = n * cost,
             first = before / share + 1, last = (before + cost - 1) / share;
  if (last < first) return {{}, 0, 0};
  return {uniform_item(w, n), static_cast<int32_t>(last - first) + 2, first};
}

// ---- Extents, clamped: no index array makes a kernel read or write out of bounds ----

// One sequence of this run.
struct Extent {
  int32_t q_first, q_length;    // rows of q and out
  int32_t kv_first, kv_length;  // rows of k and v; with pages, kv_first is 0
};

GPU_DEVICE int32_t clamped(int32_t value, int32_t least, int32_t most) {
  return value < least ? least : value > most ? most : value;
}

GPU_DEVICE Extent extent_of(const WorkParams& w, int32_t sequence) {
  const auto at = [&](const int32_t* from, int64_t stride, int32_t i) {
    return gpu::global(from)[i * stride];
  };
  Extent e{0, w.most_q, 0, w.most_kv};
  if (w.offsets_q != nullptr) {
    e.q_first = clamped(at(w.offsets_q, w.offsets_q_stride, sequence), 0, w.total_q);
    const int32_t end = at(w.offsets_q, w.offsets_q_stride, sequence + 1);
    e.q_length = clamped(end, e.q_first, w.total_q) - e.q_first;
    e.q_length = clamped(e.q_length, 0, w.most_q);
  }
  if (w.offsets_kv != nullptr) {
    e.kv_first = clamped(at(w.offsets_kv, w.offsets_kv_stride, sequence), 0, w.total_kv);
    const int32_t end = at(w.offsets_kv, w.offsets_kv_stride, sequence + 1);
    e.kv_length = clamped(end, e.kv_first, w.total_kv) - e.kv_first;
    e.kv_length = clamped(e.kv_length, 0, w.most_kv);
  }
  if (w.kv_lengths != nullptr)
    e.kv_length = clamped(at(w.kv_lengths, w.kv_lengths_stride, sequence), 0, e.kv_length);
  return e;
}

// RETURNS the argument for one sequence: its lengths, and the key opposite its first query.
GPU_DEVICE AttentionParams params_of(const AttentionParams& attention, const WorkParams& w,
                                     int32_t sequence, int32_t q_length, int32_t kv_length) {
  AttentionParams p = attention;
  p.seq_q = q_length, p.seq_kv = kv_length;
  p.diagonal = w.top_left ? 0 : int64_t{kv_length} - q_length;
  p.diagonal += diagonal_offset(p, sequence);
  return p;
}

// Whether the item's sequence has other lengths now than when the list was made.
GPU_DEVICE bool is_stale(const AttentionParams& p, const WorkParams& w, const WorkItem& item) {
  if (w.compares == 0) return false;
  const Extent now = extent_of(w, item.sequence);
  return now.q_first != item.q_first || now.q_length != item.q_length ||
         now.kv_first != item.kv_first || now.kv_length != item.kv_length ||
         diagonal_offset(p, item.sequence) != item.diagonal_offset;
}

// The queries of an item.
GPU_DEVICE PackedBlock block_of(const WorkSection& section, const WorkItem& item) {
  const int32_t group = section.group, query = item.first_row / group;
  return {item.sequence, item.head * group, query, item.first_row - query * group,
          item.rows,     item.q_first,      group, section.group_magic};
}

// The head of K and V of an item.
GPU_DEVICE int32_t head_kv_of(const AttentionParams& p, const WorkSection& section,
                              const WorkItem& item) {
  // uniform: AMD divides in vector registers.
  return section.group == p.heads_per_kv ? item.head : gpu::uniform(item.head / p.heads_per_kv);
}

// ---- Rows of K and V ----

// Where the keys of an item lie.
struct KeyRows {
  const WorkParams& w;
  int32_t sequence, head, first;  // first: the sequence's first row; 0 with pages or a batch

  // The page of a key that exists, and its row there.
  struct Place {
    int32_t page, row;
  };
  GPU_DEVICE Place place(int32_t key) const { return in_range(unchecked_place(key)); }
  // The same, but the page is as the table says: nothing waits for the number yet.
  GPU_DEVICE Place unchecked_place(int32_t key) const {
    if (w.page_table == nullptr) return {sequence, first + key};
    const int32_t column =
        w.page_shift >= 0 ? key >> w.page_shift : static_cast<int32_t>(key / w.page_size);
    const int32_t page = gpu::global(w.page_table)[sequence * w.page_row + column * w.page_column];
    return {page, key - column * w.page_size};
  }
  GPU_DEVICE Place in_range(Place place) const {
    if (w.page_table == nullptr) return place;
    return {clamped(place.page, 0, w.pages - 1), place.row};
  }
  // Elements from the tensor's first one to a row.
  GPU_DEVICE int64_t offset(const Strides& stride, Place place) const {
    return place.page * stride.batch + place.row * stride.row + head * stride.head;
  }
};

}  // namespace kernels::hip
