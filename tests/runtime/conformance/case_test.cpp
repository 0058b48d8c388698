// tests/runtime/conformance/case_test.cpp: what is drawn for a case, and what its tensors look like
#include "conformance/case.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "conformance/tensors.hpp"
#include "problem/check_args.hpp"

namespace attnrt::conformance {
namespace {

constexpr std::string_view kEverything = R"(name: every
version: 1.0.0
abi: 1
devices: [cpu]
supports:
  - features: [gqa, causal, align_top_left, window, softcap, alibi, sinks, kv_lengths, varlen,
               paged, lse, deterministic, diagonal_offset, batch_invariant, v_in_k]
    kv_dtype: [off, f8_e4m3fn, f8_e4m3fnuz, i8]
    kv_scale: [none, tensor, head, token]
    out_dtype: [off, f32]
)";

constexpr std::string_view kNarrow = R"(name: narrow
version: 1.0.0
abi: 1
devices: [cpu]
supports:
  - dtype: f16
    head_dim: [64, 128]
    head_dim_v: {equals: head_dim}
    mask: none
    seq_kv: {max: 64}
    alignment_bytes: {min: 16}
    features: [causal]
  - dtype: f32
    head_dim: {min: 40, max: 80, multiple_of: 8}
    mask: additive
    features: [lse]
)";

core::Manifest manifest_of(std::string_view text) {
  auto manifest = core::parse_manifest(text, "test.so");
  EXPECT_TRUE(manifest) << manifest.error().message;
  return *std::move(manifest);
}

const core::Device kCpu{ATTNRT_DEVICE_CPU, 0, "", "cpu", 0};

TEST(Case, TheSameSeedDrawsTheSameCaseAndTensors) {
  const core::Manifest manifest = manifest_of(kEverything);
  for (uint64_t seed = 0; seed < 32; ++seed) {
    const auto one = draw_case(manifest, kCpu, seed), two = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(one && two);
    EXPECT_EQ(describe(*one), describe(*two));
    const Tensors a = make_tensors(*one), b = make_tensors(*two);
    for (const TensorName name : kTensorNames) EXPECT_EQ(a[name].bytes, b[name].bytes);
  }
}

TEST(Case, FitsTheEntryThatItsSeedMeans) {
  const core::Manifest manifest = manifest_of(kNarrow);
  std::set<int> entries;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto drawn = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(drawn) << seed;
    EXPECT_EQ(drawn->entry, static_cast<int>(seed / kStyles % 2));
    entries.insert(drawn->entry);
    const auto& entry = manifest.entries[static_cast<size_t>(drawn->entry)];
    EXPECT_TRUE(fits(entry, drawn->problem, "")) << describe(*drawn);
  }
  EXPECT_EQ(entries.size(), 2u);
}

TEST(Case, ExtentsAreWithinTheBounds) {
  const core::Manifest manifest = manifest_of(kEverything);
  int larger = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto drawn = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(drawn);
    const core::Problem& p = drawn->problem;
    EXPECT_EQ(drawn->q_lengths.size(), static_cast<size_t>(drawn->batch));
    EXPECT_EQ(drawn->kv_lengths.size(), static_cast<size_t>(drawn->batch));
    EXPECT_LE(drawn->batch, p.batch);
    for (const int64_t length : drawn->q_lengths) EXPECT_LE(length, p.seq_q);
    for (const int64_t length : drawn->kv_lengths) EXPECT_LE(length, p.seq_kv);
    larger += drawn->batch < p.batch;
  }
  EXPECT_GT(larger, 20) << "plans with larger bounds than the run";
}

TEST(Case, EveryStyleAndFeatureIsDrawn) {
  const core::Manifest manifest = manifest_of(kEverything);
  std::set<Style> styles;
  std::set<std::string_view> features;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const auto drawn = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(drawn);
    styles.insert(drawn->style);
    for (const std::string_view feature : core::features_of(drawn->problem))
      features.insert(feature);
  }
  EXPECT_EQ(styles.size(), static_cast<size_t>(kStyles));
  EXPECT_EQ(features.size(), manifest.entries[0].features.size());
}

TEST(Case, EveryStorageIsDrawn) {
  const core::Manifest manifest = manifest_of(kEverything);
  std::set<std::string> kv, out;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    const auto drawn = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(drawn);
    const core::Problem& p = drawn->problem;
    if (!core::is_off(p.kv_dtype))
      kv.insert(core::dtype_name(p.kv_dtype) + " " + std::to_string(p.kv_scale));
    if (!core::is_off(p.out_dtype))
      out.insert(core::dtype_name(p.dtype) + " " + core::dtype_name(p.out_dtype));
  }
  EXPECT_EQ(kv.size(), 3U * 4);
  EXPECT_EQ(out, (std::set<std::string>{"bf16 f32", "f16 f32"}));
}

