// runtime/cli/bench/check.hpp: decides whether an output is right
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/bench/tensors.hpp"

namespace attnrt::cli::bench {

// The exact rows of one problem, and the comparison of outputs with them.
class ReferenceCheck {
 public:
  // Evaluates as many rows as the reference can in about a second, of sequences all over the batch
  // and of the longest one. They are the last rows of a sequence, or with the diagonal at the top
  // left the first ones.
  ReferenceCheck(const core::Problem& problem, const Tensors& tensors);

  // RETURNS "" if the output is right, else what is wrong: an element of out that is not a finite
  // number, or a row of out or lse that is too far from the reference, or a row of out that is too
  // far from `other`, the output of the backend other_name. lse and other may be nullptr.
  std::string check(const Tensor& out, const Tensor* lse, const Tensor* other,
                    std::string_view other_name) const;
  std::string extent() const;  // the part that the reference covers: "64 of 2048 rows"

 private:
  struct Row {
    int64_t index;              // among the rows of out
    int64_t lse_index;          // among the elements of lse
    std::vector<double> exact;  // the row of out
    double lse;
  };
  void evaluate(const Tensors& tensors, int64_t sequence, int64_t most_rows);
  double allowed(double keys) const;
  std::string row_name(int64_t row) const;
  template <class Expected>
  double distance(const Tensor& out, int64_t row, const Expected& expected) const;

  core::Problem problem_;
  int64_t all_rows_ = 0;  // of all sequences, of one head
  std::vector<Row> rows_;
  double norms_ = 0;  // an upper bound of scale |q||k|
  double rms_ = 0;    // the root mean square of all exact values
};

}  // namespace attnrt::cli::bench
