// tests/plugins/common/gpu/stand_in/kernels/hip/device/code_objects.hpp: the list of code objects,
// as kernels/hip declares it
#pragma once

#include <cstdint>

namespace kernels::hip {

struct CodeObject {
  const char* name;
  const char* arch;
  const unsigned char* data;
  uint64_t bytes;
};

extern const CodeObject code_objects[];
extern const uint32_t code_object_count;

}  // namespace kernels::hip
