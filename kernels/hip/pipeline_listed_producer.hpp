// kernels/hip/pipeline_listed_producer.hpp: the waves that find work and copy, in the loop of
// sm_90a, where the work comes from a list
//
// One wave finds the next item, while another copies the keys of this one: to read an item and the
// lengths of its sequence takes longer than a step.
//
// A step of keys is copied in boxes of box_keys rows, one for each lane: the whole step, or as many
// rows of one page as divide a step. So pages cost more copies, and a look into the page table for
// each box. Values outside of the sequence's visible keys must be zeros in workgroup memory, since
// 0 * NaN is NaN. But the tensor goes on there, with other rows. So a box that is visible in part
// is copied in boxes of 8 rows and of 1 (of 1 alone, if box_keys is no multiple of 8). Hidden rows
// are copied from outside of the tensor, which gives zeros:
//
//   values of the last step      | 8 | 8 |1|1|1| zeros ...
//                                            ^ the sequence's end
//
// Keys past the end need no care: their scores are hidden.
#pragma once

#include "kernels/hip/pipeline.hpp"

namespace kernels::hip {

// The wave that finds items. It takes the next one when the other has begun with this one, so that
// no workgroup holds more items than it must.
template <class Tile, Kind kKind>
class WorkFinder : Pipeline<Tile, kKind> {
  using Base = Pipeline<Tile, kKind>;
  using Base::params_, Base::p_, Base::full, Base::empty, Base::kNext, Base::kNextAt, Base::kKeys;

 public:
  using Base::Base;

  // All lanes of the wave call it.
  GPU_DEVICE void find() const {
    Items items(params_.work);
    ListedWork work{};
    uint32_t parity = 1;  // the place begins empty
    do {
      gpu::mbarrier_wait(empty(kNext), parity);
      parity ^= 1;
      if (!next(&items, &work)) work.steps = {0, 0};
      if (gpu::thread() % Tile::kWave == 0) {
        gpu::shared_store(kNextAt, work);
        gpu::mbarrier_arrive(full(kNext));
      }
    } while (work.steps.end != 0);
  }

 private:
  // Finds the next item that sees keys. RETURNS false if none is left. The consumers store the
  // results of those left out: see items_left_out.hpp.
  GPU_DEVICE bool next(Items* items, ListedWork* found) const {
    WorkItem& item = found->item;
    while (items->next(&item)) {
      if (item.rows == 0 || item.key_begin >= item.key_end || is_stale(p_, params_.work, item))
        continue;
      const PackedBlock here = block_of(params_.work.section, item);
      found->first_query = here.first_query, found->lead = here.lead;
      found->steps = {item.key_begin / kKeys, (item.key_end + kKeys - 1) / kKeys};
      return true;
    }
    return false;
  }
};

// The wave that copies.
template <class Tile, Kind kKind>
class ListedProducer : Pipeline<Tile, kKind> {
  using Base = Pipeline<Tile, kKind>;
  using Base::params_, Base::p_, Base::full, Base::empty, Base::query_barrier, Base::work_at,
      Base::attention, Base::block, Base::kKey, Base::kValue, Base::kNext, Base::kNextAt,
      Base::kParts, Base::kKeys;
  using typename Base::StageRing, typename Base::Work;
  using QueryRing = Ring<Tile::kQueryStages>;
  static constexpr int kWave = Tile::kWave;
  static_assert(Tile::kPanelRowBytes == 128);  // copies of one row go to multiples of 128 bytes

 public:
  GPU_DEVICE explicit ListedProducer(const PipelinedParams& params)
      : Base(params), lane_(static_cast<int>(gpu::thread()) % kWave) {}

