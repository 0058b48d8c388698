// kernels/hip/launch/flash_attention.cpp: plans and launches of the fused kernels
#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstring>

#include "kernels/hip/flash_attention_sm90.hpp"
#include "kernels/hip/launch/family.hpp"
#include "kernels/hip/launch/fill_params.hpp"
#include "kernels/hip/launch/launch.hpp"

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
};

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
  }
}

FlashPlan plan_pipelined(const Problem& problem) {
  // A negative scale takes the generic kernel: the copies bring Q as it is.
  const Kind kind = problem.scale < 0 ? Kind::generic : kind_of(problem);
  const Dims* dims = kPipelinedDims;
  while (dims->dim < problem.head_dim || dims->dim_v < problem.head_dim_v) ++dims;
  FlashPlan plan;
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
  }
  return plan;
}

int32_t pipelined_launches(const FlashPlan& plan, const Problem& problem, const Args& args,
                           const AttentionParams& p, Launch* out) {
  const auto map = [&](const Tensor& tensor, int64_t columns, uint32_t rows, size_t at) {
    return request_for(tensor, columns, {plan.box_columns, rows}, static_cast<uint32_t>(at),
                       &out->maps[out->map_count++]);
  };
  out->map_count = 0;
  if (!map(args.q, problem.head_dim, plan.rows, offsetof(PipelinedParams, q)) ||
      !map(args.k, problem.head_dim, plan.keys, offsetof(PipelinedParams, k)) ||
      !map(value_tensor(problem, args), problem.head_dim_v, plan.keys,
           offsetof(PipelinedParams, v))) {
    return kNoTensorMap;
  }
  // A workgroup takes every grid[0]-th block.
  const int64_t blocks = (int64_t{p.seq_q} + plan.rows - 1) / plan.rows * p.batch * p.heads_q;
  out->grid[0] = static_cast<uint32_t>(std::min<int64_t>(blocks, INT32_MAX));
  out->grid[1] = out->grid[2] = 1;
  PipelinedParams params{};
  params.attention = p;
  out->params_bytes = sizeof params;
  std::memcpy(out->params, &params, sizeof params);
  return 1;
}

}  // namespace

bool flash_supported(const Problem& problem, const char*, std::string* reason) {
  return supported(problem, reason);
}

FlashPlan plan_flash(const Problem& problem, const char* arch) {
  static constexpr const char* kObjects[3][3] = {
      {"flash_attention_f32_64", "flash_attention_f32_128", "flash_attention_f32_256"},
      {"flash_attention_f16_64", "flash_attention_f16_128", "flash_attention_f16_256"},
      {"flash_attention_bf16_64", "flash_attention_bf16_128", "flash_attention_bf16_256"}};
  const Family family = family_of(arch);
  if (family == Family::wgmma_sm90 && problem.dtype != DType::f32) return plan_pipelined(problem);
  const TileFacts tile = tile_facts(family, problem.dtype, padded_dim(problem.head_dim));
  const Kind kind = kind_of(problem);
  FlashPlan plan;
  plan.kernel = kind == Kind::generic  ? "flash_attention_kernel"
                : kind == Kind::causal ? "flash_attention_causal_kernel"
                                       : "flash_attention_nocausal_kernel";
  plan.object = kObjects[static_cast<int>(problem.dtype)][padded_dim(problem.head_dim) / 128];
  plan.block = tile.threads, plan.shared_bytes = tile.shared_bytes;
  plan.rows = tile.rows, plan.keys = tile.keys;
  return plan;
}

int32_t launches(const FlashPlan& plan, const Problem& problem, const Args& args, void*,
                 Launch* out) {
  const AttentionParams p = fill_params(problem, args);
  const bool pipelined = plan.box_columns != 0;
  if (!pipelined && !strides_fit(problem, args)) return kRowsTooFarApart;
  const int64_t heads = int64_t{p.batch} * p.heads_q;
  if (heads == 0 || p.seq_q == 0) return 0;
  out->object = plan.object, out->kernel = plan.kernel;
  out->block = plan.block, out->shared_bytes = plan.shared_bytes;
  if (pipelined) return pipelined_launches(plan, problem, args, p, out);
  out->map_count = 0;
  out->grid[0] = (static_cast<uint32_t>(p.seq_q) + plan.rows - 1) / plan.rows;
  out->grid[1] = static_cast<uint32_t>(std::min<int64_t>(heads, kGridY));
  out->grid[2] = static_cast<uint32_t>((heads + kGridY - 1) / kGridY);
  out->params_bytes = sizeof p;
  std::memcpy(out->params, &p, sizeof p);
  return 1;
}

}  // namespace kernels::hip
