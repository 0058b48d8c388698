// runtime/src/discover.cpp: finds plugin files, and reads them without running their code
#include "discover.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <sha256.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/file.hpp"
#include "formats/elf_file.hpp"

namespace attnrt::core {
namespace {

constexpr int64_t kLargestFile = int64_t{4} << 30;
constexpr std::string_view kSuffix = ".so";

// Returns the path of an open file with all links resolved; "" if /proc is not mounted.
std::string real_path(const Descriptor& file) {
  std::array<char, PATH_MAX> target{};
  const std::string link = fmt::format("/proc/self/fd/{}", file.number());
  const ssize_t length = readlink(link.c_str(), target.data(), target.size());
  return length > 0 ? std::string(target.data(), static_cast<size_t>(length)) : std::string();
}

void warn_of_twins(Discovery& found) {
  for (auto one = found.plugins.begin(); one != found.plugins.end(); ++one) {
    const auto other = std::find_if(found.plugins.begin(), one,
                                    [one](const auto& each) { return twins(*each, **one); });
    if (other == one) continue;
    const Manifest& manifest = *(*one)->manifest;
    found.warnings.push_back(
        fmt::format("discover: {} and {} are both {} {} for {}: no policy can tell them apart; "
                    "remove one, or give it a version of its own",
                    (*other)->path, (*one)->path, manifest.name, manifest.version_text,
                    fmt::join(manifest.devices, ", ")));
  }
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

// Opens a plugin file. Does not wait on a FIFO, and refuses a link that leads out of the
// directories. Gives the size, and the path with all links resolved.
Result<Descriptor> open_plugin(const std::string& path,
                               const std::vector<std::string>& real_directories, int64_t* bytes,
                               std::string* where) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (file.number() < 0) {
    struct stat link {};
    const bool dangling =
        errno == ENOENT && lstat(path.c_str(), &link) == 0 && S_ISLNK(link.st_mode);
    if (dangling) return fail(ATTNRT_INTERNAL, "is a link to nothing");
    return fail(ATTNRT_INTERNAL, "cannot be opened: {}", errno_text());
  }
  struct stat status {};
  if (fstat(file.number(), &status) != 0)
    return fail(ATTNRT_INTERNAL, "cannot be read: {}", errno_text());
  if (S_ISDIR(status.st_mode)) return fail(ATTNRT_INTERNAL, "is a directory, not a shared library");
  if (!S_ISREG(status.st_mode)) return fail(ATTNRT_INTERNAL, "is not a regular file");
  if (status.st_size > kLargestFile) return fail(ATTNRT_INTERNAL, "is larger than 4 GiB");
  std::string real = real_path(file);
  if (real.empty()) {
    std::error_code error;
    real = std::filesystem::canonical(path, error);
  }
  if (!inside(real, real_directories)) {
    return fail(ATTNRT_INTERNAL,
                "is a link to {}, outside the plugin directories; put the file itself there", real);
  }
  // Checked here, so that a large file which only has the name of a plugin is not copied.
  std::array<char, SELFMAG> magic{};
  if (status.st_size > 0 && (pread(file.number(), magic.data(), magic.size(), 0) != SELFMAG ||
                             std::memcmp(magic.data(), ELFMAG, SELFMAG) != 0)) {
    return fail(ATTNRT_UNSUPPORTED, "is not an ELF file; a plugin is a shared library");
  }
  *bytes = status.st_size;
  *where = real;
  return file;
}

Result<void> examine(FoundPlugin& plugin, const std::vector<std::string>& real_directories) {
  int64_t bytes = 0;
  auto source = open_plugin(plugin.path, real_directories, &bytes, &plugin.real_path);
  if (!source) return tl::unexpected(source.error());
  auto sealed = sealed_copy(*source, bytes, std::filesystem::path(plugin.path).filename());
  if (!sealed) return tl::unexpected(sealed.error());
  auto map = MappedFile::map(sealed->number());
  if (!map) return tl::unexpected(map.error());
  plugin.hash = sha256_hex(map->bytes());
  const auto elf = read_plugin_elf(map->bytes());
  if (!elf) return tl::unexpected(elf.error());
  auto manifest = parse_manifest(elf->manifest, plugin.path);
  if (!manifest) return tl::unexpected(manifest.error());
  if (manifest->abi != ATTNRT_ABI_MAJOR) {
    return fail(ATTNRT_UNSUPPORTED, "is built for plugin ABI {}; this runtime has ABI {}",
                manifest->abi, ATTNRT_ABI_MAJOR);
  }
  if (!elf->exports_plugin) {
    return fail(ATTNRT_UNSUPPORTED, "exports no symbol {}{}", ATTNRT_PLUGIN_SYMBOL,
                elf->other_plugin_symbol.empty() ? "" : ", but " + elf->other_plugin_symbol);
  }
  plugin.manifest = std::move(*manifest);
  plugin.file = std::move(*sealed);
  return {};
}

std::vector<std::string> plugin_names(const std::string& directory,
                                      std::vector<std::string>& warnings) {
  std::vector<std::string> names;
  DIR* stream = opendir(directory.c_str());
  if (stream == nullptr) {
    warnings.push_back(fmt::format("plugin directory {}: {}", directory, errno_text()));
    return names;
  }
  while (const dirent* entry = readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name.size() > kSuffix.size() && name.ends_with(kSuffix)) names.emplace_back(name);
  }
  closedir(stream);
  std::sort(names.begin(), names.end());  // readdir lists them in no particular order
  return names;
}

}  // namespace

