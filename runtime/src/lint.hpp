// runtime/src/lint.hpp: warns of names in a policy that are probably misspelt
#pragma once

#include <string>
#include <vector>

#include "config.hpp"
#include "discover.hpp"

namespace attnrt::core {

// Returns a warning for each name of a backend that has no effect, because no plugin of that name
// was found:
//   - a glob of ATTNRT_DISABLE that excludes no backend;
//   - a name in backends, prefer or deny that differs from the name of a found backend by what
//     looks like a typing error.
// Without a warning, such a line would silently do nothing. A name that resembles no found backend
// is not warned about: a policy may name backends that are not installed on this machine.
std::vector<std::string> lint_policy(const Config& config, const Discovery& found);

}  // namespace attnrt::core
