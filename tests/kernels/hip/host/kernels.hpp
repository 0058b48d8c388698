// tests/kernels/hip/host/kernels.hpp: finds the host build of a kernel by its family and names
#pragma once

#include "kernels/hip/launch/family.hpp"

namespace kernels::test {

// Runs as the calling thread of the grid. params: the kernel's argument.
using HostKernel = void (*)(const void* params);

// RETURNS the kernel that a code object of this family has by that name; null if it has none.
HostKernel host_kernel(hip::Family family, const char* object, const char* name);

}  // namespace kernels::test
