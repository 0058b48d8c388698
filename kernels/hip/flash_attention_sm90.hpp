// kernels/hip/flash_attention_sm90.hpp: fused attention on sm_90a: one warpgroup copies, the others
// compute
//
// The same arithmetic as flash_attention.hpp, in a loop that keeps the tensor cores busy
// (FlashAttention-3's, arXiv 2407.08608). A workgroup has one warpgroup of producers, of which one
// thread works, and Tile::kGroups of consumers, with 64 queries each. The producer copies Q, K, V
// and, if copies can, the mask to workgroup memory by tensor maps. K, V and the mask have kStages
// places each, and Q kQueryStages, which the two sides hand to each other by barriers in workgroup
// memory, "full" and "empty":
//
//   producer    wait until empty | start the copy, which makes it full
//   consumers   wait until full  | multiply | arrive at empty
//
// Steps of keys are walked from the last to the first. A consumer starts the scores of step n
// before O += P V of the step before, n + 1, and computes the softmax of step n while the tensor
// cores work on that:
//
//   start S(n) = Q K(n)^T | start O += P(n + 1) V(n + 1)
//   wait for S(n)         | softmax: S(n) -> weights
//   wait for O            | P(n) = weights; O is scaled if a reference rose
//
// The consumers take turns to start their products (ping-pong, by named barriers), so that one
// computes its softmax while another's products run.
//
// A workgroup takes one block of queries after the other, as long as there are any. The producer
// takes the next one by an atomic addition, and hands it over with its queries.
#pragma once

#include "kernels/hip/async.hpp"
#include "kernels/hip/flash_attention.hpp"
#include "kernels/hip/mask_tile.hpp"
#include "kernels/hip/tile_shapes_sm90.hpp"

namespace kernels::hip {

// The kernels' argument. The maps have four dimensions: head_dim, sequence, head, batch. A
// dimension along which the tensor does not move (stride 0) has size 1.
struct PipelinedParams {
  gpu::TensorMap q, k, v, mask;
  AttentionParams attention;
  // Rows of the mask in one copy: kRows, or 1 if all queries share one; 0: the mask is not copied.
  uint32_t mask_rows;
  // Counts the blocks taken after each workgroup's first; null: each workgroup has one block.
  uint32_t* taken;
};

// Heads of a section, whose blocks are taken together, so that their K and V stay in L2.
inline constexpr uint32_t kHeadsOfSection = 16;

// The argument of the kernel that comes before where workgroups take more than one block each.
struct ResetParams {
  uint32_t* taken;
};
GPU_DEVICE void reset(const ResetParams& params) { *params.taken = 0; }

// A place in a ring of kStages, and which of the two phases of its barriers comes next.
template <int kStages>
struct Ring {
  uint32_t count = 0;
  GPU_DEVICE uint32_t stage() const { return count % kStages; }
  GPU_DEVICE uint32_t full_parity() const { return count / kStages & 1; }
  GPU_DEVICE uint32_t empty_parity() const { return full_parity() ^ 1; }  // places begin empty
  GPU_DEVICE void advance() { ++count; }
};

template <class Tile, Kind kKind>
class PipelinedAttention {
 public:
  static constexpr int kThreads = (1 + Tile::kGroups) * Tile::kGroupThreads;

  // ---- Workgroup memory behind the tile's ----
  static constexpr bool kHasMask = kKind == Kind::generic && Tile::kKeys % 64 == 0;
  // Q comes in parts, one for each warpgroup's rows.
  static constexpr int kParts = Tile::kSharesRows ? 1 : Tile::kGroups;
  static constexpr uint32_t kMaskAt = Tile::kTileEnd,
                            kMaskBytes = kHasMask ? MaskTile<Tile>::kBytes : 0;
  static constexpr uint32_t kBarriersAt = kMaskAt + Tile::kStages * kMaskBytes;
  enum Barrier : uint32_t {
    kQuery,  // of each place and part of Q
    kKey = kQuery + Tile::kQueryStages * kParts,
    kValue = kKey + Tile::kStages,
    kMask = kValue + Tile::kStages,
    kBarriers = kMask + (kHasMask ? Tile::kStages : 0)
  };
  // The block that each warpgroup takes next, in each place of Q.
  static constexpr uint32_t kWorkAt = kBarriersAt + 2 * kBarriers * 8, kWorkBytes = 32;
  static constexpr uint32_t kSharedBytes = kWorkAt + Tile::kQueryStages * kParts * kWorkBytes;
  static_assert(kSharedBytes <= 227 << 10);
  GPU_DEVICE static uint32_t full(uint32_t barrier) { return kBarriersAt + barrier * 16; }
  GPU_DEVICE static uint32_t empty(uint32_t barrier) { return full(barrier) + 8; }

