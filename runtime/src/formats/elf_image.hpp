// runtime/src/formats/elf_image.hpp: a library's bytes by the addresses at which they are loaded
#pragma once

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.hpp"

namespace attnrt::core {

constexpr Elf64_Sxword kDtRelrSize = 35, kDtRelr = 36, kDtRelrEntry = 37;  // <elf.h> may lack these

// Makes the error of a library that no linker writes. UNSUPPORTED: "is damaged: WHAT; copy it
// again".
template <class... Arguments>
tl::unexpected<Error> damaged(fmt::format_string<Arguments...> what, Arguments&&... arguments) {
  return fail(ATTNRT_UNSUPPORTED, "is damaged: {}; copy it again",
              fmt::format(what, std::forward<Arguments>(arguments)...));
}

// Whether the segment, once loaded, holds `bytes` bytes from the address on.
inline bool holds(const Elf64_Phdr& segment, uint64_t address, uint64_t bytes) {
  const uint64_t offset = address - segment.p_vaddr;
  return offset < segment.p_memsz && bytes <= segment.p_memsz - offset;
}

// Returns entry i of a table. REQUIRES: the table has it.
template <class T>
T entry_of(std::string_view table, size_t i) {
  static_assert(std::is_trivially_copyable_v<T>);
  T entry{};
  std::memcpy(&entry, table.data() + i * sizeof entry, sizeof entry);
  return entry;
}

// The bytes of a file and its segments. REQUIRES: check_segments accepts them.
struct ElfImage {
  std::string_view bytes;
  std::vector<Elf64_Phdr> segments;

  // Whether one loaded segment with all these flags (PF_R, PF_W, PF_X) holds the range in memory.
  bool loads(uint64_t address, uint64_t size, uint32_t flags) const {
    for (const Elf64_Phdr& segment : segments) {
      if (segment.p_type == PT_LOAD && (segment.p_flags & flags) == flags &&
          holds(segment, address, size))
        return true;
    }
    return false;
  }

  // Returns the file's bytes from the address to the end of those of its readable loaded segment.
  // Empty: no such segment has bytes there.
  std::string_view from(uint64_t address) const {
    for (const Elf64_Phdr& segment : segments) {
      const uint64_t offset = address - segment.p_vaddr;
      if (segment.p_type != PT_LOAD || (segment.p_flags & PF_R) == 0 || offset >= segment.p_filesz)
        continue;
      return bytes.substr(segment.p_offset + offset, segment.p_filesz - offset);
    }
    return {};
  }

  // Returns the file's bytes of the range; empty if they are not all in one such segment.
  std::string_view at(uint64_t address, uint64_t size) const {
    const std::string_view rest = from(address);
    return size <= rest.size() ? rest.substr(0, size) : std::string_view();
  }
};

// The entries of the dynamic table. Of those with the same tag the last one counts, as it does to
// the loader.
struct DynamicTable {
  std::map<Elf64_Sxword, uint64_t> values;  // by tag
  std::vector<uint64_t> needed;             // of DT_NEEDED

  bool has(Elf64_Sxword tag) const { return values.count(tag) != 0; }
  uint64_t value(Elf64_Sxword tag) const {  // 0: there is none
    const auto found = values.find(tag);
    return found == values.end() ? 0 : found->second;
  }
};

// The symbols that the loader sees, and their names. Each name ends within the strings.
struct SymbolTable {
  std::string_view symbols, strings;
  size_t size() const { return symbols.size() / sizeof(Elf64_Sym); }
  Elf64_Sym operator[](size_t i) const { return entry_of<Elf64_Sym>(symbols, i); }
  std::string_view text(uint64_t offset) const { return strings.data() + offset; }
};

}  // namespace attnrt::core
