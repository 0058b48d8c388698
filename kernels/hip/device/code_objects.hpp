// kernels/hip/device/code_objects.hpp: the code objects that this build compiled
#pragma once

#include <cstdint>

namespace kernels::hip {

// One kernel file, compiled for one architecture, and for one dtype and padded head_dim if these
// are built in.
struct CodeObject {
  const char* name;  // "flash_attention_f16_128", "merge"
  const char* arch;  // "gfx1100", "sm_90"; "compute_80" if it is PTX
  const unsigned char* data;
  uint64_t bytes;
};

extern const CodeObject code_objects[];
extern const uint32_t code_object_count;

}  // namespace kernels::hip
