// runtime/cli/bench/tensors.hpp: the tensors of one problem, filled with random numbers
#pragma once

#include <optional>

#include "cli/io/safetensors.hpp"
#include "problem/problem.hpp"

namespace attnrt::cli::bench {

// The tensors of one run in host memory: one member for each tensor of attnrt_args, by its name.
// A tensor that the problem does not use is absent.
struct Tensors {
#define ATTNRT_DECLARE(name) std::optional<Tensor> name;
  ATTNRT_TENSORS(ATTNRT_DECLARE)
#undef ATTNRT_DECLARE

  attnrt_args args() const;  // views of the tensors; valid as long as they are
};

// Calls visit(tensor, view) for each tensor that is present; `view` is its place in args.
template <class Visit>
void for_each_tensor(const Tensors& tensors, attnrt_args& args, const Visit& visit) {
#define ATTNRT_VISIT(name) \
  if (tensors.name) visit(*tensors.name, args.name);
  ATTNRT_TENSORS(ATTNRT_VISIT)
#undef ATTNRT_VISIT
}

// Makes dense tensors of random numbers. The same problem always gets the same numbers.
// problem.alignment_bytes becomes the alignment of the tensors, where that is less.
// Errors: OUT_OF_MEMORY.
core::Result<Tensors> make_tensors(core::Problem& problem);

}  // namespace attnrt::cli::bench
