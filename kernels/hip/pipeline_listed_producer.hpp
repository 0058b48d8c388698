// kernels/hip/pipeline_listed_producer.hpp: the wave that copies, in the loop of sm_90a, where the
// work comes from a list
//
// A step of keys comes in boxes of box_keys rows, one for each lane: the whole step, or as many rows
// of one page as divide a step. So pages cost copies and nothing else. Values past a sequence's end
// must be zeros in workgroup memory, since 0 * NaN is NaN, but there the tensor goes on, with the
// next sequence's rows or what was left in a page. So the box that holds the end comes as boxes of 8
// rows and of one, and what is past the end from outside of the tensor, which copies zeros:
//
//   values of the last step      | 8 | 8 |1|1|1| zeros ...
//                                            ^ the sequence's end
//
// Keys past the end need no care: their scores are hidden.
#pragma once

#include "kernels/hip/pipeline.hpp"

namespace kernels::hip {

template <class Tile, Kind kKind>
class ListedProducer : Pipeline<Tile, kKind> {
  using Base = Pipeline<Tile, kKind>;
  using Base::params_, Base::p_, Base::full, Base::empty, Base::query_barrier, Base::work_at,
      Base::attention, Base::block, Base::kKey, Base::kValue, Base::kParts, Base::kKeys;
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
    Items items(params_.work);
    Work now, next;
    bool exists = find(&items, &now);
    if (kAhead || !exists) send(exists, now, query);
    while (exists) {
      items.look_ahead();
      bool follows = false;
      const Keys keys = keys_of(now);
      const int before_last = now.steps.end - 2,
                second = before_last > now.steps.begin ? before_last : now.steps.begin;
      for (int step = now.steps.end - 1; step >= now.steps.begin; --step) {
        const bool first = step == now.steps.end - 1;
        const uint32_t stage = ring.stage(), parity = ring.empty_parity();
        Places places;
        look_up(keys, step, places);  // before the wait, which hides how long it takes
        gpu::mbarrier_wait(empty(kKey + stage), parity);
        expect(full(kKey + stage), Tile::kKeyBytes);
        copy_keys(keys, step, places, stage);
        if (!kAhead && first) send(true, now, query);
        gpu::mbarrier_wait(empty(kValue + stage), parity);
        expect(full(kValue + stage), Tile::kValueBytes);
        copy_values(keys, step, places, stage);
        ring.advance();
        if (step == second) {  // the number has come
          follows = find(&items, &next);
          if (kAhead) send(follows, next, query);
        }
      }
      if (!kAhead && !follows) send(false, next, query);
      now = next;
      exists = follows;
    }
  }

 private:
  // Finds the next item that sees keys. RETURNS false if none is left. The consumers store the
  // results of those left out: see items_left_out.hpp.
  GPU_DEVICE bool find(Items* items, Work* found) const {
    WorkItem& item = found->item;
    while (items->next(&item)) {
      if (item.rows == 0 || item.key_begin >= item.key_end || is_stale(p_, params_.work, item))
        continue;
      found->steps = {item.key_begin / kKeys, (item.key_end + kKeys - 1) / kKeys};
      return true;
    }
    return false;
  }

  // ---- Keys and values ----
  struct Keys {
    KeyRows rows;
    int32_t begin, end;   // the keys that some row of the block sees
    int32_t first, last;  // the keys of the sequence: those that any of its rows may see
  };
  GPU_DEVICE Keys keys_of(const Work& work) const {
    const WorkItem& item = work.item;
    const AttentionParams p = attention(work);
    const PackedBlock here = block(work);
    return {
        {params_.work, item.sequence, head_kv_of(p_, params_.work.section, item), item.kv_first},
        visible_range(p, here.query(0)).begin,
        visible_range(p, here.query(here.rows - 1)).end,
        visible_range(p, 0).begin,
        item.kv_length};
  }

  // Where the boxes of a step begin that this lane copies: boxes lane, lane + kWave, ...
  static constexpr int kMostBoxes = kKeys / kLeastBoxKeys,
                       kOwnBoxes = (kMostBoxes + kWave - 1) / kWave;
  using Places = KeyRows::Place[kOwnBoxes];

