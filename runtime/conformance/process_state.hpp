// runtime/conformance/process_state.hpp: what of a process a plugin must leave as it was
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attnrt::conformance {

// The state of this process and thread that an application relies on, as names and values. What
// GPU drivers need to change is not part of it: descriptors beyond the standard streams, threads,
// denormals (the host restores those after it loads a library).
struct ProcessState {
  std::vector<std::pair<std::string, std::string>> values;

  static ProcessState now();
  // Returns what has changed since, as "rounding mode was 0, is 1024"; "": nothing has.
  std::string changes(const ProcessState& later) const;
};

}  // namespace attnrt::conformance
