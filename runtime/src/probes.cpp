// runtime/src/probes.cpp: what one runtime knows of its plugins, and finds out
#include "probes.hpp"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <new>
#include <system_error>

#include "base/signals.hpp"
#include "discover.hpp"

namespace attnrt::core {
namespace {

constexpr std::chrono::milliseconds kLookAgain{2};

std::string text_of(const Options& options) {
  std::string text;
  for (const auto& [key, value] : options) text += fmt::format("{}={}\n", key, value);
  return text;
}

int64_t now_seconds() { return static_cast<int64_t>(std::time(nullptr)); }

// Whether the plugin lies where this library is installed.
bool is_beside_library(const FoundPlugin& plugin) {
  std::error_code error;
  const auto folder = std::filesystem::canonical(default_plugin_directory(), error);
  return !error && std::filesystem::path(plugin.real_path).parent_path() == folder;
}

std::filesystem::path registry_folder(const Config& config,
                                      const std::filesystem::path& default_folder) {
  const std::string& configured = config.admission_registry.value;
  return configured.empty() ? default_folder : std::filesystem::path(configured);
}

// A probe that is stopped at a deadline is made once more: the machine may have been busy.
constexpr int kMostTries = 2;

// How long a probe that could not be made is not tried again, without a reload or retry.
constexpr std::chrono::seconds kPause{1};

}  // namespace

struct Probes::Job {
  std::string key;
  std::shared_ptr<const FoundPlugin> plugin;
  Options options;
  AdmissionLevel level;
  std::filesystem::path folder;  // of the registry
  const std::chrono::steady_clock::time_point begun = std::chrono::steady_clock::now();
  std::atomic<bool> is_done = false;
  std::atomic<bool> is_missed = false;  // a call went on without its result
  Result<ProbeResult> result = ProbeResult{};
};

Probes::Probes(std::function<void()> finished, std::string program)
    : finished_(std::move(finished)),
      program_(program.empty() ? probe_program() : std::move(program)),
      environment_(environment_of_probe()),
      default_folder_(default_registry_folder()) {}

Probes::~Probes() {
  closing_ = true;
  if (!thread_.joinable()) return;
  if (thread_of_fork_ == fork_generation()) {
    thread_.join();
  } else {
    new (&thread_) std::thread;  // the parent's; there is none to wait for here
  }
}

std::string Probes::key_of(const Question& question) {
  {
    const std::lock_guard lock(mutex_);
    if (machine_.empty()) machine_ = machine_text(program_, environment_);
  }
  return question.plugin->hash + "-" + machine_key(machine_, text_of(question.options));
}

// Opens the policy's registry when it is first wanted.
const Registry& Probes::registry(const Question& question) {
  const std::filesystem::path folder = registry_folder(question.config, default_folder_);
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = registries_.find(folder); found != registries_.end())
      return found->second;
  }
  auto opened = Registry::open(folder);
  if (opened) {
    opened->forget_unused();
  } else if (const bool is_named = !question.config.admission_registry.value.empty();
             is_named || question.services.logs_info()) {
    question.services.log(is_named ? ATTNRT_LOG_WARNING : ATTNRT_LOG_INFO,
                          fmt::format("admit: registry {}: {}; results are kept in this process",
                                      folder.string(), opened.error().message));
  }
  const std::lock_guard lock(mutex_);
  return registries_.try_emplace(folder, opened ? *std::move(opened) : Registry()).first->second;
}

Admission Probes::known(const Question& question, const std::string& key) {
  const AdmissionLevel wanted = question.config.admission_level.value;
  const Registry& registry = this->registry(question);
  Admission admission = admit(wanted, std::nullopt, {});
  // What another level has shown may decide, too.
  for (const AdmissionLevel level : {AdmissionLevel::loads, AdmissionLevel::conforms}) {
    const std::string name = file_key(key, level);
    std::optional<AdmissionRecord> record;
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = records_.find(name); found != records_.end()) record = found->second;
    }
    admission = admit(wanted, record, {});
    if (admission.state != Admission::State::unknown) return admission;
    record = registry.find(name);
    if (!record) continue;
    admission = admit(wanted, record, boot_id());
    if (admission.state == Admission::State::admitted) remember(name, *record);
    if (admission.state != Admission::State::unknown) return admission;
  }
  return admission;
}

