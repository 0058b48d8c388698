// runtime/src/discover.hpp: finds plugin files, and reads them without running their code
#pragma once

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

// Returns the directory of plugins if the policy names none: attnrt/plugins beside libattnrt.so.
std::string default_plugin_directory();

// Scans the directories, but not their subdirectories. The reason why a file cannot be used is its
// fault. A link is followed only to a file inside one of the directories.
//
// previous: the last scan, or nullptr. A file is not read again if neither it, its signature nor
// the policy has changed since then. A file whose new bytes have a fault, or that is not trusted
// any more, keeps its last good ones (FoundPlugin::present_fault), if the policy still accepts
// those. A file that is gone is left out.
//
// trust: who is trusted with plugin files; nullptr: the strictest policy.
//
// Errors: OUT_OF_MEMORY or INTERNAL if this process could not look: descriptors or memory ran out,
// or a device did not answer; and if a directory that the last scan read cannot be read any more. A
// directory that was never read is a warning.
Result<Discovery> discover(const std::vector<std::string>& directories,
                           const Discovery* previous = nullptr,
                           std::shared_ptr<const TrustPolicy> trust = nullptr);

}  // namespace attnrt::core
