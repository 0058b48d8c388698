// runtime/probe/main.cpp: attnrt-probe, which tries a plugin in processes that may crash
//
//     attnrt-probe LEVEL SEED FILE
//
//     descriptor 3   the plugin's bytes, in a memory file that nobody can change
//     descriptor 5   the options: each key and each value with a zero byte behind it
//     descriptor 4   answers, one a line: "attnrt-probe 1" first; "pass RULE" or "fail RULE TEXT"
//                    for each rule, "late RULE TEXT" for one that was stopped at its deadline; "end
//                    pass" or "end fail" last. "error TEXT" instead of the end: the plugin could
//                    not be tried, and nothing is known about it.
//
// This process loads nothing. Its child does, and this process reports how the child ended,
// whatever the application that started it does with its own children. When the reader of the
// answers is gone, everything that was started here is killed.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"
#include "base/text.hpp"
#include "conformance/children.hpp"
#include "conformance/levels.hpp"

namespace {

namespace conformance = attnrt::conformance;

constexpr int kLibrary = 3, kAnswers = 4, kOptions = 5;
constexpr int kUsage = 2;
constexpr size_t kMostText = 400;  // bytes of one answer's text

// Nothing is lost if that fails: the reader is gone then, which end_with_reader sees.
void answer(const std::string& line) { attnrt::core::write_all(kAnswers, line); }

std::string text_of(const std::string& text) {
  return attnrt::core::one_line(attnrt::core::cut(text.c_str(), kMostText));
}

// Kills what this process's children have started and left behind. They became children of this
// process when their own parents ended. RETURNS whether there were any.
bool kill_descendants() {
  constexpr int kRounds = 100;  // one that forks without end is killed by its group
  for (int round = 0; round < kRounds; ++round) {
    std::ifstream children("/proc/self/task/" + std::to_string(getpid()) + "/children");
    bool any = false;
    for (pid_t pid = 0; children >> pid; any = true) {
      kill(-pid, SIGKILL);
      kill(pid, SIGKILL);
    }
    if (!any) return round > 0;
    while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
    usleep(1000);
  }
  return true;
}

// Ends this process, and all that it started, when nobody reads the answers any more. The
// application may have ended, be it before this process asked who its parent is, and have left a
// child that has the descriptor, too.
void end_with_reader(pid_t parent) {
  constexpr int kLookMilliseconds = 500;
  ucred application{};  // it made the socket of the answers
  socklen_t size = sizeof application;
  int process = -1;
  bool ended = false;
  if (getsockopt(kAnswers, SOL_SOCKET, SO_PEERCRED, &application, &size) == 0 &&
      application.pid > 0) {
    process = static_cast<int>(syscall(SYS_pidfd_open, application.pid, 0));
    ended = process < 0 && errno == ESRCH;
  }
  std::array<pollfd, 2> waited{{{kAnswers, 0, 0}, {process, POLLIN, 0}}};  // -1: is left out
  while (!ended && poll(waited.data(), waited.size(), kLookMilliseconds) <= 0 &&
         getppid() == parent)
    continue;
  kill_descendants();
  _exit(1);
}

int probe(const conformance::Settings& settings, const std::string& file) {
  answer("attnrt-probe 1\n");
  try {
    const auto results =
        conformance::check_rules_in_children(file, settings, {"/proc/self/exe", "child"}, nullptr);
    const bool left_processes = kill_descendants();
    bool passed = true;
    for (const auto& [rule, outcome] : results) {
      if (outcome.state == conformance::State::skipped) continue;
      const bool failed = outcome.state == conformance::State::failed;
      passed = passed && !failed;
      answer((!failed             ? "pass "
              : outcome.timed_out ? "late "
                                  : "fail ") +
             std::string(rule->id) + (failed ? " " + text_of(outcome.detail) : "") + "\n");
    }
    // After a failure, these are what was killed.
    if (passed && left_processes) {
      answer("fail ABI-13 it left a process behind\n");
      passed = false;
    }
    answer(passed ? "end pass\n" : "end fail\n");
    return passed ? 0 : 1;
  } catch (const std::exception& error) {
    answer("error " + text_of(error.what()) + "\n");
    return 1;
  }
}

// Reads the options' memory file. RETURNS false if there is none, or if a value is missing.
bool read_options(std::vector<std::pair<std::string, std::string>>& options) {
  std::string text;
  std::array<char, 4096> bytes{};
  ssize_t got = 0;
  while ((got = pread(kOptions, bytes.data(), bytes.size(), static_cast<off_t>(text.size()))) > 0)
    text.append(bytes.data(), static_cast<size_t>(got));
  if (got < 0) return false;
  std::vector<std::string> words;
  for (size_t at = 0, end; (end = text.find('\0', at)) != text.npos; at = end + 1)
    words.push_back(text.substr(at, end - at));
  for (size_t i = 0; i + 1 < words.size(); i += 2) options.emplace_back(words[i], words[i + 1]);
  return words.size() % 2 == 0;
}

int usage(const char* found) {
  std::fprintf(stderr,
               "attnrt-probe: found %s; expected LEVEL (loads, conforms) SEED FILE; the runtime "
               "starts it, \"attnrt verify\" is for people\n",
               found);
  return kUsage;
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> words(arguments + 1, arguments + count);
  if (words == std::vector<std::string>{"child"}) return conformance::serve_as_child();
  if (words.size() != 3) return usage("too few arguments, or too many");
  uint64_t seed = 0;
  const std::string& digits = words[1];
  if (std::from_chars(digits.data(), digits.data() + digits.size(), seed).ptr !=
      digits.data() + digits.size())
    return usage("a SEED that is no number");
  auto settings = conformance::settings_of_level(words[0], seed);
  if (!settings) return usage("another LEVEL");
  if (fcntl(kLibrary, F_GETFD) < 0 || fcntl(kAnswers, F_GETFD) < 0)
    return usage("no descriptors 3 and 4");
  if (!read_options(settings->options)) return usage("no options on descriptor 5");
  // The application may have descriptors that are inherited.
  syscall(SYS_close_range, kAnswers + 1, ~0U, 0);
  fcntl(kLibrary, F_SETFD, FD_CLOEXEC);
  fcntl(kAnswers, F_SETFD, FD_CLOEXEC);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  settings->library = kLibrary;
  std::thread(end_with_reader, getppid()).detach();
  return probe(*settings, words[2]);
}
