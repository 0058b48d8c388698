// tests/kernels/support/partials.hpp: drawn partial results, and what their merge must be
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/problem.hpp"
#include "kernels/reference/merge.hpp"

namespace kernels::test {

struct MergeShape {
  int64_t batch = 2, seq = 3, heads = 5, dim = 64;
  int64_t count = 3;
  bool packed = false;         // batch is 1 then
  bool heads_outside = false;  // in memory: [batch, heads, seq, dim]
  int64_t gap = 0;             // elements between rows
  int64_t lse_stride = 1;      // from one query's lse to the next
  // Partials whose number is odd have heads_outside the other way round; partial i has i * gap_step
  // more elements between rows.
  bool mixed = false;
  int64_t gap_step = 0;
  int64_t rows() const { return batch * seq * heads; }
};

// The partials of one merge, and room for its result.
class Partials {
 public:
  // Draws values between -2 and 2, and lses between -30 and 30, or -inf. What lies between the rows
  // is NaN; the result's memory holds other bytes that no merge gives.
  Partials(const MergeShape& shape, DType dtype, uint32_t seed = 1);
  Partials(const Partials&) = delete;
  Partials& operator=(const Partials&) = delete;

  size_t rows() const { return static_cast<size_t>(shape_.rows()); }
  float& lse_of(size_t i, size_t row) const;
  float* out_of(size_t i, size_t row) const;

  // What the merge must give, from the partials as they are now.
  std::vector<reference::MergedRow> expected() const;
  // Compares out and lse with what was expected.
  void check(const std::vector<reference::MergedRow>& expected) const;
  // Whether each byte of the result's memory that belongs to no row is as it was.
  bool gaps_untouched() const;

  std::vector<Tensor> outs, lses;
  Tensor out, lse;  // a test may put others in their place

 private:
  // Offsets of a row in elements; rows are counted through batch, seq and heads.
  int64_t row_at(const Tensor& out, size_t row) const;
  int64_t lse_at(const Tensor& lse, size_t row) const;
  Tensor rows_tensor(void* data, DType dtype, bool heads_outside, int64_t gap) const;
  Tensor lse_tensor(float* data) const;
  size_t row_elements(int64_t gap) const;
  size_t lse_elements() const;

  MergeShape shape_;
  std::vector<std::vector<float>> out_memory_, lse_memory_;
  std::vector<char> result_;
  std::vector<float> lse_result_;
};

}  // namespace kernels::test
