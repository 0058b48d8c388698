// kernels/hip/params.hpp: the one argument of a kernel of attention: one run's tensors and numbers
//
// launch/fill_params.cpp fills it on the host; a kernel takes it by value.
#pragma once

#include <stdint.h>

namespace kernels::hip {

// The most workgroups of a grid along y, on every platform. Heads of all sequences are numbered
// along y, and those beyond this limit along z.
inline constexpr uint32_t kGridY = 65535;

// Which of the three fused kernels. generic takes everything: masks, ALiBi, softcap, a
// diagonal_offset, and causal too. The other two have no code for these, which makes their loop
// shorter; causal starts with the longest blocks.
enum class Kind { generic, causal, nocausal };

// Strides of q, k, v or out, in elements.
struct Strides {
  int64_t batch, row, head;
};

// Of AttentionParams::flags.
enum Flags : uint32_t {
  // The scale is negative: kernels negate q, and score_scale and exp_scale are magnitudes.
  kNegativeScale = 1,
  // The mask has one byte for each key; 0 hides it. Otherwise a mask is additive.
  kBooleanMask = 2,
  // An additive mask is float32; otherwise it is of q's dtype.
  kMaskF32 = 4,
  // Every row of the mask starts at a multiple of 16 bytes, and its keys stand side by side.
  kMaskVector = 8,
  // Scores are scaled first: ALiBi or a softcap follows. Otherwise exp_scale or mask_scale does it.
  kScaledScores = 16,
};

struct AttentionParams {
  const void* q;
  const void* k;
  const void* v;
  void* out;
  const void* mask;     // null: no mask
  float* lse;           // null: not wanted
  const float* slopes;  // null: no ALiBi
  const float* sinks;   // null: no sinks
  float* scores;        // unfused: [batch, heads_q, seq_q, scores_row], in the workspace
  Strides q_stride, k_stride, v_stride, out_stride;
  int64_t mask_batch, mask_head, mask_row, mask_key;  // strides in elements
  int64_t lse_batch, lse_head, lse_row;               // strides in elements
  int64_t scores_row;  // unfused: floats of a row of scores: seq_kv rounded up to whole steps
  int64_t diagonal;    // the key opposite query 0; that of query i is i further
  const int32_t* diagonal_offsets;  // [batch], added to diagonal; null: none (generic fused kernel)
  int64_t window_left;   // visible: key >= diagonal - window_left; past every key: no window
  int64_t window_right;  // visible: key <= diagonal + window_right; 0 if causal
  int64_t slope_batch, slope_head, sink_stride;  // in elements
  int32_t batch, heads_q, heads_per_kv;
  int32_t seq_q, seq_kv, head_dim, head_dim_v;
  float score_scale;  // with kScaledScores: score = q.k * score_scale, divided by a softcap
  float mask_scale;   // with an additive mask: score = score * mask_scale + mask
  float softcap;      // 0: none
  float exp_scale;    // weight = 2^((score - reference) * exp_scale)
  uint32_t flags;
};

}  // namespace kernels::hip