// What a server's batches look like: sequences that end where pages do, one long sequence among
// many short ones, caches of k and v in one allocation, pages of any size.
TEST(Case, ServingBatchesAreDrawn) {
  const core::Manifest manifest = manifest_of(kEverything);
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    const auto drawn = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(drawn);
    const core::Problem& p = drawn->problem;
    const auto& lengths = drawn->kv_lengths;
    if (p.page_size > 0) {
      seen.insert("pages of " + std::to_string(p.page_size));
      seen.insert("memory " + std::to_string(static_cast<int>(drawn->kv_memory)));
    }
    const std::string kind = p.page_size > 0 ? "paged " : p.varlen ? "varlen " : "kv_lengths ";
    if (!p.varlen && !p.kv_lengths) continue;
    for (const int64_t length : lengths) {
      if (length < 2) seen.insert(kind + std::to_string(length));
      if (p.page_size > 1 && length > 0 && length % p.page_size < 2)
        seen.insert(length % p.page_size == 0 ? "a full last page" : "a key on a page of its own");
    }
    const auto shorts =
        std::count_if(lengths.begin(), lengths.end(), [](int64_t n) { return n < 2; });
    const auto longest = *std::max_element(lengths.begin(), lengths.end());
    if (lengths.size() >= 9 && shorts + 1 == static_cast<int64_t>(lengths.size()) && longest > 100)
      seen.insert(kind + "crowd");
  }
  for (const char* expected :
       {"pages of 1", "pages of 16", "pages of 64", "memory 0", "memory 1", "memory 2", "paged 0",
        "paged 1", "varlen 0", "varlen 1", "kv_lengths 0", "kv_lengths 1", "a full last page",
        "a key on a page of its own", "paged crowd", "varlen crowd", "kv_lengths crowd"})
    EXPECT_TRUE(seen.contains(expected)) << expected;
}

TEST(Case, NoBatchIsLargerThanTheEntryAllows) {
  const core::Manifest manifest = manifest_of(
      "name: small\nversion: 1.0.0\nabi: 1\ndevices: [cpu]\n"
      "supports: [{batch: {max: 4}, seq_kv: {max: 50}, features: [kv_lengths, varlen, paged]}]\n");
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto drawn = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(drawn);
    EXPECT_LE(drawn->batch, 4);
    EXPECT_LE(drawn->problem.seq_kv, 50);
  }
}

// A manifest without the words of storage draws the cases that it drew before there were any.
TEST(Case, WordsThatAreNotServedDrawNothing) {
  core::Manifest manifest = manifest_of(kNarrow);
  const auto before = draw_case(manifest, kCpu, 3);
  for (auto& entry : manifest.entries) {
    std::erase_if(entry.constraints, [](const core::Constraint& c) {
      return c.word->name == "kv_dtype" || c.word->name == "kv_scale" ||
             c.word->name == "out_dtype";
    });
  }
  EXPECT_EQ(describe(*before), describe(*draw_case(manifest, kCpu, 3)));
}

TEST(Case, NothingIsDrawnWithoutAnEntry) {
  core::Manifest manifest = manifest_of(kEverything);
  manifest.entries.clear();
  EXPECT_FALSE(draw_case(manifest, kCpu, 1));
}

TEST(Tensors, NamesAndMembersAreInTheOrderOfTheArgs) {
  attnrt_args args{};
  EXPECT_EQ(&tensor_of(args, TensorName::q), &args.q);
  EXPECT_EQ(&tensor_of(args, TensorName::lse), &args.lse);
  EXPECT_EQ(&tensor_of(args, TensorName::page_table), &args.page_table);
  EXPECT_EQ(text_of(TensorName::alibi_slopes), "alibi_slopes");
}

// Gives scales the dimensions that an application gives them.
void narrow_scale(attnrt_tensor& scale, int32_t kv_scale) {
  if (scale.data == nullptr || kv_scale == ATTNRT_KV_SCALE_TOKEN) return;
  const int32_t heads = scale.ndim - 1;
  const bool each_head = kv_scale == ATTNRT_KV_SCALE_HEAD;
  scale.shape[0] = each_head ? scale.shape[heads] : 1;
  scale.stride[0] = each_head ? scale.stride[heads] : 1;
  scale.ndim = 1;
}

TEST(Tensors, AreThoseThatTheRuntimeLetsThrough) {
  const core::Manifest manifest = manifest_of(kEverything);
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const auto drawn = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(drawn);
    const Tensors tensors = make_tensors(*drawn);
    attnrt_args args{};
    args.struct_size = sizeof args;
    for (const TensorName name : kTensorNames) {
      if (tensors[name].absent()) continue;
      tensor_of(args, name) = tensors[name].view;
      // The runtime compares addresses, and reads nothing.
      const auto address = (uintptr_t{1} << 40) * (1 + static_cast<uintptr_t>(name));
      tensor_of(args, name).data = reinterpret_cast<void*>(address);
    }
    narrow_scale(args.k_scale, drawn->problem.kv_scale);
    narrow_scale(args.v_scale, drawn->problem.kv_scale);
    core::Extents extents;
    attnrt_error error = ATTNRT_ERROR_INIT;
    EXPECT_EQ(core::check_args(drawn->problem, args, &extents, &error), ATTNRT_OK)
        << error.message << ": " << describe(*drawn);
  }
}

