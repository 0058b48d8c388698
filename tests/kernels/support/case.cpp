// tests/kernels/support/case.cpp: builds a problem and its tensors from a recipe
#include "tests/kernels/support/case.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "kernels/common/half.hpp"
#include "kernels/common/shuffle.hpp"
#include "kernels/reference/store.hpp"

namespace kernels::test {
namespace {

constexpr char kPoison = '\xFF';    // a NaN in e4m3fn; four are one in f32, two in f16 and bf16
constexpr char kPoison80 = '\x80';  // a NaN in e4m3fnuz, the lowest number in i8
constexpr int64_t kGuard = 64;      // elements before and after an output that must stay untouched

// The lowest finite number of a dtype.
float lowest(DType dtype) {
  if (dtype == DType::f32) return -3.40282347e38f;
  return dtype == DType::f16 ? -65504.0f : bf16_to_f32(0xFF7F);
}

int64_t largest_or(const std::vector<int32_t>& values, int64_t if_empty) {
  return values.empty() ? if_empty : *std::max_element(values.begin(), values.end());
}

}  // namespace

Case::Case(Recipe recipe) : problem(recipe.problem), recipe_(std::move(recipe)) {
  Recipe& r = recipe_;
  Problem& p = problem;
  const bool paged = p.page_size > 0;
  if (p.varlen) r.batch = static_cast<int64_t>(r.q_lengths.size());
  p.batch = std::max<int64_t>(r.batch, 1) + r.slack;
  p.seq_q = std::max<int64_t>(p.varlen ? largest_or(r.q_lengths, 0) : r.seq_q, 1) + r.slack;
  p.seq_kv =
      std::max<int64_t>(p.varlen || paged ? largest_or(r.kv_lengths, 0) : r.seq_kv, 1) + r.slack;

  if (p.varlen) {
    constexpr int32_t kBefore = 2, kAfter = 3;  // rows that belong to no sequence
    std::vector<int32_t> offsets{kBefore};
    for (const int32_t length : r.q_lengths) offsets.push_back(offsets.back() + length);
    args.offsets_q = indices(offsets);
    const int64_t total = offsets.back() + kAfter;
    args.q = rows(p.dtype, {total, p.heads_q, p.head_dim});
    args.out = rows(out_dtype(p), {total, p.heads_q, p.head_dim_v}, kGuard);
    out_memory_ = memory_.back().get();
    if (p.lse) args.lse = allocate(DType::f32, {p.heads_q, total}, {total + 1, 1}, kGuard);
  } else {
    args.q = rows(p.dtype, {r.batch, r.seq_q, p.heads_q, p.head_dim});
    args.out = rows(out_dtype(p), {r.batch, r.seq_q, p.heads_q, p.head_dim_v}, kGuard);
    out_memory_ = memory_.back().get();
    if (p.lse) {
      const int64_t row = r.seq_q + 1;
      args.lse =
          allocate(DType::f32, {r.batch, p.heads_q, r.seq_q}, {p.heads_q * row, row, 1}, kGuard);
    }
  }
  if (p.lse) lse_memory_ = memory_.back().get();
  make_keys();
  if (p.mask != Mask::none) make_mask();
  if (p.alibi)
    args.alibi_slopes = allocate(DType::f32, {r.batch, p.heads_q}, {2 * p.heads_q + 1, 2});
  if (p.diagonal_offset) {
    r.diagonal_offsets.resize(static_cast<size_t>(r.batch));
    args.diagonal_offset = indices(r.diagonal_offsets);
  }
  if (p.sinks) args.sinks = allocate(DType::f32, {p.heads_q}, {1});
  fill();
  poison_outputs();
}

Tensor Case::allocate(DType dtype, std::vector<int64_t> shape, std::vector<int64_t> stride,
                      int64_t guard) {
  Tensor t;
  t.dtype = dtype;
  t.ndim = static_cast<int32_t>(shape.size());
  int64_t elements = 1;
  for (size_t n = 0; n < shape.size(); ++n) {
    t.shape[n] = shape[n];
    t.stride[n] = stride[n];
    elements = shape[n] == 0 || elements == 0 ? 0 : elements + (shape[n] - 1) * stride[n];
  }
  const int64_t bytes = (elements + 2 * guard) * element_bytes(dtype);
  const char poison = dtype == DType::f8_e4m3fnuz || dtype == DType::i8 ? kPoison80 : kPoison;
  memory_.push_back(std::make_unique<std::vector<char>>(static_cast<size_t>(bytes), poison));
  t.data = memory_.back()->data() + guard * element_bytes(dtype);
  return t;
}

Tensor Case::rows(DType dtype, std::vector<int64_t> shape, int64_t guard) {
  const size_t last = shape.size() - 1;  // dimensions: [batch,] seq, heads, head_dim
  const int64_t gap = recipe_.layout == Layout::gapped ? recipe_.gap : 0;
  const int64_t row = shape[last] + gap;
  std::vector<int64_t> stride(shape.size());
  stride[last] = 1;
  if (recipe_.layout == Layout::bhsd) {
    stride[last - 2] = row;
    stride[last - 1] = shape[last - 2] * row;
  } else {
    stride[last - 1] = row;
    stride[last - 2] = shape[last - 1] * row + gap;
  }
  if (last == 3) stride[0] = shape[1] * shape[2] * row + shape[1] * gap;
  return allocate(dtype, std::move(shape), std::move(stride), guard);
}

Tensor Case::indices(const std::vector<int32_t>& values) {
  const Tensor t = allocate(DType::i32, {static_cast<int64_t>(values.size())}, {1});
  std::copy(values.begin(), values.end(), static_cast<int32_t*>(t.data));
  return t;
}

void Case::make_keys() {
  const Recipe& r = recipe_;
  const Problem& p = problem;
  if (has_kv_lengths(p)) args.kv_lengths = indices(r.kv_lengths);
  if (p.page_size > 0) {
    std::vector<int64_t> pages_of;
    for (const int32_t length : r.kv_lengths)
      pages_of.push_back((length + p.page_size - 1) / p.page_size);
    const int64_t used = std::accumulate(pages_of.begin(), pages_of.end(), int64_t{0});
    const int64_t most = pages_of.empty() ? 0 : *std::max_element(pages_of.begin(), pages_of.end());
    std::vector<int32_t> order(static_cast<size_t>(used + 3));
    std::iota(order.begin(), order.end(), 0);
    shuffle(order, std::mt19937(r.seed));
    args.page_table =
        allocate(DType::i32, {r.batch, most + 2}, {most + 2, 1});  // unused entries hold -1
    size_t next = 0;
    for (int64_t b = 0; b < r.batch; ++b) {
      for (int64_t n = 0; n < pages_of[static_cast<size_t>(b)]; ++n) {
        static_cast<int32_t*>(args.page_table.data)[b * (most + 2) + n] = order[next++];
      }
    }
    make_rows_of_keys({used + 3, p.page_size, p.heads_kv});
  } else if (p.varlen) {
    // With kv_lengths as well, each sequence has room for two more keys than its length.
    const int32_t spare = p.kv_lengths ? 2 : 0;
    std::vector<int32_t> offsets{1};
    for (const int32_t length : r.kv_lengths) offsets.push_back(offsets.back() + length + spare);
    problem.seq_kv += spare;
    args.offsets_kv = indices(offsets);
    make_rows_of_keys({offsets.back() + 2, p.heads_kv});
  } else {
    make_rows_of_keys({r.batch, r.seq_kv, p.heads_kv});
  }
}

// Allocates k, v and their scales. shape: theirs without the last dimension.
void Case::make_rows_of_keys(std::vector<int64_t> shape) {
  const auto with = [&shape](int64_t columns) {
    std::vector<int64_t> all = shape;
    all.push_back(columns);
    return all;
  };
  args.k = rows(kv_dtype(problem), with(problem.head_dim));
  if (!problem.v_in_k) args.v = rows(kv_dtype(problem), with(problem.head_dim_v));
  if (problem.kv_scale == KvScale::none) return;
  args.k_scale = scales(args.k);
  if (!problem.v_in_k) args.v_scale = scales(args.v);
}

// Allocates the scales of k or v: stride 0 in each dimension that has none of its own.
Tensor Case::scales(const Tensor& rows) {
  const int64_t heads = problem.heads_kv;
  const bool token = problem.kv_scale == KvScale::token;
  std::vector<int64_t> shape(rows.shape, rows.shape + rows.ndim - 1);
  std::vector<int64_t> stride(shape.size(), 0);
  if (problem.kv_scale != KvScale::tensor) stride.back() = 1;
  if (token) stride[stride.size() - 2] = heads + 1;
  if (token && stride.size() == 3) stride[0] = shape[1] * (heads + 1);
  return allocate(DType::f32, std::move(shape), std::move(stride));
}

void Case::make_mask() {
  const Recipe& r = recipe_;
  const int64_t keys = problem.page_size > 0 ? largest_or(r.kv_lengths, 0) : r.seq_kv;
  const std::vector<int64_t> shape{r.batch, problem.heads_q, r.seq_q, keys};
  // Usually the keys lie side by side; in the bhsd layout the queries do.
  std::vector<size_t> order{3, 2, 1, 0};
  if (r.layout == Layout::bhsd) order = {2, 3, 1, 0};
  std::vector<int64_t> stride(4, 0);
  int64_t next = 1;
  for (const size_t n : order) {
    if (r.broadcast[n]) continue;
    stride[n] = next;
    next = next * shape[n] + (r.layout == Layout::gapped ? 5 : 0);
  }
  args.mask =
      allocate(problem.mask == Mask::boolean ? DType::boolean : problem.mask_dtype, shape, stride);

  if (args.mask.data == nullptr || r.batch * r.seq_q * keys == 0) return;

  std::mt19937 random(r.seed + 17);
  std::normal_distribution<float> normal;
  const int64_t at[] = {r.broadcast[0] ? 1 : shape[0], r.broadcast[1] ? 1 : shape[1],
                        r.broadcast[2] ? 1 : shape[2], r.broadcast[3] ? 1 : shape[3]};
  for (int64_t b = 0; b < at[0]; ++b)
    for (int64_t h = 0; h < at[1]; ++h)
      for (int64_t i = 0; i < at[2]; ++i)
        for (int64_t j = 0; j < at[3]; ++j) {
          bool hide = random() % 3 == 0;
          if (r.hidden == Hidden::first) hide = j < 140;
          if (r.hidden == Hidden::middle) hide = j >= 10 && j < keys - 10;
          if (r.hidden == Hidden::last) hide = j >= 10;
          if (r.hidden == Hidden::rows) hide = i % 3 == 0;
          if (r.hides) hide = r.hides(b, h, i, j);
          const int64_t offset = b * stride[0] + h * stride[1] + i * stride[2] + j * stride[3];
          if (problem.mask == Mask::boolean) {
            static_cast<uint8_t*>(args.mask.data)[offset] =
                hide ? 0 : 1 + static_cast<uint8_t>(random() % 3);
            continue;
          }
          const float low = r.hidden == Hidden::lowest ? lowest(problem.mask_dtype) : -INFINITY;
          store_float(problem.mask_dtype, args.mask.data, offset,
                      hide            ? low
                      : r.zero_biases ? 0
                                      : normal(random));
        }
}

// Writes numbers into everything that exists; the NaN of allocate() stays everywhere else.
void Case::fill() {
  std::mt19937 random(recipe_.seed);
  std::normal_distribution<float> normal;
  const auto fill_row = [&](const Tensor& t, int64_t offset, int64_t n, float magnitude) {
    for (int64_t x = 0; x < n; ++x)
      store_float(t.dtype, t.data, offset + x, magnitude * normal(random));
  };
  for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
    fill_row(args.q, query_row(problem, args.q, s, b, i, head), problem.head_dim,
             recipe_.magnitude);
  });
  fill_keys(random);
  for (int64_t head = 0; head < problem.heads_q; ++head) {
    for (int64_t b = 0; problem.alibi && b < recipe_.batch; ++b) {
      store_float(DType::f32, args.alibi_slopes.data, b * args.alibi_slopes.stride[0] + 2 * head,
                  std::exp2(-1.0f - static_cast<float>(head + b)));
    }
    if (problem.sinks) {
      store_float(DType::f32, args.sinks.data, head, head % 3 == 2 ? -INFINITY : normal(random));
    }
  }
}

