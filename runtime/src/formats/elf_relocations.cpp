// runtime/src/formats/elf_relocations.cpp: checks where a library's relocations write
#include "formats/elf_relocations.hpp"

#include <attnrt/plugin.h>

#include <algorithm>
#include <cstddef>

namespace attnrt::core {
namespace {

// Types of this machine. kCopy writes as many bytes as a symbol has: only programs have it.
#if defined(__x86_64__)
constexpr uint32_t kNone = R_X86_64_NONE, kTlsDescriptor = R_X86_64_TLSDESC,
                   kRelative = R_X86_64_RELATIVE, kResolver = R_X86_64_IRELATIVE,
                   kCopy = R_X86_64_COPY, kSlot = R_X86_64_JUMP_SLOT, kData = R_X86_64_GLOB_DAT;
constexpr uint32_t kTls[] = {R_X86_64_DTPMOD64, R_X86_64_DTPOFF64, R_X86_64_TPOFF64,
                             R_X86_64_TLSDESC};
#elif defined(__aarch64__)
constexpr uint32_t kNone = R_AARCH64_NONE, kTlsDescriptor = R_AARCH64_TLSDESC,
                   kRelative = R_AARCH64_RELATIVE, kResolver = R_AARCH64_IRELATIVE,
                   kCopy = R_AARCH64_COPY, kSlot = R_AARCH64_JUMP_SLOT, kData = R_AARCH64_GLOB_DAT;
constexpr uint32_t kTls[] = {R_AARCH64_TLS_DTPMOD, R_AARCH64_TLS_DTPREL, R_AARCH64_TLS_TPREL,
                             R_AARCH64_TLSDESC};
#else  // R_RISCV_*
constexpr uint32_t kNone = 0, kTlsDescriptor = 12, kRelative = 3, kResolver = 58, kCopy = 4,
                   kSlot = 5, kData = kSlot;  // it has no second one
constexpr uint32_t kTls[] = {7, 9, 11, 12};
#endif
constexpr uint64_t kFirstFunction = offsetof(attnrt_plugin, open);  // all members from there on
constexpr uint64_t kWord = 8;  // bytes that a relocation writes; a TLS descriptor has two words

tl::unexpected<Error> outside(uint64_t address) {
  return fail(ATTNRT_UNSUPPORTED,
              "has a relocation that writes to {:#x}, outside its writable segments; build it with "
              "-fPIC, or copy it again",
              address);
}

// DT_INIT_ARRAY or DT_FINI_ARRAY: the loader calls every entry after relocation.
struct FunctionArray {
  uint64_t address = 0;
  std::vector<bool> relocated;

  FunctionArray(const DynamicTable& dynamic, Elf64_Sxword array, Elf64_Sxword size)
      : address(dynamic.value(array)), relocated(dynamic.value(size) / kWord) {}

  // Whether a word at `target` is one of the entries, which is then noted as relocated.
  bool note(uint64_t target) {
    const uint64_t offset = target - address;
    if (offset % kWord != 0 || offset / kWord >= relocated.size()) return false;
    relocated[offset / kWord] = true;
    return true;
  }
  bool is_complete() const {
    return std::all_of(relocated.begin(), relocated.end(), [](bool each) { return each; });
  }
};

class Checker {
 public:
  Checker(const ElfImage& image, const DynamicTable& dynamic, const SymbolTable& symbols)
      : image_(image),
        symbols_(symbols),
        arrays_{FunctionArray(dynamic, DT_INIT_ARRAY, DT_INIT_ARRAYSZ),
                FunctionArray(dynamic, DT_FINI_ARRAY, DT_FINI_ARRAYSZ)} {
    for (const Elf64_Phdr& segment : image.segments) {
      if (segment.p_type == PT_DYNAMIC) dynamic_ = segment;
      if (segment.p_type == PT_TLS) has_tls_ = true;
    }
    for (size_t i = 0; i < symbols.size(); ++i) {
      const Elf64_Sym symbol = symbols[i];
      if (symbol.st_shndx == SHN_UNDEF || symbols.text(symbol.st_name) != ATTNRT_PLUGIN_SYMBOL)
        continue;
      const uint64_t size = std::min<uint64_t>(symbol.st_size, sizeof(attnrt_plugin));
      functions_ = symbol.st_value + kFirstFunction;
      functions_bytes_ = size > kFirstFunction ? size - kFirstFunction : 0;
    }
  }

  // relative: how many entries at the start the loader takes for relative ones (DT_RELACOUNT).
  Result<void> check_rela(std::string_view table, uint64_t relative) {
    const size_t count = table.size() / sizeof(Elf64_Rela);
    if (relative > count) return bad("counts more relative ones than it has");
    for (size_t i = 0; i < count; ++i) {
      const auto each = entry_of<Elf64_Rela>(table, i);
      const auto type = static_cast<uint32_t>(ELF64_R_TYPE(each.r_info));
      if (i < relative && type != kRelative) return bad("counts more relative ones than it has");
      if (type == kNone) continue;
      if (type == kCopy) return bad("has one that copies a symbol");
      if ((type == kSlot || type == kData) && each.r_offset % kWord != 0)
        return bad("has one for a slot that is not aligned");
      if (auto checked = check_target(each.r_offset, type == kTlsDescriptor ? 2 * kWord : kWord);
          !checked)
        return checked;
      if (auto checked = check_value(each, type); !checked) return checked;
    }
    return {};
  }