// Returns why a probe of the plugin could not be made, if that is not long ago.
std::optional<Error> Probes::failure_of(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto found = failures_.find(key);
  if (found == failures_.end() || found->second.until < std::chrono::steady_clock::now())
    return std::nullopt;
  return found->second.error;
}

void Probes::forget_failures() {
  const std::lock_guard lock(mutex_);
  failures_.clear();
}

// What was admitted once stays so in this process, also if another policy names another registry:
// the plugin may be loaded by now, and its file gone.
void Probes::remember(const std::string& key, const AdmissionRecord& record) {
  const std::lock_guard lock(mutex_);
  records_[key] = record;
}

Admission Probes::look(const Question& question) {
  const AdmissionLevel wanted = question.config.admission_level.value;
  if (wanted == AdmissionLevel::off) return admit(wanted, {}, {});
  return known(question, key_of(question));
}

Result<Admission> Probes::without_probe(const Question& question, const std::string& reason) {
  using enum WithoutProbe;
  const auto& setting = question.config.without_probe;
  const bool open = setting.value == open_all ||
                    (setting.value == open_installed && is_beside_library(*question.plugin));
  if (!open) {
    return Admission{Admission::State::refused, question.config.admission_level.value,
                     fmt::format("{}, so it cannot be probed; admission.without_probe is {} ({})",
                                 reason, name_of(setting.value), setting.origin),
                     now_seconds()};
  }
  question.services.log(
      ATTNRT_LOG_WARNING,
      fmt::format("admit: {}: {}, so it is loaded without a probe; admission.without_probe is {} "
                  "({})",
                  question.plugin->path, reason, name_of(setting.value), setting.origin));
  return Admission{Admission::State::off, AdmissionLevel::off, {}, 0};
}

Result<Admission> Probes::ask(const Question& question, Wait wait) {
  const AdmissionLevel wanted = question.config.admission_level.value;
  if (wanted == AdmissionLevel::off) return admit(wanted, {}, {});
  const std::string key = key_of(question);
  Admission admission = known(question, key);
  if (admission.state != Admission::State::unknown) return admission;
  if (program_.empty()) return without_probe(question, "attnrt-probe is not installed");
  const auto failed = [&](const Error& error) -> Result<Admission> {
    if (says_nothing_about_the_file(error)) return tl::unexpected(error);
    return without_probe(question, error.message);
  };
  if (const auto failure = failure_of(key)) return failed(*failure);
  const auto job = find_or_start(question, key);
  if (!job) return fail(ATTNRT_INTERNAL, "no thread can be started to probe it; try again");
  const auto deadline = job->begun + kMostWait;  // for all calls that wait for it
  const auto may_wait = [&] {
    return wait == Wait::until_done ||
           (wait == Wait::some_time && std::chrono::steady_clock::now() < deadline);
  };
  while (!job->is_done && may_wait()) std::this_thread::sleep_for(kLookAgain);
  // In this order, and the other way round in work(): one of the two sees the other.
  if (!job->is_done) job->is_missed = true;
  if (!job->is_done) {
    admission.state = Admission::State::waiting;
    return admission;
  }
  if (job->result) {
    return Admission{job->result->passed ? Admission::State::admitted : Admission::State::refused,
                     job->level, job->result->reason, now_seconds()};
  }
  return failed(job->result.error());
}

void Probes::forget_refusal(const Question& question) {
  if (look(question).state != Admission::State::refused) return;
  for (const AdmissionLevel level : {AdmissionLevel::loads, AdmissionLevel::conforms}) {
    const std::string name = file_key(key_of(question), level);
    registry(question).forget(name);
    const std::lock_guard lock(mutex_);
    records_.erase(name);
  }
}

