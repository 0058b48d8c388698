// tests/kernels/hip/host_kernels.hpp: a family, a dtype and a kernel's name into the host build of that kernel
#pragma once

#include <string_view>

#include "kernels/hip/config.hpp"
#include "kernels/hip/launch.hpp"

namespace kernels::hip {

using HostKernel = void (*)(const AttentionParams&);

// One for each family; written by the build from host_kernels.cpp.in. nullptr: no such kernel.
template <Family kFamily>
HostKernel host_kernel(DType dtype, int dim, std::string_view name);

HostKernel host_kernel(Family family, DType dtype, int dim, std::string_view name);

}  // namespace kernels::hip
