// runtime/cli/bench/tensors.cpp: fills a problem's tensors with reproducible random numbers
//
// q, k and v hold numbers of mean 0 and variance about 1, with their scales. Sequences have the
// lengths of lengths.hpp. With full ones a packed, paged or padded problem costs as much as the
// dense one of the same size. Every feature changes the result: a mask hides some keys, pages are
// in random order.
#include "cli/bench/tensors.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/reference/lengths.hpp"
#include "kernels/reference/store.hpp"
#include "plugins/common/translate.hpp"
#include "problem/infer.hpp"

namespace attnrt::cli::bench {
namespace {

using core::Result;

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1}, kInt32{ATTNRT_DTYPE_INT, 32, 1};
// Stored numbers of k and v that have a scale are so many times as large, and use most of i8's
// range. Scales are the inverse, up to a factor of 1/2 to 3/2.
constexpr float kStoredSpread = 30;
constexpr uint64_t kKeysPerHidden = 8;  // the mask hides one key in so many, at random
// Numbers of q, k and v that are drawn. A larger tensor repeats them, because drawing takes longer
// than copying. A prime, so that no two of its first so many rows are equal.
constexpr int64_t kDistinctNumbers = 1'048'573;
constexpr uint64_t kPageSeed = 1;

// Each tensor draws from a range of random numbers of its own.
#define ATTNRT_ENUMERATOR(name) name,
enum class Stream : uint64_t { ATTNRT_TENSORS(ATTNRT_ENUMERATOR) };
#undef ATTNRT_ENUMERATOR

uint64_t first_of(Stream stream) { return static_cast<uint64_t>(stream) << 48; }

// Returns the n-th number of the SplitMix64 sequence. It does not depend on earlier draws.
uint64_t random_bits(uint64_t n) {
  n = (n + 1) * 0x9E3779B97F4A7C15u;
  n = (n ^ n >> 30) * 0xBF58476D1CE4E5B9u;
  n = (n ^ n >> 27) * 0x94D049BB133111EBu;
  return n ^ n >> 31;
}

// Returns a number of mean 0 and variance 1: the scaled sum of four uniform 16-bit numbers. It is
// close to a normal one, but its magnitude is at most 2 sqrt(3).
float random_number(uint64_t n) {
  constexpr float kMean = 131070.0F;            // of the sum: 4 * 65535 / 2
  constexpr float kScale = 1.7320508F / 65536;  // sqrt(3) / 2^16: 1 over the deviation of the sum
  const uint64_t bits = random_bits(n);
  const auto sum = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48);
  return (static_cast<float>(sum) - kMean) * kScale;
}

// Stores the number of the tensor's dtype that is nearest to value.
void store(Tensor& tensor, int64_t at, float value) {
  kernels::reference::store_nearest(attnrt_plugins::translate(tensor.dtype()), tensor.data(), at,
                                    value);
}

// Makes one tensor after another. The first failure is kept in error_, and build returns it.
class TensorBuilder {
 public:
  explicit TensorBuilder(const GridProblem& grid_problem)
      : p_(grid_problem.problem), lengths_(lengths_of(grid_problem)) {}

