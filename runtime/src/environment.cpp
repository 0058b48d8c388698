// runtime/src/environment.cpp: reads the variables ATTNRT_* and applies them to a Config
#include "environment.hpp"

#include <fmt/ranges.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/nearest.hpp"
#include "base/text.hpp"
#include "config.hpp"

namespace attnrt::core {
namespace {

constexpr std::array<std::string_view, 8> variables{
    "ATTNRT_POLICY", "ATTNRT_PLUGIN_PATH", "ATTNRT_BACKEND",  "ATTNRT_DISABLE",
    "ATTNRT_LOG",    "ATTNRT_ADMISSION",   "ATTNRT_REGISTRY", "ATTNRT_STATS"};
constexpr std::array<std::string_view, 5> log_levels{"debug", "info", "warning", "error",
                                                     "off"};  // ATTNRT_LOG_* in order

constexpr std::string_view kDecision = "decision";  // of ATTNRT_LOG, beside a level or alone

bool is_set(const std::optional<std::string>& variable) { return variable && !variable->empty(); }

// ATTNRT_LOG is a level, "decision", or both: "warning,decision".
Result<void> apply_log(const Environment& environment, Config& config) {
  bool has_level = false;
  for (const std::string& word : split(environment.log.value_or(""), ',')) {
    const auto level = std::find(log_levels.begin(), log_levels.end(), word);
    if (level == log_levels.end() && word != kDecision) {
      return fail(ATTNRT_INVALID_ARGUMENT, "ATTNRT_LOG: found {}, expected {}, and perhaps ,{}",
                  shown(*environment.log), fmt::join(log_levels, ", "), kDecision);
    }
    if (level == log_levels.end()) {
      config.log_decisions = true;
      continue;
    }
    if (has_level)
      return fail(ATTNRT_INVALID_ARGUMENT, "ATTNRT_LOG: found {}, expected one level",
                  shown(*environment.log));
    has_level = true;
    config.log_level = {static_cast<int>(level - log_levels.begin()), "ATTNRT_LOG"};
  }
  return {};
}

}  // namespace

Environment read_environment() {
  Environment environment;
  if (getauxval(AT_SECURE) != 0) return environment;
  std::optional<std::string>* const fields[] = {
      &environment.policy, &environment.plugin_path, &environment.backend,  &environment.disable,
      &environment.log,    &environment.admission,   &environment.registry, &environment.stats};
  for (size_t i = 0; i < variables.size(); ++i) {
    const char* value = secure_getenv(std::string(variables.at(i)).c_str());
    if (value != nullptr && *value != '\0') *fields[i] = value;
  }
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view name =
        std::string_view(*entry).substr(0, std::string_view(*entry).find('='));
    if (!name.starts_with("ATTNRT_") ||
        std::find(variables.begin(), variables.end(), name) != variables.end())
      continue;
    environment.warnings.push_back(fmt::format("{}: unknown variable, ignored{}", shown(name),
                                               expected_one_of(name, variables)));
  }
  std::sort(environment.warnings.begin(), environment.warnings.end());
  return environment;
}

Result<void> apply_environment(const Environment& environment, Config& config) {
  if (is_set(environment.plugin_path))
    config.directories = {split(*environment.plugin_path, ':'), "ATTNRT_PLUGIN_PATH"};
  if (is_set(environment.backend)) config.forced_backend = {environment.backend, "ATTNRT_BACKEND"};
  if (is_set(environment.disable))
    config.disabled = {split(*environment.disable, ','), "ATTNRT_DISABLE"};
  if (is_set(environment.admission)) {
    const auto level = find_level(*environment.admission);
    if (!level) {
      return fail(ATTNRT_INVALID_ARGUMENT,
                  "ATTNRT_ADMISSION: found {}, expected off, loads or conforms",
                  shown(*environment.admission));
    }
    config.admission_level = {*level, "ATTNRT_ADMISSION"};
  }
  if (is_set(environment.registry)) {
    if (environment.registry->front() != '/') {
      return fail(ATTNRT_INVALID_ARGUMENT, "ATTNRT_REGISTRY: found {}, expected an absolute path",
                  shown(*environment.registry));
    }
    config.admission_registry = {*environment.registry, "ATTNRT_REGISTRY"};
  }
  config.log_level = {ATTNRT_LOG_WARNING, "default"};
  if (auto applied = apply_log(environment, config); !applied) return applied;
  config.warnings.insert(config.warnings.end(), environment.warnings.begin(),
                         environment.warnings.end());
  return {};
}

}  // namespace attnrt::core