bool twins(const FoundPlugin& one, const FoundPlugin& other) {
  return one.manifest && other.manifest && one.manifest->name == other.manifest->name &&
         one.manifest->version_text == other.manifest->version_text &&
         one.manifest->devices == other.manifest->devices;
}

std::string default_plugin_directory() {
  Dl_info info{};
  link_map* object = nullptr;
  const auto* here_in = reinterpret_cast<const void*>(&default_plugin_directory);
  if (dladdr1(here_in, &info, reinterpret_cast<void**>(&object), RTLD_DL_LINKMAP) == 0 ||
      object == nullptr)
    return {};
  // The loader gives the program itself no name, and argv[0] may be anything.
  const bool in_program = object->l_name == nullptr || object->l_name[0] == '\0';
  std::filesystem::path file = "/proc/self/exe";
  if (!in_program) {
    // l_name may be relative to what was the working directory at load time. RTLD_DI_ORIGIN is the
    // absolute folder.
    std::array<char, PATH_MAX> origin{};
    if (dlinfo(object, RTLD_DI_ORIGIN, origin.data()) != 0) return {};
    file = std::filesystem::path(origin.data()) / std::filesystem::path(object->l_name).filename();
  }
  std::error_code error;
  const auto here = std::filesystem::canonical(file, error).parent_path();
  if (error) return {};
  const auto beside = here / "attnrt" / "plugins";
  if (std::filesystem::is_directory(beside, error)) return beside;
  // The command is in bin; the folder of libattnrt.so is beside that.
  const auto library = std::filesystem::weakly_canonical(here / ATTNRT_LIBDIR_FROM_BINDIR, error);
  const auto below = library / "attnrt" / "plugins";
  return std::filesystem::is_directory(below, error) ? below : beside;
}

Result<void> unchanged(const FoundPlugin& plugin) {
  int64_t bytes = 0;
  std::string where;
  const auto file = open_plugin(
      plugin.path, {std::filesystem::path(plugin.real_path).parent_path()}, &bytes, &where);
  if (!file) return tl::unexpected(file.error());
  const auto map = MappedFile::map(file->number());
  if (!map) return tl::unexpected(map.error());
  if (where == plugin.real_path && sha256_hex(map->bytes()) == plugin.hash) return {};
  return fail(ATTNRT_UNSUPPORTED, "has changed since it was found and checked; reload the runtime");
}

Discovery discover(const std::vector<std::string>& directories) {
  Discovery found;
  std::vector<std::string> real_directories;
  for (const auto& directory : directories) {
    std::error_code error;
    const auto real = std::filesystem::canonical(directory, error);
    if (!error) real_directories.push_back(real);
  }
  std::set<std::string> seen;
  for (const auto& directory : directories) {
    std::error_code error;
    const std::string real = std::filesystem::canonical(directory, error);
    if (!error && !seen.insert(real).second) continue;  // the same directory, named twice
    for (const auto& name : plugin_names(directory, found.warnings)) {
      auto plugin = std::make_shared<FoundPlugin>();
      plugin->path = std::filesystem::path(directory) / name;
      if (const auto examined = examine(*plugin, real_directories); !examined) {
        plugin->fault = examined.error().message;
        plugin->manifest.reset();
      }
      found.plugins.push_back(std::move(plugin));
    }
  }
  warn_of_twins(found);
  return found;
}

}  // namespace attnrt::core
