// kernels/hip/params.hpp: the one argument of a kernel of attention: one run's tensors and numbers
//
// launch/fill_params.cpp fills it on the host; a kernel takes it by value.
#pragma once

#include <stdint.h>

#include "kernels/common/problem.hpp"

namespace kernels::hip {

// The most workgroups of a grid along y, on every platform. Heads of all sequences are numbered
// along y, and those beyond this limit along z.
inline constexpr uint32_t kGridY = 65535;

// Which of the fused kernels. generic takes everything: masks, ALiBi, softcap, a diagonal_offset,
// and causal too. causal and nocausal have no code for these, which makes their loop shorter;
// causal starts with the longest blocks. listed takes what generic does, and its work from a list:
// see work_list.hpp; listed_plain has no code for masks, ALiBi and softcap. sm_90a's loop has no
// listed, and has masked besides: for masks that copies bring, causal too, and nothing else of
// what generic takes.
enum class Kind { generic, causal, nocausal, listed, listed_plain, masked };

// Strides of q, k, v or out, in elements.
struct Strides {
  int64_t batch, row, head;
};

// Of AttentionParams::flags.
enum Flags : uint32_t {
  // The scale is negative: kernels negate q, and score_scale and exp_scale are magnitudes.
  kNegativeScale = 1,
  // The mask has one byte for each key; 0 hides it. Otherwise a mask is additive.
  kBooleanMask = 2,
  // An additive mask is float32; otherwise it is of q's dtype.
  kMaskF32 = 4,
  // Every row of the mask starts at a multiple of 16 bytes, and its keys stand side by side.
  kMaskVector = 8,
  // Scores are scaled first: ALiBi or a softcap follows. Otherwise exp_scale or mask_scale does it.
  kScaledScores = 16,
};

struct AttentionParams {
  const void* q;
  const void* k;
  const void* v;
  void* out;
  const void* mask;     // null: no mask
  float* lse;           // null: not wanted
  const float* slopes;  // null: no ALiBi
  const float* sinks;   // null: no sinks
  float* scores;        // unfused: [batch, heads_q, seq_q, scores_row], in the workspace
  Strides q_stride, k_stride, v_stride, out_stride;
  int64_t mask_batch, mask_head, mask_row, mask_key;  // strides in elements
  int64_t lse_batch, lse_head, lse_row;               // strides in elements
  int64_t scores_row;  // unfused: floats of a row of scores: seq_kv rounded up to whole steps
  int64_t diagonal;    // the key opposite query 0; that of query i is i further
  const int32_t* diagonal_offsets;  // [batch], added to diagonal; null: none (generic fused kernel)
  int64_t window_left;   // visible: key >= diagonal - window_left; past every key: no window
  int64_t window_right;  // visible: key <= diagonal + window_right; 0 if causal
  int64_t slope_batch, slope_head, sink_stride;  // in elements
  int32_t batch, heads_q, heads_per_kv;
  int32_t seq_q, seq_kv, head_dim, head_dim_v;
  float score_scale;  // with kScaledScores: score = q.k * score_scale, divided by a softcap
  float mask_scale;   // with an additive mask: score = score * mask_scale + mask
  float softcap;      // 0: none
  float exp_scale;    // weight = 2^((score - reference) * exp_scale)
  uint32_t flags;
};

// ---- For sequences of different lengths: see work_list.hpp ----

struct alignas(16) WorkItem {
  int32_t sequence;             // in the batch
  int32_t head;                 // the group of queries' heads: see WorkSection::group
  int32_t first_row;            // packed row of the tile's first one
  int32_t rows;                 // how many of the tile's rows exist; 0: nothing to do
  int32_t key_begin, key_end;   // the keys to read
  int32_t slot;                 // of the partial result; -1: the item has all keys of its rows
  int32_t q_first, q_length;    // the sequence's rows of q and out
  int32_t kv_first, kv_length;  // the sequence's rows of k and v; with pages, kv_first is 0
  int32_t diagonal_offset;      // the sequence's, clamped
};

// A place where the line of all costs is cut.
struct alignas(8) Cut {
  int32_t item;    // the item that begins here, or the first one after it
  int32_t pieces;  // items of the tile whose first inner cut this is; else 0
};

// What the schedule kernel finds out about a section.
struct alignas(16) ListHead {
  int32_t by_shares;  // 1: tiles are cut, and workgroup i takes share i
  int32_t has_empty;  // whether an item may have no keys
};

// The items of one kernel.
struct WorkSection {
  WorkItem* items;
  ListHead* head;
  Cut* cuts;                   // [cut_count + 1]; the last one's item is the end of the items
  float* partial_out;          // [2 * cut_count, slot_rows, head_dim_v]
  void* partial_sums;          // [2 * cut_count, slot_rows] of PartSums
  int64_t share;               // cost between cuts; 0: so that cut_count shares hold all
  int32_t rows;                // of a tile
  int32_t slot_rows;           // of partial results: rows, or fewer if no tile has as many
  int32_t cut_keys;            // keys in one unit of cost
  int32_t cut_count;           // the most shares
  int32_t workgroups;          // of the kernel's grid
  int32_t combine_workgroups;  // of combine()'s grid, for each cut
  int32_t by_shares;           // 1: the list says whether workgroup i takes share i; else items i,
                               // i + workgroups, ...
  int32_t least_queries, most_queries;  // a sequence belongs here if it has as many
  // Heads of queries whose rows are packed: all that share a head of K and V, or 1.
  int32_t group;
  uint32_t group_magic;  // see divide_by_group
  int32_t heads;         // groups: heads_q / group
  // Counts the items taken after each workgroup's first, where they are taken in order; null: items
  // i, i + workgroups, ...
  uint32_t* taken;
};

struct WorkParams {
  const int32_t* kv_lengths;  // null: there are none, as with those below
  const int32_t* offsets_q;
  const int32_t* offsets_kv;
  const int32_t* page_table;
  int64_t kv_lengths_stride, offsets_q_stride, offsets_kv_stride;
  int64_t page_row, page_column;  // strides of page_table: of a sequence, of a page
  int32_t total_q, total_kv;      // with offsets: rows of q and of k
  int32_t most_q, most_kv;        // of one sequence
  int32_t pages, page_size;
  int32_t page_shift;  // log2(page_size); -1: page_size is no power of 2
  int32_t sequences;
  int32_t top_left;  // whether query 0 is opposite key 0
  int32_t compares;  // whether the list may be of other lengths than this run's
  // Without a list (section.items is null) all sequences are alike: one tile of tile_rows packed
  // rows for each head of K and V, which sees the keys [tile_begin, tile_end), at tile_cost.
  int32_t tile_rows, tile_begin, tile_end, tile_cost;
  WorkSection section;
};

// K and V of 8 bits.
struct StoredParams {
  const float* k_scale;  // null: no scales
  const float* v_scale;
  Strides k_scale_stride, v_scale_stride;
  DType dtype;        // i8, f8_e4m3fn or f8_e4m3fnuz
  int32_t per_token;  // whether keys have scales of their own; else a head has one
};

// The argument of the kernels that take their work from a list.
struct ServingParams {
  AttentionParams attention;
  WorkParams work;
  StoredParams stored;  // empty where K and V are of q's dtype
};

// The argument of the kernel that makes the lists.
inline constexpr int kMostSections = 2;
struct ScheduleParams {
  AttentionParams attention;
  WorkParams work;
  WorkSection sections[kMostSections];
  int32_t section_count;
};

}  // namespace kernels::hip
