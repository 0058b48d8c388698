// runtime/src/select.hpp: a Policy, candidates and a Problem into a Decision: the winner, and every candidate's reasons
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "load.hpp"
#include "policy.hpp"

namespace attnrt::core {

// A backend version on one device. Without a backend it is supposed: a device that is not here, judged by its manifest.
struct Candidate {
  std::shared_ptr<const FoundPlugin> plugin;
  std::shared_ptr<const Backend> backend;
  Device device;
};

enum class Answer { yes, no, not_asked };

struct Verdict {
  Candidate candidate;
  Answer answer = Answer::not_asked;
  bool staged = false;  // the runtime would copy the tensors to its device and back
  Rank rank;
  std::vector<std::string> reasons;  // why not; each a clause: "head_dim 80 is not in {64, 128}"
};

// A plugin that cannot be a candidate: broken, or without a device of a kind that was asked for.
struct ExcludedPlugin {
  std::shared_ptr<const FoundPlugin> plugin;
  std::string reason;
};

struct Decision {
  Problem problem{};
  std::string arch;               // of explain for another machine
  std::vector<Verdict> verdicts;  // best first: those that say yes, by rank, then the rest, by rank
  std::vector<ExcludedPlugin> excluded;
  attnrt_status status = ATTNRT_UNSUPPORTED;  // OK: verdicts[0] wins
  std::string message;    // of a status that is not OK: one line with every reason
  std::string why;        // of the winner: "priority 300 (policy.yaml:4:16)"
  std::string fallback;   // a better ranked candidate of that device said no: which, and why
  bool forced = false;    // one backend was asked for by name: it or nothing, also when it fails
  bool supposed = false;  // decided by manifests alone

  const Verdict* winner() const { return status == ATTNRT_OK ? &verdicts.front() : nullptr; }
};

// A pure function: no device, no clock, no memory of earlier calls (supports() promises the same).
Decision select(const Policy& policy, const std::vector<Candidate>& candidates,
                std::vector<ExcludedPlugin> excluded, const Problem& problem,
                const std::string& arch);

// The problem as it would be on the candidate's device: the same, or dense copies there.
Problem problem_on(const Device& device, const Problem& problem);

}  // namespace attnrt::core
