// runtime/src/formats/elf_file.hpp: reads a plugin's ELF file; the only user of libelf
#pragma once

#include <elf.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "formats/elf_links.hpp"

namespace attnrt::core {

struct PluginElf {
  std::string manifest;             // contents of section .attnrt_manifest
  bool exports_plugin = false;      // defines attnrt_plugin_v1
  std::string other_plugin_symbol;  // attnrt_plugin_v2 and the like, if it defines one
  PluginLinks links;
};

// Judges an open file by its headers alone, so that a large file which is no plugin costs nothing:
// machine, type, the tables of segments and sections, and whether it has a manifest of a sane size.
// bytes: the file's size. Reads a few pages. Errors: UNSUPPORTED, with what the file is or lacks;
// OUT_OF_MEMORY or INTERNAL if it could not be read.
Result<void> check_plugin_headers(int file, uint64_t bytes);

// Reads the manifest and looks for the plugin symbol. Checks what the loader follows before any
// code runs, because it trusts a file and would end the process or write anywhere:
//   - every header, segment and section lies inside the bytes, and segments do not overlap
//     (elf_segments.hpp)
//   - the dynamic table and all that it names (elf_dynamic.hpp)
//   - hash tables, symbols and their versions (elf_symbols.hpp)
//   - what relocations write, and where (elf_relocations.hpp)
// No check of the file alone can tell that its code is right, or that a pointer within the library
// is the right one. Errors: UNSUPPORTED, with what the file is or lacks; OUT_OF_MEMORY.
Result<PluginElf> read_plugin_elf(std::string_view bytes);

// Returns the program headers. REQUIRES: read_plugin_elf accepts the bytes.
std::vector<Elf64_Phdr> segments_of(std::string_view bytes);

}  // namespace attnrt::core
