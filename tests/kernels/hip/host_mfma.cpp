// tests/kernels/hip/host_mfma.cpp: the kernels of GPUs of mfma, compiled for the host
#include "tests/kernels/hip/host_family.hpp"

template kernels::test::HostKernel kernels::test::kernel_of_family<kernels::hip::Family::mfma>(
    const char*, const char*);
