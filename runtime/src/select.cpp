// runtime/src/select.cpp: a Policy, candidates and a Problem into a Decision: the winner, and every candidate's reasons
#include "select.hpp"

#include <algorithm>
#include <array>

#include "base/nearest.hpp"
#include "base/text.hpp"

namespace attnrt::core {
namespace {

CandidateView view_of(const Verdict& verdict) {
  const Manifest& manifest = *verdict.candidate.plugin->manifest;
  const Device& device = verdict.candidate.device;
  return {manifest.name, &manifest.version, manifest.version_text, device_name(device.type),
          device.id,     device.arch,       verdict.staged,        verdict.candidate.plugin->hash};
}

// Asks the policy, then the manifest, then (if both leave it) the plugin itself.
void judge(const Policy& policy, const Problem& problem, Verdict& verdict) {
  const Candidate& candidate = verdict.candidate;
  verdict.answer = Answer::no;
  verdict.reasons = policy.exclusions(view_of(verdict), problem);
  if (!verdict.reasons.empty()) {
    verdict.answer = Answer::not_asked;
    return;
  }
  const Problem there = problem_on(candidate.device, problem);
  if (verdict.staged && problem.page_size > 0)
    verdict.reasons.emplace_back("paged caches are never staged");
  auto refused = candidate.plugin->manifest->refusals(there, candidate.device.arch);
  std::move(refused.begin(), refused.end(), std::back_inserter(verdict.reasons));
  if (!verdict.reasons.empty()) return;
  if (candidate.backend && candidate.backend->supports(there, &verdict.reasons) != ATTNRT_OK)
    return;
  verdict.reasons.clear();
  verdict.answer = Answer::yes;
}

std::string label(const Verdict& verdict) {
  const Manifest& manifest = *verdict.candidate.plugin->manifest;
  return manifest.name + " " + manifest.version_text;
}

// "cpu 1.0.0: head_dim 80 is not in {64, 128}; hip_flash 1.0.0: ..."; of one backend alone where a name is given.
std::string every_reason(const Decision& decision, const std::string& only = {}) {
  const auto left_out = [&only](const std::optional<Manifest>& manifest) {
    return !only.empty() && (!manifest || manifest->name != only);
  };
  std::vector<std::string> parts;
  for (const auto& verdict : decision.verdicts) {
    if (left_out(verdict.candidate.plugin->manifest)) continue;
    parts.push_back(label(verdict) + ": " + joined(verdict.reasons));
  }
  for (const auto& excluded : decision.excluded) {
    const auto& manifest = excluded.plugin->manifest;
    if (left_out(manifest)) continue;
    const std::string name =
        manifest ? manifest->name + " " + manifest->version_text : excluded.plugin->path;
    parts.push_back(name + ": " + excluded.reason);
  }
  if (parts.empty()) return "no plugin was found";
  return fmt::format("{}", fmt::join(parts, "; "));
}

// Only the name that was asked for is left; true if there is such a backend at all.
bool keep_forced(const Policy::Forced& forced, Decision& decision) {
  bool exists = false;
  for (auto& verdict : decision.verdicts) {
    if (verdict.candidate.plugin->manifest->name == forced.name) {
      exists = true;
      continue;
    }
    if (verdict.answer == Answer::not_asked) continue;
    verdict.answer = Answer::not_asked;
    verdict.reasons = {fmt::format("{} asks for {}", forced.by, forced.name)};
  }
  for (const auto& excluded : decision.excluded) {
    exists =
        exists || (excluded.plugin->manifest && excluded.plugin->manifest->name == forced.name);
  }
  return exists;
}

std::string unknown_name(const Policy::Forced& forced, const Decision& decision) {
  std::vector<std::string_view> names;
  for (const auto& verdict : decision.verdicts)
    names.emplace_back(verdict.candidate.plugin->manifest->name);
  for (const auto& excluded : decision.excluded) {
    if (excluded.plugin->manifest) names.emplace_back(excluded.plugin->manifest->name);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::string text =
      fmt::format("select: no backend is named {} ({}){}; found: {}", forced.name, forced.by,
                  did_you_mean(forced.name, names),
                  names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  for (const auto& excluded :
       decision.excluded) {  // it may be one of those that cannot even say their name
    if (!excluded.plugin->manifest)
      text += fmt::format("; {} {}", excluded.plugin->path, excluded.reason);
  }
  return text;
}

// Why the winner won, in the policy's terms.
std::string reason_of_choice(const Policy& policy, const Verdict& winner, const Problem& problem) {
  if (policy.forced()) return fmt::format("{} asks for it", policy.forced()->by);
  const CandidateView candidate = view_of(winner);
  const Rule* rule = policy.preferring(candidate, problem);
  if (rule != nullptr &&
      std::find(rule->prefer.begin(), rule->prefer.end(), candidate.name) != rule->prefer.end()) {
    return fmt::format("preferred by {} ({})", rule->name, rule->origin);
  }
  const auto& backends = policy.config().backends;
  const auto settings = backends.find(std::string(candidate.name));
  const std::string origin =
      settings != backends.end() ? settings->second.priority.origin : "not listed";
  return fmt::format("priority {} ({})", winner.rank.priority, origin);
}

// The best ranked candidate on the tensors' own device that the policy left and that said no, if it ranks above the winner.
const Verdict* passed_over(const Policy& policy, const Decision& decision) {
  if (policy.forced()) return nullptr;
  const Verdict* best = nullptr;
  for (const auto& verdict : decision.verdicts) {
    if (verdict.answer != Answer::no || verdict.staged) continue;
    // Another version of the winner itself is no loss.
    const Verdict& first = decision.verdicts.front();
    if (verdict.candidate.plugin->manifest->name == first.candidate.plugin->manifest->name)
      continue;
    if (best == nullptr ||
        policy.before(view_of(verdict), verdict.rank, view_of(*best), best->rank)) {
      best = &verdict;
    }
  }
  if (best == nullptr || decision.status != ATTNRT_OK) return nullptr;
  const Verdict& winner = decision.verdicts.front();
  return policy.before(view_of(*best), best->rank, view_of(winner), winner.rank) ? best : nullptr;
}

}  // namespace

Problem problem_on(const Device& device, const Problem& problem) {
  if (device.type == problem.device_type) return problem;
  Problem there = problem;
  there.device_type = device.type;
  there.device_id = device.id;
  there.alignment_bytes =
      16;  // copies are dense: rows of head_dim elements, in memory aligned far better
  const int64_t row = dtype_bytes(problem.dtype);
  for (const int64_t dim : {problem.head_dim, problem.head_dim_v}) {
    while (dim * row % there.alignment_bytes != 0) there.alignment_bytes /= 2;
  }
  return there;
}

Decision select(const Policy& policy, const std::vector<Candidate>& candidates,
                std::vector<ExcludedPlugin> excluded, const Problem& problem,
                const std::string& arch) {
  Decision decision;
  decision.problem = problem;
  decision.arch = arch;
  decision.excluded = std::move(excluded);
  decision.verdicts.reserve(candidates.size());
  for (const auto& candidate : candidates) {
    Verdict& verdict = decision.verdicts.emplace_back();
    verdict.candidate = candidate;
    verdict.staged = candidate.device.type != problem.device_type;
    verdict.rank = policy.rank(view_of(verdict), problem);
    judge(policy, problem, verdict);
  }
  const auto& forced = policy.forced();
  decision.forced = forced.has_value();
  const bool known = !forced || keep_forced(*forced, decision);
  std::stable_sort(decision.verdicts.begin(), decision.verdicts.end(),
                   [&policy](const Verdict& a, const Verdict& b) {
                     if ((a.answer == Answer::yes) != (b.answer == Answer::yes))
                       return a.answer == Answer::yes;
                     return policy.before(view_of(a), a.rank, view_of(b), b.rank);
                   });
  if (!known) {
    decision.status = ATTNRT_NOT_FOUND;
    decision.message = unknown_name(*forced, decision);
    return decision;
  }
  if (decision.verdicts.empty() || decision.verdicts.front().answer != Answer::yes) {
    decision.status = ATTNRT_UNSUPPORTED;
    decision.message =
        forced ? fmt::format("select: {} asks for {}, which does not support the problem: {}",
                             forced->by, forced->name, every_reason(decision, forced->name))
               : "select: no backend supports the problem: " + every_reason(decision);
    return decision;
  }
  decision.status = ATTNRT_OK;
  const Verdict& winner = decision.verdicts.front();
  decision.supposed = winner.candidate.backend == nullptr;
  decision.why = reason_of_choice(policy, winner, problem);
  if (const Verdict* refused = passed_over(policy, decision)) {
    decision.fallback = fmt::format("{}: {}", label(*refused), joined(refused->reasons));
    if (policy.config().on_fallback.value == OnFallback::error) {
      decision.status = ATTNRT_UNSUPPORTED;
      decision.message =
          fmt::format("select: on_fallback is error ({}), and the best ranked backend says no: {}",
                      policy.config().on_fallback.origin, decision.fallback);
    }
  }
  return decision;
}

}  // namespace attnrt::core
