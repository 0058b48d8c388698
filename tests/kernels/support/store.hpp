// tests/kernels/support/store.hpp: stores numbers in any element type
#pragma once

#include <cstdint>

#include "kernels/common/problem.hpp"

namespace kernels::test {

// Stores the number of the dtype that is nearest to `value`; of 8 bits, too.
void store_nearest(DType dtype, void* data, int64_t index, float value);

}  // namespace kernels::test
