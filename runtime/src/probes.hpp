// runtime/src/probes.hpp: what one runtime knows of its plugins, and finds out
//
//     ask --> known here, or in the registry --> admitted, refused
//         --> unknown --> a job of the thread that probes --> admitted, refused
//
// The thread lives while there are jobs. In a child made by fork there is none, and what the parent
// had begun is begun again when it is asked for.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "admit.hpp"
#include "base/fork.hpp"
#include "config.hpp"
#include "probe.hpp"
#include "registry.hpp"
#include "services.hpp"

namespace attnrt::core {

// THREADS: ask and forget from any threads at once.
class Probes {
 public:
  // How long a call waits for a probe. It goes on without the plugin then.
  static constexpr std::chrono::seconds kMostWait{10};

  // finished: called by the thread that probes, when a probe has ended that no call waited for.
  // program: instead of probe_program(), for tests.
  Probes(std::function<void()> finished, std::string program);
  Probes(const Probes&) = delete;
  Probes& operator=(const Probes&) = delete;
  ~Probes();  // ends the running probe

  struct Question {
    std::shared_ptr<const FoundPlugin> plugin;
    Options options;
    const Config& config;
    Services& services;  // for warnings
  };
  enum class Wait { never, some_time, until_done };

  // Returns what is known of the plugin. If nothing is, starts a probe, and waits for it as long as
  // `wait` says. Where no probe can be started, the policy's without_probe decides.
  // Errors: OUT_OF_MEMORY and INTERNAL: this process could not look.
  Result<Admission> ask(const Question& question, Wait wait);

  // Returns what is known, and starts nothing.
  Admission look(const Question& question);

  // Forgets that the plugin was refused, here and in the registry.
  void forget_refusal(const Question& question);
  // Forgets why probes could not be made, so that the next question tries again.
  void forget_failures();

 private:
  struct Job;
  std::string key_of(const Question& question);  // without the level
  const Registry& registry(const Question& question);
  Admission known(const Question& question, const std::string& key);
  void remember(const std::string& key, const AdmissionRecord& record);
  std::optional<Error> failure_of(const std::string& key);
  Result<Admission> without_probe(const Question& question, const std::string& reason);
  std::shared_ptr<Job> find_or_start(const Question& question, const std::string& key);
  void start_thread();
  void work();
  void run(Job& job);

  const std::function<void()> finished_;
  const std::string program_;
  // As they were when the runtime was opened: no thread may read them beside a setenv of another.
  const std::vector<std::string> environment_;
  const std::filesystem::path default_folder_;
  std::atomic<bool> closing_ = false;
  HeldMutex mutex_;  // for what follows
  std::string machine_;
  std::map<std::string, Registry> registries_;  // by folder
  // What was admitted, and refusals that no registry keeps.
  std::map<std::string, AdmissionRecord> records_;
  // Why the last probe could not be made, and until when that is the answer. Without it, each
  // answer would start another probe.
  struct Failure {
    Error error;
    std::chrono::steady_clock::time_point until;
  };
  std::map<std::string, Failure> failures_;
  std::deque<std::shared_ptr<Job>> jobs_;  // the first one is running
  std::thread thread_;
  bool runs_ = false;            // the thread takes what is in jobs_
  uint32_t thread_of_fork_ = 0;  // fork_generation() when it was started
};

}  // namespace attnrt::core
