// runtime/cli/bench/memory.cpp: how much memory a problem needs, and how much there is
#include "cli/bench/memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <string>

namespace attnrt::cli::bench {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// Bytes of q, k and v that cold runs read before they read the first copy again. This is more than
// the last cache of most processors.
constexpr int64_t kColdBytes = int64_t{512} << 20;
// Copies at most. The tensors of a tiny problem would need millions of them, each with allocations
// of its own, to fill kColdBytes.
constexpr int64_t kMostColdCopies = 1024;

int64_t product(std::initializer_list<int64_t> factors) {
  int64_t result = 1;
  for (const int64_t factor : factors)
    if (__builtin_mul_overflow(result, factor, &result)) return kUnlimited;
  return result;
}

int64_t sum(std::initializer_list<int64_t> terms) {
  int64_t result = 0;
  for (const int64_t term : terms)
    if (__builtin_add_overflow(result, term, &result)) return kUnlimited;
  return result;
}

// Reads the number after a key of /proc/meminfo, or the one number of a file of a control group.
std::optional<int64_t> read_number(const char* path, const std::string& key = {}) {
  std::ifstream stream(path);
  for (std::string word; stream >> word;) {
    int64_t value = 0;
    if (key.empty()) {
      stream.clear();
      stream.seekg(0);
      if (stream >> value) return value;
      return std::nullopt;  // "max"
    }
    if (word == key && stream >> value) return value;
  }
  return std::nullopt;
}

// The rows of q and of k, of one head.
struct Rows {
  int64_t q, kv;
};

// Full lengths are multiplied, because a problem that does not fit may have too many sequences for
// a list of lengths.
Rows rows_of(const GridProblem& grid_problem) {
  const core::Problem& p = grid_problem.problem;
  const auto in_pages = [&p](int64_t keys) {
    return p.page_size > 0 ? product({(keys - 1) / p.page_size + 1, p.page_size}) : keys;
  };
  Rows rows{product({p.batch, p.seq_q}), product({p.batch, in_pages(p.seq_kv)})};
  if (grid_problem.lengths == kernels::reference::Lengths::full) return rows;
  const SequenceLengths lengths = lengths_of(grid_problem);
  if (p.varlen != 0) rows.q = lengths.total_q();
  if (p.varlen == 0 && p.page_size == 0) return rows;
  rows.kv = 0;
  for (const int64_t keys : lengths.kv) rows.kv = sum({rows.kv, in_pages(keys)});
  return rows;
}

std::string size_text(int64_t bytes) {
  const char* units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(units); ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, units[unit]);
}

}  // namespace

int64_t bytes_needed(const GridProblem& grid_problem) {
  const core::Problem& p = grid_problem.problem;
  const auto bytes_of = [&p](attnrt_dtype other) {
    return core::dtype_bytes(core::is_off(other) ? p.dtype : other);
  };
  const Rows rows = rows_of(grid_problem);
  const int64_t rows_q = product({rows.q, p.heads_q}), rows_kv = product({rows.kv, p.heads_kv});
  const bool own_v = p.v_in_k == 0;
  const int64_t kv_width = own_v ? sum({p.head_dim, p.head_dim_v}) : p.head_dim;
  const int64_t scales =
      p.kv_scale == ATTNRT_KV_SCALE_TOKEN ? product({rows_kv, own_v ? 2 : 1, 4}) : 0;
  const int64_t mask = p.mask == ATTNRT_MASK_NONE
                           ? 0
                           : product({p.seq_q, p.seq_kv, core::dtype_bytes(p.mask_dtype)});
  const int64_t lse = p.lse != 0 ? product({rows_q, 4}) : 0;
  return sum({product({rows_q, p.head_dim, bytes_of({})}),
              product({rows_q, p.head_dim_v, bytes_of(p.out_dtype), 2}),  // out and its copy
              product({rows_kv, kv_width, bytes_of(p.kv_dtype)}), scales, mask, lse});
}

int64_t bytes_available() {
  int64_t available = kUnlimited;
  if (const auto kib = read_number("/proc/meminfo", "MemAvailable:")) available = *kib * 1024;
  const auto most = read_number("/sys/fs/cgroup/memory.max");
  const auto used = read_number("/sys/fs/cgroup/memory.current");
  if (most && used) available = std::min(available, std::max<int64_t>(*most - *used, 0));
  return available;
}

core::Result<void> check_memory(const GridProblem& grid_problem, int64_t available) {
  const int64_t needed = bytes_needed(grid_problem);
  if (needed <= available) return {};
  return core::fail(ATTNRT_OUT_OF_MEMORY, "its tensors need {} of memory, and {} are available",
                    size_text(needed), size_text(available));
}

ColdCopies cold_copies(int64_t bytes) {
  const int64_t wanted = bytes > 0 ? (kColdBytes - 1) / bytes + 1 : 1;
  return {std::min(wanted, kMostColdCopies), wanted <= kMostColdCopies};
}

}  // namespace attnrt::cli::bench
