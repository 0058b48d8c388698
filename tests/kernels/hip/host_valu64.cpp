// tests/kernels/hip/host_valu64.cpp: the kernels of GPUs of valu64, compiled for the host
#include "tests/kernels/hip/host_family.hpp"

template kernels::test::HostKernel kernels::test::kernel_of_family<kernels::hip::Family::valu64>(
    const char*, const char*);
