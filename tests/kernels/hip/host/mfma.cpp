// tests/kernels/hip/host/mfma.cpp: the host build of the kernels of family mfma
#include "tests/kernels/hip/host/family.hpp"

template kernels::test::HostKernel kernels::test::kernel_of_family<kernels::hip::Family::mfma>(
    const char*, const char*);