  // Calls f(i, at, key): this lane's i-th box begins at row `at` of the step, and at that key.
  template <class F>
  GPU_DEVICE void each_box(int step, const F& f) const {
    GPU_UNROLL for (int i = 0; i < kOwnBoxes; ++i) {
      const int at = (i * kWave + lane_) * params_.box_keys;
      if (at < kKeys) f(i, at, step * kKeys + at);
    }
  }
  GPU_DEVICE bool is_seen(const Keys& keys, int32_t key) const {
    return key < keys.end && key + params_.box_keys > keys.begin;
  }
  GPU_DEVICE void look_up(const Keys& keys, int step, Places& places) const {
    each_box(step, [&](int i, int, int32_t key) {
      places[i] = {};
      if (is_seen(keys, key)) places[i] = keys.rows.place(key);
    });
  }
  GPU_DEVICE void copy_keys(const Keys& keys, int step, const Places& places,
                            uint32_t stage) const {
    const uint32_t to = Tile::kKeyAt + stage * Tile::kKeyBytes;
    each_box(step, [&](int i, int at, int32_t key) {
      copy<Tile::kPanels>(params_.k, p_.k_stride, keys, to, at, full(kKey + stage),
                          is_seen(keys, key), params_.box_keys, places[i]);
    });
  }
  GPU_DEVICE void copy_values(const Keys& keys, int step, const Places& places,
                              uint32_t stage) const {
    const uint32_t to = Tile::kValueAt + stage * Tile::kValueBytes, barrier = full(kValue + stage);
    // A box that is there in part begins at row `cut` of the step.
    const int32_t box = params_.box_keys, key_0 = step * kKeys;
    const auto is_cut = [&](int32_t key) {
      return is_seen(keys, key) && (key < keys.first || key + box > keys.last);
    };
    each_box(step, [&](int i, int at, int32_t key) {
      if (is_cut(key)) return;
      copy<Tile::kValuePanels>(params_.v, p_.v_stride, keys, to, at, barrier, is_seen(keys, key),
                               box, places[i]);
    });
    const int32_t at_first = (keys.first - key_0) / box * box,
                  at_last = (keys.last - key_0) / box * box;
    const bool cuts_first = keys.first > key_0 && at_first < kKeys && is_cut(key_0 + at_first),
               cuts_last = keys.last > key_0 && at_last < kKeys && is_cut(key_0 + at_last);
    if (cuts_first) copy_cut(keys, to, at_first, key_0 + at_first, barrier);
    if (cuts_last && !(cuts_first && at_first == at_last))
      copy_cut(keys, to, at_last, key_0 + at_last, barrier);
  }
  // Copies the values of a box that the sequence has in part, in smaller ones.
  GPU_DEVICE void copy_cut(const Keys& keys, uint32_t to, int at, int32_t key,
                           uint32_t barrier) const {
    const int box = params_.box_keys, rows = box % 8 == 0 ? 8 : 1;
    const KeyRows::Place place = keys.rows.place(key);
    for (int r = lane_ * rows; r < box; r += kWave * rows) {
      const int32_t here = key + r;
      const bool all = here >= keys.first && here + rows <= keys.last,
                 none = here + rows <= keys.first || here >= keys.last;
      const auto copy_rows = [&](const gpu::TensorMap& map, int i, bool exists, int count) {
        copy<Tile::kValuePanels>(map, p_.v_stride, keys, to, at + r + i, barrier, exists, count,
                                 {place.page, place.row + r + i});
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
  // Starts the copies of all panels of a box of `count` rows to row `at` of a step. Where it does
  // not exist, zeros.
  template <int kPanels>
  GPU_DEVICE static void copy(const gpu::TensorMap& map, const Strides& stride, const Keys& keys,
                              uint32_t to, int at, uint32_t barrier, bool exists, int count,
                              const KeyRows::Place& place) {
    to += static_cast<uint32_t>(at) * Tile::kPanelRowBytes;
    const int32_t row = exists ? place.row : -count, head = stride.head == 0 ? 0 : keys.rows.head,
                  page = stride.batch == 0 ? 0 : place.page;
    GPU_UNROLL_BY(1)
    for (int panel = 0; panel < kPanels; ++panel) {
      const int32_t coordinates[4] = {panel * Tile::kPanel, row, head, page};
      gpu::copy_tile(to + static_cast<uint32_t>(panel) * Tile::kKeyPanelBytes, map, barrier,
                     coordinates);
    }
  }

  // ---- Queries ----
  // Tells the consumers their next item, or that there is none, and copies its queries.
  GPU_DEVICE void send(bool exists, const Work& work, QueryRing& query) const {
    for (int part = 0; part < kParts; ++part) {
      const uint32_t barrier = query_barrier(query, part), to = work_at(query, part);
      gpu::mbarrier_wait(empty(barrier), query.empty_parity());
      if (lane_ == 0) {
        const auto word = [to](uint32_t n, int32_t value) { gpu::shared_store(to + n * 4, value); };
        word(0, exists ? work.steps.end : 0);
        if (exists) {
          const WorkItem& item = work.item;
          word(1, work.steps.begin), word(2, item.sequence), word(3, item.head);
          word(4, item.first_row), word(5, item.rows), word(6, item.slot), word(7, item.q_first);
          word(8, item.q_length), word(9, item.kv_length), word(10, item.diagonal_offset);
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
                  batch = p_.q_stride.batch == 0 ? 0 : here.batch;
    const uint32_t to = Tile::query_at(query.stage()) +
                        static_cast<uint32_t>(part * Tile::kGroupRows) * Tile::kPanelRowBytes;
    const auto copy_box = [&](const gpu::TensorMap& map, int at, int32_t row) {
      GPU_UNROLL_BY(1)
      for (int panel = 0; panel < Tile::kPanels; ++panel) {
        const int32_t coordinates[5] = {panel * Tile::kPanel, lead, row, work.item.head, batch};
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
