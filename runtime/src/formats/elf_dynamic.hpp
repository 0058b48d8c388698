// runtime/src/formats/elf_dynamic.hpp: reads and checks the dynamic table that the loader follows
#pragma once

#include "formats/elf_image.hpp"

namespace attnrt::core {

// Reads the dynamic table and checks that
//   - it has an end, and every table that it names lies in loaded segments
//   - what the loader takes for granted is there: a size beside each address, known entry sizes
//   - the texts that it names lie in the table of strings, which ends with a zero byte
//   - DT_INIT and DT_FINI lead to code
//   - no relocations of code are announced
// REQUIRES: check_segments accepts the segments. Errors: UNSUPPORTED.
Result<DynamicTable> read_dynamic(const ElfImage& image);

}  // namespace attnrt::core
