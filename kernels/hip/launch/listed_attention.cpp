// kernels/hip/launch/listed_attention.cpp: plans and launches of the kernels that take their work
// from a list
#include "kernels/hip/launch/listed_attention.hpp"

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstring>
#include <string_view>

#include "kernels/hip/decode_attention.hpp"
#include "kernels/hip/launch/family.hpp"
#include "kernels/hip/launch/fill_serving.hpp"
#include "kernels/hip/launch/pipelined_attention.hpp"
#include "kernels/hip/schedule.hpp"

namespace kernels::hip {
namespace {

// Keys in one unit of the decode kernel's cost, and between possible cuts: few enough that short
// rows fill the GPU. A turn of all waves takes 32 to 128 keys.
constexpr int32_t kDecodeCutKeys = 64;
// With batch_invariant every sequence is cut after these keys, whatever else the batch has. Fewer
// would fill a GPU sooner, but each piece has a place in the workspace and costs a merge.
constexpr int32_t kInvariantCutKeys = 2048;
// Equal sequences are cut only if their tiles would else fill less than this fraction of the
// workgroups, over all rounds.
constexpr double kLeastUse = 0.9;

using AnyDecodeTile = DecodeTile<BF16, 64, false>;
constexpr int kDecodeRows = AnyDecodeTile::kRows;

int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t group_of(const Problem& p) { return p.heads_q / std::max<int64_t>(1, p.heads_kv); }
int64_t packed_rows(const Problem& p) { return group_of(p) * p.seq_q; }

// Whether sequences differ, so that only the device knows the work.
bool is_ragged(const Problem& p) {
  return p.kv_lengths || p.varlen || p.page_size > 0 || p.diagonal_offset;
}
const char* arch_of(const Target& target) {
  return target.list_arch != nullptr ? target.list_arch : target.arch;
}
// The number of an NVIDIA architecture: of "sm_90" and "compute_90" 90; 0 of others.
int arch_number(const Target& target) {
  const std::string_view arch = arch_of(target);
  int number = 0;
  for (const std::string_view prefix : {"sm_", "compute_"})
    if (arch.starts_with(prefix))
      std::from_chars(arch.data() + prefix.size(), arch.data() + arch.size(), number);
  return number;
}
bool has_decode(const Problem& p, const Target& target) {
  const Family family = family_of(arch_of(target));
  return (family == Family::mma_sm80 || family == Family::wgmma_sm90) && p.dtype != DType::f32 &&
         group_of(p) <= kDecodeRows && std::max(p.head_dim, p.head_dim_v) <= kDims[2];
}
// Up to so many queries, heads that share K and V are packed, and keys are split over workgroups:
// else most rows of a tile would be empty.
constexpr int64_t kFewQueries = 32;
constexpr int64_t kLargestGroup = 1 << 15;  // see divide_by_group

// Whether the decode kernels of a target are compiled for 227 KiB of workgroup memory.
bool is_large(const Target& target) {
  const int number = arch_number(target);
  return number >= 90 && number < 120;  // as in serving_attention.hip
}

// Whether K and V are of 8 bits.
bool is_stored(const Problem& p) { return kv_dtype(p) != p.dtype; }

template <class Tile>
void set_decode_sizes(ListPlan::Section* section) {
  section->block = Tile::kThreads, section->shared_bytes = Tile::kSharedBytes;
}
template <bool kLarge>
void set_decode_sizes(bool stored, int dim, ListPlan::Section* section) {
  switch (stored ? dim + 1 : dim) {
    case 64: return set_decode_sizes<DecodeTile<BF16, 64, kLarge>>(section);
    case 128: return set_decode_sizes<DecodeTile<BF16, 128, kLarge>>(section);
    case 256: return set_decode_sizes<DecodeTile<BF16, 256, kLarge>>(section);
    case 65: return set_decode_sizes<StoredDecodeTile<BF16, 64, kLarge>>(section);
    case 129: return set_decode_sizes<StoredDecodeTile<BF16, 128, kLarge>>(section);
    case 257: return set_decode_sizes<StoredDecodeTile<BF16, 256, kLarge>>(section);
  }
}
// Whether scores are more than scaled by a positive number.
bool modifies(const Problem& p) {
  return p.softcap != 0 || p.alibi || p.mask != Mask::none || p.scale < 0;
}

// The most items, by the problem's bounds.
int64_t most_items(const Problem& p, const ListPlan::Section& section, int64_t most_rows) {
  return p.batch * (p.heads_q / section.group) * quotient_up(most_rows, section.rows) +
         section.cut_count + 1;
}

// RETURNS where an array of so many bytes begins, behind what was placed before.
int64_t place(int64_t size, int64_t* bytes) {
  const int64_t at = *bytes;
  *bytes += quotient_up(size, 256) * 256;
  return at;
}

ListPlan list_plan(const Problem& p, const Target& target, const char* object,
                   int64_t* workspace_bytes) {
  ListPlan list;
  // Without a list costs are counted in 32 bits; a unit of cost is 16 keys or more.
  const double most_cost = static_cast<double>(p.batch) * static_cast<double>(p.heads_q) *
                           static_cast<double>(quotient_up(p.seq_kv, 16));
  list.has_list = is_ragged(p) || p.batch_invariant || most_cost > 1 << 30;
  list.overlaps = arch_number(target) >= 90;
  const int64_t rows = packed_rows(p);
  const bool decodes = has_decode(p, target);
  const auto most_decode_queries = static_cast<int32_t>(kDecodeRows / group_of(p));
  if (decodes) {
    ListPlan::Section& s = list.decode;
    s.object = object, s.group = static_cast<int32_t>(group_of(p));
    // Of K and V of 8 bits there are two kernels.
    const bool small_pages = p.page_size % AnyDecodeTile::kKeys != 0;
    s.kernel = small_pages || (modifies(p) && is_stored(p)) ? "decode_attention_small_pages_kernel"
               : modifies(p)                                ? "decode_attention_kernel"
                                                            : "decode_attention_plain_kernel";
    const bool large = is_large(target);
    if (large) {
      set_decode_sizes<true>(is_stored(p), padded_dim(p), &s);
    } else {
      set_decode_sizes<false>(is_stored(p), padded_dim(p), &s);
    }
    s.rows = kDecodeRows;
    // Of the smaller ones, two fit on most multiprocessors.
    s.workgroups = (large ? 1 : 2) * static_cast<uint32_t>(target.multiprocessors);
    s.cut_keys = kDecodeCutKeys, s.cut_count = static_cast<int32_t>(s.workgroups);
    s.by_shares = true;
    if (p.batch_invariant) {
      s.cut_keys = kInvariantCutKeys, s.share = 1, s.by_shares = false;
      s.cut_count = static_cast<int32_t>(p.batch * p.heads_kv *
                                         std::max<int64_t>(1, quotient_up(p.seq_kv, s.cut_keys)));
    }
    s.least_queries = 1, s.most_queries = most_decode_queries;
    s.items = most_items(p, s, std::min<int64_t>(rows, kDecodeRows));
  }
  if (!decodes || rows > kDecodeRows) {
    ListPlan::Section& s = list.prefill;
    if (is_pipelined_list(p, target)) {
      set_pipelined_section(p, target, &s);
      s.cut_count = static_cast<int32_t>(s.workgroups);
      s.by_shares = true;
    } else {
      const TileFacts tile = tile_facts(family_of(arch_of(target)), p.dtype, padded_dim(p));
      s.object = object;
      s.kernel = modifies(p) ? "listed_attention_kernel" : "listed_attention_plain_kernel";
      s.block = tile.threads;
      s.shared_bytes = is_stored(p) ? tile.stored_shared_bytes : tile.shared_bytes;
      s.rows = static_cast<int32_t>(tile.rows), s.cut_keys = static_cast<int32_t>(tile.keys);
      s.group = static_cast<int32_t>(group_of(p));
      s.workgroups = 2 * static_cast<uint32_t>(target.multiprocessors);
      s.cut_count = static_cast<int32_t>(2 * s.workgroups);
    }
    list.has_list = list.has_list || s.group * p.seq_q > s.rows;
    if (p.batch_invariant) s.cut_count = 1, s.share = kNoCuts, s.by_shares = false;
    s.least_queries = decodes ? most_decode_queries + 1 : 1, s.most_queries = INT_MAX;
    s.items = most_items(p, s, s.group * p.seq_q);
  }
  ListPlan::Section* const sections[] = {&list.decode, &list.prefill};
  int64_t bytes = 0;
  for (ListPlan::Section* s : sections) {
    if (s->kernel == nullptr || !list.has_list) continue;
    s->head_at = place(sizeof(ListHead), &bytes);
    s->cuts_at = place((s->cut_count + 1) * int64_t{sizeof(Cut)}, &bytes);
    s->items_at = place(s->items * int64_t{sizeof(WorkItem)}, &bytes);
  }
  list.list_bytes = bytes;
  for (ListPlan::Section* s : sections) {
    if (s->kernel == nullptr) continue;
    if (s->is_pipelined) s->taken_at = place(sizeof(uint32_t), &bytes);
    s->slot_rows = static_cast<int32_t>(std::min<int64_t>(s->rows, s->group * p.seq_q));
    const int64_t slot_rows = 2 * int64_t{s->cut_count} * s->slot_rows;
    s->partial_sums_at = place(slot_rows * int64_t{sizeof(PartSums)}, &bytes);
    s->partial_out_at = place(slot_rows * 4 * p.head_dim_v, &bytes);
  }
  *workspace_bytes = bytes;
  return list;
}

// ---- One run ----

// Whether a run may have work for a section: unless q is packed, all sequences have as many rows.
bool has_work(const Problem& problem, const WorkParams& w, const ListPlan::Section& section) {
  if (section.kernel == nullptr) return false;
  return problem.varlen || (w.most_q >= section.least_queries && w.most_q <= section.most_queries);
}

// Finds the one tile of which all are copies, and where they are cut. RETURNS whether inside.
bool set_uniform(const AttentionParams& p, WorkParams* w, WorkSection* section,
                 const ListPlan::Section& plan) {
  const Range first = visible_range(p, 0), last = visible_range(p, w->most_q - 1);
  w->tile_rows = section->group * w->most_q;
  w->tile_begin = first.begin / section->cut_keys * section->cut_keys;
  w->tile_end = std::max(w->tile_begin, last.end);
  const int64_t cost =
      std::max<int64_t>(1, quotient_up(w->tile_end - w->tile_begin, section->cut_keys));
  w->tile_cost = static_cast<int32_t>(cost);
  const int64_t tiles = int64_t{w->sequences} * section->heads;
  if (section->share == 0) {  // not batch_invariant
    const int64_t rounds = quotient_up(tiles, plan.workgroups);
    const bool cuts =
        static_cast<double>(tiles) < kLeastUse * static_cast<double>(rounds * plan.workgroups);
    section->share = cuts ? quotient_up(tiles * cost, plan.workgroups) : cost;
  }
  section->cut_count = static_cast<int32_t>(quotient_up(tiles * cost, section->share));
  return section->share % cost != 0;
}

// workspace: null: the list is made for other runs.
WorkSection section_at(const Problem& problem, const ListPlan& list, const ListPlan::Section& plan,
                       char* lists, char* workspace) {
  WorkSection section{};
  if (list.has_list) {
    section.items = reinterpret_cast<WorkItem*>(lists + plan.items_at);
    section.cuts = reinterpret_cast<Cut*>(lists + plan.cuts_at);
    section.head = reinterpret_cast<ListHead*>(lists + plan.head_at);
  }
  if (workspace != nullptr) {
    section.partial_out = reinterpret_cast<float*>(workspace + plan.partial_out_at);
    section.partial_sums = workspace + plan.partial_sums_at;
    if (plan.is_pipelined && list.has_list)
      section.taken = reinterpret_cast<uint32_t*>(workspace + plan.taken_at);
  }
  section.share = plan.share, section.by_shares = plan.by_shares;
  section.rows = plan.rows, section.slot_rows = plan.slot_rows, section.cut_keys = plan.cut_keys;
  section.cut_count = plan.cut_count;
  section.workgroups = static_cast<int32_t>(plan.workgroups);
  section.least_queries = plan.least_queries, section.most_queries = plan.most_queries;
  section.group = plan.group, section.heads = static_cast<int32_t>(problem.heads_q / plan.group);
  section.group_magic = static_cast<uint32_t>(quotient_up(int64_t{1} << 31, plan.group));
  return section;
}

template <class Params>
void set_launch(const char* object, const char* kernel, uint32_t workgroups, uint32_t block,
                uint32_t shared_bytes, const Params& params, Launch* out) {
  static_assert(sizeof params <= sizeof out->params);
  begin(out, object, kernel, workgroups, block, shared_bytes, sizeof params);
  std::memcpy(out->params, &params, sizeof params);
}

}  // namespace

bool is_listed(const Problem& p) {
  if (p.kv_lengths || p.varlen || p.page_size > 0 || is_stored(p)) return true;
  // Only a tile for lists has so many columns.
  if (p.v_in_k && p.head_dim > kPipelinedMaxDim) return true;
  if (std::max(p.head_dim, p.head_dim_v) > kDims[2]) return false;
  // With batch_invariant no bound decides. Many queries with modified scores are slow in lists.
  if (p.batch_invariant) return !modifies(p);
  return p.seq_q <= kFewQueries && listed_supported(p, nullptr);
}

bool listed_supported(const Problem& p, std::string* reason) {
  const auto fail = [&](const std::string& text) {
    if (reason != nullptr) *reason = text;
    return false;
  };
  constexpr int64_t kLargest = INT_MAX - 1024;
  const int64_t group = group_of(p);
  if (group > kLargestGroup)
    return fail("heads_q / heads_kv is above " + std::to_string(kLargestGroup));
  if (p.seq_q > kLargest / group)
    return fail("heads_q / heads_kv * seq_q is above " + std::to_string(kLargest));
  // Items and cuts have numbers of 32 bits, and costs of a section 62.
  const double tiles = static_cast<double>(p.batch) * static_cast<double>(p.heads_kv) *
                       static_cast<double>(quotient_up(packed_rows(p), kDecodeRows) +
                                           quotient_up(p.seq_kv, kInvariantCutKeys));
  if (tiles > 1 << 28)
    return fail("batch * heads_kv * (heads_q / heads_kv * seq_q / 16 + seq_kv / " +
                std::to_string(kInvariantCutKeys) + ") is above " + std::to_string(1 << 28));
  return true;
}

FlashPlan plan_listed(const Problem& problem, const Target& target) {
  static constexpr const char* kObjects[3][3] = {
      {"serving_attention_f32_64", "serving_attention_f32_128", "serving_attention_f32_256"},
      {"serving_attention_f16_64", "serving_attention_f16_128", "serving_attention_f16_256"},
      {"serving_attention_bf16_64", "serving_attention_bf16_128", "serving_attention_bf16_256"}};
  static constexpr const char* kStoredObjects[2][3] = {
      {"serving_attention_kv8_f16_64", "serving_attention_kv8_f16_128",
       "serving_attention_kv8_f16_256"},
      {"serving_attention_kv8_bf16_64", "serving_attention_kv8_bf16_128",
       "serving_attention_kv8_bf16_256"}};
  FlashPlan plan;
  const int dtype = static_cast<int>(problem.dtype), dim = padded_dim(problem) / 128;
  plan.object = is_stored(problem) ? kStoredObjects[dtype - 1][dim] : kObjects[dtype][dim];
  plan.list = list_plan(problem, target, plan.object, &plan.workspace_bytes);
  const ListPlan::Section &decode = plan.list.decode, &prefill = plan.list.prefill;
  plan.kernel = decode.kernel == nullptr    ? prefill.kernel
                : prefill.kernel == nullptr ? decode.kernel
                : prefill.is_pipelined      ? "decode_attention and flash_attention_sm90_listed"
                                            : "decode_attention and listed_attention";
  const ListPlan::Section& first = decode.kernel != nullptr ? decode : prefill;
  plan.block = first.block, plan.shared_bytes = first.shared_bytes;
  plan.rows = static_cast<uint32_t>(first.rows), plan.keys = static_cast<uint32_t>(first.cut_keys);
  return plan;
}

int64_t schedule_bytes(const FlashPlan& plan) { return plan.list.list_bytes; }

namespace {

// Writes the launch that makes the lists. workspace: as of section_at.
int32_t list_launches(const FlashPlan& plan, const Problem& problem, const ServingParams& params,
                      char* lists, char* workspace, Launch* out) {
  if (!plan.list.has_list) return 0;
  ScheduleParams made{params.attention, params.work, {}, 0};
  for (const ListPlan::Section* s : {&plan.list.decode, &plan.list.prefill}) {
    if (!has_work(problem, params.work, *s)) continue;
    made.sections[made.section_count++] = section_at(problem, plan.list, *s, lists, workspace);
  }
  set_launch("schedule", "schedule_kernel", 1, kScheduleThreads, kScheduleSharedBytes, made, out);
  return 1;
}

}  // namespace

int32_t schedule_launches(const FlashPlan& plan, const Problem& problem, const Args& args,
                          void* schedule, Launch* out) {
  ServingParams params{};
  if (!fill_serving(problem, args, &params)) return 0;
  return list_launches(plan, problem, params, static_cast<char*>(schedule), nullptr, out);
}

int32_t listed_launches(const FlashPlan& plan, const Problem& problem, const Args& args,
                        void* workspace, Launch* out, void* schedule) {
  const ListPlan& list = plan.list;
  ServingParams params{};
  if (!fill_serving(problem, args, &params)) return 0;
  const AttentionParams& p = params.attention;
  WorkParams& w = params.work;
  char* const memory = static_cast<char*>(workspace);
  char* const lists = schedule != nullptr ? static_cast<char*>(schedule) : memory;
  int32_t count = 0;
  if (schedule == nullptr) {
    count = list_launches(plan, problem, params, lists, memory, out);
  } else {
    w.compares = 1;
  }
  for (const ListPlan::Section* s : {&list.decode, &list.prefill}) {
    if (!has_work(problem, w, *s)) continue;
    w.section = section_at(problem, list, *s, lists, memory);
    const bool cuts = list.has_list ? s->share != kNoCuts : set_uniform(p, &w, &w.section, *s);
    const auto shares = static_cast<uint32_t>(w.section.cut_count),
               tiles = static_cast<uint32_t>(w.sequences) * static_cast<uint32_t>(w.section.heads);
    const uint32_t workgroups = list.has_list ? s->workgroups : std::min(s->workgroups, shares);
    w.section.workgroups = static_cast<int32_t>(workgroups);
    const int64_t rows = std::min<int64_t>(s->rows, int64_t{s->group} * w.most_q);
    w.section.combine_workgroups = static_cast<int32_t>(
        list.has_list && s->by_shares ? std::min<int64_t>(rows, kCombineWorkgroups) : rows);
    if (w.section.taken != nullptr && schedule != nullptr)
      set_counter_launch(s->object, w.section.taken, &out[count++]);
    if (!s->is_pipelined) {
      set_launch(s->object, s->kernel, workgroups, s->block, s->shared_bytes, params, &out[count]);
    } else if (!set_pipelined_launch(*s, problem, args, params, workgroups, &out[count])) {
      return kNoTensorMap;
    }
    out[count].overlaps =
        list.overlaps && count == 1 && list.has_list;  // right after the list, or the counter
    ++count;
    if (!cuts) continue;
    set_launch(plan.object, "combine_kernel", list.has_list ? shares : tiles, kCombineThreads,
               kCombineSharedBytes, params, &out[count]);
    out[count].overlaps = list.overlaps;
    out[count++].grid[1] = static_cast<uint32_t>(w.section.combine_workgroups);
  }
  return count;
}

int32_t kernels_of(const FlashPlan& plan, const Problem& problem, const Args& args, Launch* out) {
  const ListPlan& list = plan.list;
  if (list.decode.kernel == nullptr && list.prefill.kernel == nullptr) {
    static char any;  // nothing reads through it
    return add_kernels_of_masks(plan, problem, launches(plan, problem, args, &any, out), out);
  }
  int32_t count = 0;
  const auto add = [&](const char* object, const char* kernel, uint32_t block, uint32_t bytes) {
    out[count++] = {object, kernel, {1, 1, 1}, block, bytes, 0};
  };
  if (list.has_list) add("schedule", "schedule_kernel", kScheduleThreads, kScheduleSharedBytes);
  for (const ListPlan::Section* s : {&list.decode, &list.prefill})
    if (s->kernel != nullptr) add(s->object, s->kernel, s->block, s->shared_bytes);
  if (list.prefill.is_pipelined && list.has_list)
    add(list.prefill.object, "flash_attention_sm90_prepare_kernel", 32, 0);
  add(plan.object, "combine_kernel", kCombineThreads, kCombineSharedBytes);
  return count;
}

}  // namespace kernels::hip
