// runtime/conformance/child.cpp: one child process that checks rules, as its parent sees it
#include "conformance/child.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "base/signals.hpp"

extern char** environ;

namespace attnrt::conformance {
namespace {

using core::Descriptor;
using core::write_all;

constexpr int kFirstFree = 10;  // the parent's copies have numbers from here on
constexpr int kNotFound = 127;  // the exit code of a child whose program cannot be started
constexpr size_t kMostAnswer = size_t{1} << 20;  // bytes of one line

// What a child may write to one file beyond the size of the plugin (its output goes to a memory
// file).
constexpr rlim_t kMostFileBytes = rlim_t{64} << 20;

// How long the parent waits for an answer before it looks at the deadline again.
constexpr int64_t kPollMilliseconds = 1000;
constexpr int kEndPollMilliseconds = 2;  // the same for its end

[[noreturn]] void fail(const char* call) {
  throw std::runtime_error(fmt::format("{}: {}", call, std::strerror(errno)));
}

Descriptor memory_file(const char* name) {
  const int file = memfd_create(name, MFD_CLOEXEC);
  if (file < 0) fail("memfd_create");
  return Descriptor(file);
}

// Returns a copy of the descriptor, with a number that is none of the child's own descriptors.
Descriptor moved_away(int file) {
  const int copy = fcntl(file, F_DUPFD_CLOEXEC, kFirstFree);
  if (copy < 0) fail("fcntl");
  return Descriptor(copy);
}

// Limits what the child may use up of the machine. A plugin may lower these limits, not raise them.
// Calls only what is safe after fork.
void limit_this_process(rlim_t file_bytes) {
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur > file_bytes) {
    limit.rlim_cur = file_bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  limit = {0, 0};
  setrlimit(RLIMIT_CORE, &limit);
}

// Waits for the process, and ends this one in the same way. Calls only what is safe after fork.
[[noreturn]] void end_like(pid_t process) {
  int status = 0;
  while (process > 0 && waitpid(process, &status, 0) < 0 && errno == EINTR) continue;
  if (process > 0 && WIFEXITED(status)) _exit(WEXITSTATUS(status));
  const int signal = process > 0 ? WTERMSIG(status) : SIGKILL;
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  kill(getpid(), signal);
  _exit(kNotFound);
}

}  // namespace

void die_with(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kNotFound);  // it has ended before that call
}

Child::Child(const std::vector<std::string>& command, const std::string& request, int library)
    : output_(memory_file("attnrt_output")) {
  const core::NoFileSizeSignal no_signal;
  const Descriptor request_file = memory_file("attnrt_request");
  if (!write_all(request_file.number(), request) ||
      lseek(request_file.number(), 0, SEEK_SET) != 0) {
    fail("write of the request");
  }
  std::array<int, 2> ends{-1, -1};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) fail("pipe");
  answers_ = Descriptor(ends[0]);
  const Descriptor answer_end(ends[1]);
  struct stat status {};
  const Descriptor kept = library >= 0 ? moved_away(library) : Descriptor();
  if (library >= 0 && fstat(library, &status) != 0) fail("fstat");
  start(command,
        {moved_away(request_file.number()), moved_away(answer_end.number()),
         moved_away(output_.number())},
        kept.number(), kMostFileBytes + static_cast<rlim_t>(status.st_size));
}

std::optional<std::string> Child::next_answer(Clock::time_point deadline) {
  for (;;) {
    if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string text = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return text;
    }
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) {
      timed_out = true;
      return std::nullopt;
    }
    pollfd waiting{answers_.number(), POLLIN, 0};
    if (poll(&waiting, 1, static_cast<int>(std::min<int64_t>(left, kPollMilliseconds))) <= 0)
      continue;
    std::array<char, 4096> bytes{};
    const ssize_t got = read(answers_.number(), bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return std::nullopt;
    buffer_.append(bytes.data(), static_cast<size_t>(got));
    // The plugin writes to the descriptor: nothing that the child could answer is so long.
    is_flooding = buffer_.size() > kMostAnswer;
    if (is_flooding) return std::nullopt;
  }
}

std::string Child::wait(std::optional<Clock::time_point> deadline) {
  if (pid_ <= 0) return ending_;
  int status = 0;
  pid_t waited = 0;
  while ((waited = waitpid(pid_, &status, WNOHANG)) == 0 || (waited < 0 && errno == EINTR)) {
    const bool is_late = deadline && Clock::now() > *deadline;
    timed_out = timed_out || is_late;
    if (!deadline || is_late) kill(-pid_, SIGKILL);
    poll(nullptr, 0, kEndPollMilliseconds);
  }
  left_processes = kill(-pid_, SIGKILL) == 0;  // what it started, and did not wait for
  pid_ = 0;
  // Where SIGCHLD is ignored, the system waits itself and keeps no status.
  if (waited < 0)
    return ending_ = "ended, and how is not known because this process ignores SIGCHLD";
  if (WIFSIGNALED(status)) {
    ending_ = fmt::format("ended by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  }
  // A child that has checked every rule ends with code 0. Before that, it was the plugin.
  ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (WIFEXITED(status)) ending_ = fmt::format("was ended by exit({})", WEXITSTATUS(status));
  return ending_;
}

std::string Child::printed() const {
  std::array<char, 200> text{};
  const ssize_t got = pread(output_.number(), text.data(), text.size() - 1, 0);
  std::string first(text.data(), got > 0 ? static_cast<size_t>(got) : 0);
  first.erase(0, std::min(first.size(), first.find_first_not_of("\n=")));
  return first.substr(0, first.find('\n'));
}

void Child::start(const std::vector<std::string>& command, const Files& files, int library,
                  rlim_t file_bytes) {
  std::vector<char*> arguments;
  for (const std::string& argument : command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) fail("fork");
  if (pid_ > 0) {
    setpgid(pid_, pid_);  // in both processes, since either may be the first to need it
    return;
  }
  // In the child, only calls that are safe after fork. It leads the process group, and is the
  // parent of the one that checks rules: the leader of a group could not start a session, and
  // what a plugin does to its parent must not hit this program.
  setpgid(0, 0);
  const pid_t leader = getpid();
  die_with(parent);
  if (const pid_t checks = fork(); checks != 0) end_like(checks);
  die_with(leader);
  limit_this_process(file_bytes);
  dup2(files.output.number(), STDOUT_FILENO);
  dup2(files.output.number(), STDERR_FILENO);
  dup2(files.request.number(), kRequest);
  dup2(files.answers.number(), kAnswers);
  if (library >= 0) dup2(library, kLibrary);
  execve(arguments[0], arguments.data(), environ);
  _exit(kNotFound);
}

}  // namespace attnrt::conformance
