// kernels/hip/launch/pipelined_attention.cpp: plans and launches of the loop of sm_90a
#include "kernels/hip/launch/pipelined_attention.hpp"

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <string>

#include "kernels/hip/flash_attention_sm90.hpp"
#include "kernels/hip/launch/family.hpp"

namespace kernels::hip {

Kind kind_of(const Problem& problem) {
  const bool generic = problem.mask != Mask::none || problem.alibi || problem.softcap != 0 ||
                       problem.diagonal_offset;
  if (generic) return Kind::generic;
  return problem.causal ? Kind::causal : Kind::nocausal;
}

namespace {

// ---- The loop of sm_90a ----

// The head dimensions that it is compiled for.
struct Dims {
  int dim, dim_v;
  const char* objects[2];  // of f16 and bf16
};
constexpr Dims kPipelinedDims[] = {
    {64, 64, {"flash_attention_sm90_f16_64", "flash_attention_sm90_bf16_64"}},
    {96, 96, {"flash_attention_sm90_f16_96", "flash_attention_sm90_bf16_96"}},
    {128, 128, {"flash_attention_sm90_f16_128", "flash_attention_sm90_bf16_128"}},
    {192, 128, {"flash_attention_sm90_f16_192_128", "flash_attention_sm90_bf16_192_128"}},
    {192, 192, {"flash_attention_sm90_f16_192", "flash_attention_sm90_bf16_192"}},
    {256, 256, {"flash_attention_sm90_f16_256", "flash_attention_sm90_bf16_256"}},
    {512, 512, {"flash_attention_sm90_f16_512", "flash_attention_sm90_bf16_512"}},
    // Only for lists, with values in keys.
    {576, 512, {"flash_attention_sm90_f16_576_512", "flash_attention_sm90_bf16_576_512"}},
};

// The largest head_dim that has a masked kernel: the steps of larger ones are too short for copies.
constexpr int kMaskedMaxDim = 256;

template <int kDim, int kDimV, Kind kKind>
void set_sizes(FlashPlan* plan) {
  using Tile = PipelinedTile<F16, kDim, kDimV, kKind>;  // BF16's is as large
  using Loop = PipelinedAttention<Tile, kKind>;
  plan->block = Loop::kThreads, plan->shared_bytes = Loop::kSharedBytes;
  plan->rows = Tile::kRows, plan->keys = Tile::kKeys, plan->box_columns = Tile::kPanel;
  plan->values_in_keys = Tile::kValuesInKeys;
}
template <int kDim, int kDimV>
void set_sizes(Kind kind, FlashPlan* plan) {
  switch (kind) {
    case Kind::generic: return set_sizes<kDim, kDimV, Kind::generic>(plan);
    case Kind::causal: return set_sizes<kDim, kDimV, Kind::causal>(plan);
    case Kind::nocausal: return set_sizes<kDim, kDimV, Kind::nocausal>(plan);
    case Kind::listed_plain: return set_sizes<kDim, kDimV, Kind::listed_plain>(plan);
    case Kind::masked:
      if constexpr (kDim <= kMaskedMaxDim) set_sizes<kDim, kDimV, Kind::masked>(plan);
      break;
    case Kind::listed: break;  // no kernel of this loop
  }
}
// Chooses the code object that serves the head dimensions, and fills what depends on its tile.
void choose_object(const Problem& problem, Kind kind, FlashPlan* plan) {
  const Dims* dims = kPipelinedDims;
  const bool shares = kind == Kind::listed_plain && problem.v_in_k;
  // Lists have no tile for 96: see ListedProducer. Nor is a head_dim of 512 copied twice.
  while (dims->dim < problem.head_dim || dims->dim_v < problem.head_dim_v ||
         (kind == Kind::listed_plain && dims->dim == 96) || (shares && dims->dim == 512))
    ++dims;
  plan->object = dims->objects[problem.dtype == DType::bf16 ? 1 : 0];
  switch (dims->dim + dims->dim_v) {
    case 64 + 64: set_sizes<64, 64>(kind, plan); break;
    case 96 + 96: set_sizes<96, 96>(kind, plan); break;
    case 128 + 128: set_sizes<128, 128>(kind, plan); break;
    case 192 + 128: set_sizes<192, 128>(kind, plan); break;
    case 192 + 192: set_sizes<192, 192>(kind, plan); break;
    case 256 + 256: set_sizes<256, 256>(kind, plan); break;
    case 512 + 512: set_sizes<512, 512>(kind, plan); break;
    case 576 + 512: set_sizes<576, 512, Kind::listed_plain>(plan); break;
  }
}

// Which kernel serves a dense problem, if copies can bring its mask.
Kind pipelined_kind(const Problem& problem) {
  // A negative scale takes the generic kernel: the copies bring Q as it is.
  if (problem.scale < 0) return Kind::generic;
  const bool copied = problem.mask == Mask::boolean ||
                      (problem.mask == Mask::additive && problem.mask_dtype == problem.dtype);
  return copied && !problem.alibi && problem.softcap == 0 && !problem.diagonal_offset &&
                 std::max(problem.head_dim, problem.head_dim_v) <= kMaskedMaxDim
             ? Kind::masked
             : kind_of(problem);
}
void choose_kernel(const Problem& problem, Kind kind, FlashPlan* plan) {
  plan->kernel = kind == Kind::generic  ? "flash_attention_sm90_kernel"
                 : kind == Kind::masked ? "flash_attention_sm90_masked_kernel"
                 : kind == Kind::causal ? "flash_attention_sm90_causal_kernel"
                                        : "flash_attention_sm90_nocausal_kernel";
  choose_object(problem, kind, plan);
}

int64_t blocks_of(const FlashPlan& plan, const Problem& problem, int64_t seq_q) {
  return (seq_q + plan.rows - 1) / plan.rows * problem.batch * problem.heads_q;
}

// The workspace: the counter of blocks, then the states of the mask's tiles.
constexpr int64_t kCounterBytes = 16;
int64_t steps_of(const FlashPlan& plan, int64_t seq_kv) {
  return (seq_kv + plan.keys - 1) / plan.keys;
}
// Bytes from the states of one block of queries to those of the next.
int64_t states_of_row(const FlashPlan& plan, int64_t seq_kv) {
  return (steps_of(plan, seq_kv) + kStatesAlignment - 1) / kStatesAlignment * kStatesAlignment;
}

// Whether tensor copies can bring the mask: makes their request, and says how many rows they take.
bool copy_mask(const FlashPlan& plan, const Args& args, const AttentionParams& p,
               TensorMapRequest* request, uint32_t* rows) {
  if (p.mask == nullptr || !(p.flags & kMaskVector) || (p.flags & kMaskF32)) return false;
  if (plan.keys % 64 != 0) return false;  // of a panel
  // Copies take elements of 16 bits: two keys of a boolean mask.
  const int64_t keys = p.flags & kBooleanMask ? 2 : 1;
  if (p.seq_kv % keys != 0 || p.seq_kv == 0) return false;
  Tensor mask = args.mask;  // [batch, seq_q, heads, elements], as request_for reads them
  mask.shape[1] = args.mask.shape[2], mask.stride[1] = args.mask.stride[2] / keys;
  mask.shape[2] = args.mask.shape[1], mask.stride[2] = args.mask.stride[1] / keys;
  mask.stride[0] = args.mask.stride[0] / keys;
  const uint32_t count = p.mask_row == 0 ? 1 : plan.rows;
  const uint32_t columns = std::min<uint32_t>(64, plan.keys / static_cast<uint32_t>(keys));
  if (!request_for(mask, p.seq_kv / keys, {columns, count},
                   static_cast<uint32_t>(offsetof(PipelinedParams, mask)), request))
    return false;
  *rows = count;
  return true;
}

// Where the tiles of a mask are looked at before the main kernel runs: if attention's FLOP are at
// least kLeastWork, and kWorkOfByte for each byte of the mask. An H200 reads a byte in the time of
// about 125 FLOP (4 TB/s, 500 TFLOP/s) and starts a kernel in that of about 1.5e9 (3 us), so a look
// in vain costs at most a tenth where there is least work, and 6 % where there is more. At head_dim
// 128 it needs four heads that share a boolean mask, or eight that share one of 16 bits. A mask
// whose tiles are all clear costs 25 to 45 % if nobody looks. With batch_invariant one sequence
// decides, so that the batch does not.
constexpr double kWorkOfByte = 2048, kLeastWork = 1.7e10;

// RETURNS whether the mask's tiles are to be looked at, and fills what that needs.
bool scan_mask(const FlashPlan& plan, const Problem& problem, const AttentionParams& p,
               void* workspace, PrepareParams* params) {
  if (p.mask == nullptr || !(p.flags & kMaskVector) || p.seq_kv == 0) return false;
  const int64_t batches = p.mask_batch == 0 ? 1 : p.batch, heads = p.mask_head == 0 ? 1 : p.heads_q,
                rows = p.mask_row == 0 ? 1 : p.seq_q, blocks = (rows + plan.rows - 1) / plan.rows,
                steps = steps_of(plan, p.seq_kv), row = states_of_row(plan, p.seq_kv);
  const bool alone = problem.batch_invariant;
  const int64_t key_bytes = p.flags & kBooleanMask ? 1 : p.flags & kMaskF32 ? 4 : 2;
  const double bytes = static_cast<double>((alone ? 1 : batches) * heads * rows) *
                       static_cast<double>(p.seq_kv * key_bytes);
  const double work = 2.0 * (alone ? 1 : p.batch) * p.heads_q * p.seq_q * p.seq_kv *
                      static_cast<double>(problem.head_dim + problem.head_dim_v);
  const bool pays = work >= kLeastWork && work >= kWorkOfByte * bytes;
  if (!pays && !plan.always_scans_masks) return false;
  if (batches * heads * blocks > INT32_MAX / steps) return false;  // tiles are a grid along x
  params->states = {static_cast<uint8_t*>(workspace) + kCounterBytes,
                    batches == 1 ? 0 : heads * blocks * row, heads == 1 ? 0 : blocks * row,
                    blocks == 1 ? 0 : row};
  params->mask = p.mask;
  params->mask_batch = p.mask_batch, params->mask_head = p.mask_head, params->mask_row = p.mask_row;
  params->seq_q = p.seq_q, params->seq_kv = p.seq_kv, params->flags = p.flags;
  params->heads = static_cast<uint32_t>(heads), params->blocks = static_cast<uint32_t>(blocks);
  params->steps = static_cast<uint32_t>(steps);
  params->tiles = static_cast<uint32_t>(batches * heads * blocks * steps);
  params->rows = static_cast<int32_t>(plan.rows);
  return true;
}

// Where a mask may hide nothing at all, a plain kernel is launched after the masked one, and the
// states of the tiles say which of them does the work. The other one returns at once, which takes
// about 3 us: a hundredth of kWorkOfGate. The most tiles are what each workgroup can read in about
// 1 us. Both kernels must have the same tiles, so that they give the same bits.
constexpr double kWorkOfGate = 1e11;
constexpr int64_t kMostGateWords = 4096;

// RETURNS whether there are two kernels, and fills the plain one and the gate.
bool gate(const FlashPlan& plan, const Problem& problem, const AttentionParams& p,
          const PrepareParams& prepare, FlashPlan* plain, Gate* gate) {
  if ((p.flags & kBooleanMask) == 0) return false;
  choose_kernel(problem, problem.causal ? Kind::causal : Kind::nocausal, plain);
  if (plain->rows != plan.rows || plain->keys != plan.keys) return false;
  const int64_t words = states_of_row(plan, p.seq_kv) / 8, rows = prepare.tiles / prepare.steps;
  const double work = 2.0 * (problem.batch_invariant ? 1 : p.batch) * p.heads_q * p.seq_q *
                      p.seq_kv * static_cast<double>(problem.head_dim + problem.head_dim_v);
  if (work < kWorkOfGate && !plan.always_scans_masks) return false;
  if (rows * words > kMostGateWords) return false;
  const uint32_t left = prepare.steps % 8;
  *gate = {reinterpret_cast<const uint64_t*>(prepare.states.first), static_cast<uint32_t>(rows),
           static_cast<uint32_t>(words), left == 0 ? ~0ull : (1ull << left * 8) - 1};
  return true;
}

}  // namespace

bool is_pipelined(const Problem& problem, const Target& target) {
  return family_of(target.arch) == Family::wgmma_sm90 && problem.dtype != DType::f32;
}

bool pipelined_supported(const Problem& problem, const Target& target, std::string* reason) {
  const FlashPlan plan = plan_pipelined(problem, target);
  if (blocks_of(plan, problem, problem.seq_q) <= INT32_MAX) return true;  // numbered in 32 bits
  if (reason != nullptr)
    *reason = "batch * heads_q * seq_q / " + std::to_string(plan.rows) + " is above " +
              std::to_string(INT32_MAX);
  return false;
}

FlashPlan plan_pipelined(const Problem& problem, const Target& target) {
  const Kind kind = pipelined_kind(problem);
  FlashPlan plan;
  plan.workgroups = static_cast<uint32_t>(target.multiprocessors);  // one is all that fits on each
  choose_kernel(problem, kind, &plan);
  // A mask whose strides copies cannot take goes to the generic kernel, whose blocks are smaller.
  FlashPlan smallest = plan;
  if (kind == Kind::masked) choose_kernel(problem, Kind::generic, &smallest);
  const int64_t blocks = blocks_of(smallest, problem, problem.seq_q);
  if (blocks > plan.workgroups) plan.workspace_bytes = kCounterBytes;
  if (problem.mask != Mask::none)
    plan.workspace_bytes = kCounterBytes + blocks * states_of_row(plan, problem.seq_kv);
  return plan;
}

int32_t pipelined_launches(const FlashPlan& planned, const Problem& problem, const Args& args,
                           const AttentionParams& p, void* workspace, Launch* out) {
  PipelinedParams params{};
  static_assert(sizeof params <= sizeof Launch::params);
  params.attention = p;
  FlashPlan plan = planned;
  TensorMapRequest mask;
  const bool copies = copy_mask(plan, args, p, &mask, &params.mask_rows);
  if (!copies && pipelined_kind(problem) == Kind::masked)
    choose_kernel(problem, Kind::generic, &plan);
  const int64_t blocks = blocks_of(plan, problem, p.seq_q);
  int32_t count = 0;
  PrepareParams prepare{};
  if (blocks > plan.workgroups) params.taken = prepare.taken = static_cast<uint32_t*>(workspace);
  const bool scans = scan_mask(plan, problem, p, workspace, &prepare);
  params.mask_states = prepare.states;
  if (scans || prepare.taken != nullptr) {
    Launch& launch = out[count++];
    begin(&launch, plan.object, "flash_attention_sm90_prepare_kernel", scans ? prepare.tiles : 1,
          scans ? kPrepareThreads : 32, scans ? kPrepareSharedBytes : 0, sizeof prepare);
    std::memcpy(launch.params, &prepare, sizeof prepare);
  }
  FlashPlan plain = plan;
  const bool gated = scans && copies && gate(plan, problem, p, prepare, &plain, &params.gate);
  const auto add = [&](const FlashPlan& kernel) {
    Launch& launch = out[count++];
    begin(&launch, kernel.object, kernel.kernel,
          static_cast<uint32_t>(std::min<int64_t>(blocks, kernel.workgroups)), kernel.block,
          kernel.shared_bytes, sizeof params);
    const auto map = [&](const Tensor& tensor, int64_t columns, uint32_t rows, size_t at) {
      return request_for(tensor, columns, {kernel.box_columns, rows}, static_cast<uint32_t>(at),
                         &launch.maps[launch.map_count++]);
    };
    std::memcpy(launch.params, &params, sizeof params);
    return map(args.q, problem.head_dim, kWgmmaRows, offsetof(PipelinedParams, q)) &&
           map(args.k, problem.head_dim, kernel.keys, offsetof(PipelinedParams, k)) &&
           map(value_tensor(problem, args), problem.head_dim_v, kernel.keys,
               offsetof(PipelinedParams, v));
  };
  if (!add(plan)) return kNoTensorMap;
  if (copies) out[count - 1].maps[out[count - 1].map_count++] = mask;
  if (gated && !add(plain)) return kNoTensorMap;
  return count;
}

int32_t add_kernels_of_masks(const FlashPlan& plan, const Problem& problem, int32_t count,
                             Launch* out) {
  if (count <= 0 || plan.box_columns == 0 || pipelined_kind(problem) != Kind::masked) return count;
  for (const Kind kind :
       {Kind::masked, Kind::generic, problem.causal ? Kind::causal : Kind::nocausal}) {
    FlashPlan each = plan;
    choose_kernel(problem, kind, &each);
    out[count++] = {each.object, each.kernel, {1, 1, 1}, each.block, each.shared_bytes, 0};
  }
  return count;
}

// ---- The same loop over a list of work ----

namespace {

int64_t group_of(const Problem& p) { return p.heads_q / std::max<int64_t>(1, p.heads_kv); }

// Whether one copy of queries can take the heads of a group: whole queries of all heads, or whole
// parts of a query's heads.
bool packs(int64_t group) { return kWgmmaRows % group == 0 || group % kWgmmaRows == 0; }

// Rows of k and v in one copy: a step's, or as many of one page as divide it.
int64_t box_keys_of(const Problem& problem, int64_t keys) {
  return problem.page_size == 0 ? keys : std::gcd(problem.page_size, keys);
}

// RETURNS the tensor as one batch of all rows, if it is packed.
Tensor unpacked(const Tensor& t) {
  if (t.ndim != 3) return t;
  return {t.data,
          t.dtype,
          4,
          {1, t.shape[0], t.shape[1], t.shape[2]},
          {0, t.stride[0], t.stride[1], t.stride[2]}};
}

}  // namespace

bool is_pipelined_list(const Problem& problem, const Target& target) {
  if (!is_pipelined(problem, target) || problem.scale < 0 || problem.mask != Mask::none ||
      problem.softcap != 0 || problem.alibi || kv_dtype(problem) != problem.dtype ||
      problem.head_dim > (problem.v_in_k ? kPipelinedMaxDimOfBoth : kPipelinedMaxDim) ||
      problem.head_dim_v > kPipelinedMaxDim)
    return false;
  // Where heads cannot be packed, tiles of few queries would be empty for the most part. (With
  // batch_invariant the bound seq_q decides nothing. Above kDims nothing else serves them.)
  const int64_t group = group_of(problem);
  const bool has_other = std::max(problem.head_dim, problem.head_dim_v) <= kDims[2];
  if (has_other && !packs(group) && !problem.batch_invariant &&
      group * problem.seq_q <= 2 * kWgmmaRows)
    return false;
  FlashPlan plan;
  choose_object(problem, Kind::listed_plain, &plan);
  return box_keys_of(problem, plan.keys) >= kLeastBoxKeys;
}

void set_pipelined_section(const Problem& problem, const Target& target,
                           ListPlan::Section* section) {
  FlashPlan plan;
  choose_object(problem, Kind::listed_plain, &plan);
  section->is_pipelined = true;
  section->kernel = "flash_attention_sm90_listed_kernel", section->object = plan.object;
  section->block = plan.block, section->shared_bytes = plan.shared_bytes;
  section->rows = static_cast<int32_t>(plan.rows);
  section->cut_keys = static_cast<int32_t>(plan.keys);
  section->workgroups = static_cast<uint32_t>(target.multiprocessors);
  section->box_keys = static_cast<uint32_t>(box_keys_of(problem, plan.keys));
  section->values_in_keys = plan.values_in_keys;
  const int64_t group = group_of(problem);
  section->group = static_cast<int32_t>(packs(group) ? group : 1);
}

bool set_pipelined_launch(const ListPlan::Section& section, const Problem& problem,
                          const Args& args, const ServingParams& serving, uint32_t workgroups,
                          Launch* out) {
  PipelinedParams params{};
  static_assert(sizeof params <= sizeof Launch::params);
  params.attention = serving.attention, params.work = serving.work;
  params.box_keys = static_cast<int32_t>(section.box_keys);
  params.exact_queries = problem.batch_invariant;
  begin(out, section.object, section.kernel, workgroups, section.block, section.shared_bytes,
        sizeof params);
  // Nothing is copied from k and v where there are no keys, and then they may be no tensors.
  const bool has_keys = serving.work.most_kv > 0;
  const Tensor q = unpacked(args.q), k = has_keys ? unpacked(args.k) : q,
               v = has_keys ? unpacked(value_tensor(problem, args)) : q;
  const auto map = [out](const Tensor& tensor, int64_t columns, const Box& box, size_t at) {
    return request_for(tensor, columns, box, static_cast<uint32_t>(at),
                       &out->maps[out->map_count++]);
  };
  const auto group = static_cast<uint32_t>(section.group);
  const uint32_t heads = std::min<uint32_t>(group, kWgmmaRows), keys = section.box_keys;
  // Where K's place holds the values too, they are copied with all its columns.
  const int64_t columns_of_v = section.values_in_keys ? problem.head_dim : problem.head_dim_v;
  const bool described =
      map(q, problem.head_dim, {64, kWgmmaRows / heads, group, heads},
          offsetof(PipelinedParams, q)) &&
      map(q, problem.head_dim, {64, 1, group, heads}, offsetof(PipelinedParams, one_query)) &&
      map(k, problem.head_dim, {64, keys}, offsetof(PipelinedParams, k)) &&
      map(v, columns_of_v, {64, keys}, offsetof(PipelinedParams, v)) &&
      map(v, columns_of_v, {64, 8}, offsetof(PipelinedParams, eight_values)) &&
      map(v, columns_of_v, {64, 1}, offsetof(PipelinedParams, one_value));
  std::memcpy(out->params, &params, sizeof params);
  return described;
}

void set_counter_launch(const char* object, uint32_t* taken, Launch* out) {
  PrepareParams params{};
  params.taken = taken;
  begin(out, object, "flash_attention_sm90_prepare_kernel", 1, 32, 0, sizeof params);
  std::memcpy(out->params, &params, sizeof params);
}

}  // namespace kernels::hip
