// kernels/hip/launch/flash_attention.cpp: plans and launches of the fused kernels
#include <algorithm>
#include <cstring>

#include "kernels/hip/launch/family.hpp"
#include "kernels/hip/launch/fill_params.hpp"
#include "kernels/hip/launch/launch.hpp"

namespace kernels::hip {

namespace {

// Which kernel of the code object: see Kind in flash_attention.hpp.
const char* kernel_of(const Problem& problem) {
  const bool generic = problem.mask != Mask::none || problem.alibi || problem.softcap != 0 ||
                       problem.diagonal_offset;
  if (generic) return "flash_attention_kernel";
  return problem.causal ? "flash_attention_causal_kernel" : "flash_attention_nocausal_kernel";
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
  const TileFacts tile = tile_facts(family_of(arch), problem.dtype, padded_dim(problem.head_dim));
  FlashPlan plan;
  plan.kernel = kernel_of(problem);
  plan.object = kObjects[static_cast<int>(problem.dtype)][padded_dim(problem.head_dim) / 128];
  plan.block = tile.threads, plan.shared_bytes = tile.shared_bytes, plan.rows = tile.rows;
  return plan;
}

int32_t launches(const FlashPlan& plan, const Problem& problem, const Args& args, void*,
                 Launch* out) {
  const AttentionParams p = fill_params(problem, args);
  if (!strides_fit(problem, args)) return kRowsTooFarApart;
  const int64_t heads = int64_t{p.batch} * p.heads_q;
  if (heads == 0 || p.seq_q == 0) return 0;
  out->object = plan.object, out->kernel = plan.kernel;
  out->block = plan.block, out->shared_bytes = plan.shared_bytes;
  out->grid[0] = (static_cast<uint32_t>(p.seq_q) + plan.rows - 1) / plan.rows;
  out->grid[1] = static_cast<uint32_t>(std::min<int64_t>(heads, kGridY));
  out->grid[2] = static_cast<uint32_t>((heads + kGridY - 1) / kGridY);
  out->params_bytes = sizeof p;
  std::memcpy(out->params, &p, sizeof p);
  return 1;
}

}  // namespace kernels::hip
