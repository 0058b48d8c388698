// runtime/cli/bench/work.cpp: counts the FLOP and bytes that a problem costs at least
#include "cli/bench/work.hpp"

#include <algorithm>

namespace attnrt::cli::bench {
namespace {

// The scores that one head computes, and the range of keys that at least one query sees.
struct Visible {
  double scores = 0;
  int64_t first_key = 0, end_key = 0;
};

// Query i has its diagonal at key i + shift. It sees keys from diagonal - window_left to diagonal
// (causal) or diagonal + window_right, as far as these keys exist.
Visible visible_scores(const core::Problem& p) {
  const int64_t shift = p.align == ATTNRT_ALIGN_TOP_LEFT ? 0 : p.seq_kv - p.seq_q;
  Visible visible{0, p.seq_kv, 0};
  for (int64_t i = 0; i < p.seq_q; ++i) {
    const int64_t diagonal = i + shift;
    int64_t first = 0, end = p.seq_kv;
    if (p.causal != 0) end = std::min(end, diagonal + 1);
    // A window that is wider than all keys is left out, because adding it could overflow.
    if (p.window_right >= 0 && p.window_right < p.seq_kv)
      end = std::min(end, diagonal + p.window_right + 1);
    if (p.window_left >= 0)
      first = std::max(first, diagonal - std::min(p.window_left, p.seq_kv + p.seq_q));
    if (first >= end) continue;
    visible.scores += static_cast<double>(end - first);
    visible.first_key = std::min(visible.first_key, first);
    visible.end_key = std::max(visible.end_key, end);
  }
  return visible;
}

}  // namespace

Work work_of(const core::Problem& p) {
  const Visible visible = visible_scores(p);
  const auto batch = static_cast<double>(p.batch), heads = static_cast<double>(p.heads_q);
  const auto width = static_cast<double>(p.head_dim + p.head_dim_v);
  const double rows = static_cast<double>(p.seq_q) * heads;
  const auto seen_keys =
      static_cast<double>(std::max<int64_t>(0, visible.end_key - visible.first_key));
  const double key_rows = seen_keys * static_cast<double>(p.heads_kv);
  const auto element_bytes = static_cast<double>(core::dtype_bytes(p.dtype));

  Work work;
  work.flop = 2 * batch * heads * visible.scores * width;
  work.bytes = batch * (rows + key_rows) * width * element_bytes;
  if (p.mask != ATTNRT_MASK_NONE)
    work.bytes += static_cast<double>(p.seq_q) * static_cast<double>(p.seq_kv) *
                  static_cast<double>(core::dtype_bytes(p.mask_dtype));
  if (p.lse != 0) work.bytes += batch * rows * static_cast<double>(sizeof(float));
  return work;
}

}  // namespace attnrt::cli::bench
