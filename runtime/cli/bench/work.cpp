// runtime/cli/bench/work.cpp: counts the FLOP and bytes that a problem costs at least
#include "cli/bench/work.hpp"

#include <algorithm>

#include "cli/bench/tensors.hpp"

namespace attnrt::cli::bench {
namespace {

// The scores that one head computes for one sequence, and the range of keys that at least one query
// sees.
struct Visible {
  double scores = 0;
  int64_t first_key = 0, end_key = 0;
  int64_t keys() const { return std::max<int64_t>(0, end_key - first_key); }
};

// Query i has its diagonal at key i + shift. It sees keys from diagonal - window_left to diagonal
// (causal) or diagonal + window_right, as far as these keys exist.
Visible visible_scores(const core::Problem& p, int64_t queries, int64_t keys) {
  const int64_t shift = (p.align == ATTNRT_ALIGN_TOP_LEFT ? 0 : keys - queries) +
                        (p.diagonal_offset != 0 ? kDiagonalOffset : 0);
  Visible visible{0, keys, 0};
  for (int64_t i = 0; i < queries; ++i) {
    const int64_t diagonal = i + shift;
    int64_t first = 0, end = keys;
    if (p.causal != 0) end = std::min(end, diagonal + 1);
    // A window that is wider than all keys is left out, because adding it could overflow.
    if (p.window_right >= 0 && p.window_right < keys)
      end = std::min(end, diagonal + p.window_right + 1);
    if (p.window_left >= 0)
      first = std::max(first, diagonal - std::min(p.window_left, keys + queries));
    if (first >= end) continue;
    visible.scores += static_cast<double>(end - first);
    visible.first_key = std::min(visible.first_key, first);
    visible.end_key = std::max(visible.end_key, end);
  }
  return visible;
}

}  // namespace

Work work_of(const GridProblem& grid_problem) {
  const core::Problem& p = grid_problem.problem;
  const auto number = [](int64_t n) { return static_cast<double>(n); };
  const auto bytes_of = [&](attnrt_dtype dtype) { return number(core::dtype_bytes(dtype)); };
  const auto or_dtype = [&p](attnrt_dtype other) { return core::is_off(other) ? p.dtype : other; };
  const SequenceLengths lengths = lengths_of(grid_problem);
  double scores = 0, seen_keys = 0;
  for (size_t b = 0; b < lengths.q.size(); ++b) {
    const Visible visible = visible_scores(p, lengths.q[b], lengths.kv[b]);
    scores += visible.scores;
    seen_keys += number(visible.keys());
  }
  const double heads = number(p.heads_q), rows = number(lengths.total_q()) * heads;
  const double key_rows = seen_keys * number(p.heads_kv);
  const int64_t kv_width = p.head_dim + (p.v_in_k != 0 ? 0 : p.head_dim_v);

  Work work;
  work.flop = 2 * heads * scores * number(p.head_dim + p.head_dim_v);
  work.kv_bytes = key_rows * number(kv_width) * bytes_of(or_dtype(p.kv_dtype));
  if (p.kv_scale == ATTNRT_KV_SCALE_TOKEN)
    work.kv_bytes += key_rows * (p.v_in_k != 0 ? 1 : 2) * sizeof(float);
  work.bytes = work.kv_bytes + rows * (number(p.head_dim) * bytes_of(p.dtype) +
                                       number(p.head_dim_v) * bytes_of(or_dtype(p.out_dtype)));
  if (p.mask != ATTNRT_MASK_NONE)
    work.bytes += number(p.seq_q) * number(p.seq_kv) * bytes_of(p.mask_dtype);
  if (p.lse != 0) work.bytes += rows * sizeof(float);
  return work;
}

}  // namespace attnrt::cli::bench
