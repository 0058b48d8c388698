// runtime/conformance/tensor_layouts.cpp: draws the shapes and strides of a case's tensors
#include <algorithm>
#include <cstring>
#include <numeric>

#include "conformance/tensor_builder.hpp"
#include "kernels/common/shuffle.hpp"

namespace attnrt::conformance {
namespace {

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1}, kInt32{ATTNRT_DTYPE_INT, 32, 1};

// Fills that are a NaN, and a number, in every dtype.
constexpr std::byte kNanByte{0xFF}, kNumberByte{0x3D};

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

void TensorBuilder::make_layouts() {
  make_indices();
  make_rows(TensorName::q, problem_.head_dim, problem_.heads_q, true);
  make_rows(TensorName::k, problem_.head_dim, problem_.heads_kv, false);
  make_rows(TensorName::v, problem_.head_dim_v, problem_.heads_kv, false);
  make_rows(TensorName::out, problem_.head_dim_v, problem_.heads_q, true);
  if (!problem_.lse) return;
  if (packed_q()) {
    make_dense(TensorName::lse, kFloat32, {problem_.heads_q, total(case_.q_lengths)});
  } else {
    make_dense(TensorName::lse, kFloat32, {case_.batch, problem_.heads_q, case_.seq_q});
  }
}

int64_t TensorBuilder::total(const std::vector<int64_t>& lengths) const {
  return std::accumulate(lengths.begin(), lengths.end(), case_.spare_rows);
}

void TensorBuilder::allocate(TensorName name, int64_t alignment) {
  Image& image = tensors_[name];
  int64_t last = 0;
  bool empty = false;
  for (int32_t d = 0; d < image.view.ndim; ++d) {
    empty |= image.view.shape[d] == 0;
    last += (image.view.shape[d] - 1) * image.view.stride[d];
  }
  const int64_t content = empty ? 0 : (last + 1) * image.view.dtype.bits / 8;
  image.bytes.assign(static_cast<size_t>(content + 2 * Image::kGuard),
                     case_.style == Style::nan_outside ? kNanByte : kNumberByte);
  image.alignment = alignment;
}

void TensorBuilder::make_dense(TensorName name, attnrt_dtype dtype,
                               std::initializer_list<int64_t> shape) {
  attnrt_tensor& view = tensors_[name].view;
  view.dtype = dtype;
  view.ndim = static_cast<int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), view.shape);
  int64_t stride = 1;
  for (int32_t d = view.ndim; d-- > 0; stride *= std::max<int64_t>(1, view.shape[d]))
    view.stride[d] = stride;
  allocate(name, 4);
}

void TensorBuilder::set_index(TensorName name, int64_t at, int64_t value) {
  const auto narrow = static_cast<int32_t>(value);
  std::memcpy(tensors_[name].first() + at * 4, &narrow, 4);
}

void TensorBuilder::make_indices() {
  const auto batch = static_cast<int64_t>(case_.q_lengths.size());
  const auto make_offsets = [&](TensorName name, const std::vector<int64_t>& lengths) {
    make_dense(name, kInt32, {batch + 1});
    int64_t sum = 0;
    for (int64_t b = 0; b <= batch; ++b) {
      set_index(name, b, sum);
      if (b < batch) sum += lengths[static_cast<size_t>(b)];
    }
  };
  if (packed_q()) make_offsets(TensorName::offsets_q, case_.q_lengths);
  if (packed_kv()) make_offsets(TensorName::offsets_kv, case_.kv_lengths);
  if (problem_.kv_lengths || problem_.page_size > 0) {
    make_dense(TensorName::kv_lengths, kInt32, {batch});
    for (int64_t b = 0; b < batch; ++b)
      set_index(TensorName::kv_lengths, b, case_.kv_lengths[static_cast<size_t>(b)]);
  }
  if (problem_.page_size > 0) make_page_table();
}

// Gives each sequence pages in random order. Entries past a sequence's last page are 0.
void TensorBuilder::make_page_table() {
  const auto batch = static_cast<int64_t>(case_.kv_lengths.size());
  make_dense(TensorName::page_table, kInt32, {batch, case_.max_pages});
  std::vector<int64_t> free(static_cast<size_t>(case_.pages));
  std::iota(free.begin(), free.end(), int64_t{0});
  kernels::shuffle(free, random_);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t page = 0; page < case_.max_pages; ++page) {
      const bool used = page * problem_.page_size < case_.kv_lengths[static_cast<size_t>(b)];
      set_index(TensorName::page_table, b * case_.max_pages + page, used ? free.back() : 0);
      if (used) free.pop_back();
    }
  }
}

// Makes q, k, v or out: [batch, seq, heads, head_dim]; packed: [rows, heads, head_dim]; paged:
// [pages, page_size, heads, head_dim].
void TensorBuilder::make_rows(TensorName name, int64_t head_dim, int64_t heads, bool of_queries) {
  attnrt_tensor& t = tensors_[name].view;
  t.dtype = problem_.dtype;
  const int64_t element = problem_.dtype.bits / 8;
  const int64_t alignment = std::max<int64_t>(problem_.alignment_bytes, element);
  const int64_t unit = std::max<int64_t>(1, problem_.alignment_bytes / element);
  int64_t row = round_up(head_dim, unit);  // rows start at multiples of unit
  if (one_in(random_, 3)) row += unit * between(random_, 1, 3);
  if (of_queries ? packed_q() : packed_kv()) {
    t.ndim = 3;
    t.shape[0] = total(of_queries ? case_.q_lengths : case_.kv_lengths);
    t.shape[1] = heads, t.shape[2] = head_dim;
    const bool heads_outside = one_in(random_, 3);
    t.stride[2] = 1;
    t.stride[1] = heads_outside ? row * std::max<int64_t>(1, t.shape[0]) : row;
    t.stride[0] = heads_outside ? row : row * heads;
    return allocate(name, alignment);
  }
  const bool paged = !of_queries && problem_.page_size > 0;
  t.ndim = 4;
  t.shape[0] = paged ? case_.pages : case_.batch;
  t.shape[1] = paged ? problem_.page_size : of_queries ? case_.seq_q : case_.seq_kv;
  t.shape[2] = heads, t.shape[3] = head_dim;
  const bool heads_outside = one_in(random_, 2);
  t.stride[3] = 1;
  t.stride[2] = heads_outside ? row * std::max<int64_t>(1, t.shape[1]) : row;
  t.stride[1] = heads_outside ? row : row * heads;
  t.stride[0] = row * heads * std::max<int64_t>(1, t.shape[1]);
  if (one_in(random_, 4)) t.stride[0] += unit * between(random_, 1, 5);
  if (!of_queries && !paged && one_in(random_, 8)) t.stride[0] = 0;  // one cache for the batch
  allocate(name, alignment);
}

}  // namespace attnrt::conformance
