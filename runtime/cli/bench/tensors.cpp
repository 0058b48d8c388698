// runtime/cli/bench/tensors.cpp: a problem into dense tensors of random numbers, and what computing it costs at least
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "cli/bench/bench.hpp"
#include "kernels/common/half.hpp"
#include "problem/infer.hpp"

namespace attnrt::cli::bench {
namespace {

using core::Result;

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1}, kInt32{ATTNRT_DTYPE_INT, 32, 1};

constexpr std::array kPlaces = {&attnrt_args::q,
                                &attnrt_args::k,
                                &attnrt_args::v,
                                &attnrt_args::out,
                                &attnrt_args::mask,
                                &attnrt_args::lse,
                                &attnrt_args::alibi_slopes,
                                &attnrt_args::sinks,
                                &attnrt_args::kv_lengths,
                                &attnrt_args::offsets_q,
                                &attnrt_args::offsets_kv,
                                &attnrt_args::page_table};
static_assert(kPlaces.size() == Tensors::kCount);

// Splitmix64: the n-th number of a seed, whatever was drawn before.
uint64_t random_bits(uint64_t n) {
  n = (n + 1) * 0x9E3779B97F4A7C15u;
  n = (n ^ n >> 30) * 0xBF58476D1CE4E5B9u;
  n = (n ^ n >> 27) * 0x94D049BB133111EBu;
  return n ^ n >> 31;
}

// Mean 0, variance 1: the sum of four uniform numbers, near enough to a normal one and never far out.
float random_number(uint64_t n) {
  const uint64_t bits = random_bits(n);
  const auto sum = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48);
  constexpr float kScale = 1.7320508F / 65536;  // sqrt(3)
  return (static_cast<float>(sum) - 131070.0F) * kScale;
}

void store(Tensor& tensor, int64_t at, float value) {
  if (tensor.dtype().bits == 32) {
    std::memcpy(tensor.data() + at * 4, &value, 4);
    return;
  }
  const bool bf16 = tensor.dtype().code == ATTNRT_DTYPE_BFLOAT;
  const uint16_t half = bf16 ? kernels::f32_to_bf16(value) : kernels::f32_to_f16(value);
  std::memcpy(tensor.data() + at * 2, &half, 2);
}

class Maker {
 public:
  explicit Maker(const core::Problem& problem) : p_(problem) {}

  Result<Tensors> make() {
    const int64_t pages = p_.page_size > 0 ? (p_.seq_kv + p_.page_size - 1) / p_.page_size : 0;
    const auto rows = [](bool packed, int64_t batch, int64_t seq, int64_t heads, int64_t dim) {
      return packed ? std::vector{batch * seq, heads, dim} : std::vector{batch, seq, heads, dim};
    };
    const auto keys = [&](int64_t dim) {
      if (pages > 0) return std::vector<int64_t>{p_.batch * pages, p_.page_size, p_.heads_kv, dim};
      return rows(p_.varlen != 0, p_.batch, p_.seq_kv, p_.heads_kv, dim);
    };
    numbers(0, p_.dtype, rows(p_.varlen != 0, p_.batch, p_.seq_q, p_.heads_q, p_.head_dim));
    numbers(1, p_.dtype, keys(p_.head_dim));
    numbers(2, p_.dtype, keys(p_.head_dim_v));
    allocate(3, p_.dtype, rows(p_.varlen != 0, p_.batch, p_.seq_q, p_.heads_q, p_.head_dim_v));
    make_mask();
    if (p_.lse != 0 && p_.varlen != 0) allocate(5, kFloat32, {p_.heads_q, p_.batch * p_.seq_q});
    if (p_.lse != 0 && p_.varlen == 0) allocate(5, kFloat32, {p_.batch, p_.heads_q, p_.seq_q});
    if (p_.alibi != 0) make_slopes();
    if (p_.sinks != 0) numbers(7, kFloat32, {p_.heads_q});
    if (p_.kv_lengths != 0 || pages > 0) whole(8, p_.batch, [&](int64_t) { return p_.seq_kv; });
    if (p_.varlen != 0) whole(9, p_.batch + 1, [&](int64_t b) { return b * p_.seq_q; });
    if (p_.varlen != 0 && pages == 0)
      whole(10, p_.batch + 1, [&](int64_t b) { return b * p_.seq_kv; });
    if (pages > 0) make_page_table(pages);
    if (!error_.message.empty()) return tl::unexpected(error_);
    return std::move(tensors_);
  }

