// tests/runtime/load_test.cpp: found plugins, right and wrong, into Backends or the reason why not
#include "load.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "fakes/fake.h"
#include "fakes/fakes.hpp"
#include "fakes/tiny.hpp"
#include "support/golden.hpp"

namespace attnrt::core {
namespace {

using fakes::Directory;
using fakes::Tiny;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

// A directory of fakes, and the runtime's services with everything that is logged.
class Load : public ::testing::Test {
 protected:
  Load() {
    services->threads = Threads::pool(2);
    services->log = [this](int32_t, const std::string& text) {
      const std::lock_guard lock(mutex);
      log.push_back(text);
    };
  }

  std::shared_ptr<const FoundPlugin> found(const std::string& name, const std::string& as = {}) {
    const auto path = directory.add(name, as);
    for (const auto& plugin : discover({directory.text()}).plugins) {
      if (plugin->path == path) return plugin;
    }
    throw std::runtime_error("not found: " + path.string());
  }
  Result<std::shared_ptr<Backend>> loaded(const std::string& name, const Options& options = {},
                                          bool by_path = false) {
    return load(found(name), options, services, by_path);
  }

  Directory directory;
  std::mutex mutex;
  std::vector<std::string> log;
  std::shared_ptr<Services> services = std::make_shared<Services>();
};

// Plans and runs the tiny problem; "" if its answer is right.
std::string trouble(const Backend& backend) {
  Tiny tiny;
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

std::string outcome(const Result<std::shared_ptr<Backend>>& loaded) {
  if (!loaded)
    return fmt::format("{}: {}", status_name(loaded.error().code), loaded.error().message);
  const Backend& backend = **loaded;
  std::string text = "ready:";
  for (const Device& device : backend.devices()) {
    text += fmt::format(" {}:{}{}{}", device_name(device.type), device.id,
                        device.arch.empty() ? "" : " ", device.arch);
  }
  if (backend.devices().empty()) return "no device: " + backend.no_devices_because();
  std::vector<std::string> reasons;
  const attnrt_status status = backend.supports(Tiny().problem, &reasons);
  if (status != ATTNRT_OK)
    text += fmt::format("; supports: {}: {}", status_name(status), fmt::join(reasons, ", "));
  if (backend.devices()[0].type != ATTNRT_DEVICE_CPU) return text;
  const std::string wrong = trouble(backend);
  return wrong.empty() ? text : text + "; " + wrong;
}

// Every fake that can be loaded without harm, and what becomes of it.
TEST_F(Load, EveryFake) {
  std::string text;
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(ATTNRT_FAKES_DIR))
    names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  for (const auto& name : names) {
    if (name == "fake_aborts" || name == "fake_bad_crash" || name == "fake_bad_hang") continue;
    if (name == "fake_bad_stdout") continue;
    text += fmt::format("{}: {}\n", name, outcome(loaded(name)));
  }
  EXPECT_TRUE(testing::matches_golden("discover/loads.txt", text));
}

// What is loaded by path is what was found there and checked.
TEST_F(Load, ByPathRefusesWhatChangedSinceItWasFound) {
  const Directory elsewhere;
  const auto outside = elsewhere.add("fake_full");
  auto plugin = found("fake_minimal");
  ASSERT_TRUE(std::filesystem::remove(plugin->path));
  std::filesystem::create_symlink(outside, plugin->path);
  EXPECT_THAT(outcome(load(plugin, {}, services, true)),
              HasSubstr("outside the plugin directories"));
  ASSERT_TRUE(std::filesystem::remove(plugin->path));
  std::filesystem::copy_file(outside, plugin->path);
  EXPECT_THAT(outcome(load(plugin, {}, services, true)),
              HasSubstr("has changed since it was found"));
  EXPECT_THAT(outcome(load(found("fake_minimal"), {}, services, true)), StartsWith("ready"));
}

TEST_F(Load, AnExceptionIsAnInternalError) {
  for (const std::string call : {"open", "devices", "supports", "plan", "run"}) {
    const auto backend = loaded("fake_throws_in_" + call);
    EXPECT_THAT(outcome(backend) + (backend ? (*backend)->no_devices_because() : ""),
                HasSubstr("threw an exception"))
        << call;
  }
}

TEST_F(Load, AStatusThatDoesNotExistIsAnInternalError) {
  EXPECT_THAT(outcome(loaded("fake_plan_nonsense")), HasSubstr("plan: internal error"));
  EXPECT_THAT(outcome(loaded("fake_run_nonsense")), HasSubstr("run: internal error"));
}

TEST_F(Load, OptionsReachOpen) {
  EXPECT_TRUE(loaded("fake_full", {{"note", "a"}}));
  const auto refused = loaded("fake_full", {{"note", "a"}, {"colour", "red"}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(refused.error().message, HasSubstr("colour"));
  const auto takes_none = loaded("fake_minimal", {{"note", "a"}});
  ASSERT_FALSE(takes_none);
  EXPECT_EQ(takes_none.error().code, ATTNRT_INVALID_ARGUMENT);
}

TEST_F(Load, AnOlderTableEndsWhereItEnds) {
  const auto backend = loaded("fake_older");
  ASSERT_TRUE(backend) << backend.error().message;
  EXPECT_EQ((*backend)->extension(FAKE_COUNTERS), nullptr);
  EXPECT_EQ(trouble(**backend), "");
}

TEST_F(Load, ANewerTableIsReadAsFarAsItIsKnown) {
  const auto backend = loaded("fake_newer");
  ASSERT_TRUE(backend) << backend.error().message;
  EXPECT_NE((*backend)->extension(FAKE_COUNTERS), nullptr);
  EXPECT_EQ(trouble(**backend), "");
}

TEST_F(Load, VersionsStandSideBySide) {
  std::vector<std::shared_ptr<Backend>> all;
  for (const std::string version : {"1.0.0", "1.2.0", "2.0.0-rc.1"}) {
    auto backend = loaded("fake_versions-" + version);
    ASSERT_TRUE(backend) << backend.error().message;
    EXPECT_EQ((*backend)->manifest().version_text, version);
    EXPECT_EQ((*backend)->manifest().name, "fake_versions");
    all.push_back(*backend);
  }
  EXPECT_NE(all[0]->extension(FAKE_COUNTERS), all[1]->extension(FAKE_COUNTERS));
  for (const auto& backend : all) EXPECT_EQ(trouble(*backend), "");
}

TEST_F(Load, OverwritingALoadedPluginDisturbsNobody) {
  const auto plugin = found("fake_full");
  const auto backend = load(plugin, {}, services, false);
  ASSERT_TRUE(backend) << backend.error().message;
  fakes::overwrite_file(plugin->path, "");
  EXPECT_EQ(trouble(**backend), "");
  fakes::overwrite_file(plugin->path, fakes::read_file(fakes::fake("fake_bad_garbage")));
  EXPECT_EQ(trouble(**backend), "");
  const auto again = load(plugin, {}, services, false);  // what was checked is what is loaded
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(trouble(**again), "");
}

TEST_F(Load, TheSameBytesTwiceAreTwoInstances) {
  const auto one = load(found("fake_full", "one.so"), {}, services, false);
  const auto two = load(found("fake_full", "two.so"), {}, services, false);
  ASSERT_TRUE(one && two);
  EXPECT_NE((*one)->instance(), (*two)->instance());
}

TEST_F(Load, ByPathMapsTheFileItself) {
  const auto backend = loaded("fake_full", {}, true);
  ASSERT_TRUE(backend) << backend.error().message;
  EXPECT_THAT(fakes::read_file("/proc/self/maps"), HasSubstr(directory.text() + "/fake_full.so"));
  EXPECT_EQ(trouble(**backend), "");
}

TEST_F(Load, NothingOfTheFileStaysMappedByPath) {
  const auto backend = loaded("fake_versions-1.2.0");
  ASSERT_TRUE(backend);
  EXPECT_THAT(fakes::read_file("/proc/self/maps"), ::testing::Not(HasSubstr(directory.text())));
}

TEST_F(Load, DevicesAndTheirMemory) {
  const auto backend = loaded("fake_rocm_two");
  ASSERT_TRUE(backend) << backend.error().message;
  ASSERT_THAT((*backend)->devices(), SizeIs(2));
  EXPECT_EQ((*backend)->devices()[1].id, 1);
  EXPECT_EQ((*backend)->devices()[1].arch, "gfx1100");
  EXPECT_NE((*backend)->memory(), nullptr);
  EXPECT_THAT(outcome(loaded("fake_rocm_no_memory")), HasSubstr(ATTNRT_MEMORY));
}

TEST_F(Load, NoDeviceHasItsReason) {
  const auto backend = loaded("fake_no_devices");
  ASSERT_TRUE(backend) << backend.error().message;
  EXPECT_THAT((*backend)->devices(), IsEmpty());
  EXPECT_EQ((*backend)->no_devices_because(), "no fake device is plugged in");
}

TEST_F(Load, TheInstanceIsClosedWithItsLastOwner) {
  auto backend = loaded("fake_rocm");
  ASSERT_TRUE(backend) << backend.error().message;
  std::shared_ptr<const Backend> kept = *backend;
  backend->reset();
  EXPECT_THAT(log, IsEmpty());
  kept.reset();
  EXPECT_THAT(log, ElementsAre(HasSubstr("fake_rocm: allocations 0 (0 alive)")));
}

}  // namespace
}  // namespace attnrt::core
