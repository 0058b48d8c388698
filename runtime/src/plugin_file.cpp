// runtime/src/plugin_file.cpp: reads one plugin file without running its code
#include "plugin_file.hpp"

#include <fcntl.h>
#include <sha256.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <iterator>

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

std::string folder_of(const std::string& path) { return std::filesystem::path(path).parent_path(); }

bool inside(const std::string& path, const std::vector<std::string>& real_directories) {
  return std::find(real_directories.begin(), real_directories.end(), folder_of(path)) !=
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

constexpr const char* kSignatureSuffix = ".minisig";

// Puts what is wrong with the signature file behind its name. An error of the process stays as it
// is.
tl::unexpected<Error> bad_signature(const std::string& file, const Error& error) {
  if (says_nothing_about_the_file(error)) return tl::unexpected(error);
  return fail(error.code, "not trusted: its signature {} {}", file, error.message);
}

// Reads the file beside the plugin that holds its signature; nothing if there is none. It may be
// anybody's file, so neither a link nor a FIFO is followed. Fills in plugin.signature.
Result<std::optional<std::string>> read_signature(const std::string& file, FoundPlugin& plugin) {
  const Descriptor open(
      ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW));
  if (open.number() < 0) {
    if (errno == ENOENT) return std::nullopt;
    if (errno == ELOOP)
      return fail(ATTNRT_UNSUPPORTED, "is a link; put the file itself beside the plugin");
    return system_error("cannot be opened");
  }
  struct stat status {};
  if (fstat(open.number(), &status) != 0) return system_error("cannot be read");
  plugin.signature = identity_of(status);
  if (!S_ISREG(status.st_mode)) return fail(ATTNRT_UNSUPPORTED, "is not a regular file");
  if (status.st_size > static_cast<off_t>(minisign::kLargestSignature)) {
    return fail(ATTNRT_UNSUPPORTED, "has {} bytes; a signature has at most {}", status.st_size,
                minisign::kLargestSignature);
  }
  const auto bytes = FileBytes::read(open, status.st_size);
  if (!bytes) return tl::unexpected(bytes.error());
  return std::string(bytes->view());
}

// Reads the plugin's signature, if the policy has keys. Nothing is known of the plugin's bytes yet.
Result<std::optional<minisign::Signature>> find_signature(const TrustPolicy& policy,
                                                          FoundPlugin& plugin) {
  if (policy.keys.value.empty()) return std::nullopt;
  const std::string file = plugin.real_path + kSignatureSuffix;
  const auto text = read_signature(file, plugin);
  if (!text) return bad_signature(file, text.error());
  if (!*text && policy.signatures_required.value) {
    return fail(ATTNRT_UNSUPPORTED,
                "not trusted: it has no signature {}; sign it with minisign -S, or set "
                "trust.signatures to optional",
                file);
  }
  if (!*text) return std::nullopt;
  auto signature = minisign::parse_signature(**text);
  if (!signature) return bad_signature(file, signature.error());
  return *std::move(signature);
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
  const bool has_list = (status.st_mode & S_IWGRP) != 0 &&
                        fgetxattr(file.number(), "system.posix_acl_access", nullptr, 0) > 0;
  if (!inside(*real, real_directories)) {
    return fail(ATTNRT_UNSUPPORTED,
                "is a link to {}, outside the plugin directories; put the file itself there",
                *real);
  }
  return OpenPlugin{std::move(file), identity_of(status),
                    facts_of(*std::move(real), status, has_list)};
}

Result<std::optional<FileIdentity>> signature_beside(const std::string& real_path) {
  struct stat status {};
  if (lstat((real_path + kSignatureSuffix).c_str(), &status) == 0) return identity_of(status);
  if (could_not_look(errno)) return system_error("its signature cannot be looked for");
  return std::nullopt;
}

Result<void> examine(const OpenPlugin& open, Trust& trust, FoundPlugin& plugin) {
  if (is_settled(open.identity)) plugin.identity = open.identity;
  plugin.real_path = open.facts.path;
  const TrustPolicy& policy = *trust.policy();
  const auto signature = find_signature(policy, plugin);
  if (plugin.signature && !is_settled(*plugin.signature)) plugin.identity.reset();
  if (!signature) return tl::unexpected(signature.error());
  if (!*signature) {
    // Before it is copied, so that a large file which only has the name of a plugin costs nothing.
    const auto bytes = static_cast<uint64_t>(open.identity.bytes);
    if (auto checked = check_plugin_headers(open.file.number(), bytes); !checked) return checked;
  }
  auto copy = read_whole(open);
  if (!copy) return tl::unexpected(copy.error());
  plugin.hash = sha256_hex(copy->view());
  if (*signature) {
    const auto key = minisign::verify(**signature, copy->view(), policy.keys.value);
    if (!key) return bad_signature(plugin.real_path + kSignatureSuffix, key.error());
    plugin.grounds.signed_by = *key;
  }
  auto elf = read_plugin_elf(copy->view());
  if (!elf) return tl::unexpected(elf.error());
  auto manifest = parse_manifest(elf->manifest, plugin.path);
  if (!manifest) return tl::unexpected(manifest.error());
  if (!elf->exports_plugin) {
    return fail(ATTNRT_UNSUPPORTED, "exports no symbol {}{}", ATTNRT_PLUGIN_SYMBOL,
                elf->other_plugin_symbol.empty() ? "" : ", but " + elf->other_plugin_symbol);
  }
  if (auto checked = check_hash(policy, manifest->name, plugin.hash); !checked) return checked;
  auto relaxed = trust.judge(elf->links, folder_of(plugin.real_path));
  if (!relaxed) {
    plugin.identity.reset();  // other files decide, so look again
    return tl::unexpected(relaxed.error());
  }
  std::move(relaxed->begin(), relaxed->end(), std::back_inserter(plugin.grounds.relaxed));
  plugin.links = std::move(elf->links);
  plugin.manifest = std::move(*manifest);
  plugin.bytes = std::make_shared<CheckedBytes>(std::move(*copy));
  return {};
}

Result<FileBytes> read_again(const FoundPlugin& plugin, FileIdentity* identity) {
  auto open = open_plugin(plugin.path, {folder_of(plugin.real_path)});
  if (!open) return tl::unexpected(open.error());
  Trust trust(plugin.trust);
  if (auto judged = trust.judge(open->facts); !judged) return tl::unexpected(judged.error());
  if (auto judged = trust.judge(plugin.links, folder_of(open->facts.path)); !judged)
    return tl::unexpected(judged.error());
  auto bytes = read_whole(*open);
  if (!bytes) return bytes;
  if (open->facts.path != plugin.real_path || sha256_hex(bytes->view()) != plugin.hash) {
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
