// runtime/src/probe.cpp: tries a plugin's bytes in the program attnrt-probe, which may crash
#include "probe.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <string_view>
#include <vector>

#include "base/text.hpp"
#include "own_file.hpp"

namespace attnrt::core {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kLibrary = 3, kAnswers = 4,
              kOptions = 5;  // the program's descriptors (probe/main.cpp)
constexpr int kFirstFree = 10;
constexpr size_t kMostBytes = 65536;  // of all answers
constexpr int kPollMilliseconds = 100;
constexpr std::string_view kGreeting = "attnrt-probe 1";

// The program's own deadlines are shorter (conformance/levels.cpp). These are for a program that
// hangs itself.
std::chrono::seconds most_time(AdmissionLevel level) {
  return std::chrono::seconds(level == AdmissionLevel::loads ? 20 : 330);
}

// What of the environment a plugin may need to find its devices. Nothing in a privileged process.
bool is_passed_on(std::string_view entry) {
  const std::string_view name = entry.substr(0, entry.find('='));
  return name == "LD_LIBRARY_PATH" || name == "HOME" || name.ends_with("_VISIBLE_DEVICES") ||
         name.starts_with("HSA_");
}

std::vector<char*> pointers_to(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// The seed of a plugin's random cases: the same bytes give the same cases.
std::string seed_of(const FoundPlugin& plugin) {
  uint64_t seed = 0;
  const std::string digits = plugin.hash.substr(0, 15);
  std::from_chars(digits.data(), digits.data() + digits.size(), seed, 16);
  return std::to_string(seed);
}

// Returns the options as the program reads them: each key and each value with a zero byte behind
// it. They may be secrets, and other users can see the arguments of a program.
std::string text_of(const Options& options) {
  std::string text;
  for (const auto& [key, value] : options)
    for (const std::string& each : {key, value}) text.append(each.c_str()).push_back('\0');
  return text;
}

// Returns a copy of the descriptor, whose number is none of the program's own.
Result<Descriptor> moved_away(int file) {
  Descriptor copy(fcntl(file, F_DUPFD_CLOEXEC, kFirstFree));
  // Also EINVAL, where the limit of descriptors is lower than that number.
  if (copy.number() < 0) return fail(ATTNRT_INTERNAL, "cannot be probed: {}", errno_text());
  return copy;
}

// How the program is started: in a session of its own, with default signals, and with no more open
// than it needs.
class SpawnSettings {
 public:
  SpawnSettings(int library, int answers, int options) {
    posix_spawnattr_init(&attributes_);
    posix_spawn_file_actions_init(&actions_);
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setflags(&attributes_,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
      posix_spawn_file_actions_addopen(&actions_, stream, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&actions_, library, kLibrary);
    posix_spawn_file_actions_adddup2(&actions_, answers, kAnswers);
    posix_spawn_file_actions_adddup2(&actions_, options, kOptions);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  const posix_spawn_file_actions_t* actions() const { return &actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

// The running program. The destructor ends it.
class Running {
 public:
  Running(pid_t process, Descriptor answers) : process_(process), answers_(std::move(answers)) {}
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  // The program kills what it started when nobody reads its answers any more, and ends. A child
  // that the application has forked meanwhile may have a copy of the descriptor: to close this one
  // is not enough.
  ~Running() {
    shutdown(answers_.number(), SHUT_RDWR);
    const auto deadline = Clock::now() + std::chrono::seconds(2);
    while (process_ > 0) {
      const pid_t ended = waitpid(process_, nullptr, WNOHANG);
      // An error: the application has waited for it, or ignores its children.
      if (ended == process_ || (ended < 0 && errno != EINTR)) return;
      if (Clock::now() > deadline) kill(process_, SIGKILL);
      poll(nullptr, 0, 1);
    }
  }

  struct Heard {
    std::string text;  // all that it answered, up to the line that is the last one
    bool timed_out = false;
  };
  Result<Heard> listen(Clock::time_point deadline,
                       const std::function<bool()>& is_cancelled) const {
    Heard heard;
    while (heard.text.size() < kMostBytes && !has_end(heard.text)) {
      if (is_cancelled()) return fail(ATTNRT_INTERNAL, "its probe was cancelled");
      heard.timed_out = Clock::now() >= deadline;
      if (heard.timed_out) break;
      const bool ended = has_ended();  // asked first: what it wrote can be read by now
      pollfd waiting{answers_.number(), POLLIN, 0};
      if (poll(&waiting, 1, ended ? 0 : kPollMilliseconds) <= 0) {
        if (ended) break;
        continue;
      }
      std::array<char, 4096> bytes{};
      const ssize_t got = read(answers_.number(), bytes.data(), bytes.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      heard.text.append(bytes.data(), static_cast<size_t>(got));
    }
    return heard;
  }

 private:
  static bool has_end(const std::string& text) {
    const size_t last = std::max(text.rfind("\nend ") + 1, text.rfind("\nerror ") + 1);
    return last != 0 && text.find('\n', last) != std::string::npos;
  }
  // Whether the program has ended, also if the application has waited for it or ignores its
  // children. The end of its answers may not be seen: a child that the application has forked
  // meanwhile may have a copy of the program's end.
  bool has_ended() const {
    siginfo_t info{};
    const int failed =
        waitid(P_PID, static_cast<id_t>(process_), &info, WEXITED | WNOHANG | WNOWAIT);
    return failed != 0 ? errno == ECHILD : info.si_pid != 0;
  }

  pid_t process_;
  Descriptor answers_;
};

// Reads what the program answered.
Result<ProbeResult> read_answers(const std::string& text, bool timed_out) {
  const std::vector<std::string> lines = split(text, '\n');
  if (lines.empty() || lines[0] != kGreeting) {
    return fail(ATTNRT_UNSUPPORTED, "attnrt-probe answered {}; expected \"{}\"",
                lines.empty() ? "nothing" : shown(lines[0]), kGreeting);
  }
  ProbeResult result;
  for (const std::string& line : lines) {
    constexpr std::string_view kFail = "fail ", kLate = "late ", kError = "error ";
    const bool late = line.starts_with(kLate);
    if (late || line.starts_with(kFail)) {
      const std::string_view failure = std::string_view(line).substr(kFail.size());
      const size_t space = std::min(failure.find(' '), failure.size());
      result.timed_out = late && (result.reason.empty() || result.timed_out);
      if (result.reason.empty())
        result.reason = fmt::format("{}:{}", failure.substr(0, space), failure.substr(space));
    }
    if (line.starts_with(kError))
      return fail(ATTNRT_INTERNAL, "cannot be probed: {}", line.substr(kError.size()));
    if (line == "end pass") result.passed = true;
    if (line == "end pass" || line == "end fail") return result;
  }
  // Its program supervises the process that loads the plugin, and loads nothing itself.
  return ProbeResult{false, "attnrt-probe was killed, or hung, while it tried the plugin",
                     timed_out};
}

}  // namespace

std::vector<std::string> environment_of_probe() {
  std::vector<std::string> entries;
  if (getauxval(AT_SECURE) != 0) return entries;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    if (is_passed_on(*entry)) entries.emplace_back(*entry);
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

std::string probe_program() {
  const auto here = std::filesystem::path(own_file()).parent_path();
  if (here.empty()) return {};
  for (const char* libexec : {ATTNRT_LIBEXECDIR_FROM_LIBDIR, ATTNRT_LIBEXECDIR_FROM_BINDIR}) {
    std::error_code error;
    auto program =
        std::filesystem::weakly_canonical(here / libexec, error) / "attnrt" / "attnrt-probe";
    if (!error && access(program.c_str(), X_OK) == 0) return program;
  }
  return {};
}

Result<ProbeResult> probe(const std::string& program, const FoundPlugin& plugin,
                          AdmissionLevel level, const Options& options,
                          const std::vector<std::string>& environment,
                          const std::function<bool()>& is_cancelled) {
  if (program.empty()) return fail(ATTNRT_UNSUPPORTED, "attnrt-probe is not installed");
  const auto bytes = bytes_of(plugin);
  if (!bytes) return fail(ATTNRT_INTERNAL, "cannot be probed: it {}", bytes.error().message);
  const std::string_view view = (*bytes)->view();
  const std::string name = std::filesystem::path(plugin.path).filename();
  const auto copy = sealed_file(view, {{0, view.size()}}, name);
  if (!copy) return tl::unexpected(copy.error());
  const std::string option_text = text_of(options);
  const auto options_copy = sealed_file(option_text, {{0, option_text.size()}}, "attnrt_options");
  if (!options_copy) return tl::unexpected(options_copy.error());
  // Not a pipe: a socket can be shut down, whoever has copies of it.
  std::array<int, 2> ends{-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return system_error("cannot be probed");
  Descriptor answers(ends[0]), near(ends[1]);
  const auto library = moved_away(copy->number()), given = moved_away(options_copy->number());
  auto far = moved_away(near.number());
  if (!library) return tl::unexpected(library.error());
  if (!given) return tl::unexpected(given.error());
  if (!far) return tl::unexpected(far.error());

  const std::vector<std::string> words{program, level_name(level), seed_of(plugin), name};
  const SpawnSettings settings(library->number(), far->number(), given->number());
  pid_t process = 0;
  errno = posix_spawn(&process, program.c_str(), settings.actions(), settings.attributes(),
                      pointers_to(words).data(), pointers_to(environment).data());
  if (errno != 0) return system_error("attnrt-probe cannot be started");
  const Running running(process, std::move(answers));
  // Only the program writes from here on, so that its end is seen.
  near = Descriptor();
  *far = Descriptor();
  return running.listen(Clock::now() + most_time(level), is_cancelled)
      .and_then(
          [](const Running::Heard& heard) { return read_answers(heard.text, heard.timed_out); });
}

}  // namespace attnrt::core
