// runtime/src/formats/elf_file.cpp: reads a plugin's ELF file; the only user of libelf
#include "formats/elf_file.hpp"

#include <attnrt/plugin.h>
#include <gelf.h>
#include <libelf.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <vector>

namespace attnrt::core {
namespace {

constexpr size_t kLargestManifest = 256 << 10;  // bytes; a larger section is refused
#if defined(__x86_64__)
constexpr int kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr int kMachine = EM_AARCH64;
#elif defined(__riscv)
constexpr int kMachine = EM_RISCV;
#else
#error "set kMachine to this machine's ELF number, EM_*"
#endif

struct ElfEnd {
  void operator()(Elf* elf) const { elf_end(elf); }
};
using ElfHandle = std::unique_ptr<Elf, ElfEnd>;

bool within(uint64_t offset, uint64_t size, uint64_t whole) {
  return offset <= whole && size <= whole - offset;
}

tl::unexpected<Error> damaged(const char* what) {
  return fail(ATTNRT_UNSUPPORTED, "is damaged: {} lies outside the file; copy it again", what);
}

// Checks the ELF header, and that both tables it names lie in the file, before libelf reads
// anything.
Result<void> check_header(std::string_view bytes) {
  Elf64_Ehdr header{};
  if (bytes.size() < SELFMAG || std::memcmp(bytes.data(), ELFMAG, SELFMAG) != 0) {
    return fail(ATTNRT_UNSUPPORTED, "is not an ELF file; a plugin is a shared library");
  }
  if (bytes.size() < sizeof header) return damaged("its header");
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_machine != kMachine) {
    return fail(ATTNRT_UNSUPPORTED,
                "is built for another machine (ELF class {}, machine {}; expected 2, {})",
                header.e_ident[EI_CLASS], header.e_machine, kMachine);
  }
  if (header.e_type != ET_DYN)
    return fail(ATTNRT_UNSUPPORTED, "is not a shared library (ELF type {})", header.e_type);
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0) {
    return fail(ATTNRT_UNSUPPORTED, "is damaged: it has no segments");
  }
  if (!within(header.e_phoff, uint64_t{header.e_phnum} * sizeof(Elf64_Phdr), bytes.size())) {
    return damaged("its table of segments");
  }
  if (header.e_shnum == 0 || header.e_shentsize != sizeof(Elf64_Shdr)) {
    return fail(ATTNRT_UNSUPPORTED, "has no sections, so no .attnrt_manifest");
  }
  if (!within(header.e_shoff, uint64_t{header.e_shnum} * sizeof(Elf64_Shdr), bytes.size())) {
    return damaged("its table of sections");
  }
  return {};
}

std::vector<Elf64_Phdr> segments_of(std::string_view bytes) {
  Elf64_Ehdr header{};
  std::memcpy(&header, bytes.data(), sizeof header);
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  std::memcpy(segments.data(), bytes.data() + header.e_phoff, segments.size() * sizeof segments[0]);
  return segments;
}

// Checks the addresses that the loader follows before any code runs: each table that the dynamic
// table names must lie in a loaded segment, and so must its last byte if the dynamic table gives
// its size.
Result<void> check_dynamic(std::string_view bytes, const std::vector<Elf64_Phdr>& segments,
                           const Elf64_Phdr& dynamic) {
  struct Table {
    Elf64_Sxword address, size;  // the tags that give them; size is DT_NULL if no tag does
  };
  constexpr Elf64_Sxword kRelrSize = 35, kRelr = 36;  // older versions of <elf.h> lack these
  static constexpr Table kTables[] = {{DT_HASH, DT_NULL},
                                      {DT_GNU_HASH, DT_NULL},
                                      {DT_STRTAB, DT_STRSZ},
                                      {DT_SYMTAB, DT_NULL},
                                      {DT_RELA, DT_RELASZ},
                                      {DT_REL, DT_RELSZ},
                                      {DT_JMPREL, DT_PLTRELSZ},
                                      {kRelr, kRelrSize},
                                      {DT_INIT_ARRAY, DT_INIT_ARRAYSZ},
                                      {DT_FINI_ARRAY, DT_FINI_ARRAYSZ},
                                      {DT_INIT, DT_NULL},
                                      {DT_FINI, DT_NULL},
                                      {DT_VERSYM, DT_NULL},
                                      {DT_VERNEED, DT_NULL},
                                      {DT_VERDEF, DT_NULL}};
  std::map<Elf64_Sxword, uint64_t> entries;
  for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic.p_filesz; at += sizeof(Elf64_Dyn)) {
    Elf64_Dyn entry{};
    std::memcpy(&entry, bytes.data() + dynamic.p_offset + at, sizeof entry);
    if (entry.d_tag == DT_NULL) break;
    entries[entry.d_tag] = entry.d_un.d_val;  // the last one counts, as it does to the loader
  }
  for (const Table& table : kTables) {
    const auto address = entries.find(table.address), size = entries.find(table.size);
    if (address == entries.end()) continue;
    const uint64_t extent = size == entries.end() ? 1 : std::max<uint64_t>(size->second, 1);
    const bool loaded =
        std::any_of(segments.begin(), segments.end(), [&](const Elf64_Phdr& segment) {
          const uint64_t offset = address->second - segment.p_vaddr;
          return segment.p_type == PT_LOAD && offset < segment.p_memsz &&
                 extent <= segment.p_memsz - offset;
        });
    if (!loaded)
      return fail(
          ATTNRT_UNSUPPORTED,
          "is damaged: its dynamic table points outside the loaded segments; copy it again");
  }
  return {};
}

