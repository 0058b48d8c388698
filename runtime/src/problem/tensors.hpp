// runtime/src/problem/tensors.hpp: the list of a run's tensors, and what the problem says of each
//
// Code that treats all tensors alike loops over kTensors. A tensor that is added to ATTNRT_TENSORS
// in plugin.h needs an entry in namespace tensor_rules (without one this header does not compile),
// and nothing in such loops.
#pragma once

#include <string_view>

#include "problem/problem.hpp"

namespace attnrt::core {

enum class Strides {
  rows,        // any, but head_dim is dense, and rows are aligned to alignment_bytes
  any,         // any, 0 included where nothing is written
  dense_last,  // any, but the last dimension is dense
  contiguous,  // dense: the last dimension varies fastest
};

struct TensorRule {
  Strides strides;
  bool written;  // an output: shares no memory with another tensor
  // Whether a run of this problem needs the tensor. If not, the tensor is absent.
  bool (*is_used)(const Problem&);
};

namespace tensor_rules {

constexpr bool always(const Problem&) { return true; }

inline constexpr TensorRule q{Strides::rows, false, always};
inline constexpr TensorRule k{Strides::rows, false, always};
inline constexpr TensorRule v{Strides::rows, false, [](const Problem& p) { return p.v_in_k == 0; }};
inline constexpr TensorRule out{Strides::rows, true, always};
inline constexpr TensorRule mask{Strides::any, false,
                                 [](const Problem& p) { return p.mask != ATTNRT_MASK_NONE; }};
inline constexpr TensorRule lse{Strides::any, true, [](const Problem& p) { return p.lse != 0; }};
inline constexpr TensorRule alibi_slopes{Strides::dense_last, false,
                                         [](const Problem& p) { return p.alibi != 0; }};
inline constexpr TensorRule sinks{Strides::contiguous, false,
                                  [](const Problem& p) { return p.sinks != 0; }};
inline constexpr TensorRule kv_lengths{Strides::contiguous, false,
                                       [](const Problem& p) { return p.kv_lengths != 0; }};
inline constexpr TensorRule offsets_q{Strides::contiguous, false,
                                      [](const Problem& p) { return p.varlen != 0; }};
inline constexpr TensorRule offsets_kv{
    Strides::contiguous, false, [](const Problem& p) { return p.varlen != 0 && p.page_size == 0; }};
inline constexpr TensorRule page_table{Strides::dense_last, false,
                                       [](const Problem& p) { return p.page_size > 0; }};
inline constexpr TensorRule k_scale{
    Strides::any, false, [](const Problem& p) { return p.kv_scale != ATTNRT_KV_SCALE_NONE; }};
inline constexpr TensorRule v_scale{Strides::any, false, [](const Problem& p) {
                                      return p.kv_scale != ATTNRT_KV_SCALE_NONE && p.v_in_k == 0;
                                    }};
inline constexpr TensorRule diagonal_offset{
    Strides::contiguous, false, [](const Problem& p) { return p.diagonal_offset != 0; }};

}  // namespace tensor_rules

struct TensorEntry {
  const char* name;                    // "alibi_slopes"
  attnrt_tensor attnrt_args::*member;  // args.*member is the tensor
  TensorRule rule;
};

// Every tensor, in the order of attnrt_args.
#define ATTNRT_TENSOR_ENTRY(name) TensorEntry{#name, &attnrt_args::name, tensor_rules::name},
inline constexpr TensorEntry kTensors[] = {ATTNRT_TENSORS(ATTNRT_TENSOR_ENTRY)};
#undef ATTNRT_TENSOR_ENTRY

}  // namespace attnrt::core
