// runtime/src/select.cpp: the select step: decides which candidate serves a problem, and why
//
// 1. Each candidate gets a verdict (judge): not_asked if the policy excludes it, or it is in
//    rollout or quarantined; no if its manifest or its backend refuses the problem or its plugin is
//    too old to know all of it; yes otherwise.
// 2. If one backend is asked for by name, all others become not_asked (keep_forced). If then none
//    says yes, what is in rollout or quarantined is asked all the same (judge_held_back).
// 3. The verdicts are sorted: those that say yes first, then by the policy's order. The first one
//    wins if it says yes.
// 4. If a better ranked candidate on the same device said no or is quarantined, the decision is a
//    fallback (passed_over); the policy's on_fallback may make it an error.
// If the winner fails later, without_winner decides once more among those that are left.
#include "select.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/nearest.hpp"
#include "base/text.hpp"
#include "problem/since.hpp"

namespace attnrt::core {
namespace {

CandidateView view_of(const Verdict& verdict) {
  const FoundPlugin& plugin = *verdict.candidate.plugin;
  const Device& device = verdict.candidate.device;
  CandidateView view;
  view.name = plugin.manifest->name;
  view.version = &plugin.manifest->version;
  view.version_text = plugin.manifest->version_text;
  view.device = device_name(device.type);
  view.device_id = device.id;
  view.arch = device.arch;
  view.staged = verdict.staged;
  view.hash = plugin.hash;
  return view;
}

bool has_name(const FoundPlugin& plugin, std::string_view name) {
  return plugin.manifest && plugin.manifest->name == name;
}

// Returns why the candidate is held back, or nullptr if it is not.
const std::string* held_back(const Quarantine& quarantine, const Candidate& candidate, bool* lost) {
  if (quarantine.held.empty() && quarantine.lost.empty()) return nullptr;
  const CandidateId id = id_of(candidate);
  const auto* lost_device = quarantine.find_lost(id);
  *lost = lost_device != nullptr;
  if (lost_device != nullptr) return &lost_device->reason;
  const auto* held = quarantine.find(id);
  return held != nullptr && !held->due ? &held->reason : nullptr;
}

// Asks the policy, then the quarantine, then the manifest and the version of the ABI that the
// plugin was built for. If they all leave the candidate, asks the plugin itself.
void judge(const Policy& policy, const Problem& problem, const Quarantine& quarantine,
           std::span<const Word> words, Verdict& verdict) {
  const Candidate& candidate = verdict.candidate;
  verdict.quarantined = verdict.lost = verdict.in_rollout = verdict.out_of_memory = false;
  verdict.reasons = policy.exclusions(view_of(verdict), problem);
  if (!verdict.reasons.empty()) {
    verdict.answer = Answer::not_asked;
    return;
  }
  if (const auto* rollout = quarantine.find_held_back(candidate.plugin->hash)) {
    verdict.answer = Answer::not_asked;
    verdict.in_rollout = !rollout->never;
    verdict.reasons = {rollout->reason};
    return;
  }
  if (const std::string* reason = held_back(quarantine, candidate, &verdict.lost)) {
    verdict.answer = Answer::not_asked;
    verdict.quarantined = true;
    verdict.reasons = {*reason};
    return;
  }
  verdict.answer = Answer::no;
  const Problem device_problem = problem_on(candidate.device, problem);
  if (verdict.staged && problem.page_size > 0)
    verdict.reasons.emplace_back("paged caches are never staged");
  auto refusals = candidate.plugin->manifest->refusals(device_problem, candidate.device.arch);
  std::move(refusals.begin(), refusals.end(), std::back_inserter(verdict.reasons));
  if (candidate.backend) {
    auto later = later_words(device_problem, candidate.backend->abi_minor(), words);
    std::move(later.begin(), later.end(), std::back_inserter(verdict.reasons));
  }
  if (!verdict.reasons.empty()) return;
  if (!candidate.out_of_memory.empty()) {
    verdict.out_of_memory = true;
    verdict.reasons = {candidate.out_of_memory};
    return;
  }
  if (candidate.backend &&
      candidate.backend->supports(device_problem, &verdict.reasons) != ATTNRT_OK)
    return;
  verdict.reasons.clear();
  verdict.answer = Answer::yes;
}

// Excludes all backends but the one that was asked for. Returns false if there is none of that
// name.
bool keep_forced(const Policy::Forced& forced, Decision& decision) {
  bool exists = false;
  for (auto& verdict : decision.verdicts) {
    if (has_name(*verdict.candidate.plugin, forced.name)) {
      exists = true;
    } else if (verdict.answer != Answer::not_asked || verdict.in_rollout) {
      verdict.answer = Answer::not_asked;
      verdict.out_of_memory = verdict.in_rollout = false;
      verdict.reasons = {fmt::format("{} asks for {}", forced.by, forced.name)};
    } else {
      verdict.quarantined = verdict.lost = false;  // what holds it back does not matter
    }
  }
  for (const auto& excluded : decision.excluded)
    exists = exists || has_name(*excluded.plugin, forced.name);
  return exists;
}

void sort_verdicts(const Policy& policy, std::vector<Verdict>& verdicts) {
  std::stable_sort(verdicts.begin(), verdicts.end(), [&policy](const Verdict& a, const Verdict& b) {
    if ((a.answer == Answer::yes) != (b.answer == Answer::yes)) return a.answer == Answer::yes;
    return policy.before(view_of(a), a.rank, view_of(b), b.rank);
  });
}

// Returns "cpu 1.0.0: head_dim 80 is not in {64, 128}; hip_flash 1.0.0: ...". With a name, only
// that backend's reasons.
std::string every_reason(const Decision& decision, const std::string& name = {}) {
  std::vector<std::string> parts;
  const auto add = [&](const FoundPlugin& plugin, const std::string& reason) {
    if (name.empty() || has_name(plugin, name))
      parts.push_back(plugin_label(plugin) + ": " + reason);
  };
  for (const auto& verdict : decision.verdicts)
    add(*verdict.candidate.plugin, joined(verdict.reasons));
  for (const auto& excluded : decision.excluded) add(*excluded.plugin, excluded.reason);
  return parts.empty() ? "no plugin was found" : joined(parts);
}

std::string unknown_name_message(const Policy::Forced& forced, const Decision& decision) {
  std::vector<std::string_view> names;
  for (const auto& verdict : decision.verdicts)
    names.emplace_back(verdict.candidate.plugin->manifest->name);
  for (const auto& excluded : decision.excluded) {
    if (excluded.plugin->manifest) names.emplace_back(excluded.plugin->manifest->name);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::string text =
      fmt::format("select: no backend is named {}, which {} asks for{}; found: {}", forced.name,
                  forced.by, did_you_mean(forced.name, names),
                  names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  // The missing backend may be a file that is too broken to have a name.
  for (const auto& excluded : decision.excluded) {
    if (!excluded.plugin->manifest)
      text += fmt::format("; {} {}", excluded.plugin->path, excluded.reason);
  }
  return text;
}

std::string unsupported_message(const std::optional<Policy::Forced>& forced,
                                const Decision& decision) {
  if (!forced) return "select: no backend supports the problem: " + every_reason(decision);
  return fmt::format("select: {} asks for {}, which does not support the problem: {}", forced->by,
                     forced->name, every_reason(decision, forced->name));
}

// Why the winner won, in the policy's terms.
std::string reason_of_choice(const Policy& policy, const Verdict& winner, const Problem& problem) {
  if (policy.forced()) return fmt::format("{} asks for it", policy.forced()->by);
  const CandidateView view = view_of(winner);
  const Rule* rule = policy.preferring_rule(view, problem);
  if (rule != nullptr &&
      std::find(rule->prefer.begin(), rule->prefer.end(), view.name) != rule->prefer.end()) {
    return fmt::format("preferred by {} ({})", rule->name, rule->origin);
  }
  const auto& backends = policy.config().backends;
  const auto settings = backends.find(view.name);
  const std::string origin =
      settings != backends.end() ? settings->second.priority.origin : "not listed";
  return fmt::format("priority {} ({})", winner.rank.priority, origin);
}

// Returns the best ranked candidate on the tensors' own device that answered no or is quarantined,
// if it ranks above the winner. Another version of the winning backend does not count: serving an
// older version of the same backend loses nothing that the policy asked for. REQUIRES: the decision
// has a winner.
const Verdict* passed_over(const Policy& policy, const Decision& decision) {
  if (policy.forced()) return nullptr;
  const auto ranks_above = [&policy](const Verdict& a, const Verdict& b) {
    return policy.before(view_of(a), a.rank, view_of(b), b.rank);
  };
  const Verdict& winner = decision.verdicts.front();
  const Verdict* best = nullptr;
  for (const auto& verdict : decision.verdicts) {
    if ((verdict.answer != Answer::no && !verdict.quarantined) || verdict.staged) continue;
    if (has_name(*verdict.candidate.plugin, winner.candidate.plugin->manifest->name)) continue;
    if (best == nullptr || ranks_above(verdict, *best)) best = &verdict;
  }
  return best != nullptr && ranks_above(*best, winner) ? best : nullptr;
}

bool any_says_yes(const Decision& decision) {
  return std::any_of(decision.verdicts.begin(), decision.verdicts.end(),
                     [](const Verdict& verdict) { return verdict.answer == Answer::yes; });
}

// If no candidate says yes, judges what is in rollout as if it was not; if there is still none,
// also what is quarantined, except where the device is lost. quarantine: what it was judged with.
void judge_held_back(const Policy& policy, const Quarantine& quarantine,
                     std::span<const Word> words, Decision& decision) {
  if (any_says_yes(decision)) return;
  const Quarantine without_rollouts{quarantine.held, quarantine.lost, {}};
  for (Verdict& verdict : decision.verdicts) {
    if (verdict.in_rollout) judge(policy, decision.problem, without_rollouts, words, verdict);
  }
  if (any_says_yes(decision)) return;
  for (Verdict& verdict : decision.verdicts) {
    if (verdict.quarantined && !verdict.lost) judge(policy, decision.problem, {}, words, verdict);
  }
}

// Whether the quarantine may hold back anything but lost devices and versions in rollout: only if
// another backend may serve instead.
bool another_may_serve(const Policy& policy) {
  return !policy.forced() && policy.config().on_fallback.value != OnFallback::error;
}

// Sets status, why and fallback of a decision whose verdicts are sorted.
void conclude(const Policy& policy, Decision& decision) {
  const auto& forced = policy.forced();
  if (decision.verdicts.empty() || decision.verdicts.front().answer != Answer::yes) {
    const auto no_memory = std::find_if(decision.verdicts.begin(), decision.verdicts.end(),
                                        [](const Verdict& v) { return v.out_of_memory; });
    if (no_memory != decision.verdicts.end()) {
      decision.status = ATTNRT_OUT_OF_MEMORY;
      decision.message = fmt::format("load: {}: {}", plugin_label(*no_memory->candidate.plugin),
                                     joined(no_memory->reasons));
      return;
    }
    const bool lost = std::any_of(decision.verdicts.begin(), decision.verdicts.end(),
                                  [](const Verdict& verdict) { return verdict.lost; });
    decision.status = lost ? ATTNRT_DEVICE_LOST : ATTNRT_UNSUPPORTED;
    decision.message = unsupported_message(forced, decision);
    return;
  }
  decision.status = ATTNRT_OK;
  const Verdict& winner = decision.verdicts.front();
  decision.supposed = winner.candidate.backend == nullptr;
  decision.why = reason_of_choice(policy, winner, decision.problem);
  const Verdict* refused = passed_over(policy, decision);
  if (refused == nullptr) return;
  decision.fallback =
      fmt::format("{}: {}", plugin_label(*refused->candidate.plugin), joined(refused->reasons));
  const auto& on_fallback = policy.config().on_fallback;
  if (on_fallback.value != OnFallback::error) return;
  if (refused->out_of_memory) {
    decision.status = ATTNRT_OUT_OF_MEMORY;
    decision.message = fmt::format(
        "select: on_fallback is error ({}), and the best ranked backend cannot be loaded: {}",
        on_fallback.origin, decision.fallback);
    return;
  }
  decision.status = ATTNRT_UNSUPPORTED;
  decision.message = fmt::format(
      "select: on_fallback is error ({}), and the best ranked backend does not support the "
      "problem: {}",
      on_fallback.origin, decision.fallback);
}

}  // namespace

Problem problem_on(const Device& device, const Problem& problem) {
  if (device.type == problem.device_type) return problem;
  Problem copied = problem;
  copied.device_type = device.type;
  copied.device_id = device.id;
  // Rows of a dense copy start at multiples of a row's bytes; the copy itself starts at a multiple
  // of more than 16.
  copied.alignment_bytes = 16;
  const int64_t element = dtype_bytes(problem.dtype);
  const int64_t kv = is_off(problem.kv_dtype) ? element : dtype_bytes(problem.kv_dtype);
  const int64_t out = is_off(problem.out_dtype) ? element : dtype_bytes(problem.out_dtype);
  for (const int64_t row_bytes : {problem.head_dim * element, problem.head_dim * kv,
                                  problem.head_dim_v * kv, problem.head_dim_v * out}) {
    while (row_bytes % copied.alignment_bytes != 0) copied.alignment_bytes /= 2;
  }
  return copied;
}

CandidateId id_of(const Candidate& candidate) {
  return {candidate.plugin->hash, candidate.device.type, candidate.device.id};
}

Decision select(const Policy& policy, const Candidates& candidates, const Problem& problem,
                const std::string& arch, const Quarantine& quarantine,
                std::span<const Word> words) {
  Decision decision;
  decision.problem = problem;
  decision.arch = arch;
  decision.excluded = candidates.excluded;
  decision.verdicts.reserve(candidates.list.size());
  const Quarantine without_held{{}, quarantine.lost, quarantine.held_back};
  const Quarantine& applied = another_may_serve(policy) ? quarantine : without_held;
  for (const auto& candidate : candidates.list) {
    Verdict& verdict = decision.verdicts.emplace_back();
    verdict.candidate = candidate;
    verdict.staged = candidate.device.type != problem.device_type;
    verdict.rank = policy.rank(view_of(verdict), problem);
    judge(policy, problem, applied, words, verdict);
  }
  const auto& forced = policy.forced();
  decision.forced = forced.has_value();
  const bool name_exists = !forced || keep_forced(*forced, decision);
  judge_held_back(policy, applied, words, decision);
  sort_verdicts(policy, decision.verdicts);
  if (!name_exists) {
    decision.status = ATTNRT_NOT_FOUND;
    decision.message = unknown_name_message(*forced, decision);
    return decision;
  }
  conclude(policy, decision);
  return decision;
}

Decision without_winner(const Policy& policy, const Decision& decision, const std::string& reason) {
  Decision next = decision;
  Verdict& failed = next.verdicts.front();
  failed.answer = Answer::no;
  failed.reasons = {reason};
  if (decision.forced) {
    for (Verdict& verdict : next.verdicts) {
      if (verdict.answer != Answer::yes) continue;
      verdict.answer = Answer::not_asked;
      verdict.reasons = {"another version of the backend that was asked for failed"};
    }
  }
  next.challenge = nullptr;
  if (another_may_serve(policy)) judge_held_back(policy, {}, vocabulary(), next);
  sort_verdicts(policy, next.verdicts);
  next.fallback.clear();
  conclude(policy, next);
  return next;
}

}  // namespace attnrt::core
