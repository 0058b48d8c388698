// runtime/src/library.hpp: maps a plugin's shared library into the process
#pragma once

#include <attnrt/plugin.h>

#include <memory>
#include <string>

#include "plugin_file.hpp"

namespace attnrt::core {

struct MappedLibrary {
  const attnrt_plugin* table = nullptr;  // the one that the library exports
  // Why the file itself was mapped instead of its checked copy, as was asked for; "": it was not.
  std::string fallback;
  // Of an `unloadable` plugin: while it lives, the library stays mapped. Otherwise nullptr.
  std::shared_ptr<const void> use;
};

// Maps the library, unless the process has mapped the same bytes before, and returns the table that
// it exports.
//
// by_path: maps the file at the plugin's path, so that debuggers show its name. Otherwise maps a
// sealed copy of the bytes that were hashed and checked; where this system does not let it, maps
// the file and says so in `fallback`.
// Errors: UNSUPPORTED, with what is wrong with the plugin; OUT_OF_MEMORY or INTERNAL if memory or
// descriptors ran out, so that it may work later.
// OWNERSHIP: the process keeps the library until it ends, and so the table stays valid. If the
// plugin's manifest says `unloadable: true`, only until the last `use` of the library is gone. It
// keeps no descriptor.
// THREADS: from any thread.
Result<MappedLibrary> map_library(const FoundPlugin& plugin, bool by_path);

// Returns how many libraries of plugins are mapped into this process now. Does not wait for one
// that is being mapped.
int64_t mapped_libraries();

}  // namespace attnrt::core
