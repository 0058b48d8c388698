// runtime/src/formats/elf_file.cpp: reads a plugin's ELF file; the only user of libelf
#include "formats/elf_file.hpp"

#include <attnrt/plugin.h>
#include <gelf.h>
#include <libelf.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>

#include "base/file.hpp"
#include "formats/elf_relocations.hpp"

namespace attnrt::core {
namespace {

constexpr size_t kLargestManifest = 256 << 10;  // bytes; a larger section is refused
constexpr size_t kLargestNames = 1 << 20;       // bytes of the sections' names
constexpr size_t kFirstPage = 4096;             // bytes
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

// Makes an error of libelf's last failure. REQUIRES: errno was 0 before the call that failed.
tl::unexpected<Error> libelf_error() {
  if (errno == ENOMEM) return fail(ATTNRT_OUT_OF_MEMORY, "cannot be examined: out of host memory");
  if (could_not_look(errno)) return fail(ATTNRT_INTERNAL, "cannot be read: {}", errno_text());
  return fail(ATTNRT_UNSUPPORTED, "is damaged: {}", elf_errmsg(-1));
}

tl::unexpected<Error> damaged(const char* what) {
  return fail(ATTNRT_UNSUPPORTED, "is damaged: {} lies outside the file; copy it again", what);
}

// Checks the ELF header, and that both tables it names lie in the file, before libelf reads
// anything. start: the file's first bytes; whole: the size of the file.
Result<void> check_header(std::string_view start, uint64_t whole) {
  Elf64_Ehdr header{};
  if (start.size() < SELFMAG || std::memcmp(start.data(), ELFMAG, SELFMAG) != 0) {
    return fail(ATTNRT_UNSUPPORTED, "is not an ELF file; a plugin is a shared library");
  }
  if (start.size() < sizeof header) return damaged("its header");
  std::memcpy(&header, start.data(), sizeof header);
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
  if (!within(header.e_phoff, uint64_t{header.e_phnum} * sizeof(Elf64_Phdr), whole)) {
    return damaged("its table of segments");
  }
  if (header.e_shnum == 0 || header.e_shentsize != sizeof(Elf64_Shdr)) {
    return fail(ATTNRT_UNSUPPORTED, "has no sections, so no .attnrt_manifest");
  }
  if (!within(header.e_shoff, uint64_t{header.e_shnum} * sizeof(Elf64_Shdr), whole)) {
    return damaged("its table of sections");
  }
  return {};
}

// Checks the addresses that the loader follows before any code runs: each table that the dynamic
// table names must lie in a loaded segment, and so must its last byte if the dynamic table gives
// its size. Then checks what the relocations write to.
Result<void> check_dynamic(std::string_view bytes, const std::vector<Elf64_Phdr>& segments,
                           const Elf64_Phdr& dynamic) {
  struct Table {
    Elf64_Sxword address, size;  // the tags that give them; size is DT_NULL if no tag does
  };
  static constexpr Table kTables[] = {{DT_HASH, DT_NULL},
                                      {DT_GNU_HASH, DT_NULL},
                                      {DT_STRTAB, DT_STRSZ},
                                      {DT_SYMTAB, DT_NULL},
                                      {DT_RELA, DT_RELASZ},
                                      {DT_REL, DT_RELSZ},
                                      {DT_JMPREL, DT_PLTRELSZ},
                                      {kDtRelr, kDtRelrSize},
                                      {DT_INIT_ARRAY, DT_INIT_ARRAYSZ},
                                      {DT_FINI_ARRAY, DT_FINI_ARRAYSZ},
                                      {DT_INIT, DT_NULL},
                                      {DT_FINI, DT_NULL},
                                      {DT_VERSYM, DT_NULL},
                                      {DT_VERNEED, DT_NULL},
                                      {DT_VERDEF, DT_NULL}};
  DynamicTable entries;
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
          return segment.p_type == PT_LOAD && holds(segment, address->second, extent);
        });
    if (!loaded)
      return fail(
          ATTNRT_UNSUPPORTED,
          "is damaged: its dynamic table points outside the loaded segments; copy it again");
  }
  return check_relocations(bytes, segments, entries);
}

