// runtime/src/registry.cpp: keeps what probes have shown, for every process of this machine
#include "registry.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sha256.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include "base/text.hpp"
#include "base/whole_file.hpp"
#include "plugin_file.hpp"
#include "record.hpp"
#include "trust.hpp"

namespace attnrt::core {
namespace {

constexpr size_t kMostBytes = 16384;  // of a record's file
constexpr int64_t kDay = 24 * 60 * 60;

// Returns up to `most` bytes of a file. nullopt: it cannot be read, is not regular, or has more.
std::optional<std::string> read_small_file(int folder, const char* name, size_t most) {
  const Descriptor file(
      openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY));
  struct stat status {};
  if (file.number() < 0 || fstat(file.number(), &status) != 0 || !S_ISREG(status.st_mode))
    return std::nullopt;
  std::string text(most + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(file.number(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::nullopt;
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > most) return std::nullopt;
  text.resize(size);
  return text;
}

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The first line of /proc/cpuinfo that begins with the word, of the first processor.
std::string processor_line(std::string_view word) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line) && !line.empty();) {
    if (line.starts_with(word)) return line;
  }
  return {};
}

// Whether a folder is this user's alone.
Result<void> check_owner(const Descriptor& folder) {
  struct stat status {};
  if (fstat(folder.number(), &status) != 0) return system_error("cannot be read");
  if (status.st_uid != geteuid()) {
    return fail(ATTNRT_UNSUPPORTED, "is owned by user {}; expected user {}", status.st_uid,
                geteuid());
  }
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fail(ATTNRT_UNSUPPORTED, "may be written by others (mode {:o}); chmod 700 it",
                status.st_mode & 07777U);
  }
  return {};
}

std::string file_name(const std::string& key) { return key + ".txt"; }

// Whether a name is that of a record.
bool is_record(std::string_view name) {
  constexpr size_t kHash = 64, kShort = 16;
  const auto is_hex = [](std::string_view part, size_t size) {
    return part.size() == size && part.find_first_not_of("0123456789abcdef") == part.npos;
  };
  constexpr size_t kMachine = kHash + 1, kLevel = kMachine + kShort + 1;
  return name.size() > kLevel && is_hex(name.substr(0, kHash), kHash) && name[kHash] == '-' &&
         is_hex(name.substr(kMachine, kShort), kShort) && name[kLevel - 1] == '-' &&
         name.ends_with(".txt");
}

}  // namespace

Result<Registry> Registry::open(const std::filesystem::path& folder) {
  if (folder.empty()) return fail(ATTNRT_UNSUPPORTED, "this user has no folder for it");
  std::filesystem::path made;
  for (const auto& part : folder) {
    made /= part;
    // What cannot be made may be there all the same, on a file system that is only read.
    if (mkdir(made.c_str(), 0700) != 0 && access(made.c_str(), F_OK) != 0)
      return fail(ATTNRT_UNSUPPORTED, "cannot be made");
  }
  Descriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (file.number() < 0) return system_error("cannot be opened");
  if (auto checked = check_owner(file); !checked) return tl::unexpected(checked.error());
  // As for plugins: whoever may exchange a folder above may put another one in its place.
  struct stat status {};
  const auto real = resolved(folder);
  if (!real) return tl::unexpected(real.error());
  if (fstat(file.number(), &status) != 0) return system_error("cannot be read");
  if (auto trusted = Trust(nullptr).judge(facts_of(*real, status, false)); !trusted)
    return tl::unexpected(trusted.error());
  return Registry(std::move(file));
}

std::optional<AdmissionRecord> Registry::find(const std::string& key) const {
  if (!is_open()) return std::nullopt;
  const std::string name = file_name(key);
  const auto text = read_small_file(folder_.number(), name.c_str(), kMostBytes);
  if (!text) return std::nullopt;
  auto record = parse_record(*text);
  // Its time is that of its last use, which is renewed once a day.
  struct stat status {};
  if (record && fstatat(folder_.number(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      status.st_mtim.tv_sec + kDay < std::time(nullptr))
    utimensat(folder_.number(), name.c_str(), nullptr, AT_SYMLINK_NOFOLLOW);
  return record;
}

Result<void> Registry::store(const std::string& key, const AdmissionRecord& record) const {
  if (!is_open()) return {};
  const std::string text = text_of(record);
  return write_whole(folder_, file_name(key), {text}, 0600);
}

void Registry::forget(const std::string& key) const {
  if (is_open()) unlinkat(folder_.number(), file_name(key).c_str(), 0);
}

void Registry::forget_unused() const {
  if (!is_open()) return;
  const int copy = fcntl(folder_.number(), F_DUPFD_CLOEXEC, 0);
  DIR* stream = copy >= 0 ? fdopendir(copy) : nullptr;
  if (stream == nullptr) {
    if (copy >= 0) close(copy);
    return;
  }
  rewinddir(stream);
  const time_t oldest = std::time(nullptr) - kUnusedDays * kDay;
  while (const dirent* entry = readdir(stream)) {
    struct stat status {};
    if (is_record(entry->d_name) &&
        fstatat(folder_.number(), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISREG(status.st_mode) && status.st_mtim.tv_sec < oldest)
      unlinkat(folder_.number(), entry->d_name, 0);
  }
  closedir(stream);
}

std::filesystem::path default_registry_folder() {
  if (getauxval(AT_SECURE) != 0) return {};
  if (geteuid() == 0) return "/var/cache/attnrt/admission";
  const char* cache = secure_getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/')
    return std::filesystem::path(cache) / "attnrt" / "admission";
  const char* home = secure_getenv("HOME");
  if (home != nullptr && home[0] == '/')
    return std::filesystem::path(home) / ".cache" / "attnrt" / "admission";
  return {};
}

std::string file_key(const std::string& hash_and_machine, AdmissionLevel level) {
  return fmt::format("{}-{}", hash_and_machine, level_name(level));
}

std::string machine_text(const std::string& probe_program,
                         const std::vector<std::string>& environment) {
  utsname system{};
  uname(&system);
  struct stat probe {};
  stat(probe_program.c_str(), &probe);
  return fmt::format(
      "attnrt {}\nid {}\nprobe {} {} {}.{}\nkernel {} {}\n{}\n{}\namdgpu {}\nnvidia {}\n{}\n",
      ATTNRT_VERSION, first_line("/etc/machine-id"), probe.st_ino, probe.st_size,
      probe.st_mtim.tv_sec, probe.st_mtim.tv_nsec, system.release, system.machine,
      processor_line("model name"), processor_line("flags"),
      first_line("/sys/module/amdgpu/version"), first_line("/proc/driver/nvidia/version"),
      joined(environment, "\n"));
}

std::string machine_key(const std::string& machine, const std::string& options) {
  const std::string text = machine + options;
  std::array<char, SHA256_DIGEST_STRING_LENGTH> digest{};
  SHA256Data(reinterpret_cast<const uint8_t*>(text.data()), text.size(), digest.data());
  return std::string(digest.data(), 16);
}

std::string boot_id() { return first_line("/proc/sys/kernel/random/boot_id"); }

}  // namespace attnrt::core
