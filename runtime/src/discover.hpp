// runtime/src/discover.hpp: directories into the plugins found there: their bytes, hash and manifest; no plugin code runs
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"
#include "manifest.hpp"

namespace attnrt::core {

// One file named *.so in a plugin directory. Immutable. What was hashed and checked is what load maps: a sealed copy in
// memory, so that nothing can change between check and use and the file can be overwritten in place.
struct FoundPlugin {
  std::string path;       // as found: directory/name.so
  std::string real_path;  // where that led when it was read; "" where /proc is not mounted
  std::string hash;       // SHA-256 of its bytes, hex; "" if not read, or no ELF file
  std::optional<Manifest> manifest;  // absent: see fault
  std::string fault;  // why it cannot be used, one line; "" if nothing is known against it
  Descriptor file;    // the sealed memory file; none if fault
};

// Two files of one plugin that neither version nor kinds of device tell apart.
bool twins(const FoundPlugin& one, const FoundPlugin& other);

struct Discovery {
  std::vector<std::shared_ptr<const FoundPlugin>>
      plugins;                        // in the order of directories, then of names
  std::vector<std::string> warnings;  // a directory that cannot be read, twins
};

// The directory that holds plugins where the policy names none: attnrt/plugins beside libattnrt.so.
std::string default_plugin_directory();

// Scans the directories, not below them. Never fails: what is wrong with a file is its fault text. A link is followed only
// to a file inside one of the directories.
Discovery discover(const std::vector<std::string>& directories);

// Whether the path still leads to the file that was found, with the bytes that were checked: for loading by path.
Result<void> unchanged(const FoundPlugin& plugin);

}  // namespace attnrt::core
