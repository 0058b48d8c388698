// runtime/src/formats/elf_links.cpp: reads which libraries an ELF file needs, and where they are
#include "formats/elf_links.hpp"

#include <algorithm>

namespace attnrt::core {
namespace {

constexpr size_t kMostNames = 1024;    // of a library; more are refused
constexpr size_t kLongestName = 4096;  // bytes, as of a path in Linux

// Appends the folders of a list such as "/a:$ORIGIN/b". An empty one is kept: it means the current
// folder to the loader.
void add_folders(std::string_view list, std::vector<std::string>& folders) {
  for (;;) {
    const size_t end = std::min(list.find(':'), list.size());
    folders.emplace_back(list.substr(0, end));
    if (end == list.size()) return;
    list.remove_prefix(end + 1);
  }
}

}  // namespace

bool names_origin(const PluginLinks& links) {
  const auto named = [](const std::string& path) {
    return path.find("$ORIGIN") != std::string::npos || path.find("${ORIGIN}") != std::string::npos;
  };
  return std::any_of(links.needed.begin(), links.needed.end(), named) ||
         std::any_of(links.run_path.begin(), links.run_path.end(), named);
}

Result<PluginLinks> read_links(const ElfImage& image) {
  std::vector<Elf64_Dyn> names;
  uint64_t address = 0, size = 0;  // of the names
  std::string_view entries;
  for (const Elf64_Phdr& segment : image.segments) {
    if (segment.p_type == PT_DYNAMIC)
      entries = image.bytes.substr(segment.p_offset, segment.p_filesz);
  }
  for (size_t i = 0; i < entries.size() / sizeof(Elf64_Dyn); ++i) {
    const auto entry = entry_of<Elf64_Dyn>(entries, i);
    if (entry.d_tag == DT_NULL) break;
    switch (entry.d_tag) {
      case DT_STRTAB: address = entry.d_un.d_ptr; break;
      case DT_STRSZ: size = entry.d_un.d_val; break;
      case DT_NEEDED:
      case DT_AUXILIARY:
      case DT_FILTER:
      case DT_RPATH:
      case DT_RUNPATH: names.push_back(entry); break;
      default: break;
    }
  }
  if (names.size() > kMostNames) {
    return fail(ATTNRT_UNSUPPORTED, "needs {} libraries; at most {} are read", names.size(),
                kMostNames);
  }
  const std::string_view table = image.at(address, size);
  PluginLinks links;
  for (const Elf64_Dyn& entry : names) {
    const std::string_view rest = table.substr(std::min(entry.d_un.d_val, table.size()));
    const size_t end = rest.substr(0, kLongestName).find('\0');
    if (end == std::string_view::npos) {
      return fail(ATTNRT_UNSUPPORTED,
                  "is damaged: the name of a library that it needs lies outside the file, or has "
                  "more than {} bytes; copy it again",
                  kLongestName);
    }
    const std::string_view name = rest.substr(0, end);
    const bool is_list = entry.d_tag == DT_RPATH || entry.d_tag == DT_RUNPATH;
    if (!is_list) links.needed.emplace_back(name);
    if (is_list && !name.empty()) add_folders(name, links.run_path);
  }
  return links;
}

}  // namespace attnrt::core
