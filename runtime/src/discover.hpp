// runtime/src/discover.hpp: finds plugin files, and reads them without running their code
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "plugin_file.hpp"

namespace attnrt::core {

// Whether both are the same version of one plugin for the same kinds of device, so that no policy
// tells them apart.
bool twins(const FoundPlugin& one, const FoundPlugin& other);

struct Discovery {
  // In the order of directories, then of names.
  std::vector<std::shared_ptr<const FoundPlugin>> plugins;
  // About a directory that cannot be read, twins, and bytes that are new and bad.
  std::vector<std::string> warnings;
  std::vector<std::string> directories;  // those that could be read
};

// Returns the folder of the file that holds this code: libattnrt.so, the command or a test. "": it
// is not known.
std::filesystem::path own_folder();

// Returns the directory of plugins if the policy names none: attnrt/plugins beside libattnrt.so.
std::string default_plugin_directory();

// Scans the directories, but not their subdirectories. The reason why a file cannot be used is its
// fault. A link is followed only to a file inside one of the directories.
//
// previous: the last scan, or nullptr. A file that has not changed since then is not read again. A
// file whose new bytes have a fault keeps its last good ones (FoundPlugin::present_fault). A file
// that is gone is left out.
//
// Errors: OUT_OF_MEMORY or INTERNAL if this process could not look: descriptors or memory ran out,
// or a device did not answer; and if a directory that the last scan read cannot be read any more. A
// directory that was never read is a warning.
Result<Discovery> discover(const std::vector<std::string>& directories,
                           const Discovery* previous = nullptr);

}  // namespace attnrt::core
