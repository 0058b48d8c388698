// kernels/hip/launch/fill_params.hpp: fills the kernels' argument for one run
#pragma once

#include "kernels/common/problem.hpp"
#include "kernels/hip/params.hpp"

namespace kernels::hip {

// The largest stride between rows of k and v, in elements: kernels count a lane's offset within a
// step of keys in 32 bits.
inline constexpr int64_t kLargestRowStride = (int64_t{1} << 25) - 1;
bool strides_fit(const Problem& problem, const Args& args);

// REQUIRES: args agree with problem. The fields of the workspace stay null.
AttentionParams fill_params(const Problem& problem, const Args& args);

}  // namespace kernels::hip
