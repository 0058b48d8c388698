// runtime/conformance/tensors.cpp: a case into tensors with guarded edges
#include "conformance/tensors.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/common/half.hpp"
#include "kernels/common/sequence.hpp"

namespace attnrt::cli::verify {

const std::array<const char*, kTensors> kTensorNames = {
    "q",     "k",          "v",         "out",        "mask",      "lse", "alibi_slopes",
    "sinks", "kv_lengths", "offsets_q", "offsets_kv", "page_table"};

namespace {

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1}, kInt32{ATTNRT_DTYPE_INT, 32, 1};
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Calls body(offset in elements) for every element.
template <class Body>
void each_element(const attnrt_tensor& t, Body&& body) {
  int64_t at[4] = {};
  int64_t shape[4] = {1, 1, 1, 1}, stride[4] = {};
  for (int32_t d = 0; d < t.ndim; ++d) shape[d] = t.shape[d], stride[d] = t.stride[d];
  for (at[0] = 0; at[0] < shape[0]; ++at[0])
    for (at[1] = 0; at[1] < shape[1]; ++at[1])
      for (at[2] = 0; at[2] < shape[2]; ++at[2])
        for (at[3] = 0; at[3] < shape[3]; ++at[3])
          body(at[0] * stride[0] + at[1] * stride[1] + at[2] * stride[2] + at[3] * stride[3]);
}

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

class Maker {
 public:
  explicit Maker(const Case& drawn)
      : case_(drawn), p_(drawn.problem), random_(drawn.seed * 0xD1342543DE82EF95u + 7) {}

  Tensors make() {
    make_indices();
    make_rows(q, p_.head_dim, p_.heads_q, true);
    make_rows(k, p_.head_dim, p_.heads_kv, false);
    make_rows(v, p_.head_dim_v, p_.heads_kv, false);
    make_rows(out, p_.head_dim_v, p_.heads_q, true);
    if (p_.lse && p_.varlen) make_vector(lse, kFloat32, {p_.heads_q, total_q()});
    if (p_.lse && !p_.varlen) make_vector(lse, kFloat32, {case_.batch, p_.heads_q, case_.seq_q});
    fill_numbers();
    if (p_.mask != ATTNRT_MASK_NONE) make_mask();
    if (case_.style == Style::nan_masked) poison_masked();
    if (case_.style == Style::nan_visible) poison_visible();
    poison_output(out, 0);
    poison_output(lse, 1);
    return std::move(tensors_);
  }

 private:
  bool packed_q() const { return p_.varlen; }

  // One byte everywhere, and a note of which bytes a run shall write: not the rows past the last offset. NaN in every
  // dtype, so that what reads its output shows; in the styles with NaN in the inputs, where a NaN may be the answer or
  // the mistake, a number larger than any result (6e4, 1e36).
  void poison_output(int name, int packed_dimension) {
    Image& image = tensors_[name];
    if (image.bytes.empty()) return;
    const bool nan = case_.style == Style::nan_outside || case_.style == Style::nan_masked ||
                     case_.style == Style::nan_visible;
    image.poison = nan ? std::byte{0x7B} : std::byte{0xFF};
    std::fill(image.bytes.begin(), image.bytes.end(), image.poison);
    image.owned.assign(image.bytes.size(), false);
    attnrt_tensor used = image.view;
    if (packed_q()) used.shape[packed_dimension] -= case_.spare_rows;
    const int64_t size = used.dtype.bits / 8;
    each_element(used, [&](int64_t at) {
      for (int64_t n = 0; n < size; ++n)
        image.owned[static_cast<size_t>(Image::kGuard + at * size + n)] = true;
    });
  }
  bool packed_kv() const { return p_.varlen && p_.page_size == 0; }
  int64_t total(const std::vector<int64_t>& lengths) const {
    int64_t sum = case_.spare_rows;
    for (const int64_t length : lengths) sum += length;
    return sum;
  }
  int64_t total_q() const { return total(case_.q_lengths); }

