// plugins/common/translate.cpp: the ABI's structs in the kernels' words
#include "plugins/common/translate.hpp"

namespace attnrt_plugins {
namespace {

bool is_float(kernels::DType dtype) {
  return dtype == kernels::DType::f32 || dtype == kernels::DType::f16 ||
         dtype == kernels::DType::bf16;
}

bool is_kv_type(kernels::DType dtype) {
  return dtype == kernels::DType::i8 || dtype == kernels::DType::f8_e4m3fn ||
         dtype == kernels::DType::f8_e4m3fnuz;
}

bool is_off(attnrt_dtype dtype) { return dtype.code == 0 && dtype.bits == 0 && dtype.lanes == 0; }

// Translates what the problem says of k, v and out beyond their sizes.
attnrt_status translate_types(const attnrt_problem& p, kernels::Problem* to, attnrt_error* error) {
  if (!is_off(p.kv_dtype)) {
    to->kv_dtype = translate(p.kv_dtype);
    if (!is_kv_type(to->kv_dtype)) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                         "kv_dtype: found code %d with %d bits, expected f8_e4m3fn, f8_e4m3fnuz or "
                         "i8",
                         p.kv_dtype.code, p.kv_dtype.bits);
    }
  }
  if (!is_off(p.out_dtype)) {
    to->out_dtype = translate(p.out_dtype);
    if (to->out_dtype != kernels::DType::f32) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                         "out_dtype: found code %d with %d bits, expected f32", p.out_dtype.code,
                         p.out_dtype.bits);
    }
  }
  if (p.kv_scale < ATTNRT_KV_SCALE_NONE || p.kv_scale > ATTNRT_KV_SCALE_TOKEN) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "kv_scale: found %d, expected 0 to 3",
                       p.kv_scale);
  }
  to->kv_scale = static_cast<kernels::KvScale>(p.kv_scale);
  to->v_in_k = p.v_in_k != 0;
  return ATTNRT_OK;
}

}  // namespace

kernels::DType translate(attnrt_dtype from) {
  if (from.lanes != 1) return kernels::DType::unknown;
  if (from.code == ATTNRT_DTYPE_FLOAT && from.bits == 32) return kernels::DType::f32;
  if (from.code == ATTNRT_DTYPE_FLOAT && from.bits == 16) return kernels::DType::f16;
  if (from.code == ATTNRT_DTYPE_BFLOAT && from.bits == 16) return kernels::DType::bf16;
  if (from.code == ATTNRT_DTYPE_BOOL && from.bits == 8) return kernels::DType::boolean;
  if (from.code == ATTNRT_DTYPE_INT && from.bits == 32) return kernels::DType::i32;
  if (from.code == ATTNRT_DTYPE_INT && from.bits == 8) return kernels::DType::i8;
  if (from.code == ATTNRT_DTYPE_FLOAT8_E4M3FN && from.bits == 8) return kernels::DType::f8_e4m3fn;
  if (from.code == ATTNRT_DTYPE_FLOAT8_E4M3FNUZ && from.bits == 8)
    return kernels::DType::f8_e4m3fnuz;
  return kernels::DType::unknown;
}

attnrt_status translate(const attnrt_problem& p, int32_t device_type, kernels::Problem* to,
                        attnrt_error* error) {
  if (!ATTNRT_HAS(&p, attnrt_problem, batch_invariant)) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                       "problem.struct_size: found %d, expected at least %zu", p.struct_size,
                       sizeof(attnrt_problem));
  }
  if (p.device_type != device_type) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "device_type: found %d, expected %d",
                       p.device_type, device_type);
  }
  to->dtype = translate(p.dtype);
  if (!is_float(to->dtype)) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                       "dtype: found code %d with %d bits, expected f32, f16 or bf16", p.dtype.code,
                       p.dtype.bits);
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
  if (p.mask == ATTNRT_MASK_ADDITIVE) {
    to->mask_dtype = translate(p.mask_dtype);
    if (!is_float(to->mask_dtype)) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                         "mask_dtype: found code %d with %d bits, expected f32 or q's",
                         p.mask_dtype.code, p.mask_dtype.bits);
    }
  }
  to->causal = p.causal != 0;
  to->align =
      p.align == ATTNRT_ALIGN_TOP_LEFT ? kernels::Align::top_left : kernels::Align::bottom_right;
  to->window_left = p.window_left;
  to->window_right = p.window_right;
  to->softcap = p.softcap;
  to->alibi = p.alibi != 0;
  to->sinks = p.sinks != 0;
  to->kv_lengths = p.kv_lengths != 0;
  to->varlen = p.varlen != 0;
  to->page_size = p.page_size;
  to->lse = p.lse != 0;
  to->diagonal_offset = p.diagonal_offset != 0;
  to->batch_invariant = p.batch_invariant != 0;
  return translate_types(p, to, error);
}

kernels::Tensor translate(const attnrt_tensor& from) {
  kernels::Tensor to;
  to.data = from.data;
  to.dtype = translate(from.dtype);
  to.ndim = from.ndim;
  for (int32_t n = 0; n < 4; ++n) {
    to.shape[n] = n < from.ndim ? from.shape[n] : 0;
    to.stride[n] = n < from.ndim ? from.stride[n] : 0;
  }
  return to;
}

attnrt_status translate(const attnrt_args& args, kernels::Args* to, attnrt_error* error) {
  if (!ATTNRT_HAS(&args, attnrt_args, stream)) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                       "args.struct_size: found %d, expected at least %zu", args.struct_size,
                       sizeof(attnrt_args));
  }
  // A tensor that is absent stays as *to has it: most are, and each would take a copy.
#define ATTNRT_TRANSLATE(name) \
  if (args.name.data != nullptr || args.name.ndim != 0) to->name = translate(args.name);
  ATTNRT_TENSORS(ATTNRT_TRANSLATE)
#undef ATTNRT_TRANSLATE
  return ATTNRT_OK;
}

}  // namespace attnrt_plugins
