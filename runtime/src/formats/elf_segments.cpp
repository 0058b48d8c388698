// runtime/src/formats/elf_segments.cpp: checks what a library's program headers make the loader do
#include "formats/elf_segments.hpp"

#include <unistd.h>

#include <algorithm>
#include <bit>

namespace attnrt::core {
namespace {

// The loader keeps an array of them on the stack. Linkers write about a dozen.
constexpr size_t kMostSegments = 128;
constexpr uint64_t kLargestSpan = uint64_t{2} << 30;  // bytes; code reaches its data within 2 GiB
constexpr uint64_t kLargestAlignment = uint64_t{1} << 30;  // bytes
constexpr uint64_t kLargestTls = uint64_t{16} << 20;       // bytes that each thread pays
constexpr uint64_t kNoteHeader = sizeof(Elf64_Nhdr);

bool within(uint64_t offset, uint64_t size, uint64_t whole) {
  return offset <= whole && size <= whole - offset;
}

uint64_t rounded_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

Result<void> check_alignment(const Elf64_Phdr& segment) {
  if (segment.p_align <= 1) return {};
  if (!std::has_single_bit(segment.p_align) || segment.p_align > kLargestAlignment)
    return damaged("a segment is aligned to {} bytes", segment.p_align);
  return {};
}

// Checks the PT_LOAD segments. The loader takes their order for granted and reserves memory from
// the first to the end of the last. Two that share a page of memory overwrite each other.
Result<void> check_loads(const std::vector<Elf64_Phdr>& segments) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const Elf64_Phdr* first = nullptr;
  uint64_t end = 0;
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_type != PT_LOAD) continue;
    if ((segment.p_flags & (PF_W | PF_X)) == (PF_W | PF_X)) {
      return fail(ATTNRT_UNSUPPORTED,
                  "has a segment that may be written and executed; link it without -N and "
                  "--omagic");
    }
    if (segment.p_filesz > segment.p_memsz) {
      return damaged("a segment has {} bytes in the file and {} in memory", segment.p_filesz,
                     segment.p_memsz);
    }
    if ((segment.p_flags & PF_W) == 0 && segment.p_filesz != segment.p_memsz)
      return damaged("a segment that is not writable has {} bytes in the file and {} in memory",
                     segment.p_filesz, segment.p_memsz);
    if (first != nullptr && segment.p_vaddr / page * page < rounded_up(end, page))
      return damaged("its segments overlap, or are not in the order of their addresses");
    if (first == nullptr) first = &segment;
    if (segment.p_memsz > kLargestSpan ||
        segment.p_vaddr - first->p_vaddr > kLargestSpan - segment.p_memsz ||
        segment.p_vaddr > uint64_t{1} << 46) {
      return fail(ATTNRT_UNSUPPORTED,
                  "takes more than {} bytes of memory when it is loaded; allocate large memory "
                  "when it is used, or copy the file again",
                  kLargestSpan);
    }
    end = segment.p_vaddr + segment.p_memsz;
  }
  if (first == nullptr) return fail(ATTNRT_UNSUPPORTED, "is damaged: it has nothing to load");
  return {};
}

// Whether the file's part of a segment is loaded as the part of a PT_LOAD segment with these flags.
bool is_loaded(const std::vector<Elf64_Phdr>& segments, const Elf64_Phdr& part, uint32_t flags) {
  return std::any_of(segments.begin(), segments.end(), [&](const Elf64_Phdr& segment) {
    return segment.p_type == PT_LOAD && (segment.p_flags & flags) == flags &&
           part.p_vaddr >= segment.p_vaddr &&
           within(part.p_vaddr - segment.p_vaddr, part.p_filesz, segment.p_filesz) &&
           part.p_offset - segment.p_offset == part.p_vaddr - segment.p_vaddr;
  });
}

// The loader writes into the dynamic table, unless the header says that it is read-only.
Result<void> check_dynamic_segment(const std::vector<Elf64_Phdr>& segments) {
  const auto is_dynamic = [](const Elf64_Phdr& segment) { return segment.p_type == PT_DYNAMIC; };
  const auto dynamic = std::find_if(segments.begin(), segments.end(), is_dynamic);
  if (dynamic == segments.end() || std::count_if(dynamic, segments.end(), is_dynamic) != 1)
    return damaged("it has {} dynamic tables", dynamic == segments.end() ? "no" : "several");
  const uint32_t flags = PF_R | (dynamic->p_flags & PF_W);
  if (!is_loaded(segments, *dynamic, flags))
    return damaged("its dynamic table lies outside the loaded segments");
  return {};
}

// Thread-local variables: the loader copies their initial values for each thread.
Result<void> check_tls(const std::vector<Elf64_Phdr>& segments) {
  size_t count = 0;
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_type != PT_TLS) continue;
    if (++count > 1) return damaged("it has several segments of thread-local variables");
    if (segment.p_memsz > kLargestTls) {
      return fail(ATTNRT_UNSUPPORTED,
                  "has {} bytes of thread-local variables; at most {} are accepted",
                  segment.p_memsz, kLargestTls);
    }
    if (segment.p_filesz > segment.p_memsz ||
        (segment.p_filesz > 0 && !is_loaded(segments, segment, PF_R)))
      return damaged("its thread-local variables lie outside the loaded segments");
  }
  return {};
}

