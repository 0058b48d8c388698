// kernels/hip/pipeline.hpp: what both sides of the loop of sm_90a share: the argument, the
// places and barriers in workgroup memory, and the numbering of blocks
#pragma once

#include "kernels/hip/async.hpp"
#include "kernels/hip/flash_attention.hpp"
#include "kernels/hip/mask_states.hpp"
#include "kernels/hip/mask_tile.hpp"
#include "kernels/hip/tile_shapes_sm90.hpp"
#include "kernels/hip/work_list.hpp"

namespace kernels::hip {

// Of two kernels that are launched for one problem, the masked and a plain one, tells which does
// the work: the plain one if the mask hides nothing anywhere. It has the states of all tiles, in
// rows of words.
//
// Both give the same bits, also where queries of the last block do not exist. The masked kernel
// hides all keys from these, and in the plain one they are zeros, whose scores are 0: no reference
// rises for them after the step that first shows them a key, which other queries of their wave see
// no earlier.
struct Gate {
  const uint64_t* tiles;  // null: the kernel is launched alone
  uint32_t rows, row_words;
  uint64_t last_word;  // the bits of a row's last word that are states
};

// The kernels' argument. The maps have four dimensions: head_dim, sequence, head, batch. A
// dimension along which the tensor does not move (stride 0) has size 1.
// Of kernels that take their work from a list, q's maps have a fifth, the head in its group, after
// head_dim; packed tensors have one batch of all rows, and pages are batches.
struct PipelinedParams {
  gpu::TensorMap q, k, v, mask;
  AttentionParams attention;
  // Rows of the mask in one copy: kRows, or 1 if all queries share one; 0: the mask is not copied.
  uint32_t mask_rows;
  // Counts the blocks taken after each workgroup's first; null: each workgroup has one block. Not
  // used with a list: see WorkSection::taken.
  uint32_t* taken;
  MaskStates mask_states;
  Gate gate;
  // ---- Only for the kernels that take their work from a list ----
  WorkParams work;
  // The same tensors as q, k and v, for copies of fewer rows: of one query (and the heads of its
  // group), of 8 keys, of one.
  gpu::TensorMap one_query, eight_values, one_value;
  int32_t box_keys;  // rows of k and v in one copy: a step's, or fewer if pages need that
  // Whether rows of q past the sequence's end must be zeros (batch_invariant). Otherwise the next
  // sequence's rows stand there. A wave raises its references for all rows together, so other rows
  // could change the bits.
  int32_t exact_queries;
};

// The fewest keys in one copy from pages. An H200 starts a copy in about 55 cycles. At head_dim 128
// boxes of 8 keys take as long to copy as their products take, boxes of 4 twice as long. With
// fewer, listed_attention serves the problem.
inline constexpr int32_t kLeastBoxKeys = 4;

// A place in a ring of kStages, and which of the two phases of its barriers comes next.
template <int kStages>
struct Ring {
  uint32_t count = 0;
  GPU_DEVICE uint32_t stage() const { return count % kStages; }
  GPU_DEVICE uint32_t full_parity() const { return count / kStages & 1; }
  GPU_DEVICE uint32_t empty_parity() const { return full_parity() ^ 1; }  // places begin empty
  GPU_DEVICE void advance() { ++count; }
};

// A block of queries, and its steps of keys; end 0: there is no block.
struct DenseWork {
  Range steps;
  int32_t first_query, head, batch;
  GPU_DEVICE bool sees_keys() const { return steps.begin < steps.end; }
};
struct alignas(16) ListedWork {
  Range steps;
  int32_t first_query, lead;  // as of PackedBlock
  WorkItem item;
};
static_assert(sizeof(ListedWork) == 64 && __builtin_offsetof(ListedWork, item) == 16);
template <bool kListed>
struct WorkOf {
  using Type = DenseWork;
};
template <>
struct WorkOf<true> {
  using Type = ListedWork;
};

// What one of two warpgroups with the same rows tells the other.
struct Exchange {
  float references[kWgmmaRows];  // of the rows of waves whose references rise
  int32_t rises[4];              // with a step's weights: whether a wave's references rise
  float sums[2][kWgmmaRows];     // at the end of a block, in two places in turn
};

template <class Tile, Kind kKind>
class Pipeline {
 public:
  static constexpr int kThreads = (1 + Tile::kGroups) * Tile::kGroupThreads;
  static constexpr int kWaves = Tile::kGroupThreads / Tile::kWave;  // of a warpgroup
  static constexpr bool kListed = kKind == Kind::listed_plain;
  using Work = typename WorkOf<kListed>::Type;

