// runtime/conformance/parts.hpp: cuts a case into parts: one sequence alone, some of its keys
//
// A part is a case of its own. Its tensors hold the same numbers with the same strides, in memory
// of their own.
#pragma once

#include <cstdint>

#include "conformance/case.hpp"
#include "conformance/tensors.hpp"

namespace attnrt::conformance {

struct Part {
  Case drawn;
  Tensors tensors;
};

// Returns sequence b alone. The bounds are just large enough for it.
Part sequence_alone(const Case& drawn, const Tensors& tensors, int64_t b);

// Whether keys_between can cut the case: it is dense, all keys exist, and the diagonal stays within
// the range of an offset.
bool has_key_parts(const Case& drawn, const Tensors& tensors);

// Returns the case with the keys [first, end) of each sequence. Where something uses the diagonal,
// a diagonal_offset keeps it opposite the same keys. Sinks stay only where first is 0.
// REQUIRES: has_key_parts.
Part keys_between(const Case& drawn, const Tensors& tensors, int64_t first, int64_t end);

}  // namespace attnrt::conformance
