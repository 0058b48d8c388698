// runtime/src/load.hpp: the load step: opens a found plugin as a Backend
#pragma once

#include <memory>

#include "backend.hpp"

namespace attnrt::core {

// Maps the plugin's library, checks its table, opens an instance and asks for its devices. Errors
// say what is wrong with the plugin.
//
// by_path: maps the file itself, so that debuggers show its path, instead of a sealed copy of the
// bytes that discover checked. Where copies cannot be mapped (no memory files, /proc is not
// mounted), the file itself is mapped in any case, with a warning.
Result<std::shared_ptr<Backend>> load(std::shared_ptr<const FoundPlugin> plugin,
                                      const Options& options, std::shared_ptr<Services> services,
                                      bool by_path);

}  // namespace attnrt::core