// With scales, i8 holds larger integers, which use its range, and the scales are smaller.
void Case::fill_keys(std::mt19937& random) {
  std::normal_distribution<float> normal;
  const bool has_scales = problem.kv_scale != KvScale::none;
  const float unit = has_scales && problem.kv_dtype == DType::i8 ? 20.0f : 1.0f;
  const auto fill_row = [&](const Tensor& t, int64_t offset, int64_t n, float magnitude) {
    for (int64_t x = 0; x < n; ++x)
      reference::store_nearest(t.dtype, t.data, offset + x, unit * magnitude * normal(random));
  };
  const auto fill_scale = [&](const Tensor& t, int64_t offset) {
    static_cast<float*>(t.data)[offset] =
        (0.5f + static_cast<float>(random() % 1000) / 1000) / unit;
  };
  const int64_t group = problem.heads_q / problem.heads_kv;
  for (int64_t b = 0; b < recipe_.batch; ++b) {
    const Sequence s = sequence(problem, args, b);
    for (int64_t j = 0; j < s.kv_length; ++j) {
      for (int64_t head = 0; head < problem.heads_kv; ++head) {
        bool seen = problem.v_in_k;  // or by any row; if not, k stays NaN (v must be finite anyway)
        for (int64_t i = 0; i < s.q_length * group && !seen; ++i) {
          seen = visible(b, s, i / group, head * group + i % group, j);
        }
        const auto place = [&](const Tensor& t) {
          return key_row(problem, args, t, s, b, j, head);
        };
        if (seen) {
          fill_row(args.k, place(args.k), problem.head_dim, recipe_.magnitude);
          if (has_scales) fill_scale(args.k_scale, place(args.k_scale));
        }
        if (problem.v_in_k) continue;
        fill_row(args.v, place(args.v), problem.head_dim_v, 1);
        if (has_scales) fill_scale(args.v_scale, place(args.v_scale));
      }
    }
  }
}

