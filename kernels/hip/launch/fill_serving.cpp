// kernels/hip/launch/fill_serving.cpp: fills the argument of the kernels that take their work from
// a list
#include "kernels/hip/launch/fill_serving.hpp"

#include <algorithm>
#include <climits>
#include <limits>

#include "kernels/common/sequence.hpp"
#include "kernels/hip/launch/fill_params.hpp"

namespace kernels::hip {
namespace {

const int32_t* numbers(const Tensor& tensor) { return static_cast<const int32_t*>(tensor.data); }

// RETURNS args in which q, k, v, out and lse have the dimensions of a dense problem, with a batch
// of stride 0 in place of the one that packed rows lack.
Args with_batch(const Problem& p, const Args& args, const WorkParams& w) {
  Args dense = args;
  const auto unpack = [&](Tensor* t, int64_t rows) {
    *t = {t->data,
          t->dtype,
          4,
          {w.sequences, rows, t->shape[1], t->shape[2]},
          {0, t->stride[0], t->stride[1], t->stride[2]}};
  };
  if (p.varlen) {
    unpack(&dense.q, w.most_q), unpack(&dense.out, w.most_q);
    if (p.lse)
      dense.lse.stride[2] = args.lse.stride[1], dense.lse.stride[1] = args.lse.stride[0],
      dense.lse.stride[0] = 0;
    if (p.page_size == 0) {
      unpack(&dense.k, w.most_kv);
      if (!p.v_in_k) unpack(&dense.v, w.most_kv);
      for (Tensor* t : {&dense.k_scale, &dense.v_scale})
        t->stride[2] = t->stride[1], t->stride[1] = t->stride[0], t->stride[0] = 0;
    }
  }
  return dense;
}

int32_t as_int(int64_t n) {
  return static_cast<int32_t>(std::min<int64_t>(n, std::numeric_limits<int32_t>::max()));
}

WorkParams fill_work(const Problem& p, const Args& args) {
  WorkParams w{};
  w.sequences = as_int(real_batch(p, args));
  w.top_left = p.align == Align::top_left;
  w.most_q = as_int(args.q.shape[1]), w.most_kv = as_int(args.k.shape[1]);
  if (p.varlen) {
    w.offsets_q = numbers(args.offsets_q), w.offsets_q_stride = args.offsets_q.stride[0];
    w.total_q = as_int(args.q.shape[0]);
    w.most_q = std::min(as_int(p.seq_q), w.total_q);
  }
  if (p.page_size > 0) {
    w.page_table = numbers(args.page_table);
    w.page_row = args.page_table.stride[0], w.page_column = args.page_table.stride[1];
    w.pages = as_int(args.k.shape[0]), w.page_size = as_int(p.page_size);
    w.page_shift = -1;
    for (int32_t shift = 0; shift < 31; ++shift)
      if (p.page_size == int64_t{1} << shift) w.page_shift = shift;
    const int64_t columns =
        std::min(args.page_table.shape[1], (INT_MAX + p.page_size - 1) / p.page_size);
    w.most_kv = w.pages == 0 ? 0 : as_int(std::min(p.seq_kv, columns * p.page_size));
  } else if (p.varlen) {
    w.offsets_kv = numbers(args.offsets_kv), w.offsets_kv_stride = args.offsets_kv.stride[0];
    w.total_kv = as_int(args.k.shape[0]);
    w.most_kv = std::min(as_int(p.seq_kv), w.total_kv);
  }
  if (has_kv_lengths(p)) {
    w.kv_lengths = numbers(args.kv_lengths), w.kv_lengths_stride = args.kv_lengths.stride[0];
  }
  if (p.mask != Mask::none) w.most_kv = std::min(w.most_kv, as_int(args.mask.shape[3]));
  return w;
}

StoredParams fill_stored(const Problem& problem, const Args& args) {
  StoredParams stored{};
  if (kv_dtype(problem) == problem.dtype) return stored;
  const Tensor &k = args.k_scale, &v = value_scale(problem, args);
  stored.dtype = kv_dtype(problem), stored.per_token = problem.kv_scale == KvScale::token;
  if (problem.kv_scale == KvScale::none) return stored;
  stored.k_scale = static_cast<const float*>(k.data);
  stored.v_scale = static_cast<const float*>(v.data);
  stored.k_scale_stride = {k.stride[0], k.stride[1], k.stride[2]};
  stored.v_scale_stride = {v.stride[0], v.stride[1], v.stride[2]};
  return stored;
}

}  // namespace

bool fill_serving(const Problem& problem, const Args& args, ServingParams* params) {
  params->work = fill_work(problem, args);
  const WorkParams& w = params->work;
  if (w.sequences == 0 || w.most_q == 0) return false;
  AttentionParams& p = params->attention;
  const Args dense = with_batch(problem, args, w);
  p = fill_params(problem, dense);
  params->stored = fill_stored(problem, dense);
  p.batch = w.sequences, p.seq_q = w.most_q, p.seq_kv = w.most_kv;
  return true;
}

}  // namespace kernels::hip