 private:
  Tensor* allocate(int n, attnrt_dtype dtype, std::vector<int64_t> shape) {
    auto tensor = Tensor::allocate(dtype, std::move(shape));
    if (!tensor) return error_ = tensor.error(), nullptr;
    return &tensors_.all[static_cast<size_t>(n)].emplace(std::move(*tensor));
  }
  void numbers(int n, attnrt_dtype dtype, std::vector<int64_t> shape) {
    Tensor* tensor = allocate(n, dtype, std::move(shape));
    const uint64_t first = static_cast<uint64_t>(n) << 48;
    for (int64_t i = 0; tensor != nullptr && i < tensor->elements(); ++i)
      store(*tensor, i, random_number(first + static_cast<uint64_t>(i)));
  }
  template <class Value>
  void whole(int n, int64_t count, Value value) {
    Tensor* tensor = allocate(n, kInt32, {count});
    for (int64_t i = 0; tensor != nullptr && i < count; ++i) {
      const auto narrow = static_cast<int32_t>(value(i));
      std::memcpy(tensor->data() + i * 4, &narrow, 4);
    }
  }
  // One for all sequences and heads, as a mask mostly is; one key in eight is hidden, but never the first.
  void make_mask() {
    if (p_.mask == ATTNRT_MASK_NONE) return;
    Tensor* tensor = allocate(4, p_.mask_dtype, {1, 1, p_.seq_q, p_.seq_kv});
    const uint64_t first = uint64_t{4} << 48;
    for (int64_t i = 0; tensor != nullptr && i < tensor->elements(); ++i) {
      const bool hidden =
          random_bits(first + static_cast<uint64_t>(i)) % 8 == 0 && i % p_.seq_kv != 0;
      if (p_.mask == ATTNRT_MASK_BOOLEAN) {
        tensor->data()[i] = std::byte{hidden ? uint8_t{0} : uint8_t{1}};
      } else {
        store(*tensor, i, hidden ? -INFINITY : random_number(first + static_cast<uint64_t>(i)));
      }
    }
  }
  void make_slopes() {
    Tensor* tensor = allocate(6, kFloat32, {p_.heads_q});
    for (int64_t h = 0; tensor != nullptr && h < p_.heads_q; ++h)
      store(*tensor, h,
            std::exp2(-8.0F * static_cast<float>(h + 1) / static_cast<float>(p_.heads_q)));
  }
  // Pages in no order.
  void make_page_table(int64_t pages) {
    std::vector<int32_t> table(static_cast<size_t>(p_.batch * pages));
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937(1));
    if (Tensor* tensor = allocate(11, kInt32, {p_.batch, pages}))
      std::memcpy(tensor->data(), table.data(), table.size() * sizeof table[0]);
  }

  const core::Problem& p_;
  Tensors tensors_;
  core::Error error_;
};

}  // namespace

attnrt_tensor& tensor_of(attnrt_args& args, int n) { return args.*kPlaces[static_cast<size_t>(n)]; }

attnrt_args Tensors::args() const {
  attnrt_args args{};
  args.struct_size = static_cast<int32_t>(sizeof args);
  for (int n = 0; n < kCount; ++n)
    if (const auto& tensor = all[static_cast<size_t>(n)]) tensor_of(args, n) = tensor->view();
  return args;
}

Result<Tensors> make_tensors(core::Problem& problem) {
  auto tensors = Maker(problem).make();
  if (!tensors) return tensors;
  core::Problem inferred = problem;
  attnrt_error error = ATTNRT_ERROR_INIT;
  if (const auto status = core::infer_problem(tensors->args(), &inferred, &error);
      status != ATTNRT_OK)
    return core::fail(status, "{}", error.message);
  problem.alignment_bytes = std::min(problem.alignment_bytes, inferred.alignment_bytes);
  return tensors;
}

Work work_of(const core::Problem& p) {
  const int64_t shift = p.align == ATTNRT_ALIGN_TOP_LEFT ? 0 : p.seq_kv - p.seq_q;
  double pairs = 0;
  int64_t first_key = p.seq_kv, end_key = 0;
  for (int64_t i = 0; i < p.seq_q; ++i) {
    const int64_t diagonal = i + shift;
    int64_t first = 0, end = p.seq_kv;
    if (p.causal != 0) end = std::min(end, diagonal + 1);
    if (p.window_right >= 0 && p.window_right < p.seq_kv)
      end = std::min(end, diagonal + p.window_right + 1);
    if (p.window_left >= 0)
      first = std::max(first, diagonal - std::min(p.window_left, p.seq_kv + p.seq_q));
    if (first >= end) continue;
    pairs += static_cast<double>(end - first);
    first_key = std::min(first_key, first), end_key = std::max(end_key, end);
  }
  const auto batch = static_cast<double>(p.batch), heads = static_cast<double>(p.heads_q);
  const auto width = static_cast<double>(p.head_dim + p.head_dim_v);
  const auto element = static_cast<double>(core::dtype_bytes(p.dtype));
  const double keys = std::max<double>(0, static_cast<double>(end_key - first_key)) *
                      static_cast<double>(p.heads_kv);
  const double rows = static_cast<double>(p.seq_q) * heads;
  Work work{2 * batch * heads * pairs * width, batch * (rows + keys) * width * element};
  if (p.mask != ATTNRT_MASK_NONE)
    work.bytes += static_cast<double>(p.seq_q) * static_cast<double>(p.seq_kv) *
                  static_cast<double>(core::dtype_bytes(p.mask_dtype));
  if (p.lse != 0) work.bytes += batch * rows * 4;
  return work;
}

}  // namespace attnrt::cli::bench
