// tests/kernels/hip/host/valu32.cpp: the host build of the kernels of family valu32
#include "tests/kernels/hip/host/family.hpp"

template kernels::test::HostKernel kernels::test::kernel_of_family<kernels::hip::Family::valu32>(
    const char*, const char*);
