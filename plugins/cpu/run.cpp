// plugins/cpu/run.cpp: one run's tensors into the kernel's
#include "plugins/cpu/backend.hpp"

namespace attnrt_cpu {
namespace {

// dtypes that the kernel has no word for become one that no tensor may have, so that its check names the tensor.
kernels::DType dtype(attnrt_dtype from) {
  if (from.lanes != 1) return kernels::DType::unknown;
  if (from.code == ATTNRT_DTYPE_FLOAT && from.bits == 32) return kernels::DType::f32;
  if (from.code == ATTNRT_DTYPE_FLOAT && from.bits == 16) return kernels::DType::f16;
  if (from.code == ATTNRT_DTYPE_BFLOAT && from.bits == 16) return kernels::DType::bf16;
  if (from.code == ATTNRT_DTYPE_BOOL && from.bits == 8) return kernels::DType::boolean;
  if (from.code == ATTNRT_DTYPE_INT && from.bits == 32) return kernels::DType::i32;
  return kernels::DType::unknown;
}

kernels::Tensor tensor(const attnrt_tensor& from) {
  kernels::Tensor to;
  to.data = from.data;
  to.dtype = dtype(from.dtype);
  to.ndim = from.ndim;
  for (int32_t n = 0; n < 4; ++n) {
    to.shape[n] = n < from.ndim ? from.shape[n] : 0;
    to.stride[n] = n < from.ndim ? from.stride[n] : 0;
  }
  return to;
}

}  // namespace

attnrt_status run(void* instance, void* plan, const attnrt_problem*, const attnrt_args* args, attnrt_error* error) {
  if (!ATTNRT_HAS(args, attnrt_args, stream)) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "args.struct_size: found %d, expected at least %zu",
                       args->struct_size, sizeof(attnrt_args));
  }
  kernels::Args to;
  to.q = tensor(args->q);
  to.k = tensor(args->k);
  to.v = tensor(args->v);
  to.out = tensor(args->out);
  to.mask = tensor(args->mask);
  to.lse = tensor(args->lse);
  to.alibi_slopes = tensor(args->alibi_slopes);
  to.sinks = tensor(args->sinks);
  to.kv_lengths = tensor(args->kv_lengths);
  to.offsets_q = tensor(args->offsets_q);
  to.offsets_kv = tensor(args->offsets_kv);
  to.page_table = tensor(args->page_table);
  kernels::cpu::Error reason;
  if (kernels::cpu::run(static_cast<const Plan*>(plan)->problem, to, static_cast<const Instance*>(instance)->workers,
                        args->workspace, args->workspace_bytes, &reason) == kernels::cpu::Status::ok) {
    return ATTNRT_OK;
  }
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "%s", reason.message);
}

}  // namespace attnrt_cpu
