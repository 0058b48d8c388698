// tests/kernels/hip/host/wmma_gfx12.cpp: the host build of the kernels of family wmma_gfx12
#include "tests/kernels/hip/host/family.hpp"

template kernels::test::HostKernel
kernels::test::kernel_of_family<kernels::hip::Family::wmma_gfx12>(const char*, const char*);
