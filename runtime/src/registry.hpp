// runtime/src/registry.hpp: keeps what probes have shown, for every process of this machine
//
// One file a plugin, machine and level: FOLDER/<sha256>-<machine>-<level>.txt. A file is written
// whole, or not at all (base/whole_file.hpp). What is no complete record is no record: a damaged
// registry costs a probe, never a result.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "admit.hpp"
#include "base/file.hpp"
#include "base/result.hpp"

namespace attnrt::core {

class Registry {
 public:
  Registry() = default;  // keeps nothing

  // Opens the folder, and makes it and those above it (mode 0700) if they are not there. Errors,
  // with the reason: it is a link or not this user's, others may write it or a folder above it, or
  // it cannot be made.
  static Result<Registry> open(const std::filesystem::path& folder);

  // key: "<hash>-<machine>-<level>", as file_key makes it.
  std::optional<AdmissionRecord> find(const std::string& key) const;
  // Errors: it could not be written; the old record, if any, is as it was.
  Result<void> store(const std::string& key, const AdmissionRecord& record) const;
  void forget(const std::string& key) const;
  // Removes the records that nobody has used for kUnusedDays. Touches no other file.
  void forget_unused() const;

  bool is_open() const { return folder_.number() >= 0; }

  static constexpr int kUnusedDays = 90;

 private:
  explicit Registry(Descriptor folder) : folder_(std::move(folder)) {}
  Descriptor folder_;
};

// Returns the folder where the records of this user lie: /var/cache/attnrt/admission for root, else
// $XDG_CACHE_HOME/attnrt/admission or ~/.cache/attnrt/admission. "": this user has none, or the
// process is privileged.
std::filesystem::path default_registry_folder();

std::string file_key(const std::string& hash_and_machine, AdmissionLevel level);

// Says what else but the plugin decides how a probe ends: the processor, the kernel, the GPU
// drivers, the runtime, its probe, and the variables that the probe gets.
std::string machine_text(const std::string& probe_program,
                         const std::vector<std::string>& environment);

// Shortens a machine's text and the plugin's options to 16 hexadecimal digits.
std::string machine_key(const std::string& machine, const std::string& options);

// The kernel's boot id; "" if it is not known.
std::string boot_id();

}  // namespace attnrt::core