bool Case::visible(int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t j) const {
  int64_t opposite = problem.align == Align::top_left ? i : i + s.kv_length - s.q_length;
  if (problem.diagonal_offset) opposite += recipe_.diagonal_offsets[static_cast<size_t>(b)];
  if (problem.causal && j > opposite) return false;
  if (problem.window_left >= 0 && opposite - j > problem.window_left) return false;
  if (problem.window_right >= 0 && j - opposite > problem.window_right) return false;
  if (problem.mask == Mask::none) return true;
  const Tensor& m = args.mask;
  const int64_t offset = b * m.stride[0] + head * m.stride[1] + i * m.stride[2] + j * m.stride[3];
  if (problem.mask == Mask::boolean) return static_cast<const uint8_t*>(m.data)[offset] != 0;
  return load_float(m.dtype, m.data, offset) != -INFINITY;
}

void Case::for_each_row(const RowFunction& f) const {
  for (int64_t b = 0; b < recipe_.batch; ++b) {
    const Sequence s = sequence(problem, args, b);
    for (int64_t i = 0; i < s.q_length; ++i) {
      for (int64_t head = 0; head < problem.heads_q; ++head) {
        const int64_t row = problem.varlen ? s.q_first + i : b * recipe_.seq_q + i;
        f(b, s, i, head, row * problem.heads_q + head);
      }
    }
  }
}