  // An even entry is an address. An odd one is a bitmap of the 63 words after the last address or
  // bitmap.
  Result<void> check_relr(std::string_view table) {
    uint64_t next = 0;
    for (size_t i = 0; i < table.size() / sizeof(uint64_t); ++i) {
      const auto entry = entry_of<uint64_t>(table, i);
      if ((entry & 1) == 0) {
        if (auto checked = check_word(entry); !checked) return checked;
        next = entry + kWord;
        continue;
      }
      uint64_t address = next;
      for (uint64_t bits = entry >> 1; bits != 0; bits >>= 1, address += kWord) {
        if ((bits & 1) == 0) continue;
        if (auto checked = check_word(address); !checked) return checked;
      }
      next += 63 * kWord;
    }
    return {};
  }

  // No linker relocates a word twice. REQUIRES: all relocations were checked.
  Result<void> check_targets() {
    std::sort(targets_.begin(), targets_.end());
    if (std::adjacent_find(targets_.begin(), targets_.end()) == targets_.end()) return {};
    return bad("has two for the same address");
  }

  Result<void> check_arrays() const {
    for (const FunctionArray& array : arrays_) {
      if (!array.is_complete())
        return damaged("an entry of its arrays of initialisers and finalisers is not relocated");
    }
    return {};
  }

 private:
  static tl::unexpected<Error> bad(std::string_view what) {
    return damaged("its table of relocations {}", what);
  }

  Result<void> check_target(uint64_t address, uint64_t size) {
    if (!image_.loads(address, size, PF_W)) return outside(address);
    targets_.push_back(address);
    if (address < dynamic_.p_vaddr + dynamic_.p_filesz && address + size > dynamic_.p_vaddr)
      return bad("has one that writes into the dynamic table");
    return {};
  }

  // An address that the loader adds its base to, and stores at `target`.
  Result<void> check_address(uint64_t target, uint64_t address) {
    const bool is_function = arrays_[0].note(target) || arrays_[1].note(target);
    if (is_function && !image_.loads(address, 1, PF_X))
      return damaged("an entry of its arrays of initialisers and finalisers is not code");
    if (target - functions_ < functions_bytes_ && !image_.loads(address, 1, PF_X))
      return damaged("a function of its {} is not code", ATTNRT_PLUGIN_SYMBOL);
    const Elf64_Phdr* last = nullptr;
    const Elf64_Phdr* first = nullptr;
    for (const Elf64_Phdr& segment : image_.segments) {
      if (segment.p_type != PT_LOAD) continue;
      if (first == nullptr) first = &segment;
      last = &segment;
    }
    if (address < first->p_vaddr || address > last->p_vaddr + last->p_memsz)
      return bad("has one whose address lies outside the library");
    return {};
  }

  Result<void> check_value(const Elf64_Rela& each, uint32_t type) {
    const auto addend = static_cast<uint64_t>(each.r_addend);
    if (type == kRelative) return check_address(each.r_offset, addend);
    if (type == kResolver) {
      return image_.loads(addend, 1, PF_X) ? Result<void>()
                                           : bad("has a resolver that is not code");
    }
    arrays_[0].note(each.r_offset);
    arrays_[1].note(each.r_offset);
    const uint64_t symbol = ELF64_R_SYM(each.r_info);
    if (symbol >= symbols_.size()) return bad("names a symbol that is not there");
    const bool own = symbol == STN_UNDEF || symbols_[symbol].st_shndx != SHN_UNDEF;
    if (own && !has_tls_ && std::find(std::begin(kTls), std::end(kTls), type) != std::end(kTls))
      return bad("uses thread-local variables, and it has none");
    return {};
  }

  // A word of RELR: what stands there in the file is the address.
  Result<void> check_word(uint64_t target) {
    if (auto checked = check_target(target, kWord); !checked) return checked;
    const std::string_view word = image_.at(target, kWord);
    return check_address(target, word.empty() ? 0 : entry_of<uint64_t>(word, 0));
  }

  const ElfImage& image_;
  const SymbolTable& symbols_;
  FunctionArray arrays_[2];
  uint64_t functions_ = 0, functions_bytes_ = 0;  // of the plugin's table
  std::vector<uint64_t> targets_;                 // the address of each relocation
  Elf64_Phdr dynamic_{};
  bool has_tls_ = false;
};

// Returns the table's bytes in the file.
Result<std::string_view> table_of(const ElfImage& image, const DynamicTable& dynamic,
                                  Elf64_Sxword address, Elf64_Sxword size) {
  if (!dynamic.has(address) || dynamic.value(size) == 0) return std::string_view();
  const std::string_view table = image.at(dynamic.value(address), dynamic.value(size));
  if (table.empty()) return damaged("its table of relocations is not in the file");
  return table;
}

}  // namespace

Result<void> check_relocations(const ElfImage& image, const DynamicTable& dynamic,
                               const SymbolTable& symbols) {
  const auto rela = table_of(image, dynamic, DT_RELA, DT_RELASZ);
  if (!rela) return tl::unexpected(rela.error());
  const auto slots = table_of(image, dynamic, DT_JMPREL, DT_PLTRELSZ);
  if (!slots) return tl::unexpected(slots.error());
  const auto relr = table_of(image, dynamic, kDtRelr, kDtRelrSize);
  if (!relr) return tl::unexpected(relr.error());
  Checker checker(image, dynamic, symbols);
  if (auto checked = checker.check_rela(*rela, dynamic.value(DT_RELACOUNT)); !checked)
    return checked;
  // Some linkers count the slots in RELASZ, too.
  const bool inside =
      slots->data() >= rela->data() && slots->data() + slots->size() <= rela->data() + rela->size();
  if (!inside) {
    if (auto checked = checker.check_rela(*slots, 0); !checked) return checked;
  }
  if (auto checked = checker.check_relr(*relr); !checked) return checked;
  if (auto checked = checker.check_targets(); !checked) return checked;
  return checker.check_arrays();
}

}  // namespace attnrt::core
