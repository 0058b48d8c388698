// runtime/conformance/process_state.cpp: checks that a plugin leaves the process as it was
#include "conformance/process_state.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cfenv>
#include <chrono>
#include <cinttypes>
#include <climits>
#include <cstdio>
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

// One bit for each blocked signal.
std::string mask_of_signals() {
  sigset_t mask;
  uint64_t blocked = 0;
  if (pthread_sigmask(SIG_SETMASK, nullptr, &mask) != 0) return "unknown";
  for (int signal = 1; signal < NSIG; ++signal) {
    if (sigismember(&mask, signal) == 1) blocked |= uint64_t{1} << (signal - 1);
  }
  return fmt::format("{:#x}", blocked);
}

std::string timer() {
  itimerval value{};
  if (getitimer(ITIMER_REAL, &value) != 0) return "unknown";
  return value.it_value.tv_sec != 0 || value.it_value.tv_usec != 0 ? "set" : "off";
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

// Whether code may be executed on this thread's stack, near here.
std::string stack() {
  constexpr uint64_t kNear = 1 << 20;
  const int here = 0;
  const auto address = reinterpret_cast<uint64_t>(&here);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {  // "7ffc0000-7ffd0000 rw-p ..."
    uint64_t first = 0, end = 0;
    std::array<char, 5> permissions{};
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s", &first, &end,
                    permissions.data()) != 3)
      continue;
    if (first < address + kNear && end > address - kNear && permissions[2] == 'x')
      return "executable";
  }
  return "not executable";
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
  values.emplace_back("signal mask", mask_of_signals());
  values.emplace_back("timer", timer());
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
  values.emplace_back("stack", stack());
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