  GPU_DEVICE explicit PipelinedAttention(const PipelinedParams& params)
      : params_(params), p_(params.attention) {}

  GPU_DEVICE void run() {
    if (gpu::thread() == 0) {
      for (uint32_t n = 0; n < kBarriers; ++n) {
        gpu::mbarrier_init(full(n), 1);
        gpu::mbarrier_init(empty(n), n < kKey    ? Tile::kGroups / kParts
                                     : n < kMask ? Tile::kGroups
                                                 : Tile::kGroups * kWaves);
      }
      gpu::mbarrier_init_fence();
    }
    gpu::barrier();
    const int group = gpu::uniform(static_cast<int>(gpu::thread()) / Tile::kGroupThreads);
    if (group == 0) {
      gpu::lower_registers<kProducerRegisters>();
      if (gpu::thread() == 0) produce();
    } else {
      gpu::raise_registers<kConsumerRegisters>();
      consume(group - 1);
    }
  }

 private:
  using Scores = typename Tile::Scores;
  using Output = typename Tile::Output;
  using Weights = typename Tile::Weights;
  static constexpr int kKeys = Tile::kKeys, kSlots = Tile::kSlots;
  static constexpr int kWaves = Tile::kGroupThreads / Tile::kWave;  // of a warpgroup
  // Registers of a thread after setmaxnreg. At launch every thread has kRegisters. setmaxnreg only
  // moves registers between warpgroups, so the sum may not grow.
  static constexpr int kProducerRegisters = Tile::kGroups != 2 ? 32 : kHasMask ? 40 : 24;
  static constexpr int kConsumerRegisters = Tile::kGroups != 2 ? 160 : kHasMask ? 232 : 240;
  static constexpr int kRegisters = (64 << 10) / kThreads / 8 * 8;
  static_assert(kProducerRegisters + Tile::kGroups * kConsumerRegisters <=
                (1 + Tile::kGroups) * kRegisters);
  // The first scores of a block are computed beside the last O += P V of the block before.
  static constexpr bool kOverlaps = Tile::kQueryStages == 2;
  // Whether a warpgroup skips steps that none of its rows sees. Not with kOverlaps, where a block's
  // first step runs beside the last of the block before. Not with kSharesRows, where all warpgroups
  // see the same steps. Not in nocausal kernels of three warpgroups: there only windows and the end
  // of Q make such steps, and long rows lose more than short ones gain.
  static constexpr bool kLeavesOut =
      !kOverlaps && !Tile::kSharesRows && !(kKind == Kind::nocausal && Tile::kGroups > 2);
  // Whether copies bring the mask.
  GPU_DEVICE bool copies_mask() const { return params_.mask_rows != 0; }
  GPU_DEVICE bool mask_is_boolean() const { return (p_.flags & kBooleanMask) != 0; }

