// runtime/conformance/tensor_layouts.cpp: draws the shapes and strides of a case's tensors
#include <algorithm>
#include <cstring>
#include <numeric>

#include "conformance/tensor_builder.hpp"
#include "kernels/reference/lengths.hpp"

namespace attnrt::conformance {
namespace {

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1}, kInt32{ATTNRT_DTYPE_INT, 32, 1};

constexpr std::byte kNumberByte{0x3D};  // a number in every dtype

// A fill that is a NaN in the dtype, if it has one.
std::byte nan_byte(attnrt_dtype dtype) {
  return std::byte{dtype.code == ATTNRT_DTYPE_FLOAT8_E4M3FNUZ ? uint8_t{0x80} : uint8_t{0xFF}};
}

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

void TensorBuilder::make_layouts() {
  make_indices();
  const core::Problem& p = problem_;
  const attnrt_dtype kv = core::is_off(p.kv_dtype) ? p.dtype : p.kv_dtype;
  make_rows(TensorName::q, p.dtype, p.head_dim, true);
  make_rows(TensorName::k, kv, p.head_dim, false);
  if (!p.v_in_k) make_rows(TensorName::v, kv, p.head_dim_v, false);
  if (case_.kv_memory != KvMemory::separate) share_kv_memory();
  make_rows(TensorName::out, core::is_off(p.out_dtype) ? p.dtype : p.out_dtype, p.head_dim_v, true);
  if (p.kv_scale != ATTNRT_KV_SCALE_NONE) make_scales(TensorName::k_scale);
  if (p.kv_scale != ATTNRT_KV_SCALE_NONE && !p.v_in_k) make_scales(TensorName::v_scale);
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
  const attnrt_tensor view = tensors_[name].view;
  const bool nan = case_.style == Style::nan_outside;
  tensors_[name] = make_image(view, nan ? nan_byte(view.dtype) : kNumberByte, alignment);
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
  if (problem_.diagonal_offset) make_diagonal_offsets();
}

// Draws an offset for each sequence: mostly a few keys, else up to all of them, or as far as an
// index goes. (Not with slopes: they would round everything but the offset away.)
void TensorBuilder::make_diagonal_offsets() {
  const auto batch = static_cast<int64_t>(case_.q_lengths.size());
  make_dense(TensorName::diagonal_offset, kInt32, {batch});
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t most = one_in(random_, 4) ? problem_.seq_kv + 2 : 9;
    int64_t offset = between(random_, -most, most);
    if (!problem_.alibi && one_in(random_, 12)) offset = offset < 0 ? INT32_MIN : INT32_MAX;
    set_index(TensorName::diagonal_offset, b, offset);
  }
}

// Gives each sequence pages in random order. Entries past a sequence's last page are what a server
// leaves there: 0, -1, a page of another sequence, or any number.
void TensorBuilder::make_page_table() {
  const auto batch = static_cast<int64_t>(case_.kv_lengths.size());
  make_dense(TensorName::page_table, kInt32, {batch, case_.max_pages});
  const std::vector<int32_t> table = kernels::reference::draw_page_table(
      random_, case_.kv_lengths, problem_.page_size, case_.max_pages, case_.pages);
  std::memcpy(tensors_[TensorName::page_table].first(), table.data(),
              table.size() * sizeof(int32_t));
  Random stale(case_.seed * 0xD1342543DE82EF95u + 9);
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t used =
        kernels::reference::pages_for(case_.kv_lengths[static_cast<size_t>(b)], problem_.page_size);
    for (int64_t page = used; page < case_.max_pages; ++page) {
      const int64_t entries[] = {0, -1, between(stale, 0, case_.pages - 1), INT32_MIN, INT32_MAX};
      set_index(TensorName::page_table, b * case_.max_pages + page, entries[between(stale, 0, 4)]);
    }
  }
}

// Makes k and v views of one allocation. Both have the strides of k; in [pages, 2, ...] a page of
// each is as far from the next one as two pages are long.
void TensorBuilder::share_kv_memory() {
  attnrt_tensor &k = tensors_[TensorName::k].view, &v = tensors_[TensorName::v].view;
  const bool pairs = case_.kv_memory == KvMemory::pairs;
  const int64_t page = k.stride[0];
  if (pairs) k.stride[0] = 2 * page;
  std::copy(k.stride, k.stride + 4, v.stride);
  tensors_.v_after_k = (pairs ? page : page * case_.pages) * k.dtype.bits / 8;
  for (const TensorName name : {TensorName::k, TensorName::v})
    allocate(name, tensors_[name].alignment);
}

// Makes q, k, v or out: [batch, seq, heads, head_dim]; packed: [rows, heads, head_dim]; paged:
// [pages, page_size, heads, head_dim].
void TensorBuilder::make_rows(TensorName name, attnrt_dtype dtype, int64_t head_dim,
                              bool of_queries) {
  attnrt_tensor& t = tensors_[name].view;
  t.dtype = dtype;
  const int64_t heads = of_queries ? problem_.heads_q : problem_.heads_kv;
  const int64_t element = dtype.bits / 8;
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

// Makes scales of the shape of k without head_dim. Where several numbers share one, its strides are
// 0. Others may have gaps, and heads may be outside.
void TensorBuilder::make_scales(TensorName name) {
  const attnrt_tensor& rows = tensors_[TensorName::k].view;
  attnrt_tensor& t = tensors_[name].view;
  t.dtype = kFloat32;
  t.ndim = rows.ndim - 1;
  std::copy(rows.shape, rows.shape + t.ndim, t.shape);
  const int32_t head = t.ndim - 1, row = t.ndim - 2;
  if (problem_.kv_scale == ATTNRT_KV_SCALE_HEAD) t.stride[head] = 1;
  if (has_token_scales()) {
    const int64_t gap = one_in(random_, 3) ? 2 : 1;
    const bool heads_outside = one_in(random_, 2);
    t.stride[head] = gap * (heads_outside ? std::max<int64_t>(1, t.shape[row]) : 1);
    t.stride[row] = gap * (heads_outside ? 1 : t.shape[head]);
    if (row == 1) t.stride[0] = gap * t.shape[head] * std::max<int64_t>(1, t.shape[row]);
  }
  allocate(name, 4);
}

}  // namespace attnrt::conformance
