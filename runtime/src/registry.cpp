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
#include <charconv>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include "base/signals.hpp"
#include "base/text.hpp"
#include "plugin_file.hpp"
#include "trust.hpp"

namespace attnrt::core {
namespace {

constexpr size_t kMostBytes = 16384;  // of a record's file
constexpr int64_t kDay = 24 * 60 * 60;
constexpr std::array<const char*, 3> kStates{"admitted", "refused", "probing"};
constexpr std::string_view kFirstLine = "attnrt admission 1";

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

bool read_number(const std::string& text, int64_t& number) {
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && rest == end;
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

// Whether this code gave the name: a record's, or that of one that is being written.
bool is_ours(std::string_view name) {
  constexpr size_t kHash = 64, kShort = 16;
  const auto is_hex = [](std::string_view part, size_t size) {
    return part.size() == size && part.find_first_not_of("0123456789abcdef") == part.npos;
  };
  if (name.starts_with('.'))
    return name.size() > kShort + 1 && is_hex(name.substr(1, kShort), kShort) &&
           name[kShort + 1] == '.';
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
  // One of this thread's own.
  const std::string temporary = fmt::format(".{}.{}.{}", key.substr(0, 16), getpid(), gettid());
  const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
  Descriptor file(openat(folder_.number(), temporary.c_str(), flags, 0600));
  if (file.number() < 0) return system_error("cannot be written");
  Result<void> written;
  {
    const NoFileSizeSignal no_signal;
    if (!write_all(file.number(), text_of(record))) written = system_error("cannot be written");
  }
  if (written &&
      renameat(folder_.number(), temporary.c_str(), folder_.number(), file_name(key).c_str()) != 0)
    written = system_error("cannot be renamed");
  if (!written) unlinkat(folder_.number(), temporary.c_str(), 0);
  return written;
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
    if (is_ours(entry->d_name) &&
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

std::string text_of(const AdmissionRecord& record) {
  return fmt::format("{}\nstate {}\nlevel {}\nat {}\nboot {}\nattempts {}\nreason {}\nend\n",
                     kFirstLine, kStates.at(static_cast<size_t>(record.state)),
                     level_name(record.level), record.at_seconds,
                     record.boot.empty() ? "-" : record.boot, record.attempts,
                     record.reason.empty() ? "-" : one_line(record.reason));
}

std::optional<AdmissionRecord> parse_record(std::string_view text) {
  const std::vector<std::string> lines = split(text, '\n');
  constexpr size_t kLines = 8;
  if (lines.size() != kLines || lines[0] != kFirstLine || lines[kLines - 1] != "end")
    return std::nullopt;
  const auto value = [&lines](size_t line, std::string_view word) -> std::optional<std::string> {
    const std::string& text_line = lines[line];
    if (!text_line.starts_with(word) || text_line.size() <= word.size() ||
        text_line[word.size()] != ' ')
      return std::nullopt;
    const std::string found = text_line.substr(word.size() + 1);
    return found == "-" ? "" : found;
  };
  const auto state = value(1, "state"), level = value(2, "level"), at = value(3, "at"),
             boot = value(4, "boot"), attempts = value(5, "attempts"), reason = value(6, "reason");
  if (!state || !level || !at || !boot || !attempts || !reason) return std::nullopt;
  const auto* known = std::find(kStates.begin(), kStates.end(), *state);
  const auto found = find_level(*level);
  if (known == kStates.end() || !found || *found == AdmissionLevel::off) return std::nullopt;
  AdmissionRecord record{static_cast<AdmissionRecord::State>(known - kStates.begin()), *found,
                         *reason, 0, *boot};
  if (!read_number(*at, record.at_seconds) || !read_number(*attempts, record.attempts))
    return std::nullopt;
  return record;
}

}  // namespace attnrt::core
