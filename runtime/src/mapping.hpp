// runtime/src/mapping.hpp: opens a library with the loader, and checks what the loader mapped
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace attnrt::core {

// Spells directory/name in a way that this process has never used before. The loader knows a
// library by the path that it was opened with, so a path that is used again may give an old library
// instead of the file that is there now.
std::string fresh_path(const std::string& directory, const std::string& name);

// Opens the library at the path (dlopen: RTLD_NOW | RTLD_LOCAL) and returns the loader's handle.
// Then compares code and constants in memory with the bytes, and refuses a library that differs,
// because the path led elsewhere or the loader took a library that it already had.
//
// What is compared: the program headers, and every segment that is not writable. Relocations cannot
// have changed those (read_plugin_elf). A writable segment has been changed by relocations and
// constructors and cannot be compared. Constructors of a library that is refused have run.
//
// REQUIRES: read_plugin_elf accepts the bytes.
// Errors: UNSUPPORTED, with the loader's message or what differs; OUT_OF_MEMORY or INTERNAL if
// memory or descriptors ran out.
Result<void*> open_mapping(const std::string& path, std::string_view bytes);

void close_mapping(void* handle);

}  // namespace attnrt::core
