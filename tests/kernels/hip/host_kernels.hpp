// tests/kernels/hip/host_kernels.hpp: an architecture and a launch's names into the host build of that kernel
#pragma once

#include "kernels/hip/launch/family.hpp"
#include "kernels/hip/params.hpp"

namespace kernels::test {

using HostKernel = void (*)(const hip::AttentionParams&);

// What the code object of a GPU of this family has under that name; null where there is nothing.
HostKernel host_kernel(hip::Family family, const char* object, const char* name);

}  // namespace kernels::test
