// kernels/hip/params.hpp: one run, as the kernels take it: a struct by value; filled by launch.cpp
#pragma once

#include <stdint.h>

namespace kernels::hip {

// Heads of all sequences count along y, and beyond what a grid may have there, along z.
inline constexpr uint32_t kGridY = 65535;

// Strides in elements.
struct Rows {
  int64_t batch, row, head;
};

enum Flags : uint32_t {
  kNegate = 1,       // scale is negative: q's sign is turned, and score_scale is its magnitude
  kBooleanMask = 2,  // one byte for each key
  kMaskF32 = 4,      // an additive mask of float32; without it and kBooleanMask: of q's dtype
  kMaskVector =
      8,  // every row of the mask starts at a multiple of 16 bytes, and its keys stand side by side
  kScaledScores = 16,  // scores are scaled before anything is added: softcap, ALiBi
};

struct AttentionParams {
  const void* q;
  const void* k;
  const void* v;
  void* out;
  const void* mask;     // null: none
  float* lse;           // null: not wanted
  const float* slopes;  // null: no ALiBi
  const float* sinks;   // null: none
  float* scores;        // unfused: [batch, heads_q, seq_q, scores_row] in the workspace
  Rows q_stride, k_stride, v_stride, out_stride;
  int64_t mask_batch, mask_head, mask_row, mask_key;
  int64_t lse_batch, lse_head, lse_row;
  int64_t scores_row;    // unfused: seq_kv rounded up to a whole tile
  int64_t diagonal;      // of query 0
  int64_t window_left;   // key >= diagonal - window_left; beyond any key where there is none
  int64_t window_right;  // key <= diagonal + window_right; 0 at most where causal
  int64_t slope_stride, sink_stride;
  int32_t batch, heads_q, heads_per_kv;
  int32_t seq_q, seq_kv, head_dim;
  float
      score_scale;  // scores become q.k * score_scale where kScaledScores (divided by softcap, if there is one)
  float mask_scale;  // an additive mask makes score * mask_scale + mask of a score
  float softcap;     // 0: none
  float exp_scale;   // weight = 2^((score - max) * exp_scale)
  uint32_t flags;
};

}  // namespace kernels::hip
