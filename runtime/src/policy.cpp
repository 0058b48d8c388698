// runtime/src/policy.cpp: a Config and one call's options into an order over candidates; a pure function of its inputs
#include "policy.hpp"

#include <algorithm>

namespace attnrt::core {

namespace {

constexpr int64_t not_preferred = INT64_MAX;

bool matches(const Rule& rule, const Problem& problem, std::string_view arch) {
  return std::all_of(rule.when.begin(), rule.when.end(),
                     [&](const Constraint& c) { return c.met(problem, arch); });
}

bool names(const std::vector<std::string>& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

const BackendSettings* settings(const Config& config, std::string_view name) {
  const auto found = config.backends.find(name);
  return found != config.backends.end() ? &found->second : nullptr;
}

std::string version_refusal(const VersionRange* range, const std::string& origin,
                            const CandidateView& candidate) {
  const bool has_range = range != nullptr && !range->comparisons.empty();
  if (has_range ? range->contains(*candidate.version) : candidate.version->prerelease.empty())
    return "";
  if (!has_range)
    return fmt::format("version {} is a pre-release, and no version range names it",
                       candidate.version_text);
  return fmt::format("version {} is not in {} ({})", candidate.version_text, range->text, origin);
}

}  // namespace

std::strong_ordering Rank::operator<=>(const Rank& other) const {
  if (const auto order = prefer <=> other.prefer; order != 0) return order;
  if (const auto order = staged <=> other.staged; order != 0) return order;
  return other.priority <=> priority;
}

Policy::Policy(std::shared_ptr<const Config> config, Call call)
    : config_(std::move(config)), call_(std::move(call)) {
  if (!call_.backend.empty()) {
    forced_ = Forced{call_.backend, "call"};
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
    if (!names(rule.deny, candidate.name) || !matches(rule, problem, candidate.arch)) continue;
    reasons.push_back(fmt::format("denied by {} ({})", rule.name, rule.origin));
  }
  const BackendSettings* backend = settings(*config_, candidate.name);
  if (candidate.version != nullptr) {
    std::string refusal = backend != nullptr ? version_refusal(&backend->version.value,
                                                               backend->version.origin, candidate)
                                             : version_refusal(nullptr, "", candidate);
    if (!refusal.empty()) reasons.push_back(std::move(refusal));
  }
  if (backend != nullptr && !backend->only.value.empty()) {
    Problem there = problem;
    there.device_type = find_device(candidate.device).value_or(problem.device_type);
    there.device_id = candidate.device_id;
    for (const std::string& refusal : refusals(backend->only.value, there, candidate.arch)) {
      reasons.push_back(fmt::format("{} (only, {})", refusal, backend->only.origin));
    }
  }
  if (candidate.staged && !config_->staging.value) {
    reasons.push_back(fmt::format("the tensors are on {}, and staging is never ({})",
                                  device_name(problem.device_type), config_->staging.origin));
  }
  return reasons;
}

const Rule* Policy::preferring(const CandidateView& candidate, const Problem& problem) const {
  for (const Rule& rule : config_->rules.value) {
    if (!rule.prefer.empty() && matches(rule, problem, candidate.arch)) return &rule;
  }
  return nullptr;
}

Rank Policy::rank(const CandidateView& candidate, const Problem& problem) const {
  Rank rank;
  rank.prefer = not_preferred;
  if (const Rule* rule = preferring(candidate, problem)) {
    const auto place = std::find(rule->prefer.begin(), rule->prefer.end(), candidate.name);
    if (place != rule->prefer.end()) rank.prefer = place - rule->prefer.begin();
  }
  rank.staged = candidate.staged;
  if (const BackendSettings* backend = settings(*config_, candidate.name))
    rank.priority = backend->priority.value;
  return rank;
}

bool Policy::before(const CandidateView& a, const Rank& rank_a, const CandidateView& b,
                    const Rank& rank_b) const {
  if (const auto order = rank_a <=> rank_b; order != 0) return order < 0;
  if (a.version != nullptr && b.version != nullptr) {
    if (const auto order = *a.version <=> *b.version; order != 0)
      return order > 0;  // the newest first
  }
  if (a.name != b.name) return a.name < b.name;
  if (a.device != b.device) return a.device < b.device;
  if (a.device_id != b.device_id) return a.device_id < b.device_id;
  return a.hash < b.hash;
}

}  // namespace attnrt::core
