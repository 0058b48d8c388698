// kernels/common/sequence.hpp: the extents of each sequence of a run, and where its rows lie
#pragma once

#include "kernels/common/problem.hpp"

namespace kernels {

// q_first and kv_first are rows of the packed tensors, or 0 if a tensor has a batch dimension.
struct Sequence {
  int64_t q_first;
  int64_t q_length;
  int64_t kv_first;
  int64_t kv_length;
  int64_t diagonal;  // query i is aligned with key i + diagonal, which need not exist
};

// Element [i, j] of an array of indices.
KERNELS_HD inline int64_t index_at(const Tensor& tensor, int64_t i, int64_t j = 0) {
  return static_cast<const int32_t*>(tensor.data)[i * tensor.stride[0] + j * tensor.stride[1]];
}

// The number of sequences of this run; problem.batch bounds it.
KERNELS_HD inline int64_t real_batch(const Problem& problem, const Args& args) {
  if (problem.varlen) return args.offsets_q.shape[0] > 0 ? args.offsets_q.shape[0] - 1 : 0;
  return args.q.shape[0];
}

KERNELS_HD inline Sequence sequence(const Problem& problem, const Args& args, int64_t b) {
  Sequence s{0, args.q.shape[1], 0, args.k.shape[1], 0};
  if (problem.varlen) {
    s.q_first = index_at(args.offsets_q, b);
    s.q_length = index_at(args.offsets_q, b + 1) - s.q_first;
    if (problem.page_size == 0) {
      s.kv_first = index_at(args.offsets_kv, b);
      s.kv_length = index_at(args.offsets_kv, b + 1) - s.kv_first;
    }
  }
  if (has_kv_lengths(problem)) s.kv_length = index_at(args.kv_lengths, b);
  s.diagonal = problem.align == Align::top_left ? 0 : s.kv_length - s.q_length;
  if (problem.diagonal_offset) s.diagonal += index_at(args.diagonal_offset, b);
  return s;
}

// Element offset of query i's row in q or out.
KERNELS_HD inline int64_t query_row(const Problem& problem, const Tensor& t, const Sequence& s,
                                    int64_t b, int64_t i, int64_t head) {
  if (problem.varlen) return (s.q_first + i) * t.stride[0] + head * t.stride[1];
  return b * t.stride[0] + i * t.stride[1] + head * t.stride[2];
}

// Element offset of key j's row in k or v.
KERNELS_HD inline int64_t key_row(const Problem& problem, const Args& args, const Tensor& t,
                                  const Sequence& s, int64_t b, int64_t j, int64_t head) {
  if (problem.page_size > 0) {
    const int64_t page = index_at(args.page_table, b, j / problem.page_size);
    return page * t.stride[0] + (j % problem.page_size) * t.stride[1] + head * t.stride[2];
  }
  if (problem.varlen) return (s.kv_first + j) * t.stride[0] + head * t.stride[1];
  return b * t.stride[0] + j * t.stride[1] + head * t.stride[2];
}

// Element offset of key j's scale in k_scale or v_scale.
KERNELS_HD inline int64_t scale_element(const Problem& problem, const Args& args, const Tensor& t,
                                        const Sequence& s, int64_t b, int64_t j, int64_t head) {
  return key_row(problem, args, t, s, b, j, head);  // the same dimensions, without head_dim
}

// Element offset in the lse tensor.
KERNELS_HD inline int64_t lse_element(const Problem& problem, const Tensor& t, const Sequence& s,
                                      int64_t b, int64_t i, int64_t head) {
  if (problem.varlen) return head * t.stride[0] + (s.q_first + i) * t.stride[1];
  return b * t.stride[0] + head * t.stride[1] + i * t.stride[2];
}

}  // namespace kernels
