// tests/plugins/common/gpu/absent_test.cpp: without HIP, a driver, or a device that the build has
// code for, the plugins say why they cannot serve, and the CPU backend serves instead
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/command.hpp"

namespace attnrt::cli {
namespace {

using ::testing::HasSubstr;
using Environment = std::map<std::string, std::string>;

const std::string kInput = ATTNRT_TESTS_DIR "/data/smollm2_layer18.safetensors";
const char* const kStaging = "schema: 1\nstaging: allow\n";
constexpr bool kSanitized =
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    true;
#else
    false;
#endif

class Hip : public ::testing::Test {
 protected:
  Hip() {
    for (const char* name : {"hip_flash.so", "hip_unfused.so"}) {
      fakes::fs::copy_file(fakes::fs::path(HIP_PLUGINS_DIR) / name, plugins.path() / name);
    }
    const fakes::fs::path cpu = fakes::fs::path(ATTNRT_CPU_PLUGIN);
    fakes::fs::copy_file(cpu, plugins.path() / "cpu.so");
    files.write("policy.yaml", kStaging);
  }

  Outcome attnrt(std::vector<std::string> words, const Environment& environment) const {
    words.insert(words.end(), {"--policy", "policy.yaml", "--plugins", plugins.text()});
    return attnrt_in(files, std::move(words), environment);
  }
  // Expects that the GPU plugins are listed with the reason, and that the cpu serves.
  void expect_fallback(const Environment& environment, const std::string& reason) const {
    const Outcome list = attnrt({"list"}, environment);
    EXPECT_EQ(list.exit, 0) << list.err;
    EXPECT_THAT(list.out, HasSubstr("no device"));
    EXPECT_THAT(list.out, HasSubstr(reason));
    const Outcome run = attnrt({"run", "--input", kInput}, environment);
    EXPECT_EQ(run.exit, 0) << run.err;
    EXPECT_THAT(run.out, HasSubstr("backend  cpu 1.0.0 on cpu"));
    Environment forced = environment;
    forced["ATTNRT_BACKEND"] = "hip_flash";
    const Outcome alone = attnrt({"run", "--input", kInput}, forced);
    EXPECT_NE(alone.exit, 0);
    EXPECT_THAT(alone.err, HasSubstr(reason));
  }

