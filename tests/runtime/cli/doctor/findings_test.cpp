// tests/runtime/cli/doctor/findings_test.cpp: what doctor finds wrong, and what it says mends it
#include "cli/doctor/findings.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace attnrt::cli::doctor {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

core::PluginRow row(const std::string& name, const std::string& state, const std::string& reason,
                    const std::string& device = "cpu") {
  auto plugin = std::make_shared<core::FoundPlugin>();
  plugin->path = "/plugins/" + name + ".so";
  plugin->manifest.emplace();
  plugin->manifest->name = name;
  plugin->manifest->version_text = "1.0.0";
  plugin->manifest->devices = {device};
  core::PluginRow row{plugin, state, reason, {}, {}, {}};
  return row;
}

// A machine on which nothing is wrong.
Report good() {
  Report report;
  auto snapshot = std::make_shared<core::Snapshot>();
  snapshot->config = std::make_shared<core::Config>(core::read_config("", "", {}).value());
  snapshot->directories = {"/plugins"};
  report.snapshot = snapshot;
  report.plugins = {row("cpu", "ready", "")};
  report.probe_program = "/usr/libexec/attnrt/attnrt-probe";
  return report;
}

Gpus gpu(const std::string& model, bool usable) {
  return {"1.0", {model}, {{"/dev/gpu", usable, "render"}}};
}

// "warning: WHAT -> MEND" for each.
std::vector<std::string> lines(const Report& report) {
  std::vector<std::string> lines;
  for (const Finding& each : findings(report))
    lines.push_back(fmt::format("{}: {} -> {}", name_of(each.severity), each.what, each.mend));
  return lines;
}

// The only line.
std::string line(const Report& report) {
  const auto all = lines(report);
  return all.size() == 1 ? all.front() : fmt::format("{} findings", all.size());
}

TEST(Findings, NothingIsWrong) {
  EXPECT_THAT(lines(good()), IsEmpty());
  Report with_gpu = good();
  with_gpu.machine.amd = gpu("gfx1100", true);
  with_gpu.plugins.push_back(row("hip_flash", "ready", "", "rocm"));
  EXPECT_THAT(lines(with_gpu), IsEmpty());
  Report without_gpu = good();
  without_gpu.plugins.push_back(row("hip_flash", "no device", "no HIP runtime", "rocm"));
  EXPECT_THAT(lines(without_gpu), IsEmpty()) << "a plugin for a GPU that is not here";
}

TEST(Findings, APolicyThatIsWrong) {
  Report report;
  report.policy_file = "p.yaml";
  report.policy_error = "p.yaml:1:1: found x";
  EXPECT_EQ(line(report),
            "error: no runtime can be opened: p.yaml:1:1: found x -> `attnrt check p.yaml` names "
            "every error of the policy");
}

TEST(Findings, Plugins) {
  Report report = good();
  report.plugins.clear();
  EXPECT_EQ(line(report),
            "error: there is no plugin in /plugins -> install the backend cpu there, or name its "
            "folder in ATTNRT_PLUGIN_PATH");
  report.plugins = {row("cpu", "refused", "ABI-3: it died")};
  const auto both = lines(report);
  ASSERT_EQ(both.size(), 2U);
  EXPECT_THAT(both[0], HasSubstr("error: no plugin in /plugins is ready")) << "the worst is first";
  EXPECT_EQ(both[1],
            "warning: cpu 1.0.0 is refused: ABI-3: it died -> mend what it names, then `attnrt "
            "list --retry`; or remove the file");
  report = good();
  report.plugins.push_back(row("other", "broken", "it is no library"));
  EXPECT_THAT(line(report), AllOf(HasSubstr("warning: other 1.0.0 is broken: it is no library"),
                                  HasSubstr("install this file again, or remove it")));
}

TEST(Findings, AGpuThatCannotBeUsed) {
  Report report = good();
  report.machine.amd = gpu("gfx1100", false);
  EXPECT_EQ(line(report),
            "warning: gfx1100 is here, but this user may not open /dev/gpu, which belongs to the "
            "group render -> sudo usermod -aG render $USER, and log in again");
  report.machine.amd = {"1.0", {"gfx1100"}, {}};
  EXPECT_THAT(line(report), HasSubstr("its files in /dev are not -> in a container"));
  report.machine.amd = gpu("gfx1100", true);
  EXPECT_THAT(line(report), HasSubstr("gfx1100 is here, and no plugin is for rocm"));
  report.plugins.push_back(row("hip_flash", "no device", "no HIP runtime", "rocm"));
  EXPECT_THAT(line(report), HasSubstr("gfx1100 is here, but hip_flash 1.0.0: no HIP runtime"));
  Report nvidia = good();
  nvidia.machine.nvidia = gpu("NVIDIA H200", true);
  EXPECT_THAT(line(nvidia), HasSubstr("no plugin is for cuda -> install a plugin for NVIDIA's"));
}

TEST(Findings, VariablesThatAreEasilyForgotten) {
  Report report = good();
  report.environment = {{"ATTNRT_BACKEND", "cpu"}};
  EXPECT_EQ(line(report),
            "note: ATTNRT_BACKEND=cpu: no other backend serves -> unset ATTNRT_BACKEND, if that is "
            "not wanted");
  report.environment = {{"HSA_OVERRIDE_GFX_VERSION", "11.0.0"}};
  EXPECT_THAT(line(report), HasSubstr("warning: HSA_OVERRIDE_GFX_VERSION=11.0.0: code of another"));
  for (const char* value : {"", "-1"}) {
    report.environment = {{"CUDA_VISIBLE_DEVICES", value}};
    EXPECT_THAT(line(report), HasSubstr("every GPU is hidden"));
  }
  report.environment = {
      {"CUDA_VISIBLE_DEVICES", "0"}, {"LD_LIBRARY_PATH", "/x"}, {"ATTNRT_LOG", "debug"}};
  EXPECT_THAT(lines(report), IsEmpty());
}

TEST(Findings, Admission) {
  Report report = good();
  report.probe_program = "";
  EXPECT_THAT(line(report), HasSubstr("attnrt-probe is not installed"));
  report = good();
  report.registry_error = "others may write it";
  EXPECT_THAT(line(report), AllOf(HasSubstr("others may write it"), HasSubstr("ATTNRT_REGISTRY")));
}

TEST(Findings, ABackendThatIsWrong) {
  Report report = good();
  report.self_tests = {{"cpu", "1.0.0", {}, SelfTest::State::right, "k", ""},
                       {"other", "2.0.0", {}, SelfTest::State::unsupported, "", "no f32"},
                       {"bad", "1.0.0", {}, SelfTest::State::wrong, "k", "out is 3"},
                       {"worse", "1.0.0", {}, SelfTest::State::failed, "", "run: no"}};
  const auto both = lines(report);
  ASSERT_EQ(both.size(), 2U);
  EXPECT_EQ(both[0],
            "error: bad 1.0.0 on cpu gives a wrong result: out is 3 -> `attnrt verify --backend "
            "bad` finds out more; until it is mended, set ATTNRT_DISABLE=bad");
  EXPECT_THAT(both[1], HasSubstr("error: worse 1.0.0 on cpu fails: run: no"));
}

TEST(Findings, WarningsOfTheRuntimeAreTold) {
  Report report = good();
  report.warnings = {"config: ATTNRT_POLICI: unknown variable"};
  EXPECT_THAT(line(report), HasSubstr("warning: config: ATTNRT_POLICI: unknown variable"));
}

}  // namespace
}  // namespace attnrt::cli::doctor
