// runtime/src/formats/elf_dynamic.cpp: reads and checks the dynamic table that the loader follows
#include "formats/elf_dynamic.hpp"

#include <algorithm>

namespace attnrt::core {
namespace {

// Each table, its tags, and the size of its entries.
struct Table {
  const char* name;
  Elf64_Sxword address, size;  // the tags that give them; size is DT_NULL if no tag does
  uint64_t entry = 1;          // bytes; the size is a multiple
};
constexpr Table kTables[] = {
    {"table of strings", DT_STRTAB, DT_STRSZ},
    {"table of symbols", DT_SYMTAB, DT_NULL},
    {"hash table", DT_HASH, DT_NULL},
    {"hash table", DT_GNU_HASH, DT_NULL},
    {"table of relocations", DT_RELA, DT_RELASZ, sizeof(Elf64_Rela)},
    {"table of relocations", DT_JMPREL, DT_PLTRELSZ, sizeof(Elf64_Rela)},
    {"table of relocations", kDtRelr, kDtRelrSize, sizeof(uint64_t)},
    {"table of relocations", DT_REL, DT_RELSZ, sizeof(Elf64_Rel)},
    {"array of initialisers", DT_INIT_ARRAY, DT_INIT_ARRAYSZ, sizeof(uint64_t)},
    {"array of finalisers", DT_FINI_ARRAY, DT_FINI_ARRAYSZ, sizeof(uint64_t)},
    {"initialiser", DT_INIT, DT_NULL},
    {"finaliser", DT_FINI, DT_NULL},
    {"table of slots", DT_PLTGOT, DT_NULL},
    {"table of symbol versions", DT_VERSYM, DT_NULL},
    {"table of symbol versions", DT_VERNEED, DT_NULL},
    {"table of symbol versions", DT_VERDEF, DT_NULL}};

// Tags whose entry the loader uses without a look if it finds the first one.
constexpr struct {
  Elf64_Sxword found, needs;
} kNeeds[] = {{DT_STRTAB, DT_STRSZ},
              {DT_RELA, DT_RELASZ},
              {DT_RELA, DT_RELAENT},
              {DT_RELASZ, DT_RELA},
              {DT_JMPREL, DT_PLTRELSZ},
              {DT_JMPREL, DT_PLTREL},
              {DT_PLTRELSZ, DT_JMPREL},
              {DT_PLTREL, DT_JMPREL},
              {kDtRelr, kDtRelrSize},
              {kDtRelr, kDtRelrEntry},
              {kDtRelrSize, kDtRelr},
              {DT_INIT_ARRAY, DT_INIT_ARRAYSZ},
              {DT_INIT_ARRAYSZ, DT_INIT_ARRAY},
              {DT_FINI_ARRAY, DT_FINI_ARRAYSZ},
              {DT_FINI_ARRAYSZ, DT_FINI_ARRAY},
              {DT_VERNEED, DT_VERSYM},
              {DT_VERDEF, DT_VERSYM}};

// Values that the loader asserts, and ends the process if they differ.
constexpr struct {
  Elf64_Sxword tag;
  uint64_t value;
} kFixed[] = {{DT_RELAENT, sizeof(Elf64_Rela)},
              {DT_SYMENT, sizeof(Elf64_Sym)},
              {DT_PLTREL, DT_RELA},
              {kDtRelrEntry, sizeof(uint64_t)}};

Result<DynamicTable> read_entries(const ElfImage& image) {
  const auto segment =
      std::find_if(image.segments.begin(), image.segments.end(),
                   [](const Elf64_Phdr& each) { return each.p_type == PT_DYNAMIC; });
  const std::string_view table = image.bytes.substr(segment->p_offset, segment->p_filesz);
  DynamicTable dynamic;
  for (size_t i = 0; i < table.size() / sizeof(Elf64_Dyn); ++i) {
    const auto entry = entry_of<Elf64_Dyn>(table, i);
    if (entry.d_tag == DT_NULL) return dynamic;
    dynamic.values[entry.d_tag] = entry.d_un.d_val;
    if (entry.d_tag == DT_NEEDED) dynamic.needed.push_back(entry.d_un.d_val);
  }
  return damaged("its dynamic table has no end");
}

Result<void> check_tables(const ElfImage& image, const DynamicTable& dynamic) {
  for (const Table& table : kTables) {
    if (!dynamic.has(table.address)) continue;
    const uint64_t size = dynamic.value(table.size);
    if (!image.loads(dynamic.value(table.address), std::max<uint64_t>(size, 1), PF_R))
      return damaged("its dynamic table points outside the loaded segments");
    if (size % table.entry != 0)
      return damaged("its {} has {} bytes, which is no multiple of {}", table.name, size,
                     table.entry);
  }
  if (dynamic.has(DT_VERSYM) && !dynamic.has(DT_VERNEED) && !dynamic.has(DT_VERDEF))
    return damaged("its symbols have versions that its dynamic table does not name");
  for (const auto& [found, needs] : kNeeds) {
    if (dynamic.has(found) && !dynamic.has(needs))
      return damaged("its dynamic table has an entry {:#x}, but no {:#x}", found, needs);
  }
  for (const auto& [tag, value] : kFixed) {
    if (dynamic.has(tag) && dynamic.value(tag) != value)
      return damaged("its dynamic table says {} for {:#x}, expected {}", dynamic.value(tag), tag,
                     value);
  }
  return {};
}

Result<void> check_strings(const ElfImage& image, const DynamicTable& dynamic) {
  if (!dynamic.has(DT_STRTAB) || !dynamic.has(DT_SYMTAB))
    return damaged("its dynamic table names no symbols");
  const std::string_view strings = image.at(dynamic.value(DT_STRTAB), dynamic.value(DT_STRSZ));
  if (strings.empty() || strings.back() != '\0')
    return damaged("its table of strings is not in the file, or has no end");
  std::vector<uint64_t> offsets = dynamic.needed;
  for (const Elf64_Sxword tag : {DT_SONAME, DT_RPATH, DT_RUNPATH, DT_AUXILIARY, DT_FILTER})
    offsets.push_back(dynamic.value(tag));
  for (const uint64_t offset : offsets) {
    if (offset >= strings.size())
      return damaged("its dynamic table names a text that is not there");
  }
  return {};
}

}  // namespace

Result<DynamicTable> read_dynamic(const ElfImage& image) {
  auto dynamic = read_entries(image);
  if (!dynamic) return dynamic;
  for (const auto check : {check_tables, check_strings}) {
    if (auto checked = check(image, *dynamic); !checked) return tl::unexpected(checked.error());
  }
  for (const Elf64_Sxword tag : {DT_INIT, DT_FINI}) {
    if (dynamic->has(tag) && !image.loads(dynamic->value(tag), 1, PF_X))
      return damaged("its {} is not code", tag == DT_INIT ? "initialiser" : "finaliser");
  }
  if (dynamic->has(DT_TEXTREL) || (dynamic->value(DT_FLAGS) & DF_TEXTREL) != 0) {
    return fail(ATTNRT_UNSUPPORTED,
                "has relocations that write to code; build it with -fPIC, or copy it again");
  }
  return dynamic;
}

}  // namespace attnrt::core
