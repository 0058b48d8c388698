// kernels/reference/store.hpp: stores numbers in any element type
#pragma once

#include <cstdint>

#include "kernels/common/problem.hpp"

namespace kernels::reference {

// Stores the number of the dtype that is nearest to `value`; of 8 bits, too. NaN becomes a NaN.
// REQUIRES: value is not NaN if the dtype is i8, which has none.
void store_nearest(DType dtype, void* data, int64_t index, float value);

}  // namespace kernels::reference