  // ---- Which blocks of queries this workgroup takes ----
  GPU_DEVICE uint32_t blocks_of_head() const {
    return (static_cast<uint32_t>(p_.seq_q) + Tile::kRows - 1) / Tile::kRows;
  }
  GPU_DEVICE uint32_t block_count() const { return blocks_of_head() * p_.batch * p_.heads_q; }
  GPU_DEVICE int64_t shift(int32_t batch) const {
    return kKind == Kind::generic ? diagonal_offset(p_, batch) : 0;
  }
  // A block, and its steps of keys.
  struct Work {
    int32_t batch, head, first_query;
    Range steps;
    GPU_DEVICE bool sees_keys() const { return steps.begin < steps.end; }
  };
  // Returns the n-th block. Within a section the head changes fastest: first one block of every
  // head, then the next block of every head. With causal the longest blocks come first.
  GPU_DEVICE Work work(uint32_t n) const {
    const uint32_t blocks = blocks_of_head(), heads = p_.batch * p_.heads_q;
    constexpr uint32_t section = kHeadsOfSection;
    const uint32_t first_head = n / (blocks * section) * section;
    const uint32_t left = heads - first_head, width = left < section ? left : section;
    const uint32_t within = n - first_head * blocks;
    const uint32_t x = within / width, head = first_head + within % width;
    const int32_t batch = static_cast<int32_t>(head / p_.heads_q);
    const int32_t first_query =
        static_cast<int32_t>(kKind == Kind::nocausal ? x : blocks - 1 - x) * Tile::kRows;
    return {batch, static_cast<int32_t>(head % p_.heads_q), first_query,
            steps_of_block<Tile>(p_, first_query, shift(batch))};
  }
  GPU_DEVICE QueryBlock block(const Work& work) const {
    return {work.batch, work.head, work.first_query, rows_of_block<Tile>(p_, work.first_query)};
  }
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
      *found = work(number);
      if (found->sees_keys()) return true;
    }
    return false;
  }

  // ---- The producers ----
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
  GPU_DEVICE void produce() const {
    constexpr bool kAhead = Tile::kQueryStages == 2;  // Q is sent early in the block before
    Ring<Tile::kQueryStages> query;
    Ring<Tile::kStages> ring;
    Work now, next;
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
  // Tells the consumers their next block, or that there is none, and copies its queries. Each part
  // of Q has its own barrier, so that no warpgroup waits for another.
  GPU_DEVICE void send(bool exists, const Work& work, Ring<Tile::kQueryStages>& query) const {
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
  // Waits for what send() sent. RETURNS false if there is no block.
  GPU_DEVICE bool receive(const Tile& tile, const Ring<Tile::kQueryStages>& query,
                          Work* work) const {
    gpu::mbarrier_wait(full(query_barrier(query, own_part(tile))), query.full_parity());
    const uint32_t from = work_at(query, own_part(tile));
    work->steps.end = gpu::uniform(gpu::shared_load<int32_t>(from));
    if (work->steps.end == 0) return false;
    work->steps.begin = gpu::uniform(gpu::shared_load<int32_t>(from + 4));
    work->first_query = gpu::uniform(gpu::shared_load<int32_t>(from + 8));
    work->head = gpu::uniform(gpu::shared_load<int32_t>(from + 12));
    work->batch = gpu::uniform(gpu::shared_load<int32_t>(from + 16));
    return true;
  }
  GPU_DEVICE static int own_part(const Tile& tile) { return kParts == 1 ? 0 : tile.group; }
  GPU_DEVICE static uint32_t query_barrier(const Ring<Tile::kQueryStages>& query, int part) {
    return kQuery + query.stage() * kParts + static_cast<uint32_t>(part);
  }
  GPU_DEVICE static uint32_t work_at(const Ring<Tile::kQueryStages>& query, int part) {
    return kWorkAt + (query.stage() * kParts + static_cast<uint32_t>(part)) * kWorkBytes;
  }
  GPU_DEVICE void copy_mask(const Work& work, int step, uint32_t stage, uint32_t parity) const {
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

  // ---- A warpgroup of consumers ----
  // A block, as a warpgroup sees it: only the steps that some of its rows see.
  struct Rows : Work {
    int64_t shift;
    int32_t last_begin, first_end;  // keys [last_begin, first_end) are seen by every row of a wave
    int32_t before, after;          // steps of the block that the warpgroup leaves out
  };
  GPU_DEVICE Rows rows_of(const Tile& tile, const Work& work) const {
    const int64_t offset = shift(work.batch);
    const int64_t wave_row = work.first_query + tile.first_wave_row() + offset;
    Rows rows{work,
              offset,
              visible_range(p_, wave_row + Tile::kWaveRows - 1).begin,
              visible_range(p_, wave_row).end,
              0,
              0};
    if constexpr (kLeavesOut) {
      const int32_t row = work.first_query + tile.first_group_row();
      const int32_t left = p_.seq_q - row, last = left < Tile::kGroupRows ? left : Tile::kGroupRows;
      const int32_t begin = visible_range(p_, row + offset).begin / kKeys,
                    end = (visible_range(p_, row + last - 1 + offset).end + kKeys - 1) / kKeys;
      const bool sees = last > 0 && begin < end;
      rows.steps.end = sees ? end : work.steps.begin;
      rows.steps.begin = sees ? begin : work.steps.begin;
      rows.before = work.steps.end - rows.steps.end;
      rows.after = rows.steps.begin - work.steps.begin;
    }
    return rows;
  }

  GPU_DEVICE void consume(int group) const {
    const Tile tile(group);
    if (group == 0) gpu::named_barrier_arrive(turn_of(0), kTurnThreads);  // the first turn is its
    walk(tile);
    store_blind_blocks(tile);
  }
  // The blocks that see no key, which the producers leave out.
  GPU_DEVICE void store_blind_blocks(const Tile& tile) const {
    const auto sees = [&](uint32_t x) {
      const Range keys = steps_of_block<Tile>(p_, static_cast<int32_t>(x) * Tile::kRows);
      return keys.begin < keys.end;
    };
    // What a query sees only moves forward, so the blind ones are the first or the last.
    if (p_.diagonal_offsets == nullptr && sees(0) && sees(blocks_of_head() - 1)) return;
    const uint32_t count = block_count();
    for (uint32_t n = gpu::block_x(); n < count; n += gpu::grid_x()) {
      const Work blind = work(n);
      if (blind.sees_keys()) continue;
      Output o;
      clear(o);
      store_rows(p_, tile, block(blind), o, OnlineSoftmax<Tile>());
    }
  }

  // Arrives for the whole warpgroup, by one thread. Call it after wgmma_wait or meet(), when all
  // four waves are done with the place.
  GPU_DEVICE static void release(uint32_t barrier) {
    if (gpu::thread() % Tile::kGroupThreads == 0) gpu::mbarrier_arrive(barrier);
  }
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
    Ring<Tile::kStages> ring;
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
        const bool rises = multiply(tile, rows, step, query, ring, softmax, weights, s, o, factor);
        Tile::pack(s, weights);
        if (rises) {
          GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) Tile::scale(o, slot, factor[slot]);
        }
      }
      query.advance();
      const QueryBlock ended = block(rows);
      if constexpr (kOverlaps) {
        if (receive(tile, query, &work)) {
          const OnlineSoftmax<Tile> before = softmax;
          softmax = OnlineSoftmax<Tile>();
          rows = rows_of(tile, work);
          step = rows.steps.end - 1;
          float factor[kSlots];
          Scores s;
          multiply(tile, rows, step, query, ring, softmax, weights, s, o, factor);
          Tile::pack(s, weights);
          store_rows(p_, tile, ended, o, before);
          pin(o);  // without it ptxas serialises wgmma
          clear(o);
          continue;
        }
      }
      if (!kLeavesOut || rows.sees_keys()) finish(tile, weights, ring, o);
      if constexpr (kLeavesOut) leave_out(tile, rows.after, true, ring);
      store_rows(p_, tile, ended, o, softmax);
      if (kOverlaps || !receive(tile, query, &work)) return;
      softmax = OnlineSoftmax<Tile>();
      rows = rows_of(tile, work);
      step = begin(tile, rows, query, ring, softmax, weights, o);
    }
  }
  // Skips `count` steps that this warpgroup's rows do not see. turns: whether the first of them
  // takes a turn. INVARIANT: a warpgroup takes one turn for each step of a block but one, so that
  // all take the same number.
  GPU_DEVICE void leave_out(const Tile& tile, int count, bool turns,
                            Ring<Tile::kStages>& ring) const {
    GPU_UNROLL_BY(1) for (int n = 0; n < count; ++n) {
      const uint32_t stage = ring.stage(), parity = ring.full_parity();
      gpu::mbarrier_wait(full(kKey + stage), parity);
      gpu::mbarrier_wait(full(kValue + stage), parity);
      if constexpr (kHasMask) {
        if (copies_mask()) {
          gpu::mbarrier_wait(full(kMask + stage), parity);
          release_mask(tile, stage);
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
  // Computes S of a step beside O += P V of the step before, then turns S into weights. RETURNS
  // whether O is to be scaled, and by what.
  GPU_DEVICE bool multiply(const Tile& tile, const Rows& rows, int step,
                           const Ring<Tile::kQueryStages>& query, Ring<Tile::kStages>& ring,
                           OnlineSoftmax<Tile>& softmax, const Weights& weights, Scores& s,
                           Output& o, float (&factor)[kSlots]) const {
    const uint32_t value_stage = ring.stage(), value_parity = ring.full_parity();
    ring.advance();
    const uint32_t stage = ring.stage(), parity = ring.full_parity();
    gpu::mbarrier_wait(full(kKey + stage), parity);
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
    if (step == rows.steps.begin) release(empty(query_barrier(query, own_part(tile))));
    const bool rises = weigh(tile, rows, softmax, s, step, stage, parity, factor);
    wgmma_wait<0>();
    pin(o);
    release(empty(kValue + value_stage));
    return rises;
  }
  // O += P V of the last step.
  GPU_DEVICE void finish(const Tile& tile, const Weights& weights, Ring<Tile::kStages>& ring,
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
  GPU_DEVICE static void clear(Output& o) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) Tile::clear(o, slot);
  }

  // Computes the weights of a block's first step, that of its last keys, with no product beside.
  // RETURNS the step.
  GPU_DEVICE int begin(const Tile& tile, const Rows& rows, const Ring<Tile::kQueryStages>& query,
                       Ring<Tile::kStages>& ring, OnlineSoftmax<Tile>& softmax, Weights& weights,
                       Output& o) const {
    const uint32_t query_number = query_barrier(query, own_part(tile));
    const int step = rows.steps.end - 1;
    clear(o);
    if (kLeavesOut && !rows.sees_keys()) {
      meet(tile.group);
      release(empty(query_number));
      leave_out(tile, rows.before, false, ring);
      return step;
    }
    if constexpr (kLeavesOut) leave_out(tile, rows.before, true, ring);
    const uint32_t stage = ring.stage(), parity = ring.full_parity();
    Scores s;
    gpu::mbarrier_wait(full(kKey + stage), parity);
    pin(s);
    wgmma_fence();
    tile.start_scores(s, Tile::query_at(query.stage()), Tile::kKeyAt + stage * Tile::kKeyBytes);
    wgmma_commit();
    wgmma_wait<0>();
    pin(s);
    release(empty(kKey + stage));
    if (step == rows.steps.begin) release(empty(query_number));
    float factor[kSlots];
    weigh(tile, rows, softmax, s, step, stage, parity, factor);  // O is 0: nothing to scale
    Tile::pack(s, weights);
    return step;
  }

  // Turns scores into weights, in place. RETURNS whether O is to be scaled, and by what.
  GPU_DEVICE bool weigh(const Tile& tile, const Rows& rows, OnlineSoftmax<Tile>& softmax, Scores& s,
                        int step, uint32_t stage, uint32_t parity, float (&factor)[kSlots]) const {
    const int key = step * kKeys, lane_key = key + tile.first_key();
    if constexpr (kKind == Kind::generic) {
      modify(tile, rows, s, lane_key);
      if (p_.mask != nullptr) apply_mask(tile, rows, s, lane_key, stage, parity);
    }
    if (key < rows.last_begin || key + kKeys > rows.first_end)
      hide_invisible(p_, tile, s, rows.first_query, lane_key, rows.shift);
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
    add_alibi<Tile>(s, p_.slopes[rows.batch * p_.slope_batch + rows.head * p_.slope_head], diagonal,
                    key);
  }
  GPU_DEVICE void apply_mask(const Tile& tile, const Rows& rows, Scores& s, int32_t key,
                             uint32_t stage, uint32_t parity) const {
    using Mask = MaskTile<Tile>;
    if constexpr (kHasMask) {
      if (copies_mask()) {
        const uint32_t from = kMaskAt + stage * kMaskBytes;
        gpu::mbarrier_wait(full(kMask + stage), parity);
        if (mask_is_boolean()) {
          Mask::hide(tile, from, params_.mask_rows, s);
        } else {
          Mask::add(tile, from, params_.mask_rows, p_.mask_scale, s);
        }
        return release_mask(tile, stage);
      }
    }
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

  const PipelinedParams& params_;
  const AttentionParams& p_;
};

}  // namespace kernels::hip
