// runtime/conformance/process_state.cpp: checks that a plugin leaves the process as it was
#include "conformance/process_state.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cfenv>
#include <chrono>
#include <climits>
#include <fstream>
#include <thread>

#include "base/text.hpp"
#include "conformance/rule_checks.hpp"
#include "conformance/subject.hpp"

namespace attnrt::conformance {
namespace {

// Long enough for what a library's constructor leaves to a thread or a timer of its own.
constexpr std::chrono::milliseconds kSettle{100};

std::string handler_of(int signal) {
  struct sigaction action {};
  if (sigaction(signal, nullptr, &action) != 0) return "unknown";
  if (action.sa_handler == SIG_DFL) return "default";
  if (action.sa_handler == SIG_IGN) return "ignored";
  return fmt::format("{}", reinterpret_cast<const void*>(action.sa_handler));
}

std::string mask_of_signals() {
  sigset_t mask;
  std::string blocked;
  if (pthread_sigmask(SIG_SETMASK, nullptr, &mask) != 0) return "unknown";
  for (int signal = 1; signal < NSIG; ++signal) {
    if (sigismember(&mask, signal) == 1) blocked += fmt::format(" {}", signal);
  }
  return blocked.empty() ? "none" : blocked.substr(1);
}

std::string limit_text(rlim_t value) {
  return value == RLIM_INFINITY ? "unlimited" : std::to_string(value);
}

std::string limit_of(decltype(RLIMIT_NOFILE) resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0) return "unknown";
  return fmt::format("{} ({})", limit_text(limit.rlim_cur), limit_text(limit.rlim_max));
}

std::string stream_of(int descriptor) {
  struct stat status {};
  if (fstat(descriptor, &status) != 0) return "closed";
  return fmt::format("file {}:{}", status.st_dev, status.st_ino);
}

std::string folder() {
  std::array<char, PATH_MAX> path{};
  return getcwd(path.data(), path.size()) != nullptr ? path.data() : "unknown";
}

std::string mask_of_files() {
  const mode_t mask = umask(0);
  umask(mask);
  return fmt::format("{:03o}", mask);
}

// The permissions of the main thread's stack: "rw-p".
std::string stack_permissions() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (!line.ends_with("[stack]")) continue;
    const size_t space = line.find(' ');
    return space == std::string::npos ? "unknown" : line.substr(space + 1, 4);
  }
  return "unknown";
}

std::string environment() {
  std::string all;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry)
    all.append(*entry).push_back('\n');
  return all;
}

// What of the environment differs, in few words: values may be long, or secret.
std::string changed_variables(const std::string& before, const std::string& after) {
  std::string names;
  for (const std::string& entry : core::split(after, '\n')) {
    const bool known =
        before.find(entry + "\n") == 0 || before.find("\n" + entry + "\n") != std::string::npos;
    if (!entry.empty() && !known) names += " " + entry.substr(0, entry.find('='));
  }
  return names.empty() ? "a variable was removed" : "it sets" + names;
}

}  // namespace

ProcessState ProcessState::now() {
  ProcessState state;
  auto& values = state.values;
  values.emplace_back("rounding mode", std::to_string(std::fegetround()));
  for (int signal = 1; signal < NSIG; ++signal)
    values.emplace_back(fmt::format("handler of signal {}", signal), handler_of(signal));
  values.emplace_back("blocked signals", mask_of_signals());
  static constexpr std::pair<const char*, decltype(RLIMIT_NOFILE)> kLimits[] = {
      {"open files", RLIMIT_NOFILE}, {"file size", RLIMIT_FSIZE}, {"address space", RLIMIT_AS},
      {"data", RLIMIT_DATA},         {"stack", RLIMIT_STACK},     {"core", RLIMIT_CORE},
      {"processor time", RLIMIT_CPU}};
  for (const auto& [name, resource] : kLimits)
    values.emplace_back(fmt::format("limit of {}", name), limit_of(resource));
  values.emplace_back("folder", folder());
  values.emplace_back("umask", mask_of_files());
  values.emplace_back("session", std::to_string(getsid(0)));
  values.emplace_back("priority", std::to_string(getpriority(PRIO_PROCESS, 0)));
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    values.emplace_back(fmt::format("descriptor {}", stream), stream_of(stream));
  values.emplace_back("permissions of the stack", stack_permissions());
  values.emplace_back("environment", environment());
  return state;
}

std::string ProcessState::changes(const ProcessState& later) const {
  std::string text;
  for (size_t i = 0; i < values.size() && i < later.values.size(); ++i) {
    const auto& [name, before] = values[i];
    const std::string& after = later.values[i].second;
    if (before == after) continue;
    if (!text.empty()) text += "; ";
    text += name == "environment" ? name + ": " + changed_variables(before, after)
                                  : fmt::format("{} was {}, is {}", name, before, after);
  }
  return text;
}

Outcome check_process_unchanged(Subject& subject) {
  subject.devices();
  std::this_thread::sleep_for(kSettle);
  const std::string changes = subject.before().changes(ProcessState::now());
  return changes.empty() ? passed() : failed(changes);
}

}  // namespace attnrt::conformance
