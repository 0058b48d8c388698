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
#include <memory>
#include <optional>

#include "base/file.hpp"
#include "formats/elf_dynamic.hpp"
#include "formats/elf_relocations.hpp"
#include "formats/elf_segments.hpp"
#include "formats/elf_symbols.hpp"

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
  // EINVAL: libelf read at an offset that no file has.
  if (errno != 0 && errno != EINVAL)
    return fail(ATTNRT_INTERNAL, "cannot be read: {}", errno_text());
  return fail(ATTNRT_UNSUPPORTED, "is damaged: {}", elf_errmsg(-1));
}

// Checks the ELF header, and that both tables it names lie in the file, before libelf reads
// anything. start: the file's first bytes; whole: the size of the file.
Result<void> check_header(std::string_view start, uint64_t whole) {
  Elf64_Ehdr header{};
  if (start.size() < SELFMAG || std::memcmp(start.data(), ELFMAG, SELFMAG) != 0) {
    return fail(ATTNRT_UNSUPPORTED, "is not an ELF file; a plugin is a shared library");
  }
  if (start.size() < sizeof header) return damaged("its header lies outside the file");
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
    return damaged("its table of segments lies outside the file");
  }
  if (header.e_shnum == 0 || header.e_shentsize != sizeof(Elf64_Shdr)) {
    return fail(ATTNRT_UNSUPPORTED, "has no sections, so no .attnrt_manifest");
  }
  if (!within(header.e_shoff, uint64_t{header.e_shnum} * sizeof(Elf64_Shdr), whole)) {
    return damaged("its table of sections lies outside the file");
  }
  return {};
}

// Looks for the plugin symbol among those that the library defines.
void note_plugin_symbols(const SymbolTable& symbols, PluginElf& plugin) {
  for (size_t i = 0; i < symbols.size(); ++i) {
    if (symbols[i].st_shndx == SHN_UNDEF) continue;
    const std::string_view name = symbols.text(symbols[i].st_name);
    if (name == ATTNRT_PLUGIN_SYMBOL)
      plugin.exports_plugin = true;
    else if (name.starts_with("attnrt_plugin_v"))
      plugin.other_plugin_symbol = name;
  }
}

// Walks the sections and finds .attnrt_manifest. whole: the size of the file.
Result<GElf_Shdr> find_manifest(Elf* elf, uint64_t whole) {
  errno = 0;
  size_t names = 0;
  GElf_Shdr header{};
  if (elf == nullptr || elf_kind(elf) != ELF_K_ELF || elf_getshdrstrndx(elf, &names) != 0)
    return libelf_error();
  if (Elf_Scn* section = elf_getscn(elf, names);
      section != nullptr && gelf_getshdr(section, &header) != nullptr) {
    if (!within(header.sh_offset, header.sh_size, whole))
      return damaged("a section lies outside the file");
    if (header.sh_size > kLargestNames) {
      return fail(ATTNRT_UNSUPPORTED, "has {} bytes of section names; at most {} are read",
                  header.sh_size, kLargestNames);
    }
  }
  std::optional<GElf_Shdr> manifest;
  for (Elf_Scn* section = nullptr; (section = elf_nextscn(elf, section)) != nullptr;) {
    if (gelf_getshdr(section, &header) == nullptr) return libelf_error();
    if (header.sh_type == SHT_NOBITS) continue;
    if (!within(header.sh_offset, header.sh_size, whole))
      return damaged("a section lies outside the file");
    errno = 0;
    const char* name = elf_strptr(elf, names, header.sh_name);
    if (name == nullptr && errno != 0) return libelf_error();
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
    if (got < 0) return reading_error("cannot be read");
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
  const ElfImage image{bytes, segments_of(bytes)};
  if (auto checked = check_segments(image.segments, bytes.size()); !checked)
    return tl::unexpected(checked.error());
  if (auto checked = check_segment_contents(image); !checked)
    return tl::unexpected(checked.error());
  const auto dynamic = read_dynamic(image);
  if (!dynamic) return tl::unexpected(dynamic.error());
  const auto symbols = find_symbols(image, *dynamic);
  if (!symbols) return tl::unexpected(symbols.error());
  if (auto checked = check_relocations(image, *dynamic, *symbols); !checked)
    return tl::unexpected(checked.error());
  auto links = read_links(image);
  if (!links) return tl::unexpected(links.error());
  elf_version(EV_CURRENT);
  errno = 0;
  // elf_memory asks for a writable pointer; nothing writes through it.
  const ElfHandle elf(elf_memory(const_cast<char*>(bytes.data()), bytes.size()));
  if (!elf) return libelf_error();
  const auto manifest = find_manifest(elf.get(), bytes.size());
  if (!manifest) return tl::unexpected(manifest.error());
  PluginElf plugin;
  plugin.links = *std::move(links);
  note_plugin_symbols(*symbols, plugin);
  plugin.manifest = bytes.substr(manifest->sh_offset, manifest->sh_size);
  return plugin;
}

}  // namespace attnrt::core
