// runtime/src/formats/elf_relocations.hpp: checks where a library's relocations write
#pragma once

#include "formats/elf_image.hpp"

namespace attnrt::core {

// Checks the relocations of the tables RELA, JMPREL and RELR. The loader applies them before any
// code runs and checks nothing. So
//   - each writes into one writable PT_LOAD segment, and none into the dynamic table: code and
//     constants stay as they are in the file, and can be compared with it after loading
//   - each names a symbol that exists, and a relative one gives an address of the library
//   - every entry of DT_INIT_ARRAY and DT_FINI_ARRAY gets one, and a relative one there leads to
//     code
// REQUIRES: dynamic is read_dynamic's and symbols find_symbols'. Errors: UNSUPPORTED.
Result<void> check_relocations(const ElfImage& image, const DynamicTable& dynamic,
                               const SymbolTable& symbols);

}  // namespace attnrt::core
