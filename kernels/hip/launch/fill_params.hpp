// kernels/hip/launch/fill_params.hpp: a problem and one run's tensors into the struct that the kernels take
#pragma once

#include "kernels/common/problem.hpp"
#include "kernels/hip/params.hpp"

namespace kernels::hip {

// A lane's offset within a step of keys is counted in 32 bits: rows of k and v farther apart than this are refused.
inline constexpr int64_t kMostRowStride = (int64_t{1} << 25) - 1;
bool strides_fit(const Args& args);

// REQUIRES: args agree with problem. The workspace fields stay null.
AttentionParams fill_params(const Problem& problem, const Args& args);

}  // namespace kernels::hip
