// tests/fuzz/elf_fuzz.cpp: judges the bytes of a shared library, by its headers and whole
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.hpp"
#include "formats/elf_file.hpp"
#include "fuzz.hpp"

void fuzz_elf(std::string_view input) {
  using namespace attnrt::core;
  using attnrt::fuzz::require;
  const Descriptor file(memfd_create("fuzz", MFD_CLOEXEC));
  require(
      pwrite(file.number(), input.data(), input.size(), 0) == static_cast<ssize_t>(input.size()),
      "the input can be written to a memory file");
  const auto headers = check_plugin_headers(file.number(), input.size());
  const auto plugin = read_plugin_elf(input);
  for (const auto* error :
       {headers ? nullptr : &headers.error(), plugin ? nullptr : &plugin.error()}) {
    if (error == nullptr) continue;
    attnrt::fuzz::require_one_line(one_line(error->message));
    // Another code would say that this process could not look, and no reload would succeed.
    require(error->code == ATTNRT_UNSUPPORTED,
            fmt::format("what is wrong with a file is UNSUPPORTED: {}", error->message));
  }
  if (!plugin) return;
  require(headers.has_value(), "what is accepted whole is accepted by its headers");
  require(plugin->manifest.size() <= size_t{256} << 10 &&
              input.find(plugin->manifest) != std::string_view::npos,
          "the manifest is a part of the bytes");
  uint64_t last = 0;
  for (const Elf64_Phdr& segment : segments_of(input)) {
    if (segment.p_type != PT_LOAD) continue;
    require(segment.p_offset <= input.size() && segment.p_filesz <= input.size() - segment.p_offset,
            "a loaded segment lies in the bytes");
    require(segment.p_filesz <= segment.p_memsz, "a segment's memory holds its bytes");
    require(segment.p_vaddr >= last, "loaded segments do not overlap");
    last = segment.p_vaddr + segment.p_memsz;
    require(last >= segment.p_vaddr && last <= uint64_t{1} << 40, "a library has a sane size");
  }
}
