// runtime/src/formats/elf_relocations.hpp: checks where a library's relocations write
#pragma once

#include <elf.h>

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace attnrt::core {

constexpr Elf64_Sxword kDtRelrSize = 35, kDtRelr = 36;  // older versions of <elf.h> lack these

using DynamicTable = std::map<Elf64_Sxword, uint64_t>;  // values by tag

// Whether the segment, once loaded, holds `bytes` bytes from the address on.
inline bool holds(const Elf64_Phdr& segment, uint64_t address, uint64_t bytes) {
  const uint64_t offset = address - segment.p_vaddr;
  return offset < segment.p_memsz && bytes <= segment.p_memsz - offset;
}

// Returns what the file has for these addresses; none if it is not all in one segment's file part.
// REQUIRES: every PT_LOAD segment lies in the bytes.
std::string_view bytes_at(std::string_view bytes, const std::vector<Elf64_Phdr>& segments,
                          uint64_t address, uint64_t size);

// Checks that every relocation of the tables RELA, JMPREL and RELR writes into one writable PT_LOAD
// segment. The loader applies them before any code runs and checks nothing. So code and constants
// stay as they are in the file, too, and can be compared with it after loading.
// REQUIRES: every PT_LOAD segment lies in the bytes. Errors: UNSUPPORTED.
Result<void> check_relocations(std::string_view bytes, const std::vector<Elf64_Phdr>& segments,
                               const DynamicTable& dynamic);

}  // namespace attnrt::core
