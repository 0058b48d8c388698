// runtime/src/services.cpp: the threads, the log and the allocator that every backend shares
#include "services.hpp"

#include <algorithm>
#include <cstdio>

namespace attnrt::core {
namespace {

void log_to_stderr(int32_t severity, const std::string& text) {
  static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  std::fprintf(stderr, "attnrt: %s: %s\n", kNames[std::clamp(severity, 0, 3)],
               one_line(text).c_str());
}

}  // namespace

std::shared_ptr<Services> make_services(const RuntimeOptions& options, const Config& config) {
  auto services = std::make_shared<Services>();
  const auto count =
      options.thread_count > 0 ? options.thread_count : static_cast<int32_t>(config.threads.value);
  services->threads =
      options.parallel_for != nullptr
          ? Threads::borrowed(std::max(count, 1), options.parallel_for, options.parallel_self)
          : Threads::pool(count);
  services->allocator = options.allocator;
  services->log_level = config.log_level.value;
  services->logs_decisions = config.log_decisions;
  services->log = options.log;
  if (services->log) {
    services->log_decision = [log = services->log](const std::string& json) {
      log(ATTNRT_LOG_INFO, "decision: " + json);
    };
  } else {
    services->log_decision = [](const std::string& json) {
      std::fprintf(stderr, "attnrt: decision: %s\n", json.c_str());
    };
    services->log = [level = &services->log_level](int32_t severity, const std::string& text) {
      if (severity >= level->load(std::memory_order_relaxed)) log_to_stderr(severity, text);
    };
  }
  return services;
}

}  // namespace attnrt::core
