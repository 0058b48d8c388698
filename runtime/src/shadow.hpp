// runtime/src/shadow.hpp: repeats a run, and compares with the result that the caller got
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "problem/problem.hpp"

namespace attnrt::core {

// Memory for one more result of a run on host tensors.
class Shadow {
 public:
  // problem, served: of the run, whose out and lse hold the caller's result.
  // Throws std::bad_alloc.
  Shadow(const Problem& problem, const attnrt_args& served);

  // The same inputs; out and lse are this object's, dense, and hold NaN.
  const attnrt_args& args() const { return args_; }

  // Returns a text that says where the results differ by more than two right results can
  // (kernels/reference/difference.hpp); "" if nowhere; nullopt if they cannot be compared: there
  // are no rows, or an index leads out of its tensor.
  // REQUIRES: both runs have succeeded.
  std::optional<std::string> difference() const;

 private:
  attnrt_tensor copy_of(const attnrt_tensor& served, std::vector<std::byte>& memory);

  const Problem problem_;
  const attnrt_args served_;
  attnrt_args args_;
  std::vector<std::byte> out_, lse_;
};

}  // namespace attnrt::core
