// runtime/src/policy.cpp: the policy step: which candidates are allowed, and in which order
#include "policy.hpp"

#include <algorithm>

namespace attnrt::core {

namespace {

bool matches(const Rule& rule, const Problem& problem, std::string_view arch) {
  return std::all_of(rule.when.begin(), rule.when.end(),
                     [&](const Constraint& condition) { return condition.met(problem, arch); });
}

bool contains(const std::vector<std::string>& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

// Returns the policy's settings for the backend, or nullptr if the policy does not list it.
const BackendSettings* settings_of(const Config& config, std::string_view name) {
  const auto found = config.backends.find(name);
  return found != config.backends.end() ? &found->second : nullptr;
}

}  // namespace

std::string version_refusal(const BackendSettings* settings, const CandidateView& candidate) {
  if (candidate.version == nullptr) return "";
  const bool has_range = settings != nullptr && !settings->version.value.comparisons.empty();
  if (!has_range) {
    const bool in_rollout = settings != nullptr && settings->rollout.value &&
                            settings->rollout.value->version.contains(*candidate.version);
    if (candidate.version->prerelease.empty() || in_rollout) return "";
    return fmt::format("version {} is a pre-release, and no version range names it",
                       candidate.version_text);
  }
  const VersionRange& range = settings->version.value;
  if (range.contains(*candidate.version)) return "";
  return fmt::format("version {} is not in {} ({})", candidate.version_text, range.text,
                     settings->version.origin);
}

bool never_serves(const Config& config, const Manifest& manifest) {
  if (!switched_off(config, manifest.name).empty()) return true;
  CandidateView candidate;
  candidate.version = &manifest.version;
  return !version_refusal(settings_of(config, manifest.name), candidate).empty();
}

std::strong_ordering Rank::operator<=>(const Rank& other) const {
  if (const auto order = prefer <=> other.prefer; order != 0) return order;
  if (const auto order = staged <=> other.staged; order != 0) return order;
  return other.priority <=> priority;
}

Policy::Policy(std::shared_ptr<const Config> config, Call call) : config_(std::move(config)) {
  if (!call.backend.empty()) {
    forced_ = Forced{std::move(call.backend), "the call"};
  } else if (config_->forced_backend.value) {
    forced_ = Forced{*config_->forced_backend.value, config_->forced_backend.origin};
  } else if (config_->default_backend.value) {
    forced_ = Forced{*config_->default_backend.value,
                     fmt::format("default ({})", config_->default_backend.origin)};
  }
}

std::vector<std::string> Policy::exclusions(const CandidateView& candidate,
                                            const Problem& problem) const {
  std::vector<std::string> reasons;
  if (std::string off = switched_off(*config_, candidate.name); !off.empty())
    reasons.push_back(std::move(off));
  for (const Rule& rule : config_->rules.value) {
    if (!contains(rule.deny, candidate.name) || !matches(rule, problem, candidate.arch)) continue;
    reasons.push_back(fmt::format("denied by {} ({})", rule.name, rule.origin));
  }
  const BackendSettings* settings = settings_of(*config_, candidate.name);
  if (std::string refusal = version_refusal(settings, candidate); !refusal.empty())
    reasons.push_back(std::move(refusal));
  if (settings != nullptr && !settings->only.value.empty()) {
    Problem device_problem = problem;
    device_problem.device_type = find_device(candidate.device).value_or(problem.device_type);
    device_problem.device_id = candidate.device_id;
    for (const auto& refusal : refusals(settings->only.value, device_problem, candidate.arch))
      reasons.push_back(fmt::format("{} (only, {})", refusal, settings->only.origin));
  }
  if (candidate.staged && !config_->staging.value) {
    reasons.push_back(fmt::format("the tensors are on {}, and staging is never ({})",
                                  device_name(problem.device_type), config_->staging.origin));
  }
  return reasons;
}

const Rule* Policy::preferring_rule(const CandidateView& candidate, const Problem& problem) const {
  for (const Rule& rule : config_->rules.value) {
    if (!rule.prefer.empty() && matches(rule, problem, candidate.arch)) return &rule;
  }
  return nullptr;
}

Rank Policy::rank(const CandidateView& candidate, const Problem& problem) const {
  Rank rank;
  if (const Rule* rule = preferring_rule(candidate, problem)) {
    const auto position = std::find(rule->prefer.begin(), rule->prefer.end(), candidate.name);
    if (position != rule->prefer.end()) rank.prefer = position - rule->prefer.begin();
  }
  rank.staged = candidate.staged;
  if (const BackendSettings* settings = settings_of(*config_, candidate.name))
    rank.priority = settings->priority.value;
  return rank;
}

bool Policy::before(const CandidateView& a, const Rank& rank_a, const CandidateView& b,
                    const Rank& rank_b) const {
  if (const auto order = rank_a <=> rank_b; order != 0) return order < 0;
  if (a.version != nullptr && b.version != nullptr) {
    if (const auto order = *a.version <=> *b.version; order != 0) return order > 0;
  }
  if (a.name != b.name) return a.name < b.name;
  if (a.device != b.device) return a.device < b.device;
  if (a.device_id != b.device_id) return a.device_id < b.device_id;
  return a.hash < b.hash;
}

}  // namespace attnrt::core
