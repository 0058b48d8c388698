// runtime/src/probe.cpp: tries a plugin's bytes in the program attnrt-probe, which may crash
#include "probe.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/auxv.h>
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

constexpr int kLibrary = 3, kAnswers = 4;  // the program's descriptors (probe/main.cpp)
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
  SpawnSettings(int library, int answers) {
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
  // The program kills what it started when nobody reads its answers any more, and ends.
  ~Running() {
    answers_ = Descriptor();
    const auto deadline = Clock::now() + std::chrono::seconds(2);
    while (process_ > 0) {
      const pid_t ended = waitpid(process_, nullptr, WNOHANG);
      // An error: the application has waited for it, or ignores its children.
      if (ended == process_ || (ended < 0 && errno != EINTR)) return;
      if (Clock::now() > deadline) kill(process_, SIGKILL);
      poll(nullptr, 0, 1);
    }
  }

  // Returns all that it answers, up to the line that is the last one.
  Result<std::string> listen(Clock::time_point deadline,
                             const std::function<bool()>& is_cancelled) const {
    std::string text;
    while (Clock::now() < deadline && text.size() < kMostBytes) {
      if (is_cancelled()) return fail(ATTNRT_INTERNAL, "its probe was cancelled");
      pollfd waiting{answers_.number(), POLLIN, 0};
      if (poll(&waiting, 1, kPollMilliseconds) <= 0) continue;
      std::array<char, 4096> bytes{};
      const ssize_t got = read(answers_.number(), bytes.data(), bytes.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      text.append(bytes.data(), static_cast<size_t>(got));
      if (has_end(text)) break;
    }
    return text;
  }

 private:
  static bool has_end(const std::string& text) {
    return text.find("\nend ") != std::string::npos || text.find("\nerror ") != std::string::npos;
  }
  pid_t process_;
  Descriptor answers_;
};

// Reads what the program answered.
Result<ProbeResult> read_answers(const std::string& text) {
  const std::vector<std::string> lines = split(text, '\n');
  if (lines.empty() || lines[0] != kGreeting) {
    return fail(ATTNRT_UNSUPPORTED, "attnrt-probe answered {}; expected \"{}\"",
                lines.empty() ? "nothing" : shown(lines[0]), kGreeting);
  }
  ProbeResult result;
  for (const std::string& line : lines) {
    constexpr std::string_view kFail = "fail ", kError = "error ";
    if (line.starts_with(kFail) && result.reason.empty()) {
      const std::string_view failure = std::string_view(line).substr(kFail.size());
      const size_t space = std::min(failure.find(' '), failure.size());
      result.reason = fmt::format("{}:{}", failure.substr(0, space), failure.substr(space));
    }
    if (line.starts_with(kError))
      return fail(ATTNRT_INTERNAL, "cannot be probed: {}", line.substr(kError.size()));
    if (line == "end pass") result.passed = true;
    if (line == "end pass" || line == "end fail") return result;
  }
  // Its program supervises the process that loads the plugin, and loads nothing itself.
  return ProbeResult{false, "attnrt-probe was killed, or hung, while it tried the plugin"};
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
  std::array<int, 2> ends{-1, -1};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return system_error("cannot be probed");
  Descriptor answers(ends[0]), near(ends[1]);
  const auto library = moved_away(copy->number());
  auto far = moved_away(near.number());
  if (!library) return tl::unexpected(library.error());
  if (!far) return tl::unexpected(far.error());

  std::vector<std::string> words{program, level_name(level), seed_of(plugin), name};
  for (const auto& [key, value] : options) words.insert(words.end(), {key, value});
  const SpawnSettings settings(library->number(), far->number());
  pid_t process = 0;
  errno = posix_spawn(&process, program.c_str(), settings.actions(), settings.attributes(),
                      pointers_to(words).data(), pointers_to(environment).data());
  if (errno != 0) return system_error("attnrt-probe cannot be started");
  const Running running(process, std::move(answers));
  // Only the program writes from here on, so that its end is seen.
  near = Descriptor();
  *far = Descriptor();
  return running.listen(Clock::now() + most_time(level), is_cancelled).and_then(read_answers);
}

}  // namespace attnrt::core
