// runtime/conformance/children.cpp: checks the rules in child processes, which may crash
#include "conformance/children.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/file.hpp"
#include "base/signals.hpp"

extern char** environ;

namespace attnrt::conformance {
namespace {

using core::Descriptor;
using core::write_all;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int kRequest = 3, kAnswers = 4, kLibrary = 5;  // the child's descriptors
constexpr int kFirstFree = 10;  // the parent's copies have numbers from here on
constexpr int kNotFound = 127;  // the exit code of a child whose program cannot be started
constexpr int kBadRequest = 2;
constexpr size_t kMostAnswer = size_t{1} << 20;  // bytes of one line
constexpr std::string_view kOutputRule = "ROB-12", kEndRule = "ABI-13";

// What a child may write to one file beyond the size of the plugin (its output goes to a memory
// file).
constexpr rlim_t kMostFileBytes = rlim_t{64} << 20;

// The least time between two reports of progress by the child.
constexpr std::chrono::milliseconds kProgressInterval{100};

// How long the parent waits for an answer before it looks at the deadline again.
constexpr int64_t kPollMilliseconds = 1000;
constexpr int kEndPollMilliseconds = 2;  // the same for its end

json to_json(const RuleResult& result) {
  json text = {{"rule", result.rule->id},
               {"state", static_cast<int>(result.outcome.state)},
               {"detail", result.outcome.detail},
               {"died", result.outcome.died}};
  if (result.outcome.seed) text["seed"] = *result.outcome.seed;
  return text;
}

RuleResult from_json(const json& text) {
  RuleResult result{find_rule(text.at("rule").get<std::string>()), {}};
  result.outcome.state = static_cast<State>(text.at("state").get<int>());
  result.outcome.detail = text.at("detail").get<std::string>();
  result.outcome.died = text.at("died").get<bool>();
  if (text.contains("seed")) result.outcome.seed = text.at("seed").get<uint64_t>();
  return result;
}

std::string dump(const json& text) {
  return text.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

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

// A child process that checks rules, in a process group of its own. The destructor kills the group.
class Child {
 public:
  // library: an open file that the child gets; -1: none.
  Child(const std::vector<std::string>& command, const json& request, int library)
      : output_(memory_file("attnrt_output")) {
    const core::NoFileSizeSignal no_signal;
    const Descriptor request_file = memory_file("attnrt_request");
    if (!write_all(request_file.number(), dump(request)) ||
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
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { wait({}); }

  // Returns the next answer. nullopt: the child has ended, or the deadline has passed (timed_out is
  // then set).
  std::optional<std::string> next_answer(Clock::time_point deadline) {
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
      if (buffer_.size() > kMostAnswer) timed_out = true;
      if (timed_out) return std::nullopt;
    }
  }

  // Waits until the child has ended, and kills it at the deadline (timed_out is then set). RETURNS
  // how it ended.
  std::string wait(Clock::time_point deadline) {
    if (pid_ <= 0) return ending_;
    int status = 0;
    pid_t waited = 0;
    while ((waited = waitpid(pid_, &status, WNOHANG)) == 0 || (waited < 0 && errno == EINTR)) {
      if (Clock::now() > deadline) {
        timed_out = true;
        kill(-pid_, SIGKILL);
      }
      poll(nullptr, 0, kEndPollMilliseconds);
    }
    left_processes = kill(-pid_, SIGKILL) == 0;  // what it started, and did not wait for
    pid_ = 0;
    // Where SIGCHLD is ignored, the system waits itself and keeps no status.
    if (waited < 0)
      return ending_ = "ended, and how is not known because this process ignores SIGCHLD";
    if (WIFSIGNALED(status)) {
      ending_ =
          fmt::format("ended by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
    }
    // A child that has checked every rule ends with code 0. Before that, it was the plugin.
    ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (WIFEXITED(status)) ending_ = fmt::format("was ended by exit({})", WEXITSTATUS(status));
    return ending_;
  }

  // Returns the first line that the child printed, or "". Lines of "=" that sanitizers begin with
  // are left out.
  std::string printed() const {
    std::array<char, 200> text{};
    const ssize_t got = pread(output_.number(), text.data(), text.size() - 1, 0);
    std::string first(text.data(), got > 0 ? static_cast<size_t>(got) : 0);
    first.erase(0, std::min(first.size(), first.find_first_not_of("\n=")));
    return first.substr(0, first.find('\n'));
  }

  bool timed_out = false;
  bool ended_well = true;       // as far as it is known
  bool left_processes = false;  // in its group, when it had ended

 private:
  struct Files {
    Descriptor request, answers, output;
  };
  void start(const std::vector<std::string>& command, const Files& files, int library,
             rlim_t file_bytes) {
    std::vector<char*> arguments;
    for (const std::string& argument : command)
      arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
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
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (const pid_t checks = fork(); checks != 0) end_like(checks);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    limit_this_process(file_bytes);
    dup2(files.output.number(), STDOUT_FILENO);
    dup2(files.output.number(), STDERR_FILENO);
    dup2(files.request.number(), kRequest);
    dup2(files.answers.number(), kAnswers);
    if (library >= 0) dup2(library, kLibrary);
    execve(arguments[0], arguments.data(), environ);
    _exit(kNotFound);
  }

  Descriptor answers_, output_;
  pid_t pid_ = 0;
  std::string buffer_, ending_;
};

// The time after which a child is killed that does not end.
double shorter_deadline(const Settings& settings) {
  return std::min(settings.deadline_seconds, settings.silence_seconds);
}

Clock::duration duration_of(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// What the parent learned from one child.
struct Heard {
  const Rule* running = nullptr;  // the rule that was being checked when the child ended
  bool complete = false;          // the child said that it has checked every rule
  std::string printed;            // what was printed by the end of the last rule that it answered
};

// Takes the child's answers until it has ended.
Heard listen(Child& child, const Settings& settings, std::vector<RuleResult>& results,
             const Progress& progress) {
  const auto deadline = Clock::now() + duration_of(settings.deadline_seconds);
  Heard heard;
  const Rule*& running = heard.running;
  while (const auto line = child.next_answer(
             std::min(deadline, Clock::now() + duration_of(settings.silence_seconds)))) {
    const json answer = json::parse(*line, nullptr, false);
    try {
      if (answer.contains("start")) running = find_rule(answer["start"].get<std::string>());
      if (answer.contains("done") && answer["done"] >= 0 && running != nullptr && progress)
        progress(*running, answer["done"], answer["all"]);
      if (answer.contains("rule")) {
        RuleResult result = from_json(answer);
        running = nullptr;
        if (result.rule != nullptr && results.size() < rules().size())
          results.push_back(std::move(result));
        if (heard.printed.empty()) heard.printed = child.printed();
      }
      if (answer.contains("complete")) heard.complete = true;
      if (heard.complete) break;
    } catch (const json::exception&) {
      continue;  // not an answer: the plugin wrote to the descriptor
    }
  }
  return heard;
}

// Decides the rule on output from what the children printed.
void decide_output_rule(const std::string& printed, std::vector<RuleResult>& results) {
  for (RuleResult& result : results) {
    if (result.rule->id != kOutputRule) continue;
    if (!printed.empty()) {
      result.outcome = failed("it printed: " + printed);
    } else if (result.outcome.detail == kNeedsParent) {
      result.outcome = passed();
    }
  }
}

// Decides the rule on the end of a process by that of a child that had checked every rule.
void decide_end_rule(const Child& child, const std::string& ending, double seconds,
                     std::vector<RuleResult>& results) {
  for (RuleResult& result : results) {
    if (result.rule->id != kEndRule || result.outcome.detail != kNeedsParent) continue;
    if (child.timed_out) {
      result.outcome = failed(fmt::format("it did not end within {} s", seconds));
    } else if (!child.ended_well) {
      result.outcome = failed(fmt::format("the process {} after the plugin was closed", ending));
    } else if (child.left_processes) {
      result.outcome = failed("it left a process behind");
    } else {
      result.outcome = passed();
    }
  }
}

}  // namespace

std::vector<RuleResult> check_rules_in_children(const std::string& path, const Settings& settings,
                                                const std::vector<std::string>& command,
                                                const Progress& progress) {
  std::vector<RuleResult> results;
  std::string first_printed;  // by any child. What it prints as it dies belongs to its death
  // Each child that dies adds the result of one rule. A plugin may write to the descriptor of the
  // answers, so the number of children is bounded whatever they say.
  for (size_t children = 0; children <= rules().size(); ++children) {
    json request = {{"path", path},
                    {"cases", settings.cases},
                    {"seed", settings.seed},
                    {"only", settings.only},
                    {"until_failure", settings.until_failure},
                    {"options", settings.options},
                    {"library", settings.library >= 0 ? kLibrary : -1},
                    {"before", json::array()}};
    for (const RuleResult& result : results) request["before"].push_back(to_json(result));
    Child child(command, request, settings.library);
    const size_t answered = results.size();
    const Heard heard = listen(child, settings, results, progress);
    const Rule* running = heard.running;
    const auto deadline = child.timed_out ? Clock::time_point{}
                                          : Clock::now() + duration_of(shorter_deadline(settings));
    const std::string ending = child.wait(deadline), printed = child.printed();
    if (first_printed.empty()) first_printed = heard.complete ? printed : heard.printed;
    if (running == nullptr) {
      if (!heard.complete) {
        throw std::runtime_error(fmt::format(
            "the child process {} {}{}{}", ending,
            results.size() > answered ? "between two rules" : "before it checked a rule",
            printed.empty() ? "" : ": ", printed));
      }
      decide_output_rule(first_printed, results);
      decide_end_rule(child, ending, shorter_deadline(settings), results);
      return results;
    }
    Outcome outcome =
        child.timed_out
            ? failed(fmt::format("it did not end within {} s", shorter_deadline(settings)))
            : failed(
                  fmt::format("the process {}{}{}", ending, printed.empty() ? "" : ": ", printed));
    outcome.seed = settings.seed;
    outcome.died = true;
    results.push_back({running, std::move(outcome)});
    if (settings.until_failure) return results;
  }
  throw std::runtime_error("more child processes died than there are rules");
}

int serve_as_child() {
  std::string text;
  std::array<char, 4096> bytes{};
  for (ssize_t got; (got = read(kRequest, bytes.data(), bytes.size())) > 0;)
    text.append(bytes.data(), static_cast<size_t>(got));
  close(kRequest);
  fcntl(kAnswers, F_SETFD, FD_CLOEXEC);
  const json request = json::parse(text, nullptr, false);
  if (request.is_discarded()) return kBadRequest;
  Settings settings;
  settings.cases = request.at("cases");
  settings.seed = request.at("seed");
  settings.only = request.at("only").get<std::vector<std::string>>();
  settings.until_failure = request.at("until_failure");
  settings.options = request.at("options").get<std::vector<std::pair<std::string, std::string>>>();
  settings.library = request.at("library");
  if (settings.library >= 0) fcntl(settings.library, F_SETFD, FD_CLOEXEC);
  std::vector<RuleResult> before;
  for (const json& result : request.at("before")) before.push_back(from_json(result));
  const auto answer = [](const json& line) { write_all(kAnswers, dump(line)); };
  std::atomic<int64_t> last = 0;
  Listener listener;
  listener.started = [&](const Rule& rule) { answer(json{{"start", rule.id}}); };
  listener.finished = [&](const RuleResult& result) {
    std::fflush(nullptr);  // what the plugin printed counts, even if it is still in a buffer
    answer(to_json(result));
  };
  listener.progress = [&](const Rule&, int64_t done, int64_t all) {
    const int64_t now = Clock::now().time_since_epoch() / std::chrono::milliseconds(1);
    int64_t sent = last;
    if (now - sent < kProgressInterval.count() || !last.compare_exchange_strong(sent, now)) return;
    answer(json{{"done", done}, {"all", all}});
  };
  listener.completed = [&] {
    std::fflush(nullptr);
    answer(json{{"complete", true}});
  };
  check_rules(request.at("path"), settings, before, listener);
#if defined(__SANITIZE_ADDRESS__)
  _exit(0);  // else leaks are reported, of which some belong to the loader
#else
  std::exit(0);
#endif
}

}  // namespace attnrt::conformance