// Returns nullptr if no thread can be started.
std::shared_ptr<Probes::Job> Probes::find_or_start(const Question& question,
                                                   const std::string& key) {
  const std::filesystem::path folder = registry_folder(question.config, default_folder_);
  auto job = std::make_shared<Job>();
  job->key = key;
  job->plugin = question.plugin;
  job->options = question.options;
  job->level = question.config.admission_level.value;
  job->folder = folder;
  const std::lock_guard lock(mutex_);
  if (thread_of_fork_ != fork_generation()) {
    jobs_.clear();
    new (&thread_) std::thread;
    runs_ = false;
  }
  const auto same = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& each) {
    return each->key == key && each->level == job->level;
  });
  if (same != jobs_.end()) return *same;
  jobs_.push_back(job);
  if (runs_) return job;
  try {
    start_thread();
  } catch (const std::system_error&) {
    jobs_.pop_back();
    return nullptr;
  }
  return job;
}

// REQUIRES: mutex_ is held, and no thread takes jobs. Signals are the application's own matter.
void Probes::start_thread() {
  if (thread_.joinable()) thread_.join();  // it has found no more jobs, and takes no lock any more
  const BlockedSignals blocked;
  thread_ = std::thread([this] { work(); });
  runs_ = true;
  thread_of_fork_ = fork_generation();
}

void Probes::work() {
  for (;;) {
    std::shared_ptr<Job> job;
    {
      const std::lock_guard lock(mutex_);
      if (jobs_.empty() || closing_) {
        runs_ = false;
        return;
      }
      job = jobs_.front();
    }
    run(*job);
    {
      const std::lock_guard lock(mutex_);
      jobs_.pop_front();
    }
    job->is_done = true;
    if (!job->is_missed || closing_) continue;
    try {
      finished_();
    } catch (const std::exception&) {
      continue;  // memory ran out; the next reload takes what was admitted
    }
  }
}

void Probes::run(Job& job) {
  const Registry* registry = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = registries_.find(job.folder); found != registries_.end())
      registry = &found->second;
  }
  const std::string name = file_key(job.key, job.level);
  const auto fail_for_now = [&](Error error) {
    if (registry != nullptr) registry->forget(name);
    job.result = tl::unexpected(std::move(error));
    const std::lock_guard lock(mutex_);
    failures_[job.key] = {job.result.error(), std::chrono::steady_clock::now() + kPause};
  };
  try {
    AdmissionRecord record{
        AdmissionRecord::State::probing, job.level, {}, now_seconds(), boot_id()};
    const auto before = registry != nullptr ? registry->find(name) : std::nullopt;
    if (before && before->state == AdmissionRecord::State::probing && before->boot != record.boot)
      record.attempts = before->attempts + 1;
    // Errors of the registry cost a probe in the next process, nothing else.
    if (registry != nullptr) (void)registry->store(name, record);
    for (int n = 0; n < kMostTries; ++n) {
      job.result = probe(program_, *job.plugin, job.level, job.options, environment_,
                         [this] { return closing_.load(); });
      if (!job.result || !job.result->timed_out) break;
    }
    if (!job.result) return fail_for_now(job.result.error());
    if (job.result->timed_out)
      job.result->reason += fmt::format(" (in each of {} probes)", kMostTries);
    record.state =
        job.result->passed ? AdmissionRecord::State::admitted : AdmissionRecord::State::refused;
    record.reason = job.result->reason;
    record.at_seconds = now_seconds();
    const bool kept = registry != nullptr && registry->is_open() && registry->store(name, record);
    if (!kept && registry != nullptr) registry->forget(name);  // it says that the probe is running
    // A refusal is kept there alone, so that `attnrt list --retry` changes it for every process.
    if (job.result->passed || !kept) remember(name, record);
  } catch (const std::bad_alloc&) {
    fail_for_now({ATTNRT_OUT_OF_MEMORY, {}});
  }
}

}  // namespace attnrt::core