// What becomes read-only after relocation must be data: it loses permission to execute, too.
Result<void> check_relro(const std::vector<Elf64_Phdr>& segments) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  for (const Elf64_Phdr& relro : segments) {
    if (relro.p_type != PT_GNU_RELRO || relro.p_memsz == 0) continue;
    const bool inside =
        std::any_of(segments.begin(), segments.end(), [&](const Elf64_Phdr& segment) {
          if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) == 0) return false;
          // Linkers may round the end up to a page.
          const uint64_t end = rounded_up(segment.p_vaddr + segment.p_memsz, page);
          return relro.p_vaddr >= segment.p_vaddr && relro.p_vaddr < end &&
                 relro.p_memsz <= end - relro.p_vaddr;
        });
    if (!inside)
      return damaged("what becomes read-only after relocation is not in a writable segment");
  }
  return {};
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

// Checks that each note ends within its segment. The loader follows their sizes.
Result<void> check_notes(std::string_view notes, uint64_t alignment) {
  for (uint64_t at = 0; notes.size() - at > kNoteHeader;) {
    const auto note = entry_of<Elf64_Nhdr>(notes.substr(at), 0);
    const uint64_t text = rounded_up(kNoteHeader + note.n_namesz, alignment);
    const uint64_t end = text + note.n_descsz;
    if (end > notes.size() - at) return damaged("a note reaches past the end of its segment");
    at += std::min(rounded_up(end, alignment), notes.size() - at);
  }
  return {};
}

// Checks that each section which is loaded lies in a segment with the permissions that it needs,
// and at the place that the segment gives it. Linkers derive segments from sections.
Result<void> check_sections(const ElfImage& image) {
  const auto header = entry_of<Elf64_Ehdr>(image.bytes, 0);
  for (size_t i = 0; i < header.e_shnum; ++i) {
    const auto section = entry_of<Elf64_Shdr>(image.bytes.substr(header.e_shoff), i);
    const bool has_bytes = section.sh_type != SHT_NOBITS;
    const bool counts = (section.sh_flags & SHF_ALLOC) != 0 && section.sh_size > 0 &&
                        (has_bytes || (section.sh_flags & SHF_TLS) == 0);
    if (!counts) continue;
    const uint32_t flags = PF_R | ((section.sh_flags & SHF_WRITE) != 0 ? PF_W : 0U) |
                           ((section.sh_flags & SHF_EXECINSTR) != 0 ? PF_X : 0U);
    Elf64_Phdr part{};
    part.p_offset = section.sh_offset;
    part.p_vaddr = section.sh_addr;
    part.p_filesz = section.sh_size;
    const bool loaded = has_bytes ? is_loaded(image.segments, part, flags)
                                  : image.loads(section.sh_addr, section.sh_size, flags);
    if (!loaded) return damaged("its section {} is not in a segment of its kind", i);
  }
  return {};
}

}  // namespace

Result<void> check_segments(const std::vector<Elf64_Phdr>& segments, uint64_t whole) {
  if (segments.size() > kMostSegments) {
    return fail(ATTNRT_UNSUPPORTED, "has {} segments; at most {} are accepted", segments.size(),
                kMostSegments);
  }
  size_t stacks = 0;
  for (const Elf64_Phdr& segment : segments) {
    const bool in_file = segment.p_type == PT_LOAD || segment.p_type == PT_DYNAMIC ||
                         segment.p_type == PT_NOTE || segment.p_type == PT_TLS ||
                         segment.p_type == PT_GNU_PROPERTY || segment.p_type == PT_GNU_EH_FRAME;
    if (in_file && !within(segment.p_offset, segment.p_filesz, whole))
      return damaged("a segment lies outside the file");
    if (segment.p_type == PT_LOAD || segment.p_type == PT_TLS) {
      if (auto checked = check_alignment(segment); !checked) return checked;
    }
    stacks += segment.p_type == PT_GNU_STACK ? 1 : 0;
  }
  if (stacks > 1) return damaged("it has several PT_GNU_STACK");
  for (const auto check : {check_loads, check_dynamic_segment, check_tls, check_relro}) {
    if (auto checked = check(segments); !checked) return checked;
  }
  return check_stack(segments);
}

Result<void> check_segment_contents(const ElfImage& image) {
  const auto header = entry_of<Elf64_Ehdr>(image.bytes, 0);
  for (const Elf64_Phdr& segment : image.segments) {
    const bool read = segment.p_type == PT_PHDR || segment.p_type == PT_NOTE ||
                      segment.p_type == PT_GNU_PROPERTY || segment.p_type == PT_GNU_EH_FRAME;
    if (!read || segment.p_memsz == 0) continue;
    if (segment.p_filesz != segment.p_memsz || !is_loaded(image.segments, segment, PF_R))
      return damaged("a table of its program headers lies outside the loaded segments");
    if (segment.p_type == PT_PHDR &&
        (segment.p_offset != header.e_phoff ||
         segment.p_filesz != image.segments.size() * sizeof(Elf64_Phdr)))
      return damaged("PT_PHDR leads elsewhere than to its program headers");
    // The loader reads only notes that are aligned to 8 bytes.
    if ((segment.p_type == PT_NOTE || segment.p_type == PT_GNU_PROPERTY) && segment.p_align == 8) {
      auto checked = check_notes(image.bytes.substr(segment.p_offset, segment.p_filesz), 8);
      if (!checked) return checked;
    }
  }
  return check_sections(image);
}

}  // namespace attnrt::core