  // Room for the elements; everything else is filled too, with NaN or with a pattern that is a number.
  void allocate(int name, int64_t alignment) {
    Image& image = tensors_[name];
    int64_t last = 0;
    bool empty = false;
    for (int32_t d = 0; d < image.view.ndim; ++d) {
      empty |= image.view.shape[d] == 0;
      last += (image.view.shape[d] - 1) * image.view.stride[d];
    }
    const int64_t span = empty ? 0 : (last + 1) * image.view.dtype.bits / 8;
    const auto filler = case_.style == Style::nan_outside ? std::byte{0xFF} : std::byte{0x3D};
    image.bytes.assign(static_cast<size_t>(span + 2 * Image::kGuard), filler);
    image.alignment = alignment;
  }

  void make_vector(int name, attnrt_dtype dtype, std::vector<int64_t> shape) {
    attnrt_tensor& view = tensors_[name].view;
    view.dtype = dtype;
    view.ndim = static_cast<int32_t>(shape.size());
    int64_t stride = 1;
    for (size_t d = shape.size(); d-- > 0; stride *= std::max<int64_t>(1, shape[d])) {
      view.shape[d] = shape[d];
      view.stride[d] = stride;
    }
    allocate(name, 4);
  }

  void set_int(int name, int64_t at, int64_t value) {
    const auto narrow = static_cast<int32_t>(value);
    std::memcpy(tensors_[name].first() + at * 4, &narrow, 4);
  }