  // ---- Workgroup memory behind the tile's ----
  static constexpr bool kHasMask = kTakesMasks<kKind> && Tile::kKeys % 64 == 0;
  // Q comes in parts, one for each warpgroup's rows.
  static constexpr int kParts = Tile::kSharesRows ? 1 : Tile::kGroups;
  static constexpr uint32_t kMaskAt = Tile::kTileEnd,
                            kMaskBytes = kHasMask ? MaskTile<Tile>::kBytes : 0;
  static constexpr uint32_t kBarriersAt = kMaskAt + Tile::kStages * kMaskBytes;
  enum Barrier : uint32_t {
    kQuery,  // of each place and part of Q
    kKey = kQuery + Tile::kQueryStages * kParts,
    kValue = Tile::kValuesInKeys ? kKey : kKey + Tile::kStages,
    kMask = kValue + Tile::kStages,
    kWeights = kMask + (kHasMask ? Tile::kStages : 0),  // with kSharesRows: of each warpgroup
    kNext = kWeights + (Tile::kSharesRows ? Tile::kGroups : 0),  // with a list: the next item
    kBarriers = kNext + (kListed ? 1 : 0)
  };
  // Arrivals that make a barrier full and empty.
  GPU_DEVICE static uint32_t full_arrivals(uint32_t n) {
    return n >= kWeights && n < kNext ? kWaves : 1;
  }
  GPU_DEVICE static uint32_t empty_arrivals(uint32_t n) {
    // The thread that copies V reads the blocks of Q's first part, too.
    if (n < kKey) return Tile::kGroups / kParts + (kSplitsCopies && n % kParts == 0 ? 1 : 0);
    if (n < kMask) {
      // With kSharesRows one warpgroup multiplies K. The other one reads where the step is, and V.
      if (!Tile::kSharesRows || n >= kValue) return Tile::kGroups;
      return kHandsSteps ? 1 + kWaves : 1;
    }
    if (n < kWeights) return (Tile::kSharesRows ? 1 : Tile::kGroups) * kWaves;
    return n < kNext ? kWaves : 1;
  }
  // The block that each warpgroup takes next, in each place of Q.
  static constexpr uint32_t kWorkAt = (kBarriersAt + 2 * kBarriers * 8 + 15) / 16 * 16,
                            kWorkBytes = 64;
  // What is at each place of K: see StepWord. Only masks make steps that differ.
  static constexpr bool kHandsSteps = kTakesMasks<kKind>;
  // Whether a thread of its own copies V. With a mask to copy, too, one thread takes longer for a
  // step than the consumers.
  static constexpr bool kSplitsCopies = kKind == Kind::masked;
  static constexpr uint32_t kStepAt = kWorkAt + Tile::kQueryStages * kParts * kWorkBytes;
  static constexpr uint32_t kNextAt =
      (kStepAt + (kHandsSteps ? Tile::kStages * 4 : 0) + 15) / 16 * 16;
  // With kSharesRows: what a warpgroup tells the other one. See Exchange.
  static constexpr uint32_t kExchangeAt = kNextAt + (kListed ? sizeof(ListedWork) : 0);
  static constexpr uint32_t kSharedBytes =
      kExchangeAt + (Tile::kSharesRows ? Tile::kGroups * sizeof(Exchange) : 0);
  static_assert(kSharedBytes <= 227 << 10);
  GPU_DEVICE static uint32_t exchange_at(int group) {
    return kExchangeAt + static_cast<uint32_t>(group) * sizeof(Exchange);
  }
  GPU_DEVICE static uint32_t full(uint32_t barrier) { return kBarriersAt + barrier * 16; }
  GPU_DEVICE static uint32_t empty(uint32_t barrier) { return full(barrier) + 8; }

  GPU_DEVICE explicit Pipeline(const PipelinedParams& params)
      : params_(params), p_(params.attention) {}

 protected:
  static constexpr int kKeys = Tile::kKeys;
  using StageRing = Ring<Tile::kStages>;

