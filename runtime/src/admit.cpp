// runtime/src/admit.cpp: the admit step: whether a plugin may be loaded
#include "admit.hpp"

#include <algorithm>
#include <array>
#include <iterator>

namespace attnrt::core {
namespace {

constexpr int64_t kMostAttempts = 2;
constexpr std::array<const char*, 3> kLevels{"off", "loads", "conforms"};  // as in AdmissionLevel

}  // namespace

const char* level_name(AdmissionLevel level) { return kLevels.at(static_cast<size_t>(level)); }

std::optional<AdmissionLevel> find_level(std::string_view name) {
  const auto found = std::find(kLevels.begin(), kLevels.end(), name);
  if (found == kLevels.end()) return std::nullopt;
  return static_cast<AdmissionLevel>(std::distance(kLevels.begin(), found));
}

Admission admit(AdmissionLevel wanted, const std::optional<AdmissionRecord>& record,
                std::string_view boot) {
  using State = AdmissionRecord::State;
  if (wanted == AdmissionLevel::off) return {Admission::State::off, wanted, {}, 0};
  const Admission unknown{Admission::State::unknown, wanted, {}, 0};
  if (!record) return unknown;
  switch (record->state) {
    case State::admitted:  // what passed a higher level passed the lower ones
      if (record->level < wanted) return unknown;
      return {Admission::State::admitted, record->level, {}, record->at_seconds};
    case State::refused:  // what failed a higher level may pass a lower one
      if (record->level > wanted) return unknown;
      return {Admission::State::refused, record->level, record->reason, record->at_seconds};
    case State::probing: break;
  }
  // A probe that this boot began is running, or was cut off with its application. One that another
  // boot began may have been cut off by a shutdown; two are held against the plugin.
  if (record->boot.empty() || boot.empty() || record->boot == boot) return unknown;
  if (record->attempts < kMostAttempts) return unknown;
  return {Admission::State::refused, record->level,
          "the machine went down twice while it was probed; `attnrt list --retry` probes it again",
          record->at_seconds};
}

}  // namespace attnrt::core
