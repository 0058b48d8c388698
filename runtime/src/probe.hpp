// runtime/src/probe.hpp: tries a plugin's bytes in the program attnrt-probe, which may crash
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "admit.hpp"
#include "backend.hpp"
#include "plugin_file.hpp"

namespace attnrt::core {

// Returns the path of attnrt-probe, in libexec beside the folder of this library or command. "":
// it is not installed there.
std::string probe_program();

// Returns what of the environment the program gets: the variables that a plugin may need to find
// its devices. Nothing in a privileged process. Not beside a setenv of another thread.
std::vector<std::string> environment_of_probe();

struct ProbeResult {
  bool passed = false;
  std::string reason;      // why it failed: "ABI-3: the process ended by signal 11 (...)"
  bool timed_out = false;  // it failed by a deadline alone: the machine may have been busy
};

// Starts the program on the plugin's bytes, and waits for its answer.
// program, environment: of probe_program() and environment_of_probe(). level: not off.
// is_cancelled: asked a few times a second.
//
// Errors: UNSUPPORTED, the program cannot be started here, or is not of this version;
// OUT_OF_MEMORY and INTERNAL, this process could not look, and may try again; also if cancelled.
Result<ProbeResult> probe(const std::string& program, const FoundPlugin& plugin,
                          AdmissionLevel level, const Options& options,
                          const std::vector<std::string>& environment,
                          const std::function<bool()>& is_cancelled);

}  // namespace attnrt::core