  // All lanes of the wave call it.
  GPU_DEVICE void produce() const {
    constexpr bool kAhead = Tile::kQueryStages == 2;  // Q is sent early in the block before
    QueryRing query;
    StageRing ring;
    uint32_t parity_of_next = 0;
    bool exists = wait_for_next(&parity_of_next);
    if (kAhead || !exists) send(exists, query);
    while (exists) {
      const Range steps = next_steps();
      const Keys keys = keys_of(gpu::shared_load<Work>(kNextAt));
      Boxes boxes;
      find_boxes(keys, steps.end - 1, boxes);
      if (kAhead) release_next();
      // Asks in the third step: by then the next item has usually been found, so nothing waits.
      const int third = steps.end - 3, ask = third > steps.begin ? third : steps.begin;
      for (int step = steps.end - 1; step >= steps.begin; --step) {
        const uint32_t stage = ring.stage(), parity = ring.empty_parity();
        gpu::mbarrier_wait(empty(kKey + stage), parity);
        expect(full(kKey + stage), Tile::kKeyBytes);
        if constexpr (Tile::kValuesInKeys) {
          copy_values(keys, step, boxes, stage);
        } else {
          copy_keys(keys, boxes, stage);
        }
        if (!kAhead && step == steps.end - 1) {
          send(true, query);
          release_next();
        }
        if (step == ask) {
          exists = wait_for_next(&parity_of_next);
          if (kAhead) send(exists, query);
        }
        // Pages of the next step are looked up while this one waits.
        Boxes after;
        find_boxes(keys, step - 1, after);
        if constexpr (!Tile::kValuesInKeys) {
          gpu::mbarrier_wait(empty(kValue + stage), parity);
          expect(full(kValue + stage), Tile::kValueBytes);
          copy_values(keys, step, boxes, stage);
        }
        ring.advance();
        GPU_UNROLL for (int i = 0; i < kOwnBoxes; ++i) boxes[i] = after[i];
      }
      // Not earlier, as the place of Q is free only when this block is done.
      if (!kAhead && !exists) send(false, query);
    }
  }

 private:
  // ---- The item that the finder found: in its place until release_next() ----
  // RETURNS false if nothing is left.
  GPU_DEVICE bool wait_for_next(uint32_t* parity) const {
    gpu::mbarrier_wait(full(kNext), *parity);
    *parity ^= 1;
    return next_steps().end != 0;
  }
  GPU_DEVICE static Range next_steps() {
    const auto steps = gpu::shared_load<Range>(kNextAt);
    return {gpu::uniform(steps.begin), gpu::uniform(steps.end)};
  }
  GPU_DEVICE void release_next() const {
    gpu::wave_barrier(kWave);
    if (lane_ == 0) gpu::mbarrier_arrive(empty(kNext));
  }

  // ---- Keys and values ----
  static constexpr int32_t kNoBox = -1;
  struct Keys {
    int32_t sequence, head, first_row;  // as of KeyRows
    int32_t begin, end;                 // the keys that some row of the block sees
    int32_t first, last;     // the keys of the sequence: those that any of its rows may see
    int32_t cut_0, cut_1;    // first keys of the boxes that the sequence has in part, or kNoBox
    int32_t head_k, head_v;  // as coordinates
  };
  GPU_DEVICE Keys keys_of(const Work& work) const {
    const WorkItem& item = work.item;
    const AttentionParams p = attention(work);
    const PackedBlock here = block(work);
    const int32_t head = head_kv_of(p_, params_.work.section, item), box = params_.box_keys;
    Keys keys{item.sequence,
              head,
              item.kv_first,
              visible_range(p, here.query(0)).begin,
              visible_range(p, here.query(here.rows - 1)).end,
              visible_range(p, 0).begin,
              item.kv_length,
              kNoBox,
              kNoBox,
              p_.k_stride.head == 0 ? 0 : head,
              p_.v_stride.head == 0 ? 0 : head};
    const auto cut_at = [&](int32_t key) {
      const int32_t box_key = key / box * box;
      return box_key != key && is_seen(keys, box_key) ? box_key : kNoBox;
    };
    keys.cut_0 = cut_at(keys.first), keys.cut_1 = cut_at(keys.last);
    if (keys.cut_0 == keys.cut_1) keys.cut_1 = kNoBox;
    return keys;
  }
  GPU_DEVICE KeyRows rows_of(const Keys& keys) const {
    return {params_.work, keys.sequence, keys.head, keys.first_row};
  }
  GPU_DEVICE bool is_seen(const Keys& keys, int32_t key) const {
    return key < keys.end && key + params_.box_keys > keys.begin;
  }