  Result<Tensors> build() {
    const bool packed = p_.varlen != 0, paged = p_.page_size > 0;
    const int64_t total_q = lengths_.total_q(), total_kv = lengths_.total_kv();
    const int64_t pages = paged ? count_pages() : 0;
    const auto queries = [&](int64_t dim) {
      return packed ? std::vector{total_q, p_.heads_q, dim}
                    : std::vector{p_.batch, p_.seq_q, p_.heads_q, dim};
    };
    const auto keys = [&](int64_t dim) {
      return paged    ? std::vector<int64_t>{pages, p_.page_size, p_.heads_kv, dim}
             : packed ? std::vector{total_kv, p_.heads_kv, dim}
                      : std::vector{p_.batch, p_.seq_kv, p_.heads_kv, dim};
    };
    make_numbers(tensors_.q, Stream::q, p_.dtype, queries(p_.head_dim));
    const bool own_v = p_.v_in_k == 0, scaled = p_.kv_scale != ATTNRT_KV_SCALE_NONE;
    const attnrt_dtype kv = core::is_off(p_.kv_dtype) ? p_.dtype : p_.kv_dtype;
    const float spread = scaled ? kStoredSpread : 1;
    make_numbers(tensors_.k, Stream::k, kv, keys(p_.head_dim), spread);
    if (own_v) make_numbers(tensors_.v, Stream::v, kv, keys(p_.head_dim_v), spread);
    std::vector<int64_t> scales = keys(1);
    scales.pop_back();
    if (p_.kv_scale == ATTNRT_KV_SCALE_TENSOR) scales = {1};
    if (p_.kv_scale == ATTNRT_KV_SCALE_HEAD) scales = {p_.heads_kv};
    if (scaled) make_scales(tensors_.k_scale, Stream::k_scale, scales);
    if (scaled && own_v) make_scales(tensors_.v_scale, Stream::v_scale, scales);
    allocate(tensors_.out, core::is_off(p_.out_dtype) ? p_.dtype : p_.out_dtype,
             queries(p_.head_dim_v));
    make_mask();
    if (p_.lse != 0)
      allocate(
          tensors_.lse, kFloat32,
          packed ? std::vector{p_.heads_q, total_q} : std::vector{p_.batch, p_.heads_q, p_.seq_q});
    if (p_.alibi != 0) make_slopes();
    if (p_.sinks != 0) make_numbers(tensors_.sinks, Stream::sinks, kFloat32, {p_.heads_q});
    if (p_.kv_lengths != 0 || paged)
      make_integers(tensors_.kv_lengths, p_.batch,
                    [&](int64_t b) { return lengths_.kv[static_cast<size_t>(b)]; });
    if (packed) make_offsets(tensors_.offsets_q, lengths_.q);
    if (packed && !paged) make_offsets(tensors_.offsets_kv, lengths_.kv);
    if (paged) make_page_table(pages);
    if (p_.diagonal_offset != 0)
      make_integers(tensors_.diagonal_offset, p_.batch, [](int64_t) { return kDiagonalOffset; });
    if (!error_.message.empty()) return tl::unexpected(error_);
    tensors_.lengths = std::move(lengths_);
    return std::move(tensors_);
  }

 private:
  // RETURNS the tensor, or nullptr if there is no memory for it.
  Tensor* allocate(std::optional<Tensor>& to, attnrt_dtype dtype, std::vector<int64_t> shape) {
    auto tensor = Tensor::allocate(dtype, std::move(shape));
    if (!tensor) {
      error_ = tensor.error();
      return nullptr;
    }
    return &to.emplace(std::move(*tensor));
  }

  void make_numbers(std::optional<Tensor>& to, Stream stream, attnrt_dtype dtype,
                    std::vector<int64_t> shape, float spread = 1) {
    Tensor* tensor = allocate(to, dtype, std::move(shape));
    if (tensor == nullptr) return;
    const int64_t drawn = std::min(kDistinctNumbers, tensor->elements());
    for (int64_t i = 0; i < drawn; ++i)
      store(*tensor, i, spread * random_number(first_of(stream) + static_cast<uint64_t>(i)));
    const int64_t period = drawn * core::dtype_bytes(dtype);
    for (int64_t at = period; at < tensor->bytes(); at += period)
      std::memcpy(tensor->data() + at, tensor->data(),
                  static_cast<size_t>(std::min(period, tensor->bytes() - at)));
  }

  void make_scales(std::optional<Tensor>& to, Stream stream, std::vector<int64_t> shape) {
    Tensor* tensor = allocate(to, kFloat32, std::move(shape));
    for (int64_t i = 0; tensor != nullptr && i < tensor->elements(); ++i) {
      const uint64_t bits = random_bits(first_of(stream) + static_cast<uint64_t>(i));
      store(*tensor, i, (0.5F + static_cast<float>(bits >> 40) * 0x1p-24F) / kStoredSpread);
    }
  }

  template <class Value>
  void make_integers(std::optional<Tensor>& to, int64_t count, const Value& value_of) {
    Tensor* tensor = allocate(to, kInt32, {count});
    for (int64_t i = 0; tensor != nullptr && i < count; ++i) {
      const auto value = static_cast<int32_t>(value_of(i));
      std::memcpy(tensor->data() + i * 4, &value, 4);
    }
  }

