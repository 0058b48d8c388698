// tests/plugins/common/gpu/stand_in/launch.cpp: plans and launches of the stand-in kernels
#include "kernels/hip/launch/launch.hpp"

#include <cstring>

#include "kernels/hip/device/code_objects.hpp"
#include "stand_in/params.hpp"

namespace kernels::hip {
namespace {

StandInTensor tensor(const Tensor& from) {
  StandInTensor to{from.data, {}};
  for (int32_t n = 0; n < 4; ++n) to.stride[n] = static_cast<int32_t>(from.stride[n]);
  return to;
}

int32_t fill(const Problem& p, const Args& a, void* workspace, const char* object,
             const char* const* names, int32_t steps, Launch* out) {
  if (a.out.shape[0] == 0 || a.out.shape[1] == 0) return 0;
  StandInParams params{};
  params.q = tensor(a.q), params.k = tensor(a.k), params.v = tensor(value_tensor(p, a)),
  params.out = tensor(a.out);
  params.mask = tensor(a.mask), params.lse = tensor(a.lse);
  params.k_scale = tensor(a.k_scale), params.v_scale = tensor(value_scale(p, a));
  params.alibi_slopes = tensor(a.alibi_slopes), params.sinks = tensor(a.sinks);
  params.workspace = static_cast<float*>(workspace);
  params.window_left = p.window_left, params.window_right = p.window_right;
  params.batch = static_cast<int32_t>(a.q.shape[0]),
  params.seq_q = static_cast<int32_t>(a.q.shape[1]);
  params.seq_kv = static_cast<int32_t>(a.k.shape[1]);
  params.heads_q = static_cast<int32_t>(p.heads_q),
  params.heads_kv = static_cast<int32_t>(p.heads_kv);
  params.head_dim = static_cast<int32_t>(p.head_dim),
  params.head_dim_v = static_cast<int32_t>(p.head_dim_v);
  params.scale = p.scale, params.softcap = p.softcap;
  params.kv_dtype = kv_dtype(p), params.kv_scale = p.kv_scale;
  params.dtype = p.dtype, params.mask_dtype = p.mask_dtype, params.mask_kind = p.mask,
  params.align = p.align;
  params.causal = p.causal, params.has_alibi = p.alibi, params.has_sinks = p.sinks,
  params.wants_lse = p.lse;
  params.steps = steps;
  for (params.step = 0; params.step < steps; ++params.step) {
    Launch& launch = out[params.step];
    launch.object = object;
    launch.kernel = names[params.step];
    launch.grid[0] = static_cast<uint32_t>(params.seq_q + 63) / 64;
    launch.grid[1] = static_cast<uint32_t>(params.heads_q);
    launch.grid[2] = static_cast<uint32_t>(params.batch);
    launch.block = 256;
    launch.shared_bytes =
        p.head_dim == 248 ? 128 << 10 : 1024;  // at 248, more than HIP devices have
    launch.params_bytes = sizeof params;
    std::memcpy(launch.params, &params, sizeof params);
  }
  return steps;
}

constexpr int32_t kUnfusedSteps = 5;
const char* const kFlash[] = {"stand_in_flash"};
const char* const kUnfused[kUnfusedSteps] = {"stand_in_unfused_0", "stand_in_unfused_1",
                                             "stand_in_unfused_2", "stand_in_unfused_3",
                                             "stand_in_unfused_4"};
constexpr unsigned char kBytes[] = "a code object of the stand-in";
constexpr unsigned char kOther[] = "and one for another architecture";
constexpr unsigned char kMerge[] = "and one that merges";

}  // namespace

bool flash_supported(const Problem& problem, const Target&, std::string* reason) {
  if (problem.kv_lengths || problem.varlen || problem.page_size > 0) {
    *reason = "the stand-in has no kv_lengths, varlen and pages";
    return false;
  }
  if (problem.softcap != 31 && !problem.diagonal_offset) return true;
  *reason = problem.diagonal_offset ? "the stand-in has no diagonal_offset"
                                    : "softcap 31 is what the stand-in refuses";
  return false;
}
bool unfused_supported(const Problem& problem, const Target& target, std::string* reason) {
  return flash_supported(problem, target, reason);
}
FlashPlan plan_flash(const Problem&, const Target&) { return {kFlash[0], 0}; }
UnfusedPlan plan_unfused(const Problem& p, const Target&) {
  return {kUnfused[0], p.batch * p.heads_q * p.seq_q * p.seq_kv * 4 + 64};
}
int32_t launches(const FlashPlan&, const Problem& problem, const Args& args, void* workspace,
                 Launch* out, void*) {
  return fill(problem, args, workspace, "flash", kFlash, 1, out);
}
int32_t kernels_of(const FlashPlan& plan, const Problem& problem, const Args& args, Launch* out) {
  static char any;
  return launches(plan, problem, args, &any, out);
}
int32_t kernels_of(const UnfusedPlan& plan, const Problem& problem, const Args& args, Launch* out) {
  static char any;
  return launches(plan, problem, args, &any, out);
}
int64_t schedule_bytes(const FlashPlan&) { return 0; }
int32_t schedule_launches(const FlashPlan&, const Problem&, const Args&, void*, Launch*) {
  return 0;
}
int32_t launches(const UnfusedPlan&, const Problem& problem, const Args& args, void* workspace,
                 Launch* out) {
  return fill(problem, args, workspace, "unfused", kUnfused, kUnfusedSteps, out);
}

#if defined(STAND_IN_CUDA)
const CodeObject code_objects[] = {{"flash", "sm_80", kBytes, sizeof kBytes},
                                   {"unfused", "sm_80", kBytes, sizeof kBytes},
                                   {"merge", "sm_80", kMerge, sizeof kMerge},
                                   {"flash", "compute_80", kOther, sizeof kOther},
                                   {"unfused", "compute_80", kOther, sizeof kOther},
                                   {"merge", "compute_80", kMerge, sizeof kMerge}};
#else
const CodeObject code_objects[] = {
    {"flash", "gfx1100", kBytes, sizeof kBytes},  {"unfused", "gfx1100", kBytes, sizeof kBytes},
    {"merge", "gfx1100", kMerge, sizeof kMerge},  {"flash", "gfx942", kOther, sizeof kOther},
    {"unfused", "gfx942", kOther, sizeof kOther}, {"merge", "gfx942", kMerge, sizeof kMerge}};
#endif
const uint32_t code_object_count = 6;

}  // namespace kernels::hip
