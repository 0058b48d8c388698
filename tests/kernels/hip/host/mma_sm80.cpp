// tests/kernels/hip/host/mma_sm80.cpp: the host build of the kernels of family mma_sm80
#include "tests/kernels/hip/host/family.hpp"

template kernels::test::HostKernel kernels::test::kernel_of_family<kernels::hip::Family::mma_sm80>(
    const char*, const char*);
