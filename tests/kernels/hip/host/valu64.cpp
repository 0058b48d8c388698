// tests/kernels/hip/host/valu64.cpp: the host build of the kernels of family valu64
#include "tests/kernels/hip/host/family.hpp"

template kernels::test::HostKernel kernels::test::kernel_of_family<kernels::hip::Family::valu64>(
    const char*, const char*);