  void make_offsets(std::optional<Tensor>& to, const std::vector<int64_t>& lengths) {
    int64_t end = 0;
    make_integers(to, p_.batch + 1, [&](int64_t b) {
      if (b > 0) end += lengths[static_cast<size_t>(b) - 1];
      return end;
    });
  }

  // Makes one mask for all sequences and heads. The first key is never hidden, so that no row is
  // without keys.
  void make_mask() {
    if (p_.mask == ATTNRT_MASK_NONE) return;
    Tensor* tensor = allocate(tensors_.mask, p_.mask_dtype, {1, 1, p_.seq_q, p_.seq_kv});
    for (int64_t i = 0; tensor != nullptr && i < tensor->elements(); ++i) {
      const uint64_t draw = first_of(Stream::mask) + static_cast<uint64_t>(i);
      const bool hidden = random_bits(draw) % kKeysPerHidden == 0 && i % p_.seq_kv != 0;
      if (p_.mask == ATTNRT_MASK_BOOLEAN) {
        tensor->data()[i] = std::byte{hidden ? uint8_t{0} : uint8_t{1}};
      } else {
        store(*tensor, i, hidden ? -INFINITY : random_number(draw));
      }
    }
  }

  // Makes the slopes of the ALiBi paper, 2^(-8 (h + 1) / heads_q) for head h, for each sequence.
  void make_slopes() {
    Tensor* tensor = allocate(tensors_.alibi_slopes, kFloat32, {p_.batch, p_.heads_q});
    for (int64_t n = 0; tensor != nullptr && n < p_.batch * p_.heads_q; ++n) {
      const int64_t h = n % p_.heads_q;
      const float exponent = -8.0F * static_cast<float>(h + 1) / static_cast<float>(p_.heads_q);
      store(*tensor, n, std::exp2(exponent));
    }
  }

  int64_t count_pages() const {
    int64_t pages = 0;
    for (const int64_t keys : lengths_.kv)
      pages += kernels::reference::pages_for(keys, p_.page_size);
    return pages;
  }

  // Makes a table of pages in random order.
  void make_page_table(int64_t pages) {
    const int64_t columns = kernels::reference::pages_for(p_.seq_kv, p_.page_size);
    kernels::reference::Random random(kPageSeed);
    const auto table =
        kernels::reference::draw_page_table(random, lengths_.kv, p_.page_size, columns, pages);
    if (Tensor* tensor = allocate(tensors_.page_table, kInt32, {p_.batch, columns}))
      std::memcpy(tensor->data(), table.data(), table.size() * sizeof table[0]);
  }

  const core::Problem& p_;
  SequenceLengths lengths_;
  Tensors tensors_;
  core::Error error_;
};

}  // namespace

attnrt_args Tensors::args() const {
  attnrt_args args{};
  args.struct_size = static_cast<int32_t>(sizeof args);
  for_each_tensor(*this, args,
                  [](const Tensor& tensor, attnrt_tensor& view) { view = tensor.view(); });
  return args;
}

int64_t cold_bytes(const Tensors& tensors) {
  attnrt_args unused{};
  int64_t bytes = 0;
  for_each_cold(tensors, unused,
                [&](const Tensor& tensor, attnrt_tensor&) { bytes += tensor.bytes(); });
  return bytes;
}

Result<Tensors> make_tensors(GridProblem& grid_problem) {
  core::Problem& problem = grid_problem.problem;
  auto tensors = TensorBuilder(grid_problem).build();
  if (!tensors) return tensors;
  core::Problem inferred = problem;
  attnrt_error error = ATTNRT_ERROR_INIT;
  if (const auto status = core::infer_problem(tensors->args(), &inferred, &error);
      status != ATTNRT_OK)
    return core::fail(status, "{}", error.message);
  problem.alignment_bytes = std::min(problem.alignment_bytes, inferred.alignment_bytes);
  return tensors;
}

}  // namespace attnrt::cli::bench
