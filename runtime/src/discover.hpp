// runtime/src/discover.hpp: finds plugin files, and reads them without running their code
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"
#include "manifest.hpp"

namespace attnrt::core {

// One file named *.so in a plugin directory, as it was when it was found. Its bytes are copied into
// sealed memory, and the copy is hashed, checked and later loaded. So nothing can change between
// check and use, and the file may be overwritten in place.
struct FoundPlugin {
  std::string path;       // as found: directory/name.so
  std::string real_path;  // path with all links resolved when it was read; "" if it was not opened
  std::string hash;       // SHA-256 of its bytes in hex; "" if it was not read
  std::optional<Manifest> manifest;  // absent if there is a fault
  std::string fault;                 // why it cannot be used, one line; "": no reason is known
  Descriptor file;                   // the sealed copy; none if there is a fault
};

// Whether both are the same version of one plugin for the same kinds of device, so that no policy
// tells them apart.
bool twins(const FoundPlugin& one, const FoundPlugin& other);

struct Discovery {
  // In the order of directories, then of names.
  std::vector<std::shared_ptr<const FoundPlugin>> plugins;
  std::vector<std::string> warnings;  // about a directory that cannot be read, and about twins
};

// Returns the directory of plugins if the policy names none: attnrt/plugins beside libattnrt.so.
std::string default_plugin_directory();

// Scans the directories, but not their subdirectories. Never fails: the reason why a file cannot be
// used is its fault. A link is followed only to a file inside one of the directories.
Discovery discover(const std::vector<std::string>& directories);

// Checks, for loading by path, that the path still leads to the file that was found, with the bytes
// that were checked.
Result<void> unchanged(const FoundPlugin& plugin);

}  // namespace attnrt::core
