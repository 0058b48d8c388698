// kernels/hip/fill.hpp: what params.cpp gives
#pragma once

#include "kernels/common/problem.hpp"
#include "kernels/hip/params.hpp"

namespace kernels::hip {

// REQUIRES: args agree with problem. The workspace fields stay null.
AttentionParams fill_params(const Problem& problem, const Args& args);

}  // namespace kernels::hip
