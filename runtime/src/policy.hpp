// runtime/src/policy.hpp: a Config and one call's options into an order over candidates; a pure function of its inputs
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config.hpp"

namespace attnrt::core {

// What one call may ask beyond the policy.
struct Call {
  std::string backend;  // "": the policy decides
  bool operator==(const Call&) const = default;
};

// A backend version on one device, as far as the policy looks at it.
struct CandidateView {
  std::string_view name;
  const Version* version = nullptr;
  std::string_view version_text;
  std::string_view device;  // cpu cuda rocm
  int32_t device_id = 0;
  std::string_view arch;
  bool staged = false;    // the tensors live on another device
  std::string_view hash;  // of its file, hex
};

// Where a candidate stands; smaller is better in the order of the fields.
struct Rank {
  int64_t prefer =
      INT64_MAX;  // place in the prefer list of the rule that wins; INT64_MAX: no rule prefers it
  bool staged = false;
  int64_t priority = 0;  // larger is better
  std::strong_ordering operator<=>(const Rank& other) const;
  bool operator==(const Rank& other) const { return (*this <=> other) == 0; }
};

class Policy {
 public:
  Policy(std::shared_ptr<const Config> config, Call call);

  // The one backend that is asked for by name (call, ATTNRT_BACKEND, default: in this order), and who asked.
  struct Forced {
    std::string name, by;
  };
  const std::optional<Forced>& forced() const { return forced_; }

  // Why the candidate is out, whoever asks for it: disabled, ATTNRT_DISABLE, unlisted, denied by a rule (every matching
  // one), version range (a pre-release that no range names too), only, a staged candidate where staging is never.
  // Empty: it is in. Rules see the problem as it was asked (device: where its tensors live) and the arch of the
  // candidate; only sees it as it would be on the candidate's device. Each reason names its origin: "disabled
  // (policy.yaml:7:5)".
  std::vector<std::string> exclusions(const CandidateView& candidate, const Problem& problem) const;

  // The first matching rule with prefer, or nullptr.
  const Rule* preferring(const CandidateView& candidate, const Problem& problem) const;

  Rank rank(const CandidateView& candidate, const Problem& problem) const;

  // prefer, staged, priority, then version (newest), name, device, device_id, hash. True: a before b.
  bool before(const CandidateView& a, const Rank& rank_a, const CandidateView& b,
              const Rank& rank_b) const;

  const Config& config() const { return *config_; }

 private:
  std::shared_ptr<const Config> config_;
  Call call_;
  std::optional<Forced> forced_;
};

}  // namespace attnrt::core
