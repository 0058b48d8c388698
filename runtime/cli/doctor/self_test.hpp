// runtime/cli/doctor/self_test.hpp: runs one small attention on a backend, and compares it
#pragma once

#include <memory>
#include <string>

#include "backend.hpp"

namespace attnrt::cli::doctor {

struct SelfTest {
  enum class State { right, unsupported, failed, wrong };
  std::string backend, version;
  core::Device device;
  State state = State::right;
  std::string kernel;  // that ran
  std::string reason;  // why the state is not right
};
const char* name_of(SelfTest::State state);  // "right", "unsupported", "failed", "wrong"

// Runs a causal problem with grouped heads on host tensors, which are copied to the backend's
// device and back, whatever the policy says of staging. The result is compared with float64.
SelfTest self_test(const std::shared_ptr<const core::FoundPlugin>& plugin,
                   const std::shared_ptr<const core::Backend>& backend, const core::Device& device);

}  // namespace attnrt::cli::doctor
