// kernels/hip/launch/unfused_attention.cpp: plans and launches of the five unfused kernels
#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/hip/launch/family.hpp"
#include "kernels/hip/launch/fill_params.hpp"
#include "kernels/hip/launch/launch.hpp"
#include "kernels/hip/score_matrix.hpp"

namespace kernels::hip {
namespace {

// The largest score matrix, in bytes: more than any GPU has. Up to it, pieces of the matrix and
// threads of a grid fit 32 bits.
constexpr int64_t kLargestWorkspace = int64_t{1} << 38;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

TileFacts tile_of(const Problem& problem, const Target& target) {
  return tile_facts(family_of(target.arch), problem.dtype, padded_dim(problem));
}

// RETURNS the bytes of the score matrix at the problem's bounds, or the largest int64 if they are
// above kLargestWorkspace. REQUIRES: supported(problem).
int64_t score_bytes(const Problem& problem, const TileFacts& tile) {
  int64_t bytes = 4 * round_up(problem.seq_kv, tile.keys);
  for (const int64_t extent : {problem.seq_q, problem.heads_q, problem.batch}) {
    if (bytes > kLargestWorkspace / extent) return std::numeric_limits<int64_t>::max();
    bytes *= extent;
  }
  return bytes;
}

}  // namespace

bool unfused_supported(const Problem& problem, const Target& target, std::string* reason) {
  if (!supported(problem, kDims[2], false, reason)) return false;
  if (problem.diagonal_offset) {
    if (reason != nullptr) *reason = "diagonal_offset is not supported";
    return false;
  }
  if (score_bytes(problem, tile_of(problem, target)) <= kLargestWorkspace) return true;
  if (reason != nullptr) {
    *reason = "the score matrix of batch " + std::to_string(problem.batch) + ", heads_q " +
              std::to_string(problem.heads_q) + ", seq_q " + std::to_string(problem.seq_q) +
              ", seq_kv " + std::to_string(problem.seq_kv) + " is above " +
              std::to_string(kLargestWorkspace >> 30) + " GiB";
  }
  return false;
}

UnfusedPlan plan_unfused(const Problem& problem, const Target& target) {
  static constexpr const char* kObjects[3][3] = {
      {"unfused_attention_f32_64", "unfused_attention_f32_128", "unfused_attention_f32_256"},
      {"unfused_attention_f16_64", "unfused_attention_f16_128", "unfused_attention_f16_256"},
      {"unfused_attention_bf16_64", "unfused_attention_bf16_128", "unfused_attention_bf16_256"}};
  const TileFacts tile = tile_of(problem, target);
  UnfusedPlan plan;
  plan.kernel = "qk_kernel, scale_kernel, mask_kernel, softmax_kernel, pv_kernel";
  plan.object = kObjects[static_cast<int>(problem.dtype)][padded_dim(problem) / 128];
  plan.workspace_bytes = score_bytes(problem, tile);
  plan.block = tile.threads, plan.rows = tile.rows, plan.keys = tile.keys;
  plan.shared_bytes = tile.shared_bytes, plan.qk_shared_bytes = tile.qk_shared_bytes;
  return plan;
}

int32_t launches(const UnfusedPlan& plan, const Problem& problem, const Args& args, void* workspace,
                 Launch* out) {
  AttentionParams p = fill_params(problem, args);
  if (!strides_fit(problem, args)) return kRowsTooFarApart;
  const int64_t heads = int64_t{p.batch} * p.heads_q;
  if (heads == 0 || p.seq_q == 0) return 0;
  p.scores = static_cast<float*>(workspace);
  p.scores_row = round_up(p.seq_kv, plan.keys);
  // A kernel of its own scales the scores, so softmax takes them as they are.
  p.flags |= kScaledScores;
  p.exp_scale = gpu::kLog2E;

  const uint32_t blocks = (static_cast<uint32_t>(p.seq_q) + plan.rows - 1) / plan.rows;
  const uint32_t pieces = groups_for(pieces_of_head(p).count);
  const uint32_t softmax_bytes = kScoreThreads / kRowLanes * 8;
  const struct {
    const char* kernel;
    uint32_t groups, block, shared_bytes;
  } kernels[] = {{"qk_kernel", blocks * chunks_of_head(p, static_cast<int>(plan.keys)), plan.block,
                  plan.qk_shared_bytes},
                 {"scale_kernel", pieces, kScoreThreads, 0},
                 {"mask_kernel", pieces, kScoreThreads, 0},
                 {"softmax_kernel", groups_for(turns_of_head(p)), kScoreThreads, softmax_bytes},
                 {"pv_kernel", blocks, plan.block, plan.shared_bytes}};
  int32_t count = 0;
  for (const auto& kernel : kernels) {
    if (kernel.groups == 0) continue;  // no keys: no scores
    Launch& launch = out[count++];
    launch.object = plan.object, launch.kernel = kernel.kernel;
    launch.block = kernel.block, launch.shared_bytes = kernel.shared_bytes;
    launch.grid[0] = kernel.groups;
    launch.grid[1] = static_cast<uint32_t>(std::min<int64_t>(heads, kGridY));
    launch.grid[2] = static_cast<uint32_t>((heads + kGridY - 1) / kGridY);
    launch.params_bytes = sizeof p;
    std::memcpy(launch.params, &p, sizeof p);
  }
  return count;
}

int32_t kernels_of(const UnfusedPlan& plan, const Problem& problem, const Args& args, Launch* out) {
  static char any;  // nothing reads through it
  return launches(plan, problem, args, &any, out);
}

}  // namespace kernels::hip
