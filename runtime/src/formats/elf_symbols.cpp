// runtime/src/formats/elf_symbols.cpp: reads and checks the symbols that the loader looks up
#include "formats/elf_symbols.hpp"

#include <attnrt/plugin.h>

#include <algorithm>
#include <bit>

namespace attnrt::core {
namespace {

constexpr size_t kMostVersions = 65536;     // entries of its chains that are followed
constexpr uint16_t kVersionIndex = 0x7FFF;  // the bits of an entry that are not a flag

tl::unexpected<Error> bad_hash_table() {
  return damaged("its hash table leads outside its symbols");
}

// Counts the symbols that a GNU hash table leads to: header, filter (8 bytes each), buckets and
// chains (4 bytes each). Its chains stand one after another, in the order of the symbols, and the
// last entry of each is odd. So no chain is longer than that of the largest bucket. RETURNS 0 if it
// leads to none.
Result<uint64_t> check_gnu_hash(std::string_view table) {
  struct Header {
    uint32_t buckets, first_symbol, filters, shift;
  };
  if (table.size() < sizeof(Header)) return bad_hash_table();
  const auto header = entry_of<Header>(table, 0);
  const uint64_t before = sizeof header + uint64_t{header.filters} * 8;
  if (header.buckets == 0 || !std::has_single_bit(header.filters) || header.shift >= 64 ||
      before > table.size() || uint64_t{header.buckets} * 4 > table.size() - before)
    return bad_hash_table();
  const std::string_view buckets = table.substr(before, uint64_t{header.buckets} * 4);
  const std::string_view chains = table.substr(before + buckets.size());
  uint32_t last = 0;
  for (size_t i = 0; i < header.buckets; ++i) {
    const auto symbol = entry_of<uint32_t>(buckets, i);
    if (symbol != 0 && symbol < header.first_symbol) return bad_hash_table();
    last = std::max(last, symbol);
  }
  if (last == 0) return uint64_t{0};
  for (uint64_t i = last - header.first_symbol; i < chains.size() / 4; ++i) {
    if ((entry_of<uint32_t>(chains, i) & 1) != 0) return header.first_symbol + i + 1;
  }
  return bad_hash_table();
}

// Counts the symbols of a System V hash table, all words of 4 bytes: the number of buckets and of
// symbols, then the buckets and a chain entry for each symbol. A symbol that two chains lead to, or
// one twice, would make a chain without an end possible.
Result<uint64_t> check_hash(std::string_view table) {
  if (table.size() < 8) return bad_hash_table();
  const uint64_t buckets = entry_of<uint32_t>(table, 0), symbols = entry_of<uint32_t>(table, 1);
  if (buckets == 0 || (2 + buckets + symbols) * 4 > table.size()) return bad_hash_table();
  std::vector<bool> seen(symbols);
  for (uint64_t bucket = 0; bucket < buckets; ++bucket) {
    for (uint64_t i = entry_of<uint32_t>(table, 2 + bucket); i != STN_UNDEF;
         i = entry_of<uint32_t>(table, 2 + buckets + i)) {
      if (i >= symbols || seen[i]) return bad_hash_table();
      seen[i] = true;
    }
  }
  return symbols;
}

Result<uint64_t> count_symbols(const ElfImage& image, const DynamicTable& dynamic) {
  uint64_t count = 0;
  if (dynamic.has(DT_GNU_HASH)) {
    const auto hashed = check_gnu_hash(image.from(dynamic.value(DT_GNU_HASH)));
    if (!hashed) return hashed;
    count = *hashed;
  }
  if (dynamic.has(DT_HASH)) {
    const auto hashed = check_hash(image.from(dynamic.value(DT_HASH)));
    if (!hashed) return hashed;
    if (count > *hashed) return bad_hash_table();
    count = *hashed;
  }
  if (count == 0) return fail(ATTNRT_UNSUPPORTED, "exports no symbol {}", ATTNRT_PLUGIN_SYMBOL);
  return count;
}

std::string_view name_of(const SymbolTable& table, const Elf64_Sym& symbol) {
  return table.text(symbol.st_name);
}

Result<void> check_symbol(const ElfImage& image, const SymbolTable& table,
                          const Elf64_Sym& symbol) {
  if (symbol.st_name >= table.strings.size())
    return damaged("a symbol's name lies outside the table of strings");
  const int type = ELF64_ST_TYPE(symbol.st_info);
  if (symbol.st_shndx == SHN_ABS || type == STT_TLS) return {};
  if (symbol.st_shndx == SHN_UNDEF) {
    // The loader binds a symbol that is not visible to the library itself, which does not have it.
    const bool visible = ELF64_ST_BIND(symbol.st_info) != STB_LOCAL &&
                         ELF64_ST_VISIBILITY(symbol.st_other) == STV_DEFAULT;
    if (visible || symbol.st_name == 0) return {};
    return damaged("its symbol {} is neither defined nor visible", shown(name_of(table, symbol)));
  }
  const std::string_view name = name_of(table, symbol);
  // A symbol may mark the end of a segment.
  const bool loaded =
      std::any_of(image.segments.begin(), image.segments.end(), [&](const Elf64_Phdr& segment) {
        return segment.p_type == PT_LOAD && symbol.st_value - segment.p_vaddr <= segment.p_memsz;
      });
  if (!loaded || (type == STT_GNU_IFUNC && !image.loads(symbol.st_value, 1, PF_X)))
    return damaged("its symbol {} lies outside the loaded segments", shown(name));
  if (name != ATTNRT_PLUGIN_SYMBOL) return {};
  if ((type != STT_OBJECT && type != STT_NOTYPE) || symbol.st_value % alignof(attnrt_plugin) != 0 ||
      !image.loads(symbol.st_value, offsetof(attnrt_plugin, name), PF_R))
    return damaged("its symbol {} is no table of a plugin", name);
  return {};
}

// The versions that symbols may have: the largest index that a version of the library has.
class Versions {
 public:
  Versions(const ElfImage& image, const DynamicTable& dynamic, const SymbolTable& symbols)
      : image_(image), dynamic_(dynamic), symbols_(symbols) {}

