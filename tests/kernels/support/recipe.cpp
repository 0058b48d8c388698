// tests/kernels/support/recipe.cpp: a recipe with defaults, and its text
#include <sstream>

#include "tests/kernels/support/case.hpp"

namespace kernels::test {

Recipe dense_recipe(DType dtype, int64_t seq_q, int64_t seq_kv, int64_t head_dim,
                    int64_t head_dim_v) {
  Recipe r;
  r.problem.dtype = dtype;
  r.problem.heads_q = 2;
  r.problem.heads_kv = 2;
  r.problem.head_dim = head_dim;
  r.problem.head_dim_v = head_dim_v;
  r.problem.lse = true;
  r.seq_q = seq_q;
  r.seq_kv = seq_kv;
  return r;
}

std::string describe(const Recipe& r) {
  const Problem& p = r.problem;
  const auto list = [](const std::vector<int32_t>& values) {
    std::ostringstream text;
    for (const int32_t value : values) text << value << ' ';
    return text.str();
  };
  std::ostringstream text;
  text << "seed=" << r.seed << " dtype=" << static_cast<int>(p.dtype) << " batch=" << r.batch
       << " heads_q=" << p.heads_q << " heads_kv=" << p.heads_kv << " seq_q=" << r.seq_q
       << " seq_kv=" << r.seq_kv << " head_dim=" << p.head_dim << " head_dim_v=" << p.head_dim_v
       << " scale=" << p.scale << " mask=" << static_cast<int>(p.mask)
       << " mask_dtype=" << static_cast<int>(p.mask_dtype)
       << " hidden=" << static_cast<int>(r.hidden) << " causal=" << p.causal
       << " align=" << static_cast<int>(p.align) << " window=" << p.window_left << ","
       << p.window_right << " softcap=" << p.softcap << " alibi=" << p.alibi << " sinks=" << p.sinks
       << " kv_lengths=" << p.kv_lengths << " varlen=" << p.varlen << " page_size=" << p.page_size
       << " lse=" << p.lse << " kv_dtype=" << static_cast<int>(p.kv_dtype)
       << " kv_scale=" << static_cast<int>(p.kv_scale) << " v_in_k=" << p.v_in_k
       << " out_dtype=" << static_cast<int>(p.out_dtype) << " batch_invariant=" << p.batch_invariant
       << " diagonal_offsets=" << (p.diagonal_offset ? list(r.diagonal_offsets) : "none ")
       << "layout=" << static_cast<int>(r.layout) << " magnitude=" << r.magnitude
       << " slack=" << r.slack << " lengths q: " << list(r.q_lengths)
       << "kv: " << list(r.kv_lengths);
  return text.str();
}

}  // namespace kernels::test
