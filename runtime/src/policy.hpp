// runtime/src/policy.hpp: the policy step: which candidates are allowed, and in which order
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config.hpp"
#include "manifest.hpp"

namespace attnrt::core {

// What one call may ask for beyond the policy.
struct Call {
  std::string backend;  // a backend's name; empty: the policy decides
  bool operator==(const Call&) const = default;
};

// What the policy looks at in a candidate: one version of a backend on one device. The strings must
// stay valid while the policy uses them.
struct CandidateView {
  std::string_view name;
  const Version* version = nullptr;
  std::string_view version_text;
  std::string_view device;  // cpu, cuda or rocm
  int32_t device_id = 0;
  std::string_view arch;
  bool staged = false;    // the tensors are on another device, so that they would be copied
  std::string_view hash;  // SHA-256 of its file, in hexadecimal
};

// Where the policy places a candidate. Compared field by field; the smaller rank is tried first.
struct Rank {
  static constexpr int64_t kNotPreferred = INT64_MAX;
  int64_t prefer = kNotPreferred;  // position in the prefer list of the first matching rule
  bool staged = false;
  int64_t priority = 0;  // the one field where more is better
  std::strong_ordering operator<=>(const Rank& other) const;
  bool operator==(const Rank& other) const { return (*this <=> other) == 0; }
};

// Returns why the version is excluded, or "" if it is not. A version range decides; without one,
// pre-releases are excluded, except those that the range of a rollout names. settings: nullptr if
// the policy does not list the backend.
std::string version_refusal(const BackendSettings* settings, const CandidateView& candidate);

// Whether this version of a backend may serve no problem at all: it is switched off, or its version
// is excluded.
bool never_serves(const Config& config, const Manifest& manifest);

// A config together with one call's options. THREADS: immutable, so from any thread.
class Policy {
 public:
  Policy(std::shared_ptr<const Config> config, Call call);

  // The backend that is asked for by name: by the call, or else by ATTNRT_BACKEND, or else by the
  // policy's default.
  struct Forced {
    std::string name;
    std::string by;  // who asked: "the call", ATTNRT_BACKEND, "default (policy.yaml:2:10)"
  };
  const std::optional<Forced>& forced() const { return forced_; }

  // Returns every reason why the policy excludes the candidate, even from a call that asks for it
  // by name:
  //   - it is switched off (enabled, ATTNRT_DISABLE, unlisted);
  //   - a matching rule denies it;
  //   - its version is outside the version range, or is a pre-release that no range names;
  //   - the problem does not meet its `only`;
  //   - it would be staged, and staging is never.
  // Each reason names its origin: "disabled (policy.yaml:7:5)". Empty: the candidate is allowed.
  //
  // The conditions of rules look at the problem as it was asked: device is where the tensors are.
  // The conditions of `only` look at the problem as it would be on the candidate's device. In both,
  // arch is the candidate's.
  std::vector<std::string> exclusions(const CandidateView& candidate, const Problem& problem) const;

  // Returns the first matching rule that has a prefer list, or nullptr.
  const Rule* preferring_rule(const CandidateView& candidate, const Problem& problem) const;

  Rank rank(const CandidateView& candidate, const Problem& problem) const;

  // Whether a is tried before b: by rank, then by version (the newest first), name, device,
  // device_id and hash. A strict order, so that the order in which plugins were found does not
  // matter.
  bool before(const CandidateView& a, const Rank& rank_a, const CandidateView& b,
              const Rank& rank_b) const;

  const Config& config() const { return *config_; }

 private:
  std::shared_ptr<const Config> config_;
  std::optional<Forced> forced_;
};

}  // namespace attnrt::core