  // Which step of keys is at a place, as the producer hands it over with K.
  struct StepWord {
    int32_t step;
    // Whether its scores take the mask; else whether they are scaled, for an additive mask that
    // adds nothing to them.
    bool masked, scaled;
    StageRing mask;  // with masked: the mask's place, if it is copied. It has its own ring, since
                     // steps whose mask hides nothing do not take a place.
    static constexpr uint32_t kPhases = 2 * Tile::kStages;
    static_assert((kPhases & (kPhases - 1)) == 0);
    GPU_DEVICE int32_t packed() const {
      return step * static_cast<int32_t>(4 * kPhases) +
             static_cast<int32_t>(mask.count % kPhases * 4 + (scaled ? 2 : 0) + (masked ? 1 : 0));
    }
    GPU_DEVICE static StepWord unpacked(int32_t word) {
      const uint32_t bits = static_cast<uint32_t>(word);
      return {static_cast<int32_t>(bits / (4 * kPhases)),
              (bits & 1) != 0,
              (bits & 2) != 0,
              {bits / 4 % kPhases}};
    }
  };
  GPU_DEVICE static uint32_t step_at(uint32_t stage) { return kStepAt + stage * 4; }

  // Whether copies bring the mask.
  GPU_DEVICE bool copies_mask() const { return kKind == Kind::masked || params_.mask_rows != 0; }
  GPU_DEVICE bool mask_is_boolean() const { return (p_.flags & kBooleanMask) != 0; }
  // Whether steps whose mask hides everything are left out.
  GPU_DEVICE bool knows_states() const {
    return kHandsSteps && params_.mask_states.first != nullptr;
  }

  // ---- Which blocks of queries this workgroup takes ----
  GPU_DEVICE uint32_t blocks_of_head() const {
    return (static_cast<uint32_t>(p_.seq_q) + Tile::kRows - 1) / Tile::kRows;
  }
  GPU_DEVICE uint32_t block_count() const { return blocks_of_head() * p_.batch * p_.heads_q; }
  GPU_DEVICE int64_t shift(int32_t batch) const {
    return kKind == Kind::generic ? diagonal_offset(p_, batch) : 0;
  }
  // Returns the n-th block. Within a section the head changes fastest: first one block of every
  // head, then the next block of every head. With causal the longest blocks come first.
  GPU_DEVICE DenseWork numbered(uint32_t n) const {
    const uint32_t blocks = blocks_of_head(), heads = p_.batch * p_.heads_q;
    constexpr uint32_t section = kHeadsTogether;
    const uint32_t first_head = n / (blocks * section) * section;
    const uint32_t left = heads - first_head, width = left < section ? left : section;
    const uint32_t within = n - first_head * blocks;
    const uint32_t x = within / width, head = first_head + within % width;
    const int32_t first_query =
        static_cast<int32_t>(kKind == Kind::nocausal ? x : blocks - 1 - x) * Tile::kRows;
    const auto batch = static_cast<int32_t>(head / p_.heads_q);
    return {steps_of_block<Tile>(p_, first_query, shift(batch)), first_query,
            static_cast<int32_t>(head % p_.heads_q), batch};
  }
  GPU_DEVICE QueryBlock block(const DenseWork& work) const {
    return {work.batch, work.head, work.first_query, rows_of_block<Tile>(p_, work.first_query)};
  }
  GPU_DEVICE PackedBlock block(const ListedWork& work) const {
    const WorkSection& section = params_.work.section;
    const WorkItem& item = work.item;
    return {item.sequence,    item.head * section.group,
            work.first_query, work.lead,
            item.rows,        item.q_first,
            section.group,    section.group_magic};
  }
  // RETURNS the argument with the lengths and the diagonal of the block's sequence.
  GPU_DEVICE const AttentionParams& attention(const DenseWork&) const { return p_; }
  GPU_DEVICE AttentionParams attention(const ListedWork& work) const {
    AttentionParams p = p_;
    p.seq_q = work.item.q_length, p.seq_kv = work.item.kv_length;
    p.diagonal = params_.work.top_left ? 0 : int64_t{p.seq_kv} - p.seq_q;
    p.diagonal += work.item.diagonal_offset;
    return p;
  }
  GPU_DEVICE static uint32_t query_barrier(const Ring<Tile::kQueryStages>& query, int part) {
    return kQuery + query.stage() * kParts + static_cast<uint32_t>(part);
  }
  GPU_DEVICE static uint32_t work_at(const Ring<Tile::kQueryStages>& query, int part) {
    return kWorkAt + (query.stage() * kParts + static_cast<uint32_t>(part)) * kWorkBytes;
  }

  const PipelinedParams& params_;
  const AttentionParams& p_;
};

}  // namespace kernels::hip
