// tests/kernels/hip/host_wmma_gfx11.cpp: the kernels of GPUs of wmma_gfx11, compiled for the host
#include "tests/kernels/hip/host_family.hpp"

template kernels::test::HostKernel
kernels::test::kernel_of_family<kernels::hip::Family::wmma_gfx11>(const char*, const char*);
