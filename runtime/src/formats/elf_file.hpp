// runtime/src/formats/elf_file.hpp: reads a plugin's ELF file; the only user of libelf
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace attnrt::core {

struct PluginElf {
  std::string manifest;             // contents of section .attnrt_manifest
  bool exports_plugin = false;      // defines attnrt_plugin_v1
  std::string other_plugin_symbol;  // attnrt_plugin_v2 and the like, if it defines one
};

// Reads the manifest and looks for the plugin symbol. Checks that every header, segment and section
// lies inside the bytes: otherwise dlopen could end the process. Errors: UNSUPPORTED, with what the
// file is or lacks.
Result<PluginElf> read_plugin_elf(std::string_view bytes);

}  // namespace attnrt::core