  void make_indices() {
    const auto batch = static_cast<int64_t>(case_.q_lengths.size());
    const auto offsets = [&](int name, const std::vector<int64_t>& lengths) {
      make_vector(name, kInt32, {batch + 1});
      int64_t sum = 0;
      for (int64_t b = 0; b <= batch; ++b) {
        set_int(name, b, sum);
        if (b < batch) sum += lengths[static_cast<size_t>(b)];
      }
    };
    if (packed_q()) offsets(offsets_q, case_.q_lengths);
    if (packed_kv()) offsets(offsets_kv, case_.kv_lengths);
    if (p_.kv_lengths || p_.page_size > 0) {
      make_vector(kv_lengths, kInt32, {batch});
      for (int64_t b = 0; b < batch; ++b)
        set_int(kv_lengths, b, case_.kv_lengths[static_cast<size_t>(b)]);
    }
    if (p_.page_size == 0) return;
    make_vector(page_table, kInt32, {batch, case_.max_pages});
    std::vector<int64_t> free(static_cast<size_t>(case_.pages));
    for (size_t n = 0; n < free.size(); ++n) free[n] = static_cast<int64_t>(n);
    std::shuffle(free.begin(), free.end(), random_);
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t page = 0; page < case_.max_pages; ++page) {
        const bool used = page * p_.page_size < case_.kv_lengths[static_cast<size_t>(b)];
        set_int(page_table, b * case_.max_pages + page, used ? free.back() : 0);
        if (used) free.pop_back();
      }
    }
  }

  // q, k, v, out: dense [batch, seq, heads, dim], packed, paged, with another order of strides, or with gaps.
  void make_rows(int name, int64_t dim, int64_t heads, bool query) {
    Image& image = tensors_[name];
    attnrt_tensor& t = image.view;
    t.dtype = p_.dtype;
    const int64_t element = p_.dtype.bits / 8;
    const int64_t unit =
        std::max<int64_t>(1, p_.alignment_bytes / element);  // rows start at multiples of it
    int64_t row = round_up(dim, unit);
    if (one_in(random_, 3)) row += unit * between(random_, 1, 3);
    const bool packed = query ? packed_q() : packed_kv();
    if (packed) {
      t.ndim = 3;
      t.shape[0] = query ? total_q() : total(case_.kv_lengths);
      t.shape[1] = heads, t.shape[2] = dim;
      const bool heads_first = one_in(random_, 3);
      t.stride[2] = 1;
      t.stride[1] = heads_first ? row * std::max<int64_t>(1, t.shape[0]) : row;
      t.stride[0] = heads_first ? row : row * heads;
      return allocate(name, std::max<int64_t>(p_.alignment_bytes, element));
    }
    const bool paged = !query && p_.page_size > 0;
    t.ndim = 4;
    t.shape[0] = paged ? case_.pages : case_.batch;
    t.shape[1] = paged ? p_.page_size : query ? case_.seq_q : case_.seq_kv;
    t.shape[2] = heads, t.shape[3] = dim;
    const bool heads_first = one_in(random_, 2);  // BHSD in memory
    t.stride[3] = 1;
    t.stride[2] = heads_first ? row * std::max<int64_t>(1, t.shape[1]) : row;
    t.stride[1] = heads_first ? row : row * heads;
    t.stride[0] = row * heads * std::max<int64_t>(1, t.shape[1]);
    if (one_in(random_, 4)) t.stride[0] += unit * between(random_, 1, 5);
    if ((name == k || name == v) && !paged && one_in(random_, 8))
      t.stride[0] = 0;  // one cache for the whole batch
    allocate(name, std::max<int64_t>(p_.alignment_bytes, element));
  }

  double normal() {
    // Sum of uniforms: the same on every machine, and never far out.
    double sum = -6;
    for (int n = 0; n < 12; ++n) sum += static_cast<double>(random_() >> 11) * 0x1p-53;
    return sum;
  }

  void set(int name, int64_t at, double value) {
    Image& image = tensors_[name];
    kernels::store_float(kernel_dtype(image.view.dtype), image.first(), at,
                         static_cast<float>(value));
  }

  // Every element of q, k and v that some sequence has; k and v that none has: NaN in style nan_outside, else numbers.
  void fill_numbers() {
    const double spread = case_.style == Style::huge_logits ? 60 : 1;
    for (const int name : {static_cast<int>(q), static_cast<int>(k), static_cast<int>(v)}) {
      const bool nan = case_.style == Style::nan_outside && name != q;
      each_element(tensors_[name].view, [&](int64_t at) {
        set(name, at,
            nan ? std::numeric_limits<double>::quiet_NaN() : normal() * (name == v ? 1 : spread));
      });
    }
    if (case_.style == Style::nan_outside) fill_existing();
    if (p_.alibi) make_floats(alibi_slopes, 0.02, 0.5);
    if (p_.sinks) make_floats(sinks, -2, 3);
  }

  void fill_existing() {
    const kernels::Problem problem = kernel_problem(p_);
    const kernels::Args args = kernel_args(tensors_);
    for (const int name : {static_cast<int>(k), static_cast<int>(v)}) {
      const kernels::Tensor& t = name == k ? args.k : args.v;
      const int64_t dim = name == k ? p_.head_dim : p_.head_dim_v;
      for (int64_t b = 0; b < static_cast<int64_t>(case_.kv_lengths.size()); ++b) {
        const kernels::Sequence s = kernels::sequence(problem, args, b);
        for (int64_t j = 0; j < s.kv_length; ++j) {
          for (int64_t h = 0; h < p_.heads_kv; ++h) {
            const int64_t row = kernels::key_row(problem, args, t, s, b, j, h);
            for (int64_t x = 0; x < dim; ++x) set(name, row + x, normal());
          }
        }
      }
    }
  }

  void make_floats(int name, double low, double high) {
    make_vector(name, kFloat32, {p_.heads_q});
    for (int64_t h = 0; h < p_.heads_q; ++h) {
      set(name, h, low + (high - low) * static_cast<double>(random_() >> 11) * 0x1p-53);
    }
    if (name == sinks && one_in(random_, 6)) set(name, 0, -kInfinity);
  }

  void make_mask() {
    Image& image = tensors_[mask];
    const attnrt_dtype dtype =
        p_.mask == ATTNRT_MASK_BOOLEAN ? core::default_problem().mask_dtype : p_.mask_dtype;
    make_vector(mask, dtype, {case_.batch, p_.heads_q, case_.seq_q, case_.seq_kv});
    const int64_t extra = one_in(random_, 3) ? between(random_, 1, 9) : 0;  // rows with gaps
    image.view.stride[2] = case_.seq_kv + extra;
    image.view.stride[1] =
        one_in(random_, 2) ? 0 : image.view.stride[2] * std::max<int64_t>(1, case_.seq_q);
    image.view.stride[0] = one_in(random_, 3)
                               ? 0
                               : image.view.stride[2] * std::max<int64_t>(1, case_.seq_q) *
                                     (image.view.stride[1] == 0 ? 1 : p_.heads_q);
    if (case_.style != Style::empty_rows && one_in(random_, 5))
      image.view.stride[2] = 0;  // one row for all queries
    allocate(mask, dtype.bits / 8);
    const int64_t threshold = between(random_, 1, 3);
    each_element(image.view,
                 [&](int64_t at) { set_mask(at, between(random_, 0, 3) >= threshold ? 0 : 1); });
    mask_patterns();
  }

  // state 0: hidden, 1: visible with a number, 2: the least finite number.
  void set_mask(int64_t at, int state) {
    Image& image = tensors_[mask];
    if (p_.mask == ATTNRT_MASK_BOOLEAN) {
      image.first()[at] = std::byte(state == 0 ? 0 : one_in(random_, 8) ? 2 : 1);
      return;
    }
    const auto dtype = image.view.dtype;
    const double lowest = dtype.bits == 32 ? -std::numeric_limits<float>::max()
                          : dtype.code == ATTNRT_DTYPE_BFLOAT
                              ? -static_cast<double>(kernels::bf16_to_f32(0x7F7F))
                              : -65504.0;
    set(mask, at, state == 0 ? -kInfinity : state == 2 ? lowest : normal());
  }

  void mask_patterns() {
    const attnrt_tensor& t = tensors_[mask].view;
    const auto at = [&](int64_t b, int64_t h, int64_t i, int64_t j) {
      return b * t.stride[0] + h * t.stride[1] + i * t.stride[2] + j * t.stride[3];
    };
    const bool lowest = case_.style == Style::lowest_mask;
    const bool hide = case_.style == Style::empty_rows;
    const int64_t hidden_key = case_.seq_kv > 1 ? between(random_, 0, case_.seq_kv - 1) : -1;
    for (int64_t b = 0; b < t.shape[0]; ++b) {
      for (int64_t h = 0; h < t.shape[1]; ++h) {
        for (int64_t i = 0; i < t.shape[2]; ++i) {
          const bool whole_row = i % 3 == 0;
          for (int64_t j = 0; j < t.shape[3]; ++j) {
            if (hide && whole_row) set_mask(at(b, h, i, j), 0);
            if (hide && i % 3 == 1)
              set_mask(at(b, h, i, j), j < t.shape[3] / 2 ? 0 : 1);  // leading blocks hidden
            if (lowest) set_mask(at(b, h, i, j), whole_row || j % 2 == 0 ? 2 : 1);
            if (case_.style == Style::nan_masked && j == hidden_key) set_mask(at(b, h, i, j), 0);
          }
        }
      }
    }
  }

  // Calls body(b, j, hk, seen) for each key, where seen says whether any query sees it.
  template <class Body>
  void each_key(Body&& body) {
    const int64_t group = p_.heads_q / p_.heads_kv;
    for (int64_t b = 0; b < static_cast<int64_t>(case_.kv_lengths.size()); ++b) {
      for (int64_t j = 0; j < case_.kv_lengths[static_cast<size_t>(b)]; ++j) {
        for (int64_t hk = 0; hk < p_.heads_kv; ++hk) {
          bool seen = false;
          for (int64_t h = hk * group; h < (hk + 1) * group && !seen; ++h) {
            for (int64_t i = 0; i < case_.q_lengths[static_cast<size_t>(b)] && !seen; ++i) {
              seen = visible(case_, tensors_, b, h, i, j);
            }
          }
          body(b, j, hk, seen);
        }
      }
    }
  }

  void poison_key(int64_t b, int64_t j, int64_t hk, int64_t count) {
    ++tensors_.nan_keys;
    const kernels::Problem problem = kernel_problem(p_);
    const kernels::Args args = kernel_args(tensors_);
    const kernels::Sequence s = kernels::sequence(problem, args, b);
    const int64_t row = kernels::key_row(problem, args, args.k, s, b, j, hk);
    for (int64_t x = 0; x < count; ++x) set(k, row + x, std::numeric_limits<double>::quiet_NaN());
  }

  void poison_masked() {
    if (tensors_[k].view.ndim == 4 && tensors_[k].view.stride[0] == 0 && case_.batch > 1)
      return;  // shared keys
    each_key([&](int64_t b, int64_t j, int64_t hk, bool seen) {
      if (!seen) poison_key(b, j, hk, p_.head_dim);
    });
  }

  void poison_visible() {
    bool done = false;
    each_key([&](int64_t b, int64_t j, int64_t hk, bool seen) {
      if (!seen || done || (j > 0 && !one_in(random_, 4))) return;
      poison_key(b, j, hk, 1);
      done = true;
    });
  }

  const Case& case_;
  const core::Problem& p_;
  Random random_;
  Tensors tensors_;
};

}  // namespace

Tensors make_tensors(const Case& drawn) { return Maker(drawn).make(); }

}  // namespace attnrt::cli::verify