// The loader makes the stack of the whole process executable for a library that asks for it, or
// that does not say that it needs no such stack.
Result<void> check_stack(const std::vector<Elf64_Phdr>& segments) {
  const auto stack = std::find_if(segments.begin(), segments.end(), [](const Elf64_Phdr& segment) {
    return segment.p_type == PT_GNU_STACK;
  });
  if (stack != segments.end() && (stack->p_flags & PF_X) == 0) return {};
  return fail(ATTNRT_UNSUPPORTED, "{} an executable stack; link it with -z noexecstack",
              stack == segments.end() ? "has no PT_GNU_STACK, and so gets" : "asks for");
}

// Checks the sizes and places of segments. whole: the size of the file.
Result<void> check_segments(const std::vector<Elf64_Phdr>& segments, uint64_t whole) {
  bool loads = false;
  for (const Elf64_Phdr& segment : segments) {
    loads = loads || segment.p_type == PT_LOAD;
    const bool in_file =
        segment.p_type == PT_LOAD || segment.p_type == PT_DYNAMIC || segment.p_type == PT_NOTE;
    if (in_file && !within(segment.p_offset, segment.p_filesz, whole)) return damaged("a segment");
    if (segment.p_type == PT_LOAD && segment.p_filesz > segment.p_memsz) {
      return fail(ATTNRT_UNSUPPORTED,
                  "is damaged: a segment has {} bytes in the file and {} in memory; copy it again",
                  segment.p_filesz, segment.p_memsz);
    }
  }
  if (!loads) return fail(ATTNRT_UNSUPPORTED, "is damaged: it has nothing to load");
  return check_stack(segments);
}

// Looks for the plugin symbol among the symbols that the library defines in .dynsym.
Result<void> read_symbols(Elf* elf, Elf_Scn* section, const GElf_Shdr& header, PluginElf& plugin) {
  errno = 0;
  Elf_Data* data = elf_getdata(section, nullptr);
  if (data == nullptr && could_not_look(errno)) return libelf_error();
  if (data == nullptr || header.sh_entsize == 0) return {};
  const size_t count = data->d_size / sizeof(Elf64_Sym);
  for (size_t i = 0; i < count; ++i) {
    GElf_Sym symbol{};
    if (gelf_getsym(data, static_cast<int>(i), &symbol) == nullptr || symbol.st_shndx == SHN_UNDEF)
      continue;
    errno = 0;
    const char* name = elf_strptr(elf, header.sh_link, symbol.st_name);
    if (name == nullptr && could_not_look(errno)) return libelf_error();
    if (name == nullptr) continue;
    if (std::strcmp(name, ATTNRT_PLUGIN_SYMBOL) == 0)
      plugin.exports_plugin = true;
    else if (std::strncmp(name, "attnrt_plugin_v", 15) == 0)
      plugin.other_plugin_symbol = name;
  }
  return {};
}

// Walks the sections and finds .attnrt_manifest. each, if given, is called for each section that
// lies in the file. whole: the size of the file.
Result<GElf_Shdr> find_manifest(
    Elf* elf, uint64_t whole,
    const std::function<Result<void>(Elf_Scn*, const GElf_Shdr&)>& each = {}) {
  errno = 0;
  size_t names = 0;
  GElf_Shdr header{};
  if (elf == nullptr || elf_kind(elf) != ELF_K_ELF || elf_getshdrstrndx(elf, &names) != 0)
    return libelf_error();
  if (Elf_Scn* section = elf_getscn(elf, names); section != nullptr &&
                                                 gelf_getshdr(section, &header) != nullptr &&
                                                 header.sh_size > kLargestNames) {
    return fail(ATTNRT_UNSUPPORTED, "has {} bytes of section names; at most {} are read",
                header.sh_size, kLargestNames);
  }
  std::optional<GElf_Shdr> manifest;
  for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf, section)) != nullptr;) {
    if (gelf_getshdr(section, &header) == nullptr) return libelf_error();
    if (header.sh_type == SHT_NOBITS) continue;
    if (!within(header.sh_offset, header.sh_size, whole)) return damaged("a section");
    if (each) {
      if (auto done = each(section, header); !done) return tl::unexpected(done.error());
    }
    errno = 0;
    const char* name = elf_strptr(elf, names, header.sh_name);
    if (name == nullptr && could_not_look(errno)) return libelf_error();
    if (name == nullptr || std::strcmp(name, ".attnrt_manifest") != 0) continue;
    if (header.sh_size > kLargestManifest) {
      return fail(ATTNRT_UNSUPPORTED, "has a manifest of {} bytes; at most {} are read",
                  header.sh_size, kLargestManifest);
    }
    manifest = header;
  }
  if (manifest) return *manifest;
  return fail(ATTNRT_UNSUPPORTED,
              "has no section .attnrt_manifest; is it an attnrt plugin? attnrt_add_plugin embeds "
              "the section, as does objcopy (see docs/manifest.md)");
}

