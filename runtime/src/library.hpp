// runtime/src/library.hpp: maps a plugin's shared library into the process
#pragma once

#include <attnrt/plugin.h>

#include "discover.hpp"

namespace attnrt::core {

// Maps the library, unless the process has mapped the same bytes before, and returns the table that
// it exports. Errors say what is wrong with the plugin.
//
// by_path: maps the file at the plugin's path, so that debuggers show its name. Otherwise maps the
// sealed copy that discover hashed and checked.
// OWNERSHIP: the process keeps the library until it ends, and so the table stays valid.
// THREADS: from any thread.
Result<const attnrt_plugin*> map_library(const FoundPlugin& plugin, bool by_path);

}  // namespace attnrt::core
