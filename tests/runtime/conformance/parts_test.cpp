// tests/runtime/conformance/parts_test.cpp: a part's exact answer is that of the whole
#include "conformance/parts.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/reference/merge.hpp"

namespace attnrt::conformance {
namespace {

constexpr std::string_view kManifest = R"(name: test
version: 1.0.0
abi: 1
devices: [cpu]
supports:
  - features: [gqa, causal, align_top_left, window, softcap, alibi, sinks, kv_lengths, varlen,
               paged, lse, deterministic, diagonal_offset, batch_invariant, v_in_k]
    head_dim: {max: 64}
    kv_dtype: [off, f8_e4m3fn, f8_e4m3fnuz, i8]
    kv_scale: [none, tensor, head, token]
    out_dtype: [off, f32]
)";

Case draw(uint64_t seed) {
  static const auto manifest = core::parse_manifest(kManifest, "test.so");
  return *draw_case(*manifest, {ATTNRT_DEVICE_CPU, 0, "", "cpu", 0}, seed);
}

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

TEST(Parts, ASequenceAloneHasTheSameAnswer) {
  for (uint64_t seed = 0; seed < 160; ++seed) {
    const Case drawn = draw(seed);
    const Tensors tensors = make_tensors(drawn);
    const auto whole = expect(drawn, tensors, {});
    for (int64_t b = 0; b < drawn.batch; ++b) {
      const Part part = sequence_alone(drawn, tensors, b);
      ASSERT_TRUE(core::check_problem(&part.drawn.problem)) << describe(part.drawn);
      const auto alone = expect(part.drawn, part.tensors, {});
      size_t n = 0;
      for (const auto& row : whole.rows) {
        if (row.b != b) continue;
        const auto& same_row = alone.rows.at(n++);
        for (int64_t x = 0; x < drawn.problem.head_dim_v; ++x) {
          ASSERT_TRUE(same(whole.out[static_cast<size_t>(row.out_at + x)],
                           alone.out[static_cast<size_t>(same_row.out_at + x)]))
              << "sequence " << b << ": " << describe(drawn);
        }
        ASSERT_TRUE(same(whole.lse[static_cast<size_t>(row.lse_at)],
                         alone.lse[static_cast<size_t>(same_row.lse_at)]));
      }
      EXPECT_EQ(n, alone.rows.size());
    }
  }
}

TEST(Parts, MergedPartsOfTheKeysHaveTheSameAnswer) {
  int tried = 0, with_diagonal = 0;
  for (uint64_t seed = 0; seed < 800; ++seed) {
    const Case drawn = draw(seed);
    const bool finite = drawn.style == Style::plain || drawn.style == Style::empty_rows;
    if (!finite || drawn.problem.varlen || drawn.problem.kv_lengths || drawn.seq_kv < 2) continue;
    const Tensors tensors = make_tensors(drawn);
    if (!has_key_parts(drawn, tensors)) continue;
    ++tried;
    with_diagonal += drawn.problem.causal;
    const auto whole = expect(drawn, tensors, {});
    const int64_t middle = std::max<int64_t>(1, drawn.seq_kv / 3);
    const Part parts[] = {keys_between(drawn, tensors, 0, middle),
                          keys_between(drawn, tensors, middle, drawn.seq_kv)};
    const kernels::reference::Expectation found[] = {expect(parts[0].drawn, parts[0].tensors, {}),
                                                     expect(parts[1].drawn, parts[1].tensors, {})};
    for (size_t n = 0; n < whole.rows.size(); ++n) {
      const auto at = [&](const auto& e) { return static_cast<size_t>(e.rows[n].lse_at); };
      const double lses[] = {found[0].lse[at(found[0])], found[1].lse[at(found[1])]};
      const double exact = whole.lse[at(whole)];
      const double largest = std::max(lses[0], lses[1]);
      if (std::isinf(exact)) {
        ASSERT_EQ(largest, exact) << describe(drawn);
        continue;
      }
      const double sum = std::exp(lses[0] - largest) + std::exp(lses[1] - largest);
      ASSERT_NEAR(largest + std::log(sum), exact, 1e-9) << describe(drawn);
      for (int64_t x = 0; x < drawn.problem.head_dim_v; ++x) {
        double merged = 0;
        for (int part = 0; part < 2; ++part) {
          const auto& out = found[part].out;
          merged += std::exp(lses[part] - largest) / sum *
                    out[static_cast<size_t>(found[part].rows[n].out_at + x)];
        }
        ASSERT_NEAR(merged, whole.out[static_cast<size_t>(whole.rows[n].out_at + x)], 1e-9)
            << describe(drawn);
      }
    }
  }
  EXPECT_GT(tried, 20);
  EXPECT_GT(with_diagonal, 5);
}

}  // namespace
}  // namespace attnrt::conformance
