// runtime/cli/doctor/machine.cpp: what this machine is, and which GPUs its drivers tell of
#include "cli/doctor/machine.hpp"

#include <fmt/format.h>
#include <gnu/libc-version.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string_view>

#include "base/result.hpp"

namespace attnrt::cli::doctor {
namespace {

namespace fs = std::filesystem;

// The features that kernels/cpu has code for.
constexpr std::string_view kFeatures[] = {"ssse3",    "sse4_1",      "avx2",    "avx512f",
                                          "avx512bw", "avx512_bf16", "amx_bf16"};

// Returns the file's first kilobytes, "" if it cannot be read.
std::string text_of(const fs::path& file) {
  std::ifstream stream(file);
  std::string text(1 << 18, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(stream.gcount()));
  return text;
}

std::string first_line(const fs::path& file) {
  const std::string text = text_of(file);
  return text.substr(0, text.find('\n'));
}

// Returns what follows `key` and the separator in the first line that begins with them.
std::string value_of(const std::string& text, std::string_view key, std::string_view separator) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(key)) continue;
    const size_t at = line.find(separator, key.size());
    if (at == std::string::npos) continue;
    std::string value = line.substr(at + separator.size());
    value.erase(0, value.find_first_not_of(" \t\""));
    value.erase(value.find_last_not_of(" \t\"") + 1);
    return value;
  }
  return "";
}

int64_t number_in(const std::string& text) {
  int64_t number = 0;
  const size_t at = std::min(text.find_first_of("0123456789"), text.size());
  std::from_chars(text.data() + at, text.data() + text.size(), number);
  return number;
}

// The entries of a folder whose names begin with `prefix` and go on with digits, in order.
std::vector<fs::path> numbered(const fs::path& folder, const std::string& prefix) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    const bool is_one = name.starts_with(prefix) && name.size() > prefix.size() &&
                        name.find_first_not_of("0123456789", prefix.size()) == std::string::npos;
    if (is_one) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

void add_node(const fs::path& root, const fs::path& path, std::vector<Node>& nodes) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return;
  const group* owner = getgrgid(status.st_gid);
  nodes.push_back({"/" + path.lexically_relative(root).string(),
                   access(path.c_str(), R_OK | W_OK) == 0,
                   owner != nullptr ? owner->gr_name : std::to_string(status.st_gid)});
}

void read_processor(const fs::path& root, Machine& machine) {
  const std::string text = text_of(root / "proc/cpuinfo");
  machine.processor = core::one_line(value_of(text, "model name", ": "));
  if (machine.processor.empty()) machine.processor = "unknown processor";
  const std::string flags = " " + value_of(text, "flags", ": ") + " ";
  for (const std::string_view feature : kFeatures) {
    if (flags.find(fmt::format(" {} ", feature)) != std::string::npos)
      machine.features.emplace_back(feature);
  }
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) machine.cpus += line.starts_with("processor");
  constexpr int64_t kKibibyte = 1024;
  machine.memory_bytes =
      kKibibyte * number_in(value_of(text_of(root / "proc/meminfo"), "MemTotal", ":"));
}

Gpus read_nvidia(const fs::path& root) {
  Gpus gpus;
  // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue ..."
  std::istringstream words(first_line(root / "proc/driver/nvidia/version"));
  for (std::string word; words >> word;) {
    const bool is_version = word.find('.') != std::string::npos &&
                            word.find_first_not_of("0123456789.") == std::string::npos;
    if (is_version && gpus.driver.empty()) gpus.driver = word;
  }
  std::error_code error;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(root / "proc/driver/nvidia/gpus", error))
    found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  for (const fs::path& gpu : found)
    gpus.models.push_back(core::one_line(value_of(text_of(gpu / "information"), "Model", ":")));
  add_node(root, root / "dev/nvidiactl", gpus.nodes);
  for (const fs::path& node : numbered(root / "dev", "nvidia")) add_node(root, node, gpus.nodes);
  return gpus;
}

Gpus read_amd(const fs::path& root) {
  Gpus gpus;
  gpus.driver = first_line(root / "sys/module/amdgpu/version");
  std::error_code error;
  if (gpus.driver.empty() && fs::exists(root / "sys/module/amdgpu", error))
    gpus.driver = "of the kernel";
  for (const fs::path& node : numbered(root / "sys/class/kfd/kfd/topology/nodes", "")) {
    const int64_t version =
        number_in(value_of(text_of(node / "properties"), "gfx_target_version", " "));
    if (version > 0) gpus.models.push_back(gfx_name(version));  // 0: a processor
  }
  add_node(root, root / "dev/kfd", gpus.nodes);
  if (!gpus.models.empty()) {
    for (const fs::path& node : numbered(root / "dev/dri", "renderD"))
      add_node(root, node, gpus.nodes);
  }
  return gpus;
}

}  // namespace

std::string gfx_name(int64_t target_version) {
  return fmt::format("gfx{}{:x}{:x}", target_version / 10000, target_version / 100 % 100,
                     target_version % 100);
}

Machine read_machine(const fs::path& root) {
  Machine machine;
  machine.system = core::one_line(value_of(text_of(root / "etc/os-release"), "PRETTY_NAME", "="));
  if (machine.system.empty()) machine.system = "Linux";
  machine.kernel = core::one_line(first_line(root / "proc/sys/kernel/osrelease"));
  utsname names{};
  if (uname(&names) == 0) machine.architecture = names.machine;
  machine.libc = fmt::format("glibc {}", gnu_get_libc_version());
  read_processor(root, machine);
  machine.nvidia = read_nvidia(root);
  machine.amd = read_amd(root);
  return machine;
}

}  // namespace attnrt::cli::doctor
