// runtime/src/services.hpp: the threads, the log and the allocator that every backend shares
#pragma once

#include <attnrt/plugin.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "base/threads.hpp"
#include "config.hpp"
#include "runtime_options.hpp"

namespace attnrt::core {

// OWNERSHIP: shared by snapshots and backends, so it lives as long as the last backend that uses
// it.
struct Services {
  std::unique_ptr<Threads> threads;
  Allocator allocator;
  std::function<void(int32_t severity, const std::string& text)> log;
  std::atomic<int32_t> log_level = ATTNRT_LOG_WARNING;        // lines below it do not reach stderr
  bool logs_decisions = false;                                // ATTNRT_LOG names `decision`
  std::function<void(const std::string& json)> log_decision;  // whatever the level is

  // Whether debug and info lines are wanted. Ask before formatting one, so that an unread line
  // costs nothing.
  bool logs_debug() const { return log_level.load(std::memory_order_relaxed) <= ATTNRT_LOG_DEBUG; }
  bool logs_info() const { return log_level.load(std::memory_order_relaxed) <= ATTNRT_LOG_INFO; }
};

// Makes the thread pool (or takes the application's threads) and the log. Options come before the
// config.
std::shared_ptr<Services> make_services(const RuntimeOptions& options, const Config& config);

}  // namespace attnrt::core
