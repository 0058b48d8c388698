// tests/fuzz/policy_fuzz.cpp: reads a policy, and reads its conditions again as they are printed
#include "config.hpp"
#include "fuzz.hpp"
#include "policy_text.hpp"

void fuzz_policy(std::string_view input) {
  using namespace attnrt;
  using fuzz::require;
  core::Errors errors;
  const auto config = core::read_config(input, "policy.yaml", {}, &errors);
  for (const core::Error& error : errors) {
    require(error.code == ATTNRT_INVALID_ARGUMENT, "every error of a policy is INVALID_ARGUMENT");
    fuzz::require_place(error.message, "policy.yaml", input);
  }
  require(config.has_value() == errors.empty(), "a policy is read if and only if it has no errors");
  if (!config) {
    fuzz::require_place(config.error().message, "policy.yaml", input);
    return;
  }
  require(config->threads.value >= 0 && config->threads.value <= 1024, "threads is 0 to 1024");
  require(config->plan_cache_bytes.value >= 0, "plan_cache.bytes is no negative number");
  for (const std::string& warning : config->warnings)
    fuzz::require_place(warning, "policy.yaml", input);
  for (const auto& [name, backend] : config->backends) {
    fuzz::require_conditions_read_again(backend.only.value);
    if (backend.version.value.text.empty()) continue;
    const auto again = core::parse_version_range(backend.version.value.text);
    require(again && again->comparisons.size() == backend.version.value.comparisons.size(),
            "the text of a version range is read as that range");
  }
  for (const core::Rule& rule : config->rules.value) {
    require(!rule.prefer.empty() || !rule.deny.empty(), "a rule does something");
    fuzz::require_conditions_read_again(rule.when);
  }
}
