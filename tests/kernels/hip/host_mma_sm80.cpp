// tests/kernels/hip/host_mma_sm80.cpp: the kernels of GPUs of mma_sm80, compiled for the host
#include "tests/kernels/hip/host_family.hpp"

template kernels::test::HostKernel kernels::test::kernel_of_family<kernels::hip::Family::mma_sm80>(
    const char*, const char*);
