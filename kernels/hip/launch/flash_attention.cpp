// kernels/hip/launch/flash_attention.cpp: plans and launches of the fused kernels
#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstring>
#include <string>

#include "kernels/hip/flash_attention_sm90.hpp"
#include "kernels/hip/launch/family.hpp"
#include "kernels/hip/launch/fill_params.hpp"
#include "kernels/hip/launch/launch.hpp"
#include "kernels/hip/launch/listed_attention.hpp"

namespace kernels::hip {

namespace {

// Which kernel of the code object: see Kind.
Kind kind_of(const Problem& problem) {
  const bool generic = problem.mask != Mask::none || problem.alibi || problem.softcap != 0 ||
                       problem.diagonal_offset;
  if (generic) return Kind::generic;
  return problem.causal ? Kind::causal : Kind::nocausal;
}

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
};

constexpr int kPipelinedMaxDim = 512;

template <int kDim, int kDimV, Kind kKind>
void set_sizes(FlashPlan* plan) {
  using Tile = PipelinedTile<F16, kDim, kDimV, kKind>;  // BF16's is as large
  using Loop = PipelinedAttention<Tile, kKind>;
  plan->block = Loop::kThreads, plan->shared_bytes = Loop::kSharedBytes;
  plan->rows = Tile::kRows, plan->keys = Tile::kKeys, plan->box_columns = Tile::kPanel;
}
template <int kDim, int kDimV>
void set_sizes(Kind kind, FlashPlan* plan) {
  switch (kind) {
    case Kind::generic: return set_sizes<kDim, kDimV, Kind::generic>(plan);
    case Kind::causal: return set_sizes<kDim, kDimV, Kind::causal>(plan);
    case Kind::nocausal: return set_sizes<kDim, kDimV, Kind::nocausal>(plan);
    case Kind::listed:
    case Kind::listed_plain: break;  // no kernel of this loop
  }
}

bool is_pipelined(const Problem& problem, const Target& target) {
  return family_of(target.arch) == Family::wgmma_sm90 && problem.dtype != DType::f32;
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

FlashPlan plan_pipelined(const Problem& problem, const Target& target) {
  // A negative scale takes the generic kernel: the copies bring Q as it is.
  const Kind kind = problem.scale < 0 ? Kind::generic : kind_of(problem);
  const Dims* dims = kPipelinedDims;
  while (dims->dim < problem.head_dim || dims->dim_v < problem.head_dim_v) ++dims;
  FlashPlan plan;
  plan.workgroups = static_cast<uint32_t>(target.multiprocessors);  // one is all that fits on each
  plan.object = dims->objects[problem.dtype == DType::bf16 ? 1 : 0];
  plan.kernel = kind == Kind::generic  ? "flash_attention_sm90_kernel"
                : kind == Kind::causal ? "flash_attention_sm90_causal_kernel"
                                       : "flash_attention_sm90_nocausal_kernel";
  switch (dims->dim + dims->dim_v) {
    case 64 + 64: set_sizes<64, 64>(kind, &plan); break;
    case 96 + 96: set_sizes<96, 96>(kind, &plan); break;
    case 128 + 128: set_sizes<128, 128>(kind, &plan); break;
    case 192 + 128: set_sizes<192, 128>(kind, &plan); break;
    case 192 + 192: set_sizes<192, 192>(kind, &plan); break;
    case 256 + 256: set_sizes<256, 256>(kind, &plan); break;
    case 512 + 512: set_sizes<512, 512>(kind, &plan); break;
  }
  const int64_t blocks = blocks_of(plan, problem, problem.seq_q);
  if (blocks > plan.workgroups) plan.workspace_bytes = kCounterBytes;
  if (problem.mask != Mask::none)
    plan.workspace_bytes = kCounterBytes + blocks * states_of_row(plan, problem.seq_kv);
  return plan;
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
  return true;
}

int32_t pipelined_launches(const FlashPlan& plan, const Problem& problem, const Args& args,
                           const AttentionParams& p, void* workspace, Launch* out) {
  PipelinedParams params{};
  static_assert(sizeof params <= sizeof Launch::params);
  params.attention = p;
  const int64_t blocks = blocks_of(plan, problem, p.seq_q);
  int32_t count = 0;
  PrepareParams prepare{};
  if (blocks > plan.workgroups) params.taken = prepare.taken = static_cast<uint32_t*>(workspace);
  const bool scans = scan_mask(plan, problem, p, workspace, &prepare);
  params.mask_states = prepare.states;
  if (scans || prepare.taken != nullptr) {
    Launch& launch = out[count++];
    launch = {plan.object,
              "flash_attention_sm90_prepare_kernel",
              {scans ? prepare.tiles : 1, 1, 1},
              scans ? kPrepareThreads : 32,
              scans ? kPrepareSharedBytes : 0,
              sizeof prepare};
    std::memcpy(launch.params, &prepare, sizeof prepare);
  }
  Launch& launch = out[count++];
  launch = {plan.object, plan.kernel, {1, 1, 1}, plan.block, plan.shared_bytes, sizeof params};
  launch.grid[0] = static_cast<uint32_t>(std::min<int64_t>(blocks, plan.workgroups));
  const auto map = [&](const Tensor& tensor, int64_t columns, uint32_t rows, size_t at) {
    return request_for(tensor, columns, {plan.box_columns, rows}, static_cast<uint32_t>(at),
                       &launch.maps[launch.map_count++]);
  };
  if (!map(args.q, problem.head_dim, kWgmmaRows, offsetof(PipelinedParams, q)) ||
      !map(args.k, problem.head_dim, plan.keys, offsetof(PipelinedParams, k)) ||
      !map(value_tensor(problem, args), problem.head_dim_v, plan.keys,
           offsetof(PipelinedParams, v))) {
    return kNoTensorMap;
  }
  if (copy_mask(plan, args, p, &launch.maps[launch.map_count], &params.mask_rows))
    ++launch.map_count;
  std::memcpy(launch.params, &params, sizeof params);
  return count;
}

}  // namespace

bool flash_supported(const Problem& problem, const Target& target, std::string* reason) {
  const bool listed = is_listed(problem);
  const bool pipelined = !listed && is_pipelined(problem, target);
  if (!supported(problem, pipelined ? kPipelinedMaxDim : kDims[2], listed, reason)) return false;
  if (listed) return listed_supported(problem, reason);
  if (!pipelined) return true;
  const FlashPlan plan = plan_pipelined(problem, target);
  if (blocks_of(plan, problem, problem.seq_q) <= INT32_MAX) return true;  // numbered in 32 bits
  if (reason != nullptr)
    *reason = "batch * heads_q * seq_q / " + std::to_string(plan.rows) + " is above " +
              std::to_string(INT32_MAX);
  return false;
}

FlashPlan plan_flash(const Problem& problem, const Target& target) {
  static constexpr const char* kObjects[3][3] = {
      {"flash_attention_f32_64", "flash_attention_f32_128", "flash_attention_f32_256"},
      {"flash_attention_f16_64", "flash_attention_f16_128", "flash_attention_f16_256"},
      {"flash_attention_bf16_64", "flash_attention_bf16_128", "flash_attention_bf16_256"}};
  if (is_listed(problem)) return plan_listed(problem, target);
  if (is_pipelined(problem, target)) return plan_pipelined(problem, target);
  const TileFacts tile = tile_facts(family_of(target.arch), problem.dtype, padded_dim(problem));
  const Kind kind = kind_of(problem);
  FlashPlan plan;
  plan.kernel = kind == Kind::generic  ? "flash_attention_kernel"
                : kind == Kind::causal ? "flash_attention_causal_kernel"
                                       : "flash_attention_nocausal_kernel";
  plan.object = kObjects[static_cast<int>(problem.dtype)][padded_dim(problem) / 128];
  plan.block = tile.threads, plan.shared_bytes = tile.shared_bytes;
  plan.rows = tile.rows, plan.keys = tile.keys;
  return plan;
}

int32_t launches(const FlashPlan& plan, const Problem& problem, const Args& args, void* workspace,
                 Launch* out, void* schedule) {
  if (plan.list.decode.kernel != nullptr || plan.list.prefill.kernel != nullptr)
    return listed_launches(plan, problem, args, workspace, out, schedule);
  const AttentionParams p = fill_params(problem, args);
  const bool pipelined = plan.box_columns != 0;
  if (!pipelined && !strides_fit(problem, args)) return kRowsTooFarApart;
  const int64_t heads = int64_t{p.batch} * p.heads_q;
  if (heads == 0 || p.seq_q == 0) return 0;
  if (pipelined) return pipelined_launches(plan, problem, args, p, workspace, out);
  out->object = plan.object, out->kernel = plan.kernel;
  out->block = plan.block, out->shared_bytes = plan.shared_bytes;
  out->map_count = 0;
  out->grid[0] = (static_cast<uint32_t>(p.seq_q) + plan.rows - 1) / plan.rows;
  out->grid[1] = static_cast<uint32_t>(std::min<int64_t>(heads, kGridY));
  out->grid[2] = static_cast<uint32_t>((heads + kGridY - 1) / kGridY);
  out->params_bytes = sizeof p;
  std::memcpy(out->params, &p, sizeof p);
  return 1;
}

}  // namespace kernels::hip
