// runtime/cli/bench/tensors.hpp: the tensors of one problem, filled with random numbers
#pragma once

#include <optional>

#include "cli/bench/lengths.hpp"
#include "cli/io/safetensors.hpp"
#include "problem/problem.hpp"

namespace attnrt::cli::bench {

// The tensors of one run in host memory: one member for each tensor of attnrt_args, by its name.
// A tensor that the problem does not use is absent.
struct Tensors {
#define ATTNRT_DECLARE(name) std::optional<Tensor> name;
  ATTNRT_TENSORS(ATTNRT_DECLARE)
#undef ATTNRT_DECLARE
  SequenceLengths lengths;

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

// Calls visit as for_each_tensor does, for the tensors of which cold runs have copies: q, k and v,
// and the scales of k and v.
template <class Visit>
void for_each_cold(const Tensors& tensors, attnrt_args& args, const Visit& visit) {
  if (tensors.q) visit(*tensors.q, args.q);
  if (tensors.k) visit(*tensors.k, args.k);
  if (tensors.v) visit(*tensors.v, args.v);
  if (tensors.k_scale) visit(*tensors.k_scale, args.k_scale);
  if (tensors.v_scale) visit(*tensors.v_scale, args.v_scale);
}
int64_t cold_bytes(const Tensors& tensors);  // of one copy

// Where the diagonal of each sequence lies with diagonal_offset: one key before its usual place.
constexpr int32_t kDiagonalOffset = -1;

// Makes dense tensors of random numbers. The same problem always gets the same numbers.
// alignment_bytes of the problem becomes the alignment of the tensors, where that is less.
// Errors: OUT_OF_MEMORY.
core::Result<Tensors> make_tensors(GridProblem& grid_problem);

}  // namespace attnrt::cli::bench