  // This lane's boxes of a step: lane, lane + kWave, ... A box that no row sees is outside of the
  // tensor, so that zeros are copied.
  struct Box {
    int32_t row, page;  // page: as the table says: nothing waits for the number yet
    bool is_cut;
  };
  static constexpr int kMostBoxes = kKeys / kLeastBoxKeys,
                       kOwnBoxes = (kMostBoxes + kWave - 1) / kWave;
  using Boxes = Box[kOwnBoxes];
  // Panels of what is copied with zeros for rows that the sequence does not have.
  static constexpr int kCutPanels = Tile::kValuesInKeys ? Tile::kPanels : Tile::kValuePanels;

  GPU_DEVICE int row_of_box(int i) const { return (i * kWave + lane_) * params_.box_keys; }
  GPU_DEVICE void find_boxes(const Keys& keys, int step, Boxes& boxes) const {
    GPU_UNROLL for (int i = 0; i < kOwnBoxes; ++i) {
      const int32_t key = step * kKeys + row_of_box(i);
      boxes[i] = {-params_.box_keys, 0, key == keys.cut_0 || key == keys.cut_1};
      if (row_of_box(i) < kKeys && is_seen(keys, key)) {
        const KeyRows::Place place = rows_of(keys).unchecked_place(key);
        boxes[i].row = place.row, boxes[i].page = place.page;
      }
    }
  }
  GPU_DEVICE int32_t page_of(const Keys& keys, const Box& box) const {
    return rows_of(keys).in_range({box.page, box.row}).page;
  }
  GPU_DEVICE void copy_keys(const Keys& keys, const Boxes& boxes, uint32_t stage) const {
    const uint32_t to = Tile::kKeyAt + stage * Tile::kKeyBytes, barrier = full(kKey + stage);
    GPU_UNROLL for (int i = 0; i < kOwnBoxes; ++i) {
      if (row_of_box(i) >= kKeys) continue;
      copy<Tile::kPanels>(params_.k, to, row_of_box(i), barrier, boxes[i].row, keys.head_k,
                          p_.k_stride.batch == 0 ? 0 : page_of(keys, boxes[i]));
    }
  }
  // With kValuesInKeys: of K, whose columns are the values'.
  GPU_DEVICE void copy_values(const Keys& keys, int step, const Boxes& boxes,
                              uint32_t stage) const {
    const uint32_t to = Tile::kValueAt + stage * Tile::kValueStageBytes,
                   barrier = full(kValue + stage);
    GPU_UNROLL for (int i = 0; i < kOwnBoxes; ++i) {
      if (row_of_box(i) >= kKeys || boxes[i].is_cut) continue;
      copy<kCutPanels>(params_.v, to, row_of_box(i), barrier, boxes[i].row, keys.head_v,
                       p_.v_stride.batch == 0 ? 0 : page_of(keys, boxes[i]));
    }
    if (keys.cut_0 / kKeys == step && keys.cut_0 != kNoBox)
      copy_cut(keys, to, keys.cut_0 % kKeys, keys.cut_0, barrier);
    if (keys.cut_1 / kKeys == step && keys.cut_1 != kNoBox)
      copy_cut(keys, to, keys.cut_1 % kKeys, keys.cut_1, barrier);
  }
  // Copies the values of a box that the sequence has in part, in smaller ones.
  GPU_DEVICE void copy_cut(const Keys& keys, uint32_t to, int at, int32_t key,
                           uint32_t barrier) const {
    const int box = params_.box_keys, rows = box % 8 == 0 ? 8 : 1;
    const KeyRows::Place place = rows_of(keys).place(key);
    for (int r = lane_ * rows; r < box; r += kWave * rows) {
      const int32_t here = key + r;
      const bool all = here >= keys.first && here + rows <= keys.last,
                 none = here + rows <= keys.first || here >= keys.last;
      const auto copy_rows = [&](const gpu::TensorMap& map, int i, bool exists, int count) {
        copy<kCutPanels>(map, to, at + r + i, barrier, exists ? place.row + r + i : -count,
                         keys.head_v, p_.v_stride.batch == 0 ? 0 : place.page);
      };
      if (rows == 8 && (all || none)) {
        copy_rows(params_.eight_values, 0, all, 8);
      } else {
        GPU_UNROLL_BY(1)
        for (int i = 0; i < rows; ++i)
          copy_rows(params_.one_value, i, here + i >= keys.first && here + i < keys.last, 1);
      }
    }
  }
  // Starts the copies of all panels of a box to row `at` of a step.
  template <int kPanels>
  GPU_DEVICE static void copy(const gpu::TensorMap& map, uint32_t to, int at, uint32_t barrier,
                              int32_t row, int32_t head, int32_t page) {
    to += static_cast<uint32_t>(at) * Tile::kPanelRowBytes;
    GPU_UNROLL for (int panel = 0; panel < kPanels; ++panel) {
      const int32_t coordinates[4] = {panel * Tile::kPanel, row, head, page};
      gpu::copy_tile(to + static_cast<uint32_t>(panel) * Tile::kKeyPanelBytes, map, barrier,
                     coordinates);
    }
  }

