// runtime/src/formats/elf_relocations.cpp: checks where a library's relocations write
#include "formats/elf_relocations.hpp"

#include <algorithm>
#include <cstring>

namespace attnrt::core {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kNone = R_X86_64_NONE, kTlsDescriptor = R_X86_64_TLSDESC;
#elif defined(__aarch64__)
constexpr uint32_t kNone = R_AARCH64_NONE, kTlsDescriptor = R_AARCH64_TLSDESC;
#else
constexpr uint32_t kNone = 0, kTlsDescriptor = 12;  // R_RISCV_NONE, R_RISCV_TLSDESC
#endif
constexpr uint64_t kWord = 8;  // bytes that a relocation writes; a TLS descriptor has two words

tl::unexpected<Error> outside(uint64_t address) {
  return fail(ATTNRT_UNSUPPORTED,
              "has a relocation that writes to {:#x}, outside its writable segments; build it with "
              "-fPIC, or copy it again",
              address);
}

struct Checker {
  std::string_view bytes;
  const std::vector<Elf64_Phdr>& segments;

  bool writable(uint64_t address, uint64_t size) const {
    return std::any_of(segments.begin(), segments.end(), [&](const Elf64_Phdr& segment) {
      return segment.p_type == PT_LOAD && (segment.p_flags & PF_W) != 0 &&
             holds(segment, address, size);
    });
  }

  std::string_view table(uint64_t address, uint64_t size) const {
    return bytes_at(bytes, segments, address, size);
  }

  Result<void> check_rela(std::string_view table) const {
    for (size_t at = 0; at + sizeof(Elf64_Rela) <= table.size(); at += sizeof(Elf64_Rela)) {
      Elf64_Rela each{};
      std::memcpy(&each, table.data() + at, sizeof each);
      const auto type = static_cast<uint32_t>(ELF64_R_TYPE(each.r_info));
      if (type == kNone) continue;
      if (!writable(each.r_offset, type == kTlsDescriptor ? 2 * kWord : kWord))
        return outside(each.r_offset);
    }
    return {};
  }

  // An even entry is an address. An odd one is a bitmap of the 63 words after the last address or
  // bitmap.
  Result<void> check_relr(std::string_view table) const {
    uint64_t next = 0;
    for (size_t at = 0; at + sizeof(uint64_t) <= table.size(); at += sizeof(uint64_t)) {
      uint64_t entry = 0;
      std::memcpy(&entry, table.data() + at, sizeof entry);
      if ((entry & 1) == 0) {
        if (!writable(entry, kWord)) return outside(entry);
        next = entry + kWord;
        continue;
      }
      uint64_t address = next;
      for (uint64_t bits = entry >> 1; bits != 0; bits >>= 1, address += kWord) {
        if ((bits & 1) != 0 && !writable(address, kWord)) return outside(address);
      }
      next += 63 * kWord;
    }
    return {};
  }
};

}  // namespace

std::string_view bytes_at(std::string_view bytes, const std::vector<Elf64_Phdr>& segments,
                          uint64_t address, uint64_t size) {
  for (const Elf64_Phdr& segment : segments) {
    const uint64_t offset = address - segment.p_vaddr;
    if (segment.p_type != PT_LOAD || offset >= segment.p_filesz || size > segment.p_filesz - offset)
      continue;
    return bytes.substr(segment.p_offset + offset, size);
  }
  return {};
}

Result<void> check_relocations(std::string_view bytes, const std::vector<Elf64_Phdr>& segments,
                               const DynamicTable& dynamic) {
  const Checker checker{bytes, segments};
  struct Table {
    Elf64_Sxword address, size;
    Result<void> (Checker::*check)(std::string_view) const;
  };
  const Table tables[] = {{DT_RELA, DT_RELASZ, &Checker::check_rela},
                          {DT_JMPREL, DT_PLTRELSZ, &Checker::check_rela},
                          {kDtRelr, kDtRelrSize, &Checker::check_relr}};
  for (const Table& each : tables) {
    const auto address = dynamic.find(each.address), size = dynamic.find(each.size);
    if (address == dynamic.end() || size == dynamic.end() || size->second == 0) continue;
    const std::string_view table = checker.table(address->second, size->second);
    if (table.empty()) {
      return fail(ATTNRT_UNSUPPORTED,
                  "is damaged: its table of relocations is not in the file; copy it again");
    }
    if (auto checked = (checker.*each.check)(table); !checked) return checked;
  }
  return {};
}

}  // namespace attnrt::core
