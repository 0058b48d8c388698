// runtime/cli/doctor/machine.hpp: what this machine is, and which GPUs its drivers tell of
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace attnrt::cli::doctor {

// A file in /dev that a GPU's runtime opens.
struct Node {
  std::string path;
  bool usable = false;  // this process may read and write it
  std::string group;    // that owns it: its name, or its number
};

// The GPUs of one maker, as the kernel's driver tells of them.
struct Gpus {
  std::string driver;               // its version; "" if there is no driver
  std::vector<std::string> models;  // "NVIDIA H200", "gfx1100"
  std::vector<Node> nodes;
};

struct Machine {
  std::string system, kernel, architecture, libc;  // "Debian GNU/Linux 12", "6.1.0", "x86_64", ...
  std::string processor;
  std::vector<std::string> features;  // of the processor, those that kernels use
  int64_t cpus = 0;                   // of the machine
  int64_t memory_bytes = 0;
  Gpus nvidia, amd;
};

// Reads what /etc, /proc, /sys and /dev say. What cannot be read is left empty.
// root: "/", or a folder with such folders, for tests.
Machine read_machine(const std::filesystem::path& root = "/");

// Returns the architecture's name of a gfx_target_version: 110000 is gfx1100, 90402 is gfx942.
std::string gfx_name(int64_t target_version);

}  // namespace attnrt::cli::doctor
