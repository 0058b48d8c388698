// tests/kernels/hip/host_valu32.cpp: the kernels of GPUs of valu32, compiled for the host
#include "tests/kernels/hip/host_family.hpp"

template kernels::test::HostKernel kernels::test::kernel_of_family<kernels::hip::Family::valu32>(
    const char*, const char*);
