// runtime/src/plugin_file.hpp: reads one plugin file without running its code
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"
#include "manifest.hpp"
#include "trust.hpp"

namespace attnrt::core {

// The bytes of one plugin file, as they were hashed and checked, until they are mapped as a
// library.
// THREADS: from any thread.
class CheckedBytes {
 public:
  explicit CheckedBytes(FileBytes bytes)
      : bytes_(std::make_shared<const FileBytes>(std::move(bytes))) {}
  std::shared_ptr<const FileBytes> get() const {  // nullptr after drop
    const std::lock_guard lock(mutex_);
    return bytes_;
  }
  void drop() {
    const std::lock_guard lock(mutex_);
    bytes_.reset();
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const FileBytes> bytes_;
};

// One file named *.so in a plugin directory, as it was when it was found. Its bytes are copied into
// memory, and the copy is hashed, checked and later loaded. So nothing can change between check and
// use, and the file may be overwritten in place. No descriptor is kept.
struct FoundPlugin {
  std::string path;       // as found: directory/name.so
  std::string real_path;  // path with all links resolved when it was read; "" if it was not opened
  std::string hash;       // SHA-256 of its bytes in hex; "" if it was not read
  std::optional<Manifest> manifest;  // absent if there is a fault
  std::string fault;                 // why it cannot be used, one line; "": no reason is known
  // Why the bytes that the file has now cannot be used: then all else here is about the last good
  // ones, which stay in service. "": all else is about the bytes that it has now.
  std::string present_fault;
  std::shared_ptr<CheckedBytes> bytes;       // none if there is a fault
  PluginLinks links;                         // none if there is a fault
  std::shared_ptr<const TrustPolicy> trust;  // by which it was judged; nullptr: the strictest
  Grounds grounds;                           // why it was trusted, if it was read
  std::optional<FileIdentity> signature;     // of its signature file, if that was looked for
  // What the file was when it was read. Absent if it was not read, or if it had changed so shortly
  // before that another change might not show.
  std::optional<FileIdentity> identity;
};

// A plugin file that is open, and what it was then.
struct OpenPlugin {
  Descriptor file;
  FileIdentity identity;
  PathFacts facts;  // the path is the real one
};

// Returns the path with all links resolved.
Result<std::string> resolved(const std::string& path);

// Opens a plugin file. Does not wait on a FIFO, and refuses a link that leads out of the
// directories. Errors, here and below: the file's fault, or this process could not look
// (says_nothing_about_the_file).
Result<OpenPlugin> open_plugin(const std::string& path,
                               const std::vector<std::string>& real_directories);

// Returns what the file is that may hold a plugin's signature, beside its real path; nothing if
// there is none.
Result<std::optional<FileIdentity>> signature_beside(const std::string& real_path);

// Reads, hashes and checks the file. Fills in all of plugin but path, trust and the faults.
// REQUIRES: trust accepts the file itself, and grounds.relaxed says how.
Result<void> examine(const OpenPlugin& open, Trust& trust, FoundPlugin& plugin);

// Reads the plugin's file again, and checks that it still is trusted and where it was found, with
// the bytes that were checked. identity: gets what the file was before it was read.
Result<FileBytes> read_again(const FoundPlugin& plugin, FileIdentity* identity);

// Returns the bytes that were checked: those that were kept, or else those of the file if it has
// not changed.
Result<std::shared_ptr<const FileBytes>> bytes_of(const FoundPlugin& plugin);

}  // namespace attnrt::core