  // Follows DT_VERNEED: versions of other libraries, each of which must be one that it needs.
  Result<void> check_needed() {
    return follow<Elf64_Verneed>(
        DT_VERNEED, &Elf64_Verneed::vn_next, [this](std::string_view rest) -> Result<void> {
          const auto need = entry_of<Elf64_Verneed>(rest, 0);
          if (!is_needed(need.vn_file)) return bad();
          return chain<Elf64_Vernaux>(rest, need.vn_aux, &Elf64_Vernaux::vna_next,
                                      [this](std::string_view entry) -> Result<void> {
                                        const auto each = entry_of<Elf64_Vernaux>(entry, 0);
                                        if (each.vna_name >= symbols_.strings.size()) return bad();
                                        note(each.vna_other);
                                        return {};
                                      });
        });
  }

  // Follows DT_VERDEF: versions of the library's own symbols.
  Result<void> check_defined() {
    return follow<Elf64_Verdef>(
        DT_VERDEF, &Elf64_Verdef::vd_next, [this](std::string_view rest) -> Result<void> {
          const auto definition = entry_of<Elf64_Verdef>(rest, 0);
          note(definition.vd_ndx);
          return chain<Elf64_Verdaux>(
              rest, definition.vd_aux, &Elf64_Verdaux::vda_next,
              [this](std::string_view entry) -> Result<void> {
                const auto each = entry_of<Elf64_Verdaux>(entry, 0);
                return each.vda_name < symbols_.strings.size() ? Result<void>() : bad();
              });
        });
  }

  Result<void> check_symbols() const {
    if (!dynamic_.has(DT_VERNEED) && !dynamic_.has(DT_VERDEF)) return {};
    const std::string_view table =
        image_.at(dynamic_.value(DT_VERSYM), symbols_.size() * sizeof(uint16_t));
    if (table.empty()) return bad();
    for (size_t i = 0; i < symbols_.size(); ++i) {
      if ((entry_of<uint16_t>(table, i) & kVersionIndex) > largest_) return bad();
    }
    return {};
  }

 private:
  static tl::unexpected<Error> bad() {
    return damaged("its table of symbol versions leads outside its texts or symbols");
  }

  void note(uint16_t index) { largest_ = std::max<uint16_t>(largest_, index & kVersionIndex); }

  bool is_needed(uint64_t file) const {
    if (file >= symbols_.strings.size()) return false;
    return std::any_of(dynamic_.needed.begin(), dynamic_.needed.end(), [&](uint64_t needed) {
      return symbols_.text(needed) == symbols_.text(file);
    });
  }

  // Calls each with the bytes from each entry of a chain on. `at` is the first one's offset, and
  // `next` its member with the distance to the following one; 0: it is the last.
  template <class Entry, class Next, class Each>
  Result<void> chain(std::string_view table, uint64_t at, Next Entry::*next, const Each& each) {
    for (;;) {
      if (++followed_ > kMostVersions || at > table.size() || table.size() - at < sizeof(Entry))
        return bad();
      table.remove_prefix(at);
      if (auto checked = each(table); !checked) return checked;
      at = entry_of<Entry>(table, 0).*next;
      if (at == 0) return {};
    }
  }

  template <class Entry, class Next, class Each>
  Result<void> follow(Elf64_Sxword tag, Next Entry::*next, const Each& each) {
    if (!dynamic_.has(tag)) return {};
    return chain<Entry>(image_.from(dynamic_.value(tag)), 0, next, each);
  }

  const ElfImage& image_;
  const DynamicTable& dynamic_;
  const SymbolTable& symbols_;
  uint16_t largest_ = VER_NDX_GLOBAL;
  size_t followed_ = 0;
};

}  // namespace

Result<SymbolTable> find_symbols(const ElfImage& image, const DynamicTable& dynamic) {
  const auto count = count_symbols(image, dynamic);
  if (!count) return tl::unexpected(count.error());
  const SymbolTable table{image.at(dynamic.value(DT_SYMTAB), *count * sizeof(Elf64_Sym)),
                          image.at(dynamic.value(DT_STRTAB), dynamic.value(DT_STRSZ))};
  if (table.symbols.empty()) return bad_hash_table();
  for (size_t i = 0; i < table.size(); ++i) {
    if (auto checked = check_symbol(image, table, table[i]); !checked)
      return tl::unexpected(checked.error());
  }
  Versions versions(image, dynamic, table);
  if (auto checked = versions.check_needed(); !checked) return tl::unexpected(checked.error());
  if (auto checked = versions.check_defined(); !checked) return tl::unexpected(checked.error());
  if (auto checked = versions.check_symbols(); !checked) return tl::unexpected(checked.error());
  return table;
}

}  // namespace attnrt::core
