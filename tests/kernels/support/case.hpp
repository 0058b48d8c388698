// tests/kernels/support/case.hpp: builds a problem and its tensors from a recipe
//
// Tensors hold random numbers, and NaN wherever nothing exists: in gaps, behind lengths, in keys
// that no query sees. So a kernel that uses what it must not read gives NaN. (i8 has no NaN: there
// it reads -128 instead, and NaN from the scales of such keys.)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/common/problem.hpp"
#include "kernels/common/sequence.hpp"

namespace kernels::test {

// The order of dimensions in memory. gapped: bshd with Recipe::gap elements of NaN between rows.
enum class Layout { bshd, bhsd, gapped };

// Which keys the mask hides.
enum class Hidden {
  some,    // each with probability 1/3
  first,   // the first 140 keys: more than a tile of a decode step
  middle,  // all but the first 10 and the last 10
  last,    // all but the first 10
  rows,    // every key, from every third query
  lowest,  // as `some`, but by the dtype's lowest finite number (additive masks only)
};

// What a Case is built from.
struct Recipe {
  Problem problem;  // batch, seq_q and seq_kv are replaced by the least bounds, plus slack
  int64_t slack = 0;
  int64_t batch = 1, seq_q = 1, seq_kv = 1;  // of dense tensors
  std::vector<int32_t> q_lengths = {};       // varlen: one for each sequence
  std::vector<int32_t> kv_lengths = {};      // varlen, paged, kv_lengths: one for each sequence
  Layout layout = Layout::bshd;
  int64_t gap = 3;         // elements; 8 if rows must begin at multiples of 16 bytes
  bool broadcast[4] = {};  // dimensions of the mask that have stride 0
  Hidden hidden = Hidden::some;
  // Instead of `hidden`, if it is set: whether the mask hides a key.
  std::function<bool(int64_t batch, int64_t head, int64_t query, int64_t key)> hides = {};
  bool zero_biases = false;  // of an additive mask, where it hides nothing; else they are random
  float magnitude = 1;       // of q and k
  std::vector<int32_t> diagonal_offsets = {};  // one for each sequence, if the problem has them
  uint32_t seed = 1;
};

// A problem, and the memory behind its args. Every input tensor is allocated to its exact size, so
// that a sanitizer sees a read past it.
class Case {
 public:
  explicit Case(Recipe recipe);

  Problem problem;
  Args args;

  // Fills out and lse, gaps and guards included, with bytes that are a NaN in every dtype.
  void poison_outputs();
  // Whether every byte of out and lse that belongs to no row still holds the poison.
  bool outside_untouched() const;
  // The bytes of out and lse.
  std::string output_bytes() const;

  // Calls f for each row of out. `row` numbers them as in a dense [batch, seq_q, heads_q] or
  // [total_q, heads_q].
  using RowFunction =
      std::function<void(int64_t b, const Sequence&, int64_t i, int64_t head, int64_t row)>;
  void for_each_row(const RowFunction& f) const;
  int64_t dense_rows() const;

  // Whether the query sees the key: causal, window and mask, computed independently of the kernels.
  bool visible(int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t j) const;

 private:
  Tensor allocate(DType dtype, std::vector<int64_t> shape, std::vector<int64_t> stride,
                  int64_t guard = 0);
  Tensor rows(DType dtype, std::vector<int64_t> shape, int64_t guard = 0);
  Tensor indices(const std::vector<int32_t>& values);
  Tensor scales(const Tensor& rows);
  void make_keys();
  void make_rows_of_keys(std::vector<int64_t> shape);
  void make_mask();
  void fill();
  void fill_keys(std::mt19937& random);

  Recipe recipe_;
  std::vector<std::unique_ptr<std::vector<char>>> memory_;
  std::vector<char>* out_memory_ = nullptr;
  std::vector<char>* lse_memory_ = nullptr;
};

// A recipe for one dense problem with two heads and lse, and defaults for the rest.
Recipe dense_recipe(DType dtype, int64_t seq_q, int64_t seq_kv, int64_t head_dim,
                    int64_t head_dim_v);

// The recipe in one line, for the message of a test that fails.
std::string describe(const Recipe& recipe);

}  // namespace kernels::test
