// tests/runtime/bounds_test.cpp: how far bounds are rounded up, and what two problems' keys share
#include "bounds.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "config.hpp"
#include "support/candidates.hpp"

namespace attnrt::core {
namespace {

using namespace support;

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

TEST(BoundsTest, RoundUpToPowersOfTwo) {
  EXPECT_EQ(rounded_up({1, 2, 3}), (Bounds{1, 2, 4}));
  EXPECT_EQ(rounded_up({0, 1000, 1025}), (Bounds{1, 1024, 2048}));
  EXPECT_EQ(rounded_up({int64_t{1} << 62, kMost, (int64_t{1} << 62) - 1}),
            (Bounds{int64_t{1} << 62, kMost, int64_t{1} << 62}));
}

TEST(BoundsTest, KeysOfOneCellAreEqual) {
  const Config config;
  const CacheKey key = cache_key(config, problem_of("head_dim=64 seq_kv=33"));
  EXPECT_EQ(key, cache_key(config, problem_of("head_dim=64 seq_kv=64")));
  EXPECT_EQ(key.problem.seq_kv, 64);
  EXPECT_NE(key, cache_key(config, problem_of("head_dim=64 seq_kv=65")));
  EXPECT_NE(key, cache_key(config, problem_of("head_dim=64 seq_kv=32")));
}

TEST(BoundsTest, KeysDifferWhereTheExactProblemMeetsOtherConditions) {
  const auto config = read_config(
      "rules: [{when: {seq_kv: {max: 40}}, prefer: [cpu]}]\n"
      "backends: {cpu: {only: {batch: {multiple_of: 3}, head_dim: 64}}}\n",
      "policy.yaml", {});
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_EQ(config->conditions_on_bounds.size(), 2u) << "head_dim is no bound";
  const auto key = [&](const std::string& words) {
    return cache_key(*config, problem_of("head_dim=64 " + words));
  };
  EXPECT_EQ(key("seq_kv=33"), key("seq_kv=40"));
  EXPECT_NE(key("seq_kv=40"), key("seq_kv=41"));
  EXPECT_EQ(key("seq_kv=41"), key("seq_kv=64"));
  EXPECT_NE(key("batch=5"), key("batch=6"));
  EXPECT_EQ(key("batch=5"), key("batch=7"));
}

TEST(BoundsTest, WithMoreConditionsThanTheKeyHoldsNothingIsRounded) {
  Config config;
  const auto some = read_config("rules: [{when: {seq_kv: {max: 40}}, prefer: [cpu]}]\n", "p", {});
  config.conditions_on_bounds.assign(CacheKey::kMostConditions + 1,
                                     some->conditions_on_bounds.front());
  EXPECT_NE(cache_key(config, problem_of("head_dim=64 seq_kv=33")),
            cache_key(config, problem_of("head_dim=64 seq_kv=34")));
}

Candidate candidate_with(const std::string& supports) {
  auto plugin = std::make_shared<FoundPlugin>();
  auto manifest = parse_manifest(
      "name: flash\nversion: 1.0.0\nabi: 1\ndevices: [cpu]\nsupports:\n" + supports, "flash.yaml");
  EXPECT_TRUE(manifest) << manifest.error().message;
  plugin->manifest = *std::move(manifest);
  return {plugin, nullptr, {}};
}

TEST(BoundsTest, ThePlansBoundsAreCutAtTheManifestsMaxima) {
  const Candidate narrow = candidate_with(
      "  - {dtype: f16}\n  - {batch: {max: 8}, seq_q: {max: 40}}\n  - {seq_q: {max: 50}}\n");
  const auto widest = [&](const std::string& words) {
    const Problem exact = problem_of("head_dim=64 " + words);
    return bounds_of(
        widest_accepted(narrow, exact, with_bounds(exact, rounded_up(bounds_of(exact)))));
  };
  EXPECT_EQ(widest("batch=3 seq_q=20 seq_kv=100"), (Bounds{4, 32, 128}));
  EXPECT_EQ(widest("batch=3 seq_q=33 seq_kv=100"), (Bounds{4, 40, 128}));
  EXPECT_EQ(widest("batch=3 seq_q=41 seq_kv=100"), (Bounds{4, 50, 128})) << "of another entry";
  EXPECT_EQ(widest("batch=9 seq_q=41 seq_kv=100"), (Bounds{16, 50, 128}));
}

TEST(BoundsTest, SmallerBoundsMayBeAccepted) {
  const Candidate narrow = candidate_with("  - {head_dim: {max: 64}, seq_q: {max: 40}}\n");
  EXPECT_TRUE(accepts_smaller(narrow, problem_of("head_dim=64 seq_q=50")));
  EXPECT_FALSE(accepts_smaller(narrow, problem_of("head_dim=65 seq_q=50")));
}

}  // namespace
}  // namespace attnrt::core
