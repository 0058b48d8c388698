// runtime/src/shadow.hpp: the result of a version in rollout beside the one that was given
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
  // problem: of the run. served: its tensors, whose out and lse hold the result that was given.
  // Throws std::bad_alloc.
  Shadow(const Problem& problem, const attnrt_args& served);

  // The same inputs; out and lse are this object's, dense, and hold NaN.
  const attnrt_args& args() const { return args_; }

  // Returns where the two results differ by more than two right ones do
  // (kernels/reference/difference.hpp); "" if they do not; absent if there is nothing to compare.
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
