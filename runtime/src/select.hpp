// runtime/src/select.hpp: the select step: decides which candidate serves a problem, and why
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "breaker.hpp"
#include "candidates.hpp"
#include "policy.hpp"

namespace attnrt::core {

class Rollout;  // rollout.hpp

enum class Answer { yes, no, not_asked };

// What was found out about one candidate.
struct Verdict {
  Candidate candidate;
  Answer answer = Answer::not_asked;
  bool staged = false;  // the runtime would copy the tensors to the candidate's device and back
  bool quarantined = false;    // it is not asked because it failed before
  bool lost = false;           // and that is because its device was lost
  bool in_rollout = false;     // it is not asked because a rollout holds it back
  bool out_of_memory = false;  // it would be asked, but could not be loaded for now
  Rank rank;
  std::shared_ptr<Rollout> rollout;  // of its version; nullptr: none. Set by the runtime
  std::vector<std::string> reasons;  // why not, each a clause: "head_dim 80 is not in {64, 128}"
};

struct Decision {
  Problem problem{};
  std::string arch;                      // the one that explain supposes; "" otherwise
  std::vector<Verdict> verdicts;         // those that answer yes, then the rest; each best first
  std::vector<ExcludedPlugin> excluded;  // plugins without a candidate
  attnrt_status status = ATTNRT_UNSUPPORTED;  // OK: verdicts[0] wins
  std::string message;                        // if the status is not OK: one line with every reason
  std::string why;        // why the winner won: "priority 300 (policy.yaml:4:16)"
  std::string fallback;   // a better ranked candidate of the same device that answered no, and why
  bool forced = false;    // one backend was asked for by name, so that no other may serve
  bool supposed = false;  // the winner's device is not here; its manifest alone decided
  // The decision for the calls that go to a version in rollout, its winner. Set by the runtime;
  // nullptr: no such version would win.
  std::shared_ptr<const Decision> challenge;

  const Verdict* winner() const { return status == ATTNRT_OK ? &verdicts.front() : nullptr; }
  Rollout* rollout() const { return winner() != nullptr ? winner()->rollout.get() : nullptr; }
};

CandidateId id_of(const Candidate& candidate);

// Asks the policy about each candidate, then its manifest, then its backend (supports), and ranks
// those that are left. A pure function: it uses no device and no clock, and supports() promises the
// same.
// quarantine: what is held back is not asked, but only as long as another candidate serves the
// problem instead: a backend that was asked for by name, or that no other may replace (on_fallback:
// error), or that is the only one, is tried again each time. A lost device is never tried.
// A version in rollout is treated as if it was not there, as long as anything else serves the
// problem; one that may never serve always is.
// words: those of the ABI, with the minor version that each came with; tests give others.
Decision select(const Policy& policy, const Candidates& candidates, const Problem& problem,
                const std::string& arch, const Quarantine& quarantine = {},
                std::span<const Word> words = vocabulary());

// Returns the decision that is left after the winner's plan or run failed: the winner says no, with
// this reason, and the next candidate that says yes wins. If there is none, or none may serve
// instead (a backend was asked for by name, or on_fallback is error), the status is not OK.
// REQUIRES: the decision has a winner.
Decision without_winner(const Policy& policy, const Decision& decision, const std::string& reason);

// Returns the problem as a backend on this device would get it. If the tensors are elsewhere, the
// backend would get dense copies.
Problem problem_on(const Device& device, const Problem& problem);

}  // namespace attnrt::core
