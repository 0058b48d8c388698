// tests/runtime/cli/doctor/machine_test.cpp: what doctor reads of a machine
#include "cli/doctor/machine.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "fakes/fakes.hpp"

namespace attnrt::cli::doctor {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A folder that looks like the root of a machine.
class Root {
 public:
  void write(const std::string& file, const std::string& text) {
    const auto path = directory_.path() / file;
    std::filesystem::create_directories(path.parent_path());
    directory_.write(file, text);
  }
  Machine read() const { return read_machine(directory_.path()); }
  std::filesystem::path path() const { return directory_.path(); }

 private:
  fakes::Directory directory_;
};

TEST(Machine, SystemAndProcessor) {
  Root root;
  root.write("etc/os-release", "NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n");
  root.write("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n");
  root.write("proc/cpuinfo",
             "processor\t: 0\nmodel name\t: A processor\nflags\t\t: fpu avx2 avx512f_x amx_bf16\n\n"
             "processor\t: 1\nmodel name\t: A processor\nflags\t\t: fpu avx2\n");
  root.write("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
  const Machine machine = root.read();
  EXPECT_EQ(machine.system, "Debian GNU/Linux 12");
  EXPECT_EQ(machine.kernel, "6.1.0-13-amd64");
  EXPECT_EQ(machine.processor, "A processor");
  EXPECT_THAT(machine.features, ElementsAre("avx2", "amx_bf16"));
  EXPECT_EQ(machine.cpus, 2);
  EXPECT_EQ(machine.memory_bytes, 16384 * 1024);
}

TEST(Machine, NothingCanBeRead) {
  const Machine machine = Root().read();
  EXPECT_EQ(machine.system, "Linux");
  EXPECT_EQ(machine.processor, "unknown processor");
  EXPECT_EQ(machine.cpus, 0);
  EXPECT_EQ(machine.memory_bytes, 0);
  for (const Gpus& gpus : {machine.nvidia, machine.amd}) {
    EXPECT_EQ(gpus.driver, "");
    EXPECT_THAT(gpus.models, IsEmpty());
    EXPECT_THAT(gpus.nodes, IsEmpty());
  }
}

TEST(Machine, HostileTextsBecomeOneLine) {
  Root root;
  root.write("proc/cpuinfo", "model name\t: \x1b[31mred\x01\n");
  root.write("proc/meminfo", "MemTotal: 99999999999999999999 kB\n");
  EXPECT_EQ(root.read().processor, "\\x1b[31mred\\x01");
  EXPECT_EQ(root.read().memory_bytes, 0) << "too large a number is none";
}

TEST(Machine, GpusOfNvidia) {
  Root root;
  root.write("proc/driver/nvidia/version",
             "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC "
             "2024\nGCC version:  12.2.0\n");
  root.write("proc/driver/nvidia/gpus/0000:0a:00.0/information",
             "Model: \t\t NVIDIA H200\nIRQ: 4\n");
  root.write("dev/nvidiactl", "");
  root.write("dev/nvidia0", "");
  root.write("dev/nvidia-uvm", "");
  const Gpus gpus = root.read().nvidia;
  EXPECT_EQ(gpus.driver, "550.54.15");
  EXPECT_THAT(gpus.models, ElementsAre("NVIDIA H200"));
  ASSERT_EQ(gpus.nodes.size(), 2U);
  EXPECT_EQ(gpus.nodes[0].path, "/dev/nvidiactl");
  EXPECT_EQ(gpus.nodes[1].path, "/dev/nvidia0");
  EXPECT_TRUE(gpus.nodes[1].usable);
}

TEST(Machine, GpusOfAmd) {
  Root root;
  root.write("sys/module/amdgpu/version", "6.7.0\n");
  root.write("sys/class/kfd/kfd/topology/nodes/0/properties",
             "cpu_cores_count 16\ngfx_target_version 0\n");
  root.write("sys/class/kfd/kfd/topology/nodes/1/properties",
             "cpu_cores_count 0\ngfx_target_version 110000\n");
  root.write("dev/kfd", "");
  root.write("dev/dri/renderD128", "");
  root.write("dev/dri/card0", "");
  const Gpus gpus = root.read().amd;
  EXPECT_EQ(gpus.driver, "6.7.0");
  EXPECT_THAT(gpus.models, ElementsAre("gfx1100"));
  ASSERT_EQ(gpus.nodes.size(), 2U);
  EXPECT_EQ(gpus.nodes[0].path, "/dev/kfd");
  EXPECT_EQ(gpus.nodes[1].path, "/dev/dri/renderD128");
  if (geteuid() == 0) return;  // root may open everything
  chmod((root.path() / "dev/kfd").c_str(), 0);
  EXPECT_FALSE(root.read().amd.nodes[0].usable);
}

TEST(Machine, NamesOfArchitectures) {
  EXPECT_EQ(gfx_name(110000), "gfx1100");
  EXPECT_EQ(gfx_name(120001), "gfx1201");
  EXPECT_EQ(gfx_name(90402), "gfx942");
  EXPECT_EQ(gfx_name(90010), "gfx90a");
  EXPECT_EQ(gfx_name(100302), "gfx1032");
}

}  // namespace
}  // namespace attnrt::cli::doctor
