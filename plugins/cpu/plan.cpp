// plugins/cpu/plan.cpp: a problem into the kernel's words, and the workspace that its runs need
#include <new>

#include "plugins/cpu/backend.hpp"

namespace attnrt_cpu {
namespace {

bool same(attnrt_dtype a, uint8_t code, uint8_t bits) { return a.code == code && a.bits == bits && a.lanes == 1; }

bool float_dtype(attnrt_dtype from, kernels::DType* to) {
  if (same(from, ATTNRT_DTYPE_FLOAT, 32)) return *to = kernels::DType::f32, true;
  if (same(from, ATTNRT_DTYPE_FLOAT, 16)) return *to = kernels::DType::f16, true;
  if (same(from, ATTNRT_DTYPE_BFLOAT, 16)) return *to = kernels::DType::bf16, true;
  return false;
}

}  // namespace

attnrt_status translate(const attnrt_problem& p, kernels::Problem* to, attnrt_error* error) {
  if (!ATTNRT_HAS(&p, attnrt_problem, deterministic)) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "problem.struct_size: found %d, expected at least %zu",
                       p.struct_size, sizeof(attnrt_problem));
  }
  if (p.device_type != ATTNRT_DEVICE_CPU) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "device_type: found %d, expected %d (cpu)", p.device_type,
                       ATTNRT_DEVICE_CPU);
  }
  if (!float_dtype(p.dtype, &to->dtype)) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "dtype: found code %d with %d bits, expected f32, f16 or bf16",
                       p.dtype.code, p.dtype.bits);
  }
  if (p.mask < ATTNRT_MASK_NONE || p.mask > ATTNRT_MASK_ADDITIVE) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "mask: found %d, expected 0 to 2", p.mask);
  }
  if (p.align != ATTNRT_ALIGN_BOTTOM_RIGHT && p.align != ATTNRT_ALIGN_TOP_LEFT) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "align: found %d, expected 0 or 1", p.align);
  }
  to->batch = p.batch;
  to->heads_q = p.heads_q;
  to->heads_kv = p.heads_kv;
  to->seq_q = p.seq_q;
  to->seq_kv = p.seq_kv;
  to->head_dim = p.head_dim;
  to->head_dim_v = p.head_dim_v;
  to->scale = p.scale;
  to->mask = p.mask == ATTNRT_MASK_NONE      ? kernels::Mask::none
             : p.mask == ATTNRT_MASK_BOOLEAN ? kernels::Mask::boolean
                                             : kernels::Mask::additive;
  if (p.mask == ATTNRT_MASK_ADDITIVE && !float_dtype(p.mask_dtype, &to->mask_dtype)) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "mask_dtype: found code %d with %d bits, expected f32 or q's",
                       p.mask_dtype.code, p.mask_dtype.bits);
  }
  to->causal = p.causal != 0;
  to->align = p.align == ATTNRT_ALIGN_TOP_LEFT ? kernels::Align::top_left : kernels::Align::bottom_right;
  to->window_left = p.window_left;
  to->window_right = p.window_right;
  to->softcap = p.softcap;
  to->alibi = p.alibi != 0;
  to->sinks = p.sinks != 0;
  to->kv_lengths = p.kv_lengths != 0;
  to->varlen = p.varlen != 0;
  to->page_size = p.page_size;
  to->lse = p.lse != 0;
  kernels::cpu::Error reason;
  if (kernels::cpu::check_problem(*to, &reason) == kernels::cpu::Status::ok) return ATTNRT_OK;
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "%s", reason.message);
}

attnrt_status plan(void* instance, const attnrt_problem* problem, attnrt_plan_info* info, void** plan,
                   attnrt_error* error) {
  kernels::Problem translated;
  const attnrt_status status = translate(*problem, &translated, error);
  if (status != ATTNRT_OK) return status;
  Plan* made = new (std::nothrow) Plan{translated};
  if (made == nullptr) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "plan: no memory for the plan");
  const int32_t thread_count = static_cast<const Instance*>(instance)->workers.thread_count;
  info->workspace_bytes = kernels::cpu::workspace_bytes(translated, thread_count);
  info->workspace_alignment = kernels::cpu::kWorkspaceAlignment;
  info->kernel = kernels::cpu::kernel_name();
  *plan = made;
  return ATTNRT_OK;
}

void plan_destroy(void*, void* plan) { delete static_cast<Plan*>(plan); }

}  // namespace attnrt_cpu
