// kernels/hip/launch/fill_serving.hpp: fills the argument of the kernels that take their work from
// a list
#pragma once

#include "kernels/common/problem.hpp"
#include "kernels/hip/params.hpp"

namespace kernels::hip {

// Fills the argument for one run, but for its section. RETURNS whether there is anything to do.
// REQUIRES: args agree with problem.
bool fill_serving(const Problem& problem, const Args& args, ServingParams* params);

}  // namespace kernels::hip
