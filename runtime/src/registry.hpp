// runtime/src/registry.hpp: keeps what probes have shown, for every process of this machine
//
// One file a plugin and machine: FOLDER/<sha256 of the plugin>-<machine>.txt. A file is written
// whole, under another name, and renamed. What is no complete record is no record: a damaged
// registry costs a probe, never a result.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "admit.hpp"
#include "base/file.hpp"
#include "base/result.hpp"

namespace attnrt::core {

class Registry {
 public:
  Registry() = default;  // keeps nothing

  // Opens the folder, and makes it (mode 0700) if it is not there. Errors, with the reason: it is
  // not this user's, others may write it, or it cannot be made.
  static Result<Registry> open(const std::filesystem::path& folder);

  // key: 64 + 1 + 16 characters: hash, "-", machine.
  std::optional<AdmissionRecord> find(const std::string& key) const;
  // Errors: it could not be written; the old record, if any, is as it was.
  Result<void> store(const std::string& key, const AdmissionRecord& record) const;
  void forget(const std::string& key) const;
  // Removes what nobody has used for kUnusedDays.
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

// Says what else but the plugin decides how a probe ends: the processor, the kernel, the GPU
// drivers, the runtime and its probe.
std::string machine_text(const std::string& probe_program);

// Shortens a machine's text and the plugin's options to 16 hexadecimal digits.
std::string machine_key(const std::string& machine, const std::string& options);

// The kernel's boot id; "" if it is not known.
std::string boot_id();

// As a record's file holds it, and back. nullopt: the text is not a whole record.
std::string text_of(const AdmissionRecord& record);
std::optional<AdmissionRecord> parse_record(std::string_view text);

}  // namespace attnrt::core