Result<void> check_segments(std::string_view bytes) {
  const std::vector<Elf64_Phdr> segments = segments_of(bytes);
  bool loads = false;
  for (const Elf64_Phdr& segment : segments) {
    loads = loads || segment.p_type == PT_LOAD;
    const bool in_file =
        segment.p_type == PT_LOAD || segment.p_type == PT_DYNAMIC || segment.p_type == PT_NOTE;
    if (in_file && !within(segment.p_offset, segment.p_filesz, bytes.size()))
      return damaged("a segment");
    if (segment.p_type == PT_LOAD && segment.p_filesz > segment.p_memsz)
      return damaged("a segment");
  }
  if (!loads) return fail(ATTNRT_UNSUPPORTED, "is damaged: it has nothing to load");
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_type != PT_DYNAMIC) continue;
    if (auto checked = check_dynamic(bytes, segments, segment); !checked) return checked;
  }
  return {};
}

// Looks for the plugin symbol among the symbols that the library defines in .dynsym.
void read_symbols(Elf* elf, Elf_Scn* section, const GElf_Shdr& header, PluginElf& plugin) {
  Elf_Data* data = elf_getdata(section, nullptr);
  if (data == nullptr || header.sh_entsize == 0) return;
  const size_t count = data->d_size / sizeof(Elf64_Sym);
  for (size_t i = 0; i < count; ++i) {
    GElf_Sym symbol{};
    if (gelf_getsym(data, static_cast<int>(i), &symbol) == nullptr || symbol.st_shndx == SHN_UNDEF)
      continue;
    const char* name = elf_strptr(elf, header.sh_link, symbol.st_name);
    if (name == nullptr) continue;
    if (std::strcmp(name, ATTNRT_PLUGIN_SYMBOL) == 0)
      plugin.exports_plugin = true;
    else if (std::strncmp(name, "attnrt_plugin_v", 15) == 0)
      plugin.other_plugin_symbol = name;
  }
}

}  // namespace

Result<PluginElf> read_plugin_elf(std::string_view bytes) {
  if (auto checked = check_header(bytes); !checked) return tl::unexpected(checked.error());
  if (auto checked = check_segments(bytes); !checked) return tl::unexpected(checked.error());
  elf_version(EV_CURRENT);
  // elf_memory asks for a writable pointer; nothing writes through it.
  const ElfHandle elf(elf_memory(const_cast<char*>(bytes.data()), bytes.size()));
  size_t names = 0;
  if (!elf || elf_kind(elf.get()) != ELF_K_ELF || elf_getshdrstrndx(elf.get(), &names) != 0) {
    return fail(ATTNRT_UNSUPPORTED, "is damaged: {}", elf_errmsg(-1));
  }
  PluginElf plugin;
  bool has_manifest = false;
  for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf.get(), section)) != nullptr;) {
    GElf_Shdr header{};
    if (gelf_getshdr(section, &header) == nullptr) return damaged("a section");
    if (header.sh_type == SHT_NOBITS) continue;
    if (!within(header.sh_offset, header.sh_size, bytes.size())) return damaged("a section");
    if (header.sh_type == SHT_DYNSYM) read_symbols(elf.get(), section, header, plugin);
    const char* name = elf_strptr(elf.get(), names, header.sh_name);
    if (name == nullptr || std::strcmp(name, ".attnrt_manifest") != 0) continue;
    if (header.sh_size > kLargestManifest) {
      return fail(ATTNRT_UNSUPPORTED, "has a manifest of {} bytes; at most {} are read",
                  header.sh_size, kLargestManifest);
    }
    plugin.manifest.assign(bytes.data() + header.sh_offset, header.sh_size);
    has_manifest = true;
  }
  if (!has_manifest)
    return fail(ATTNRT_UNSUPPORTED,
                "has no section .attnrt_manifest; is it an attnrt plugin? attnrt_add_plugin embeds "
                "the section, as does objcopy (see docs/manifest.md)");
  return plugin;
}

}  // namespace attnrt::core