// Reads part of a file. REQUIRES: the range lies in the file; if it does not any more, the file
// shrank.
Result<void> read_at(int file, uint64_t offset, void* to, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t got =
        pread(file, static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error("cannot be read");
    if (got == 0) return fail(ATTNRT_UNSUPPORTED, "shrank while it was read");
    done += static_cast<size_t>(got);
  }
  return {};
}

}  // namespace

std::vector<Elf64_Phdr> segments_of(std::string_view bytes) {
  Elf64_Ehdr header{};
  std::memcpy(&header, bytes.data(), sizeof header);
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  std::memcpy(segments.data(), bytes.data() + header.e_phoff, segments.size() * sizeof segments[0]);
  return segments;
}

Result<void> check_plugin_headers(int file, uint64_t bytes) {
  if (bytes == 0) return fail(ATTNRT_UNSUPPORTED, "is empty");
  std::array<char, kFirstPage> page{};
  const size_t start = std::min<uint64_t>(bytes, page.size());
  if (auto read = read_at(file, 0, page.data(), start); !read) return read;
  if (auto checked = check_header({page.data(), start}, bytes); !checked) return checked;
  Elf64_Ehdr header{};
  std::memcpy(&header, page.data(), sizeof header);
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  if (auto read =
          read_at(file, header.e_phoff, segments.data(), segments.size() * sizeof segments[0]);
      !read) {
    return read;
  }
  if (auto checked = check_segments(segments, bytes); !checked) return checked;
  elf_version(EV_CURRENT);
  errno = 0;
  const ElfHandle elf(elf_begin(file, ELF_C_READ, nullptr));
  if (!elf) return libelf_error();
  if (const auto manifest = find_manifest(elf.get(), bytes); !manifest)
    return tl::unexpected(manifest.error());
  return {};
}

Result<PluginElf> read_plugin_elf(std::string_view bytes) {
  if (auto checked = check_header(bytes, bytes.size()); !checked)
    return tl::unexpected(checked.error());
  const std::vector<Elf64_Phdr> segments = segments_of(bytes);
  if (auto checked = check_segments(segments, bytes.size()); !checked)
    return tl::unexpected(checked.error());
  PluginElf plugin;
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_type != PT_DYNAMIC) continue;
    if (auto checked = check_dynamic(bytes, segments, segment); !checked)
      return tl::unexpected(checked.error());
    auto links = read_links(bytes, segments, segment);
    if (!links) return tl::unexpected(links.error());
    plugin.links = *std::move(links);  // of the last one, as the loader takes it
  }
  elf_version(EV_CURRENT);
  errno = 0;
  // elf_memory asks for a writable pointer; nothing writes through it.
  const ElfHandle elf(elf_memory(const_cast<char*>(bytes.data()), bytes.size()));
  if (!elf) return libelf_error();
  const auto manifest = find_manifest(
      elf.get(), bytes.size(), [&](Elf_Scn* section, const GElf_Shdr& header) -> Result<void> {
        if (header.sh_type != SHT_DYNSYM) return {};
        return read_symbols(elf.get(), section, header, plugin);
      });
  if (!manifest) return tl::unexpected(manifest.error());
  plugin.manifest.assign(bytes.data() + manifest->sh_offset, manifest->sh_size);
  return plugin;
}

}  // namespace attnrt::core
