// runtime/src/formats/elf_symbols.hpp: reads and checks the symbols that the loader looks up
#pragma once

#include "formats/elf_image.hpp"

namespace attnrt::core {

// Finds the symbols and checks that
//   - the hash tables that lead to them stay in the file, and their chains end
//   - each name ends in the table of strings, and each defined symbol lies in loaded memory
//   - each has a version that the library names, and versions come from libraries that it needs
// The loader follows all of these without a look. REQUIRES: dynamic is read_dynamic's. Errors:
// UNSUPPORTED.
Result<SymbolTable> find_symbols(const ElfImage& image, const DynamicTable& dynamic);

}  // namespace attnrt::core