TEST(Tensors, OutputsArePoisonedAndOnlyTheirElementsMustBeWritten) {
  const core::Manifest manifest = manifest_of(kEverything);
  for (uint64_t seed = 0; seed < 64; ++seed) {
    const auto drawn = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(drawn);
    const Tensors tensors = make_tensors(*drawn);
    const Image& out = tensors[TensorName::out];
    EXPECT_TRUE(std::all_of(out.bytes.begin(), out.bytes.end(),
                            [&](std::byte byte) { return byte == out.poison; }));
    int64_t rows = 0;
    for (const int64_t length : drawn->q_lengths) rows += length;
    const core::Problem& p = drawn->problem;
    EXPECT_EQ(std::count(out.must_write.begin(), out.must_write.end(), true),
              rows * p.heads_q * p.head_dim_v * out.view.dtype.bits / 8)
        << describe(*drawn);
    const auto guard = out.must_write.begin() + Image::kGuard;
    EXPECT_EQ(std::count(out.must_write.begin(), guard, true), 0);
  }
}

// In one allocation, no element of k is one of v.
TEST(Tensors, SharedMemoryOfKAndVHoldsEachElementOnce) {
  const core::Manifest manifest = manifest_of(kEverything);
  std::set<std::pair<KvMemory, bool>> seen;  // how they lie, and whether heads are outside of keys
  for (uint64_t seed = 0; seed < 600; ++seed) {
    const auto drawn = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(drawn);
    const Tensors tensors = make_tensors(*drawn);
    EXPECT_EQ(tensors.v_after_k > 0, drawn->kv_memory != KvMemory::separate);
    if (tensors.v_after_k == 0) continue;
    const attnrt_tensor &k = tensors[TensorName::k].view, &v = tensors[TensorName::v].view;
    const int64_t size = k.dtype.bits / 8, v_first = tensors.v_after_k / size;
    EXPECT_EQ(tensors.v_after_k % std::max<int64_t>(size, drawn->problem.alignment_bytes), 0);
    std::set<int64_t> elements;
    int64_t count = 0;
    for_each_element(k, [&](int64_t at) { elements.insert(at), ++count; });
    for_each_element(v, [&](int64_t at) { elements.insert(v_first + at), ++count; });
    EXPECT_EQ(static_cast<int64_t>(elements.size()), count) << describe(*drawn);
    const bool pairs = drawn->kv_memory == KvMemory::pairs;
    EXPECT_EQ(v_first, pairs ? k.stride[0] / 2 : k.stride[0] * k.shape[0]);
    if (k.shape[1] > 1 && k.shape[2] > 1) seen.emplace(drawn->kv_memory, k.stride[2] > k.stride[1]);
  }
  EXPECT_EQ(seen.size(), 4U) << "NHD and HND, each in both kinds of memory";
}

TEST(Tensors, EntriesPastTheLastPageAreStale) {
  const core::Manifest manifest = manifest_of(kEverything);
  std::set<int32_t> stale;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const auto drawn = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(drawn);
    if (drawn->problem.page_size == 0) continue;
    const Tensors tensors = make_tensors(*drawn);
    const Image& table = tensors[TensorName::page_table];
    for (size_t b = 0; b < drawn->kv_lengths.size(); ++b) {
      for (int64_t page = 0; page < drawn->max_pages; ++page) {
        int32_t entry = 0;
        const int64_t at = static_cast<int64_t>(b) * drawn->max_pages + page;
        std::memcpy(&entry, table.first() + at * 4, 4);
        if (page * drawn->problem.page_size >= drawn->kv_lengths[b]) {
          stale.insert(entry);
        } else {
          EXPECT_TRUE(0 <= entry && entry < drawn->pages) << describe(*drawn);
        }
      }
    }
  }
  for (const int32_t entry : {0, -1, INT32_MIN, INT32_MAX}) EXPECT_TRUE(stale.contains(entry));
}

TEST(Tensors, HiddenNanNeverReachesTheExactAnswer) {
  const core::Manifest manifest = manifest_of(kEverything);
  int64_t hidden = 0, visible = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto drawn = draw_case(manifest, kCpu, seed);
    ASSERT_TRUE(drawn);
    const Tensors tensors = make_tensors(*drawn);
    const auto expectation = expect(*drawn, tensors, {});
    int64_t nan = 0;
    for (const auto& row : expectation.rows)
      nan += std::isnan(expectation.out[static_cast<size_t>(row.out_at)]);
    if (drawn->style == Style::nan_visible) {
      EXPECT_EQ(nan > 0, tensors.nan_keys > 0) << describe(*drawn);
      visible += tensors.nan_keys;
    } else {
      EXPECT_EQ(nan, 0) << describe(*drawn);
      if (drawn->style == Style::nan_masked) hidden += tensors.nan_keys;
    }
  }
  EXPECT_GT(hidden, 0);
  EXPECT_GT(visible, 0);
}

}  // namespace
}  // namespace attnrt::conformance
