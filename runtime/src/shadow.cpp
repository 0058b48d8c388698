// runtime/src/shadow.cpp: repeats a run, and compares with the result that the caller got
#include "shadow.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/common/sequence.hpp"
#include "kernels/reference/difference.hpp"
#include "plugins/common/translate.hpp"
#include "problem/check_args.hpp"

namespace attnrt::core {
namespace {

constexpr size_t kAlignment = 64;   // of the first element, as plans align their workspaces
constexpr std::byte kPoison{0xff};  // NaN in every dtype of out and lse

bool are_in(const kernels::Tensor& indices, int64_t i, int64_t least, int64_t most) {
  const int64_t index = kernels::index_at(indices, i);
  return index >= least && index <= most;
}

// Whether offsets begin at 0 or later, never fall, and end at `total` at most.
bool are_offsets(const kernels::Tensor& offsets, int64_t total) {
  int64_t before = 0;
  for (int64_t b = 0; b < offsets.shape[0]; ++b) {
    if (!are_in(offsets, b, before, total)) return false;
    before = kernels::index_at(offsets, b);
  }
  return true;
}

// The most keys that a sequence of pages may have.
int64_t most_keys(const kernels::Problem& p, const kernels::Args& a) {
  const int64_t columns = a.page_table.shape[1];
  int64_t most = columns <= p.seq_kv / p.page_size ? columns * p.page_size : p.seq_kv;
  if (p.mask != kernels::Mask::none && a.mask.stride[3] != 0)
    most = std::min(most, a.mask.shape[3]);
  return most;
}

// Whether every index of the run leads to a row that exists, so that it may be read here. The
// backend that served the run may have checked that in another way.
bool indices_are_right(const kernels::Problem& p, const kernels::Args& a) {
  if (p.varlen && !are_offsets(a.offsets_q, a.q.shape[0])) return false;
  if (p.varlen && p.page_size == 0 && !are_offsets(a.offsets_kv, a.k.shape[0])) return false;
  if (!kernels::has_kv_lengths(p)) return true;
  for (int64_t b = 0; b < kernels::real_batch(p, a); ++b) {
    int64_t most = p.page_size > 0 ? most_keys(p, a) : a.k.shape[1];
    if (p.varlen && p.page_size == 0)
      most = kernels::index_at(a.offsets_kv, b + 1) - kernels::index_at(a.offsets_kv, b);
    if (!are_in(a.kv_lengths, b, 0, most)) return false;
    if (p.page_size == 0) continue;
    const int64_t pages = (kernels::index_at(a.kv_lengths, b) + p.page_size - 1) / p.page_size;
    for (int64_t n = 0; n < pages; ++n) {
      const int64_t page = kernels::index_at(a.page_table, b, n);
      if (page < 0 || page >= a.k.shape[0]) return false;
    }
  }
  return true;
}

}  // namespace

Shadow::Shadow(const Problem& problem, const attnrt_args& served)
    : problem_(problem), served_(served), args_(served) {
  args_.workspace = nullptr;
  args_.workspace_bytes = 0;
  args_.out = copy_of(served.out, out_);
  if (served.lse.data != nullptr) args_.lse = copy_of(served.lse, lse_);
}

// Returns a tensor of the same shape in memory of its own. Its rows are dense, and begin at
// multiples of what the problem promises.
attnrt_tensor Shadow::copy_of(const attnrt_tensor& served, std::vector<std::byte>& memory) {
  attnrt_tensor copy = served;
  const int64_t element = served.dtype.bits / 8;
  const int64_t step =
      std::max<int64_t>(1, std::max<int64_t>(problem_.alignment_bytes, 16) / element);
  int64_t elements = 1;
  for (int32_t d = served.ndim - 1; d >= 0; --d) {
    copy.stride[d] = elements;
    elements *= served.shape[d];
    if (d == served.ndim - 1) elements = (elements + step - 1) / step * step;
  }
  memory.assign(static_cast<size_t>(elements) * (served.dtype.bits / 8) + kAlignment, kPoison);
  const size_t misaligned_by = reinterpret_cast<uintptr_t>(memory.data()) % kAlignment;
  copy.data = memory.data() + (kAlignment - misaligned_by) % kAlignment;
  return copy;
}

std::optional<std::string> Shadow::difference() const {
  attnrt_args served = served_;
  attnrt_error error = ATTNRT_ERROR_INIT;
  Extents extents;
  kernels::Problem problem;
  kernels::Args args;
  if (check_args(problem_, served, &extents, &error) != ATTNRT_OK ||
      attnrt_plugins::translate(problem_, problem_.device_type, &problem, &error) != ATTNRT_OK ||
      attnrt_plugins::translate(served, &args, &error) != ATTNRT_OK || extents.is_empty() ||
      !indices_are_right(problem, args))
    return std::nullopt;
  const auto found = kernels::reference::difference(
      problem, args, attnrt_plugins::translate(args_.out), attnrt_plugins::translate(args_.lse));
  if (!found) return "";
  const std::string column = found->x < 0 ? "" : fmt::format(", column {}", found->x);
  return fmt::format(
      "{} at sequence {}, query {}, head {}{} is {:.8g}; the version that served gave {:.8g}, and "
      "right results differ by at most {:.2g}",
      found->x < 0 ? "lse" : "out", found->b, found->i, found->head, column, found->second,
      found->first, found->bound);
}

}  // namespace attnrt::core
