// runtime/src/admit.hpp: the admit step: whether a plugin may be loaded
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace attnrt::core {

// How much a plugin must have shown in a process of its own before this process loads it.
enum class AdmissionLevel { off, loads, conforms };
const char* level_name(AdmissionLevel level);
std::optional<AdmissionLevel> find_level(std::string_view name);

// What one probe of a plugin has shown on this machine.
struct AdmissionRecord {
  enum class State { admitted, refused, probing };
  State state = State::probing;
  AdmissionLevel level = AdmissionLevel::loads;  // that was tried
  std::string reason;                            // why it is refused
  int64_t at_seconds = 0;                        // since 1970, when the probe ended or began
  std::string boot;                              // the kernel's boot id then
  int64_t attempts = 1;  // probes that were begun, under one boot each, and not ended
};

struct Admission {
  enum class State {
    off,       // the policy asks for no probe
    admitted,  // a probe has passed
    refused,   // a probe has failed
    waiting,   // a probe is running
    unknown    // nothing is known; a probe has to show it
  };
  State state = State::unknown;
  AdmissionLevel level = AdmissionLevel::off;  // that was tried
  std::string reason;                          // why it is refused
  int64_t at_seconds = 0;                      // since 1970, when the probe ended
};

// Decides by the record of the plugin's bytes, which may be absent. boot: the kernel's boot id now.
Admission admit(AdmissionLevel wanted, const std::optional<AdmissionRecord>& record,
                std::string_view boot);

}  // namespace attnrt::core
