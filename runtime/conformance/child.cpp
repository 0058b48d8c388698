// runtime/conformance/child.cpp: rules into child processes, so that a plugin's crash is a rule's outcome
//
// The parent writes one line of JSON to the child's descriptor 3: the file, the settings, what is known so far. The child
// answers on 4, a line for each start, progress and result. Its stdout and stderr are a memory file that the parent reads.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "conformance/subject.hpp"

extern char** environ;

namespace attnrt::cli::verify {
namespace {

using core::Descriptor;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int kRequest = 3, kAnswers = 4;
constexpr std::string_view kOutputRule = "ROB-12";

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

bool write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t done = write(file, text.data(), text.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    text.remove_prefix(static_cast<size_t>(done));
  }
  return true;
}

struct Pipe {
  Descriptor read, write;
  Pipe() {
    std::array<int, 2> ends{-1, -1};
    if (pipe2(ends.data(), O_CLOEXEC) != 0)
      throw std::runtime_error(fmt::format("pipe: {}", std::strerror(errno)));
    read = Descriptor(ends[0]);
    write = Descriptor(ends[1]);
  }
};

// A child that serves; killed, if it still lives, when this goes.
class Child {
 public:
  explicit Child(const json& request) : output_(memfd_create("attnrt_verify_output", MFD_CLOEXEC)) {
    Pipe requests;
    std::array<const char*, 3> arguments = {"attnrt", "verify-child", nullptr};
    // Out of the way of the numbers that the child gets.
    const Descriptor request_end(fcntl(requests.read.number(), F_DUPFD_CLOEXEC, 10));
    const Descriptor answer_end(fcntl(answers_.write.number(), F_DUPFD_CLOEXEC, 10));
    const int output = output_.number();
    pid_ = fork();
    if (pid_ < 0) throw std::runtime_error(fmt::format("fork: {}", std::strerror(errno)));
    if (pid_ == 0) {  // only calls that are safe after fork
      dup2(output, STDOUT_FILENO);
      dup2(output, STDERR_FILENO);
      dup2(request_end.number(), kRequest);
      dup2(answer_end.number(), kAnswers);
      execve("/proc/self/exe", const_cast<char* const*>(arguments.data()), environ);
      _exit(127);
    }
    answers_.write = Descriptor();
    write_all(requests.write.number(),
              dump(request));  // a child that dies first: SIGPIPE is ignored
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { wait(true); }

  // The next line; nullopt at the end, or when the deadline passes (timed_out says so).
  std::optional<std::string> line(Clock::time_point deadline) {
    for (;;) {
      if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
        std::string text = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return text;
      }
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
      if (left <= 0) return timed_out = true, std::nullopt;
      pollfd waiting{answers_.read.number(), POLLIN, 0};
      if (poll(&waiting, 1, static_cast<int>(std::min<int64_t>(left, 1000))) <= 0) continue;
      std::array<char, 4096> bytes{};
      const ssize_t got = read(answers_.read.number(), bytes.data(), bytes.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return std::nullopt;
      buffer_.append(bytes.data(), static_cast<size_t>(got));
    }
  }

  // How it ended: "" if well.
  std::string wait(bool kill_it) {
    if (pid_ <= 0) return ended_;
    if (kill_it) kill(pid_, SIGKILL);
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
    pid_ = 0;
    if (WIFSIGNALED(status))
      ended_ =
          fmt::format("ended by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
      ended_ = fmt::format("exited with {}", WEXITSTATUS(status));
    return ended_;
  }

  // The first line that it printed, and "" if nothing.
  std::string printed() const {
    std::array<char, 200> text{};
    const ssize_t got = pread(output_.number(), text.data(), text.size() - 1, 0);
    std::string first(text.data(), got > 0 ? static_cast<size_t>(got) : 0);
    while (!first.empty() && (first.front() == '\n' || first.front() == '=')) first.erase(0, 1);
    return first.substr(0, first.find('\n'));
  }

  bool timed_out = false;

 private:
  Pipe answers_;
  Descriptor output_;
  pid_t pid_ = 0;
  std::string buffer_, ended_;
};

// Listens until the child has ended. Gives the rule that was running when it died, if any.
const Rule* listen(Child& child, const Settings& settings, std::vector<RuleResult>& results,
                   const Progress& progress) {
  const auto deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(
                         std::chrono::duration<double>(settings.deadline_seconds));
  const Rule* running = nullptr;
  while (const auto line = child.line(deadline)) {
    const json text = json::parse(*line, nullptr, false);
    if (text.is_discarded()) continue;
    if (text.contains("start")) running = find_rule(text["start"].get<std::string>());
    if (text.contains("done") && running != nullptr && progress)
      progress(*running, text["done"], text["all"]);
    if (text.contains("rule")) {
      results.push_back(from_json(text));
      running = nullptr;
    }
  }
  return running;
}

}  // namespace

std::vector<RuleResult> check_rules_in_children(const std::string& path, const Settings& settings,
                                                const Progress& progress) {
  signal(SIGPIPE, SIG_IGN);
  std::vector<RuleResult> results;
  std::string printed;
  for (size_t children = 0; children <= rules().size(); ++children) {
    json request = {{"path", path},
                    {"cases", settings.cases},
                    {"seed", settings.seed},
                    {"only", settings.only}};
    request["before"] = json::array();
    for (const RuleResult& result : results) request["before"].push_back(to_json(result));
    Child child(request);
    const Rule* running = listen(child, settings, results, progress);
    const std::string ended = child.wait(child.timed_out);
    if (running == nullptr) {
      if (printed.empty()) printed = child.printed();
      if (ended.empty()) break;
      throw std::runtime_error(
          fmt::format("the child process {} before it began: {}", ended, child.printed()));
    }
    const std::string last = child.printed();
    RuleResult result{
        running,
        failed(child.timed_out
                   ? fmt::format("no end after {} s", settings.deadline_seconds)
                   : fmt::format("the process {}{}", ended, last.empty() ? "" : ": " + last),
               settings.seed)};
    result.outcome.died = true;
    results.push_back(std::move(result));
  }
  const Rule* output = find_rule(kOutputRule);
  for (RuleResult& result : results) {
    if (result.rule != output) continue;
    if (!printed.empty()) {
      result.outcome = failed("it printed: " + printed);
    } else if (result.outcome.detail == only_a_parent) {
      result.outcome = passed();
    }
  }
  return results;
}

int serve_as_child() {
  std::string text;
  std::array<char, 4096> bytes{};
  for (ssize_t got; (got = read(kRequest, bytes.data(), bytes.size())) > 0;)
    text.append(bytes.data(), static_cast<size_t>(got));
  close(kRequest);
  fcntl(kAnswers, F_SETFD, FD_CLOEXEC);
  const json request = json::parse(text, nullptr, false);
  if (request.is_discarded()) return 2;
  Settings settings;
  settings.cases = request.at("cases");
  settings.seed = request.at("seed");
  settings.only = request.at("only").get<std::vector<std::string>>();
  std::vector<RuleResult> before;
  for (const json& result : request.at("before")) before.push_back(from_json(result));
  const auto say = [](const json& answer) { write_all(kAnswers, dump(answer)); };
  Clock::time_point last;
  check_rules(request.at("path"), settings, before,
              {[&](const Rule& rule) {
                 say({{"start", rule.id}});
               },
               [&](const RuleResult& result) { say(to_json(result)); },
               [&](const Rule&, int64_t done, int64_t all) {
                 if (Clock::now() - last < std::chrono::milliseconds(100)) return;
                 last = Clock::now();
                 say({{"done", done}, {"all", all}});
               }});
  std::fflush(nullptr);  // what a plugin printed counts, flushed or not
  _exit(0);              // destructors of libraries are not what is tested
}

}  // namespace attnrt::cli::verify