int64_t Case::dense_rows() const {
  return (problem.varlen ? args.q.shape[0] : recipe_.batch * recipe_.seq_q) * problem.heads_q;
}

void Case::poison_outputs() {
  std::fill(out_memory_->begin(), out_memory_->end(), kPoison);
  if (lse_memory_ != nullptr) std::fill(lse_memory_->begin(), lse_memory_->end(), kPoison);
}

bool Case::outside_untouched() const {
  std::vector<char> out = *out_memory_;
  std::vector<char> lse = lse_memory_ != nullptr ? *lse_memory_ : std::vector<char>{};
  const auto erase = [](std::vector<char>& bytes, const Tensor& t, const std::vector<char>& memory,
                        int64_t offset, int64_t count) {
    const int64_t first =
        static_cast<const char*>(t.data) - memory.data() + offset * element_bytes(t.dtype);
    std::fill_n(bytes.begin() + first, count * element_bytes(t.dtype), kPoison);
  };
  for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
    erase(out, args.out, *out_memory_, query_row(problem, args.out, s, b, i, head),
          problem.head_dim_v);
    if (problem.lse)
      erase(lse, args.lse, *lse_memory_, lse_element(problem, args.lse, s, b, i, head), 1);
  });
  const auto poisoned = [](const std::vector<char>& bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](char byte) { return byte == kPoison; });
  };
  return poisoned(out) && poisoned(lse);
}

std::string Case::output_bytes() const {
  std::string bytes(out_memory_->begin(), out_memory_->end());
  if (lse_memory_ != nullptr) bytes.append(lse_memory_->begin(), lse_memory_->end());
  return bytes;
}

}  // namespace kernels::test
