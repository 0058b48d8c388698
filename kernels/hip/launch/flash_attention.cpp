// kernels/hip/launch/flash_attention.cpp: plans and launches of the fused kernels
#include <algorithm>
#include <climits>
#include <cstring>
#include <string>

#include "kernels/hip/launch/family.hpp"
#include "kernels/hip/launch/fill_params.hpp"
#include "kernels/hip/launch/launch.hpp"
#include "kernels/hip/launch/listed_attention.hpp"
#include "kernels/hip/launch/pipelined_attention.hpp"

namespace kernels::hip {

bool flash_supported(const Problem& problem, const Target& target, std::string* reason) {
  const bool listed = is_listed(problem);
  const bool pipelined =
      listed ? is_pipelined_list(problem, target) : is_pipelined(problem, target);
  const int max_dim = !pipelined                 ? kDims[2]
                      : listed && problem.v_in_k ? kPipelinedMaxDimOfBoth
                                                 : kPipelinedMaxDim;
  if (!supported(problem, max_dim, listed, reason)) return false;
  if (listed) return listed_supported(problem, reason);
  if (!pipelined) return true;
  return pipelined_supported(problem, target, reason);
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