  fakes::Directory plugins, files;
};

TEST_F(Hip, NotInstalled) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's runtime must be preloaded first";
  expect_fallback({{"LD_PRELOAD", NO_HIP}}, "no HIP runtime was found");
}

TEST_F(Hip, InstalledWithoutDriverOrDevice) {
  for (const char* folder : {FAKE_HIP_DIR, FAKE_HIP_5_DIR}) {
    expect_fallback({{"LD_LIBRARY_PATH", folder}, {"FAKE_HIP_DEVICES", ""}},
                    "hipGetDeviceCount: no ROCm-capable device is detected (hipErrorNoDevice)");
  }
}

TEST_F(Hip, TheRealRuntimeWithoutADevice) {
  const Outcome list = attnrt({"list"}, {});
  EXPECT_EQ(list.exit, 0) << list.err;
  if (fakes::fs::exists("/dev/kfd")) GTEST_SKIP() << "this machine has AMD's driver";
  EXPECT_THAT(list.out, ::testing::AnyOf(HasSubstr("no HIP runtime was found"),
                                         HasSubstr("hipErrorNoDevice")));
}

TEST_F(Hip, ARuntimeThatCannotBeLoaded) {
  for (const char* version : {"7", "6", "5"})
    files.write("libamdhip64.so." + std::string(version), "not a library");
  expect_fallback({{"LD_LIBRARY_PATH", files.text()}}, "no HIP runtime could be loaded: ");
}

TEST_F(Hip, DevicesOfOtherArchitectures) {
  expect_fallback(
      {{"LD_LIBRARY_PATH", FAKE_HIP_DIR}, {"FAKE_HIP_DEVICES", "gfx906:sramecc+:xnack-,gfx1030"}},
      "device 0 is a gfx906:sramecc+:xnack- (Fake Radeon 0), device 1 is a gfx1030 (Fake Radeon "
      "1), and this build "
      "has code for gfx1100, gfx942");
}

TEST_F(Hip, ADriverThatFails) {
  expect_fallback({{"LD_LIBRARY_PATH", FAKE_HIP_DIR}, {"FAKE_HIP_FAIL", "hipGetDeviceCount=999"}},
                  "hipGetDeviceCount: hipErrorUnknown");
}

TEST_F(Hip, EitherLayoutOfItsPropertiesGivesTheArchitecture) {
  for (const char* folder : {FAKE_HIP_DIR, FAKE_HIP_5_DIR}) {
    const Outcome list = attnrt(
        {"list"}, {{"LD_LIBRARY_PATH", folder}, {"FAKE_HIP_DEVICES", "gfx906,gfx942:xnack-"}});
    EXPECT_EQ(list.exit, 0) << list.err;
    EXPECT_THAT(list.out, HasSubstr("gfx942")) << folder;
  }
}

// The two builds of a plugin have one name and version. Each has a row of its own in the list.
TEST_F(Hip, TheBuildForNvidiaIsLoadedBesideIt) {
  const fakes::fs::path file = fakes::fs::path(HIP_PLUGINS_DIR) / "hip_flash_cuda.so";
  if (!fakes::fs::exists(file)) GTEST_SKIP() << "this build has no CUDA";
  if (fakes::fs::exists("/dev/nvidiactl")) GTEST_SKIP() << "this machine has NVIDIA's driver";
  fakes::fs::copy_file(file, plugins.path() / "hip_flash_cuda.so");
  const Environment environment = {{"LD_LIBRARY_PATH", FAKE_HIP_DIR},
                                   {"FAKE_HIP_KERNELS", STAND_IN_KERNELS}};
  const Outcome list = attnrt({"list"}, environment);
  EXPECT_EQ(list.exit, 0) << list.err;
  EXPECT_THAT(list.out, HasSubstr("no NVIDIA driver, or one that is too old for CUDA"));
  const Outcome run = attnrt({"run", "--input", kInput}, environment);
  EXPECT_THAT(run.out, HasSubstr("backend  cpu 1.0.0 on cpu"))
      << "a backend that needs no copy comes first";
  const auto explain = [&](const std::string& arch) {
    return attnrt({"explain", "device=cuda arch=" + arch +
                                  " dtype=f16 heads_q=8 heads_kv=8 seq_q=64 seq_kv=64 head_dim=64"},
                  environment);
  };
  for (const char* arch : {"sm_86", "sm_140"}) {
    const Outcome explained = explain(arch);
    EXPECT_EQ(explained.exit, 0) << explained.err;
    EXPECT_THAT(explained.out, HasSubstr("hip_flash 1.0.0 on cuda"))
        << "the manifest lists what PTX for compute_80 serves";
  }
  EXPECT_THAT(explain("sm_75").out, HasSubstr("arch sm_75 is not sm_80+"));
}

TEST_F(Hip, TheWholePipelineOnAModelsTensors) {
  const Environment environment = {{"LD_LIBRARY_PATH", FAKE_HIP_DIR},
                                   {"FAKE_HIP_KERNELS", STAND_IN_KERNELS}};
  for (const std::string name : {"hip_flash", "hip_unfused"}) {
    Environment forced = environment;
    forced["ATTNRT_BACKEND"] = name;
    const Outcome run = attnrt({"run", "--input", kInput}, forced);
    EXPECT_EQ(run.exit, 0) << run.err;
    EXPECT_THAT(run.out, HasSubstr("backend  " + name + " 1.0.0 on rocm:0 gfx1100"));
    EXPECT_THAT(run.out, HasSubstr("against the file's expected values"));
  }
}

}  // namespace
}  // namespace attnrt::cli