  // ---- Queries ----
  // Tells the consumers their next item, or that there is none, and copies its queries.
  GPU_DEVICE void send(bool exists, QueryRing& query) const {
    const auto work = gpu::shared_load<Work>(kNextAt);
    for (int part = 0; part < kParts; ++part) {
      const uint32_t barrier = query_barrier(query, part);
      gpu::mbarrier_wait(empty(barrier), query.empty_parity());
      if (lane_ == 0) {
        gpu::shared_store(work_at(query, part), work);
        if (exists) {
          gpu::mbarrier_arrive_expect(full(barrier), Tile::kQueryBytes / kParts);
        } else {
          gpu::mbarrier_arrive(full(barrier));
        }
      }
      gpu::wave_barrier(kWave);
      if (exists) copy_queries(work, part, query, full(barrier));
    }
    query.advance();
  }
  // A box has 64 rows: those of one group's heads for each of its queries.
  GPU_DEVICE void copy_queries(const Work& work, int part, const QueryRing& query,
                               uint32_t barrier) const {
    constexpr int kRows = kWgmmaRows;
    const PackedBlock here = block(work);
    const int32_t packed = here.lead + part * kRows, group = here.group, lead = packed % group,
                  left = here.rows - part * kRows;
    const int32_t first = here.q_first + here.first_query + packed / group,
                  head = p_.q_stride.head == 0 ? 0 : work.item.head,
                  batch = p_.q_stride.batch == 0 ? 0 : here.batch;
    const uint32_t to = Tile::query_at(query.stage()) +
                        static_cast<uint32_t>(part * Tile::kGroupRows) * Tile::kPanelRowBytes;
    const auto copy_box = [&](const gpu::TensorMap& map, int at, int32_t row) {
      GPU_UNROLL_BY(1)
      for (int panel = 0; panel < Tile::kPanels; ++panel) {
        const int32_t coordinates[5] = {panel * Tile::kPanel, lead, row, head, batch};
        gpu::copy_tile(to + static_cast<uint32_t>(panel) * Tile::kQueryPanelBytes +
                           static_cast<uint32_t>(at) * Tile::kPanelRowBytes,
                       map, barrier, coordinates);
      }
    };
    if (left >= kRows || (left > 0 && !params_.exact_queries)) {
      if (lane_ == 0) copy_box(params_.q, 0, first);
      return;
    }
    const int heads = group < kRows ? group : kRows;  // rows of a query in the box
    for (int at = lane_ * heads; at < kRows; at += kWave * heads)
      copy_box(params_.one_query, at, at < left ? first + at / heads : -1);
  }

  GPU_DEVICE void expect(uint32_t barrier, uint32_t bytes) const {
    if (lane_ == 0) gpu::mbarrier_arrive_expect(barrier, bytes);
    gpu::wave_barrier(kWave);
  }

  int lane_;
};

}  // namespace kernels::hip
