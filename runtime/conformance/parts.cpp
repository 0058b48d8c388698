// runtime/conformance/parts.cpp: cuts a case into parts: one sequence alone, some of its keys
#include "conformance/parts.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels/common/sequence.hpp"

namespace attnrt::conformance {
namespace {

constexpr attnrt_dtype kInt32{ATTNRT_DTYPE_INT, 32, 1};

// The largest |diagonal_offset| of a case that is cut: with the length of a sequence it fits into
// an offset, too.
constexpr int32_t kLargestOffset = 1'000'000;

// Returns the entries [first, first + count) of one dimension.
Image slice(const Image& image, int dimension, int64_t first, int64_t count) {
  if (image.absent()) return {};
  attnrt_tensor view = image.view;
  view.shape[dimension] = count;
  Image part = make_image(view, image.bytes.front(), image.alignment);
  part.poison = image.poison;
  const auto content = static_cast<int64_t>(part.bytes.size()) - 2 * Image::kGuard;
  const std::byte* from = image.first() + first * view.stride[dimension] * view.dtype.bits / 8;
  if (content > 0) std::memcpy(part.first(), from, static_cast<size_t>(content));
  if (!image.must_write.empty()) make_output(part, view);
  return part;
}

Image make_numbers(const std::vector<int32_t>& numbers) {
  attnrt_tensor view{};
  view.dtype = kInt32;
  view.ndim = 1;
  view.shape[0] = static_cast<int64_t>(numbers.size());
  view.stride[0] = 1;
  Image image = make_image(view, std::byte{0}, 4);
  std::memcpy(image.first(), numbers.data(), numbers.size() * sizeof(int32_t));
  return image;
}

std::vector<int32_t> read_numbers(const Image& image) {
  std::vector<int32_t> numbers(static_cast<size_t>(image.view.shape[0]));
  std::memcpy(numbers.data(), image.first(), numbers.size() * sizeof(int32_t));
  return numbers;
}

bool uses_diagonal(const core::Problem& p) {
  return p.causal != 0 || p.window_left >= 0 || p.window_right >= 0 || p.alibi != 0;
}

}  // namespace

Part sequence_alone(const Case& drawn, const Tensors& tensors, int64_t b) {
  const ReferenceRun run = reference_run(drawn, tensors);
  const kernels::Sequence s = kernels::sequence(run.problem, run.args, b);
  const auto at = static_cast<size_t>(b);
  const bool paged = drawn.problem.page_size > 0;
  const bool packed_q = drawn.problem.varlen != 0, packed_kv = packed_q && !paged;
  Part part{drawn, tensors};
  set_extents(part.drawn, {drawn.q_lengths[at]}, {drawn.kv_lengths[at]});
  core::Problem& p = part.drawn.problem;
  part.drawn.spare_rows = 0;
  if (!packed_q) {  // its length may be less than the tensors hold
    part.drawn.seq_q = drawn.seq_q;
    part.drawn.seq_kv = drawn.seq_kv;
    p.seq_kv = std::max<int64_t>(1, drawn.seq_kv);
  }

  const auto cut = [&](TensorName name, int dimension, int64_t first, int64_t count) {
    part.tensors[name] = slice(tensors[name], dimension, first, count);
  };
  for (const TensorName name : {TensorName::q, TensorName::out}) {
    cut(name, 0, packed_q ? s.q_first : b, packed_q ? s.q_length : 1);
  }
  cut(TensorName::lse, packed_q ? 1 : 0, packed_q ? s.q_first : b, packed_q ? s.q_length : 1);
  for (const TensorName name :
       {TensorName::k, TensorName::v, TensorName::k_scale, TensorName::v_scale}) {
    if (!paged) cut(name, 0, packed_kv ? s.kv_first : b, packed_kv ? s.kv_length : 1);
  }
  for (const TensorName name : {TensorName::mask, TensorName::alibi_slopes, TensorName::kv_lengths,
                                TensorName::page_table, TensorName::diagonal_offset})
    cut(name, 0, b, 1);
  if (paged) {
    part.drawn.max_pages = (p.seq_kv + p.page_size - 1) / p.page_size;
    Image& table = part.tensors[TensorName::page_table];
    table = slice(table, 1, 0, part.drawn.max_pages);
  }
  const auto set_offsets = [&](TensorName name, int64_t length) {
    part.tensors[name] = make_numbers({0, static_cast<int32_t>(length)});
  };
  if (packed_q) set_offsets(TensorName::offsets_q, s.q_length);
  if (packed_kv) set_offsets(TensorName::offsets_kv, s.kv_length);
  return part;
}

bool has_key_parts(const Case& drawn, const Tensors& tensors) {
  const core::Problem& p = drawn.problem;
  if (p.varlen != 0 || p.page_size > 0 || p.kv_lengths != 0) return false;
  if (p.diagonal_offset == 0) return true;
  const auto offsets = read_numbers(tensors[TensorName::diagonal_offset]);
  return std::all_of(offsets.begin(), offsets.end(), [](int32_t offset) {
    return -kLargestOffset <= offset && offset <= kLargestOffset;
  });
}

Part keys_between(const Case& drawn, const Tensors& tensors, int64_t first, int64_t end) {
  Part part{drawn, tensors};
  std::vector<int64_t> lengths(drawn.kv_lengths.size(), end - first);
  set_extents(part.drawn, drawn.q_lengths, std::move(lengths));
  for (const TensorName name :
       {TensorName::k, TensorName::v, TensorName::k_scale, TensorName::v_scale})
    part.tensors[name] = slice(tensors[name], 1, first, end - first);
  part.tensors[TensorName::mask] = slice(tensors[TensorName::mask], 3, first, end - first);
  core::Problem& p = part.drawn.problem;
  if (first > 0) {
    p.sinks = 0;
    part.tensors[TensorName::sinks] = {};
  }
  if (!uses_diagonal(p)) return part;
  std::vector<int32_t> offsets(drawn.kv_lengths.size());
  if (p.diagonal_offset != 0) offsets = read_numbers(tensors[TensorName::diagonal_offset]);
  // Key j of the part is key first + j. At the bottom right, the diagonal also moves with the
  // number of keys.
  const int64_t shift =
      -first + (p.align == ATTNRT_ALIGN_TOP_LEFT ? 0 : drawn.seq_kv - (end - first));
  for (int32_t& offset : offsets) offset += static_cast<int32_t>(shift);
  p.diagonal_offset = 1;
  part.tensors[TensorName::diagonal_offset] = make_numbers(offsets);
  return part;
}

}  // namespace attnrt::conformance
