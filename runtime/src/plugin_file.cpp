// runtime/src/plugin_file.cpp: reads one plugin file without running its code
#include "plugin_file.hpp"

#include <fcntl.h>
#include <sha256.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "formats/elf_file.hpp"

namespace attnrt::core {
namespace {

// Bytes. A plugin holds code and constants, which the loader maps into 2 GiB of addresses at most;
// a larger file is a mistake, and its copy would crowd out the application.
constexpr int64_t kLargestFile = int64_t{1} << 30;
// A change that comes so shortly after another may leave the times of a file as they were: file
// systems count in ticks of up to 2 s.
constexpr int64_t kTickNs = 2'000'000'000;

// Returns the path of an open file with all links resolved.
Result<std::string> real_path(const Descriptor& file, const std::string& path) {
  std::array<char, PATH_MAX> target{};
  const std::string link = fmt::format("/proc/self/fd/{}", file.number());
  const ssize_t length = readlink(link.c_str(), target.data(), target.size());
  if (length > 0) return std::string(target.data(), static_cast<size_t>(length));
  return resolved(path);  // /proc is not mounted
}

bool inside(const std::string& path, const std::vector<std::string>& real_directories) {
  const std::string parent = std::filesystem::path(path).parent_path();
  return std::find(real_directories.begin(), real_directories.end(), parent) !=
         real_directories.end();
}

std::string sha256_hex(std::string_view bytes) {
  std::array<char, SHA256_DIGEST_STRING_LENGTH> text{};
  SHA256Data(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), text.data());
  return text.data();
}

// Copies the file's bytes into memory. A file that changes meanwhile is an error.
Result<FileBytes> read_whole(const OpenPlugin& open) {
  auto bytes = FileBytes::read(open.file, open.identity.bytes);
  if (!bytes) return bytes;
  struct stat status {};
  if (fstat(open.file.number(), &status) != 0) return reading_error("cannot be read");
  FileIdentity now = identity_of(status);
  // A file that is renamed or gets another link meanwhile is the same: only its ctime differs.
  now.changed_ns = open.identity.changed_ns;
  if (now == open.identity) return bytes;
  return fail(ATTNRT_UNSUPPORTED, "changed while it was read; reload when it is complete");
}

// Whether a later change of the file will show in its identity.
bool is_settled(const FileIdentity& identity) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const int64_t now_ns = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  return identity.changed_ns < now_ns - kTickNs && identity.modified_ns < now_ns - kTickNs;
}

}  // namespace

Result<std::string> resolved(const std::string& path) {
  std::array<char, PATH_MAX> target{};
  if (::realpath(path.c_str(), target.data()) == nullptr) return system_error("cannot be found");
  return std::string(target.data());
}

Result<OpenPlugin> open_plugin(const std::string& path,
                               const std::vector<std::string>& real_directories) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (file.number() < 0) {
    if (errno == ENOENT) return fail(ATTNRT_UNSUPPORTED, "is a link to nothing");
    return system_error("cannot be opened");
  }
  struct stat status {};
  if (fstat(file.number(), &status) != 0) return reading_error("cannot be read");
  if (S_ISDIR(status.st_mode))
    return fail(ATTNRT_UNSUPPORTED, "is a directory, not a shared library");
  if (!S_ISREG(status.st_mode)) return fail(ATTNRT_UNSUPPORTED, "is not a regular file");
  if (status.st_size > kLargestFile) {
    return fail(ATTNRT_UNSUPPORTED, "has {} bytes; a plugin has at most {} (1 GiB)", status.st_size,
                kLargestFile);
  }
  auto real = real_path(file, path);
  if (!real) return tl::unexpected(real.error());
  if (!inside(*real, real_directories)) {
    return fail(ATTNRT_UNSUPPORTED,
                "is a link to {}, outside the plugin directories; put the file itself there",
                *real);
  }
  return OpenPlugin{std::move(file), identity_of(status), *std::move(real)};
}

Result<void> examine(const OpenPlugin& open, FoundPlugin& plugin) {
  if (is_settled(open.identity)) plugin.identity = open.identity;
  plugin.real_path = open.real_path;
  // Before it is copied, so that a large file which only has the name of a plugin costs nothing.
  const auto bytes = static_cast<uint64_t>(open.identity.bytes);
  if (auto checked = check_plugin_headers(open.file.number(), bytes); !checked) return checked;
  auto copy = read_whole(open);
  if (!copy) return tl::unexpected(copy.error());
  plugin.hash = sha256_hex(copy->view());
  const auto elf = read_plugin_elf(copy->view());
  if (!elf) return tl::unexpected(elf.error());
  auto manifest = parse_manifest(elf->manifest, plugin.path);
  if (!manifest) return tl::unexpected(manifest.error());
  if (!elf->exports_plugin) {
    return fail(ATTNRT_UNSUPPORTED, "exports no symbol {}{}", ATTNRT_PLUGIN_SYMBOL,
                elf->other_plugin_symbol.empty() ? "" : ", but " + elf->other_plugin_symbol);
  }
  plugin.manifest = std::move(*manifest);
  plugin.bytes = std::make_shared<CheckedBytes>(std::move(*copy));
  return {};
}

Result<FileBytes> read_again(const FoundPlugin& plugin, FileIdentity* identity) {
  auto open = open_plugin(plugin.path, {std::filesystem::path(plugin.real_path).parent_path()});
  if (!open) return tl::unexpected(open.error());
  auto bytes = read_whole(*open);
  if (!bytes) return bytes;
  if (open->real_path != plugin.real_path || sha256_hex(bytes->view()) != plugin.hash) {
    return fail(ATTNRT_UNSUPPORTED,
                "has changed since it was found and checked; reload the runtime");
  }
  *identity = open->identity;
  return bytes;
}

Result<std::shared_ptr<const FileBytes>> bytes_of(const FoundPlugin& plugin) {
  if (auto kept = plugin.bytes ? plugin.bytes->get() : nullptr) return kept;
  FileIdentity identity;
  auto bytes = read_again(plugin, &identity);
  if (!bytes) return tl::unexpected(bytes.error());
  return std::make_shared<const FileBytes>(*std::move(bytes));
}

}  // namespace attnrt::core
