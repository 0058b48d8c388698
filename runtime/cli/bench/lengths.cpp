// runtime/cli/bench/lengths.cpp: draws the lengths of a measured problem's sequences
#include "cli/bench/lengths.hpp"

#include <algorithm>
#include <array>
#include <numeric>

namespace attnrt::cli::bench {
namespace {

using core::fail;
using kernels::reference::Lengths;

constexpr std::array<std::string_view, 3> kNames = {"full", "one_long", "ragged"};
constexpr std::array kValues = {Lengths::full, Lengths::one_long, Lengths::ragged};
constexpr core::Word kWord{"lengths", {}, core::WordKind::name, false, "", kNames};

constexpr int64_t kLongOverShort = 16;  // keys of the longest sequence over those of the shortest
constexpr int64_t kMaxBatch = 1 << 16;  // sequences whose lengths differ, at most
constexpr uint64_t kSeed = 1;

}  // namespace

const core::Word& lengths_word() { return kWord; }

std::string lengths_text(Lengths lengths) {
  const auto found = std::find(kValues.begin(), kValues.end(), lengths);
  return std::string(kNames[static_cast<size_t>(found - kValues.begin())]);
}

Lengths find_lengths(std::string_view text) {
  const auto found = std::find(kNames.begin(), kNames.end(), text);
  return kValues[static_cast<size_t>(found - kNames.begin())];
}

core::Result<void> check_lengths(const GridProblem& grid_problem) {
  const core::Problem& p = grid_problem.problem;
  if (grid_problem.lengths == Lengths::full) return {};
  const std::string name = lengths_text(grid_problem.lengths);
  if (p.kv_lengths == 0 && p.varlen == 0)
    return fail(ATTNRT_INVALID_ARGUMENT,
                "lengths: found {} without kv_lengths and varlen, expected full", name);
  if (p.batch > kMaxBatch)
    return fail(ATTNRT_INVALID_ARGUMENT, "batch: found {} with lengths {}, expected at most {}",
                p.batch, name, kMaxBatch);
  return {};
}

int64_t SequenceLengths::total_q() const { return std::accumulate(q.begin(), q.end(), int64_t{0}); }
int64_t SequenceLengths::total_kv() const {
  return std::accumulate(kv.begin(), kv.end(), int64_t{0});
}

SequenceLengths lengths_of(const GridProblem& grid_problem) {
  const core::Problem& p = grid_problem.problem;
  kernels::reference::Random random(kSeed);
  SequenceLengths lengths;
  const int64_t least = std::max<int64_t>(1, p.seq_kv / kLongOverShort);
  lengths.kv = kernels::reference::draw_lengths(random, grid_problem.lengths, p.batch,
                                                {.least = least, .most = p.seq_kv});
  lengths.q.assign(lengths.kv.size(), p.seq_q);
  if (p.varlen == 0 || grid_problem.lengths == Lengths::full) return lengths;
  std::transform(lengths.kv.begin(), lengths.kv.end(), lengths.q.begin(),
                 [&](int64_t keys) { return std::min(keys, p.seq_q); });
  return lengths;
}

}  // namespace attnrt::cli::bench
