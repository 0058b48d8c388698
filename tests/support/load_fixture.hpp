// tests/support/load_fixture.hpp: loads fake plugins as the runtime does, and says how that went
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "fakes/fakes.hpp"
#include "fakes/tiny.hpp"
#include "load.hpp"

namespace attnrt::core::support {

// A directory of fakes, and services that keep every line that is logged.
class LoadFixture : public ::testing::Test {
 protected:
  LoadFixture() {
    services->threads = Threads::pool(2);
    services->log = [this](int32_t, const std::string& text) {
      const std::lock_guard lock(mutex);
      log.push_back(text);
    };
  }

  // Copies the fake into the directory, under another file name if one is given, and finds it
  // there.
  std::shared_ptr<const FoundPlugin> found(const std::string& name, const std::string& as = {}) {
    const auto path = directory.add(name, as);
    const Discovery all = discover({directory.text()}).value();
    for (const auto& plugin : all.plugins) {
      if (plugin->path == path) return plugin;
    }
    throw std::runtime_error("not found: " + path.string());
  }
  Result<std::shared_ptr<Backend>> loaded(const std::string& name, const Options& options = {},
                                          bool by_path = false) {
    return load(found(name), options, services, by_path);
  }

  fakes::Directory directory;
  std::mutex mutex;
  std::vector<std::string> log;
  std::shared_ptr<Services> services = std::make_shared<Services>();
};

// Plans and runs the tiny problem. Returns "" if the result is right, else what is wrong.
inline std::string run_failure(const Backend& backend) {
  fakes::Tiny tiny;
  tiny.lend_workspace();
  attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_plan_info info{};
  info.struct_size = sizeof info;
  void* plan = nullptr;
  attnrt_status status = backend.plan(tiny.problem, &info, &plan, &error);
  if (status != ATTNRT_OK) return fmt::format("plan: {}: {}", status_name(status), error.message);
  status = backend.run(plan, tiny.problem, tiny.args, &error);
  backend.plan_destroy(plan);
  if (status != ATTNRT_OK) return fmt::format("run: {}: {}", status_name(status), error.message);
  return tiny.right() ? "" : "wrong result";
}

// One line: the error of load, or the devices and what supports and a run say.
inline std::string outcome(const Result<std::shared_ptr<Backend>>& loaded) {
  if (!loaded)
    return fmt::format("{}: {}", status_name(loaded.error().code), loaded.error().message);
  const Backend& backend = **loaded;
  std::string text = "ready:";
  for (const Device& device : backend.devices()) {
    text += fmt::format(" {}:{}{}{}", device_name(device.type), device.id,
                        device.arch.empty() ? "" : " ", device.arch);
  }
  if (backend.devices().empty()) return "no device: " + backend.no_device_reason();
  std::vector<std::string> reasons;
  attnrt_status status = ATTNRT_OK;
  try {
    status = backend.supports(fakes::Tiny().problem, &reasons);
  } catch (const std::bad_alloc&) {
    return text + "; supports: ran out of memory";
  }
  if (status != ATTNRT_OK)
    text += fmt::format("; supports: {}: {}", status_name(status), fmt::join(reasons, ", "));
  if (backend.devices()[0].type != ATTNRT_DEVICE_CPU) return text;
  const std::string failure = run_failure(backend);
  return failure.empty() ? text : text + "; " + failure;
}

}  // namespace attnrt::core::support
