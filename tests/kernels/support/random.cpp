// tests/kernels/support/random.cpp: random recipes over everything that a problem can state
#include "tests/kernels/support/random.hpp"

#include <algorithm>
#include <random>

namespace kernels::test {
namespace {

// Most multiplications of one case: keeps the float64 reference quick.
constexpr int64_t kMaxWork = 3'000'000;

int64_t work(const Recipe& r) {
  const Problem& p = r.problem;
  int64_t pairs = r.batch * r.seq_q * r.seq_kv;
  if (p.varlen) {
    pairs = 0;
    for (size_t b = 0; b < r.q_lengths.size(); ++b)
      pairs += int64_t{r.q_lengths[b]} * r.kv_lengths[b];
  }
  return pairs * p.heads_q * (p.head_dim + p.head_dim_v);
}

}  // namespace

Recipe random_recipe(uint32_t seed) {
  std::mt19937 random(seed * 2654435761u + 1);
  const auto chance = [&](uint32_t one_in) { return random() % one_in == 0; };
  const auto pick = [&](std::initializer_list<int64_t> values) {
    return values.begin()[random() % values.size()];
  };

  Recipe r;
  r.seed = seed;
  Problem& p = r.problem;
  p.dtype = static_cast<DType>(random() % 3);
  p.heads_kv = pick({1, 1, 2, 3});
  p.heads_q = p.heads_kv * pick({1, 1, 2, 4, 7});
  p.head_dim = pick({1, 7, 16, 33, 64, 72, 80, 96, 128});
  p.head_dim_v = chance(3) ? pick({1, 5, 16, 31, 64, 100, 128}) : p.head_dim;
  p.scale = chance(3) ? (chance(2) ? 0.3f : -0.2f) : 0;
  p.causal = chance(3);
  p.align = chance(2) ? Align::top_left : Align::bottom_right;
  if (chance(3)) p.window_left = pick({0, 1, 17, 100});
  if (chance(4)) p.window_right = pick({0, 3, 40});
  if (chance(4)) p.softcap = 3.0f;
  p.alibi = chance(4);
  p.sinks = chance(4);
  p.kv_lengths = chance(3);
  p.varlen = chance(3);
  if (chance(3)) p.page_size = pick({1, 16, 24});
  p.lse = chance(2);
  r.layout = static_cast<Layout>(random() % 3);
  r.slack = chance(3) ? 5 : 0;
  r.magnitude = chance(8) ? 60.0f : 1.0f;

  const auto length = [&] { return pick({0, 1, 2, 13, 63, 64, 65, 127, 128, 129, 200, 257}); };
  const auto query_length = [&] { return chance(4) ? 1 : length(); };
  const int64_t sequences = pick({1, 2, 3});
  r.batch = sequences;
  r.seq_q = query_length();
  r.seq_kv = length();
  if (p.varlen) {
    for (int64_t b = 0; b < sequences; ++b)
      r.q_lengths.push_back(static_cast<int32_t>(query_length()));
  }
  if (p.varlen || p.page_size > 0 || p.kv_lengths) {
    const bool bounded = !p.varlen && p.page_size == 0;
    for (int64_t b = 0; b < sequences; ++b) {
      const int64_t n = length();
      r.kv_lengths.push_back(static_cast<int32_t>(bounded ? std::min(n, r.seq_kv) : n));
    }
    if (!bounded && !p.varlen)
      r.seq_kv = *std::max_element(r.kv_lengths.begin(), r.kv_lengths.end());
  }
  if (!p.varlen && chance(2)) {
    p.mask = chance(2) ? Mask::boolean : Mask::additive;
    p.mask_dtype = chance(2) ? DType::f32 : p.dtype;
    r.hidden = static_cast<Hidden>(random() % (p.mask == Mask::additive ? 6 : 5));
    for (bool& broadcast : r.broadcast) broadcast = chance(3);
  }
  if (chance(2)) {
    p.kv_dtype = static_cast<DType>(
        pick({int64_t(DType::i8), int64_t(DType::f8_e4m3fn), int64_t(DType::f8_e4m3fnuz)}));
    p.kv_scale = static_cast<KvScale>(random() % 4);
  }
  if (chance(3)) {
    p.v_in_k = true;
    p.head_dim_v = std::min(p.head_dim, p.head_dim_v);
  }
  if (chance(2) && p.dtype != DType::f32) p.out_dtype = DType::f32;
  p.batch_invariant = chance(3);
  p.diagonal_offset = chance(3);
  for (int64_t b = 0; p.diagonal_offset && b < sequences; ++b)
    r.diagonal_offsets.push_back(static_cast<int32_t>(pick({0, 1, -1, 17, -60, 300, -300})));
  // Shrinks what is too much work: heads and head_dim, but not lengths, since kernels go wrong at
  // the edges of tiles.
  if (work(r) > kMaxWork) {
    p.heads_kv = chance(2) ? 1 : 2;
    p.heads_q = p.heads_kv * pick({1, 2});
  }
  if (work(r) > kMaxWork) {
    p.head_dim = std::min<int64_t>(p.head_dim, 33);
    p.head_dim_v = std::min<int64_t>(p.head_dim_v, 31);
  }
  return r;
}

std::vector<std::string> features(const Recipe& r) {
  const Problem& p = r.problem;
  std::vector<std::string> names{p.dtype == DType::f32   ? "f32"
                                 : p.dtype == DType::f16 ? "f16"
                                                         : "bf16"};
  const auto add = [&](bool used, const char* name) {
    if (used) names.emplace_back(name);
  };
  add(p.heads_q > p.heads_kv, "gqa");
  add(p.head_dim != p.head_dim_v, "head_dim_v");
  add(p.scale != 0, "scale");
  add(p.mask == Mask::boolean, "mask_boolean");
  add(p.mask == Mask::additive, "mask_additive");
  add(p.causal, "causal");
  add(p.align == Align::top_left, "top_left");
  add(p.window_left >= 0, "window_left");
  add(p.window_right >= 0, "window_right");
  add(p.softcap != 0, "softcap");
  add(p.alibi, "alibi");
  add(p.sinks, "sinks");
  add(p.kv_lengths, "kv_lengths");
  add(p.varlen, "varlen");
  add(p.page_size > 0, "paged");
  add(p.lse, "lse");
  add(p.kv_dtype == DType::i8, "kv_i8");
  add(p.kv_dtype == DType::f8_e4m3fn, "kv_f8_e4m3fn");
  add(p.kv_dtype == DType::f8_e4m3fnuz, "kv_f8_e4m3fnuz");
  add(p.kv_scale == KvScale::tensor, "kv_scale_tensor");
  add(p.kv_scale == KvScale::head, "kv_scale_head");
  add(p.kv_scale == KvScale::token, "kv_scale_token");
  add(p.v_in_k, "v_in_k");
  add(p.out_dtype == DType::f32, "out_f32");
  add(p.diagonal_offset, "diagonal_offset");
  add(p.batch_invariant, "batch_invariant");
  add(r.layout == Layout::bhsd, "bhsd");
  add(r.layout == Layout::gapped, "gapped");
  add(r.magnitude > 1, "huge");
  return names;
}

}  // namespace kernels::test
