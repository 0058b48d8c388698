// tests/kernels/hip/host_family.hpp: one family's kernels by the names that a launch gives, compiled for the host
#pragma once

#include <string>

#include "kernels/hip/flash_attention.hpp"
#include "tests/kernels/hip/host_kernels.hpp"

namespace kernels::test {

// One source for each family: they are slow to compile.
template <hip::Family kFamily>
HostKernel kernel_of_family(const char* object, const char* name);

namespace family {

template <class Tile>
HostKernel flash(const std::string& name) {
  using hip::Kind;
  if (name == "flash_attention_kernel") return hip::flash_attention<Tile, Kind::generic>;
  if (name == "flash_attention_causal_kernel") return hip::flash_attention<Tile, Kind::causal>;
  return name == "flash_attention_nocausal_kernel" ? hip::flash_attention<Tile, Kind::nocausal> : nullptr;
}

template <hip::Family kFamily, class T>
HostKernel of_dtype(const std::string& dim, const std::string& name) {
  if (dim == "64") return flash<hip::Tile<kFamily, T, 64>>(name);
  if (dim == "128") return flash<hip::Tile<kFamily, T, 128>>(name);
  return dim == "256" ? flash<hip::Tile<kFamily, T, 256>>(name) : nullptr;
}

}  // namespace family

template <hip::Family kFamily>
HostKernel kernel_of_family(const char* object, const char* name) {
  const std::string text = object;  // flash_attention_<dtype>_<dim>
  const size_t dim = text.rfind('_') + 1, dtype = text.rfind('_', dim - 2) + 1;
  const std::string dtype_name = text.substr(dtype, dim - 1 - dtype);
  if (dtype_name == "f32") return family::of_dtype<kFamily, hip::F32>(text.substr(dim), name);
  if (dtype_name == "f16") return family::of_dtype<kFamily, hip::F16>(text.substr(dim), name);
  return dtype_name == "bf16" ? family::of_dtype<kFamily, hip::BF16>(text.substr(dim), name) : nullptr;
}

extern template HostKernel kernel_of_family<hip::Family::wmma_gfx11>(const char*, const char*);
extern template HostKernel kernel_of_family<hip::Family::wmma_gfx12>(const char*, const char*);
extern template HostKernel kernel_of_family<hip::Family::mfma>(const char*, const char*);
extern template HostKernel kernel_of_family<hip::Family::mma_sm80>(const char*, const char*);
extern template HostKernel kernel_of_family<hip::Family::valu32>(const char*, const char*);
extern template HostKernel kernel_of_family<hip::Family::valu64>(const char*, const char*);

}  // namespace kernels::test
