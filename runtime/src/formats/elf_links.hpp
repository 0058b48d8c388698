// runtime/src/formats/elf_links.hpp: reads which libraries an ELF file needs, and where they are
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "formats/elf_image.hpp"

namespace attnrt::core {

// What the loader opens, and where it looks, for a library's sake.
struct PluginLinks {
  // DT_NEEDED, and DT_AUXILIARY and DT_FILTER, which are loaded like it. A name with a slash is a
  // path; the loader's own search finds the others.
  std::vector<std::string> needed;
  std::vector<std::string> run_path;  // folders of DT_RPATH and DT_RUNPATH; "": the current one
};

// Whether a path begins at $ORIGIN, the folder of the file that is loaded.
bool names_origin(const PluginLinks& links);

// Reads the names from the dynamic table.
// Errors: UNSUPPORTED, a name that is not in the file or has no end.
Result<PluginLinks> read_links(const ElfImage& image);

}  // namespace attnrt::core
