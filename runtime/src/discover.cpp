// runtime/src/discover.cpp: finds plugin files, and reads them without running their code
#include "discover.hpp"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>
#include <unordered_map>

#include "own_file.hpp"

namespace attnrt::core {
namespace {

constexpr std::string_view kSuffix = ".so";

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

bool is_usable(const FoundPlugin& plugin) {
  return plugin.fault.empty() && plugin.manifest->serves_nothing().empty();
}

using Plugin = std::shared_ptr<const FoundPlugin>;

using ByPath = std::unordered_map<std::string_view, Plugin>;

// scan: the last one, or nullptr.
ByPath by_path(const Discovery* scan) {
  ByPath plugins;
  if (scan == nullptr) return plugins;
  for (const Plugin& plugin : scan->plugins) plugins.try_emplace(plugin->path, plugin);
  return plugins;
}

// Returns the last good plugin of a file whose present bytes are bad.
Plugin keep_last_good(const FoundPlugin& good, const FoundPlugin& bad) {
  auto kept = std::make_shared<FoundPlugin>(good);
  kept->present_fault = bad.fault.empty() ? bad.manifest->serves_nothing() : bad.fault;
  kept->identity = bad.identity;
  kept->signature = bad.signature;
  kept->trust = bad.trust;
  return kept;
}

// Whether the file is what it was for the last scan, and is judged by the same policy. Its folders
// are no part of that.
Result<bool> is_unchanged(const FoundPlugin& last, const OpenPlugin& open, const Trust& trust) {
  if (last.identity != open.identity || last.real_path != open.facts.path ||
      !same_policy(last.trust, trust.policy()))
    return false;
  if (trust.policy()->keys.value.empty()) return true;
  const auto signature = signature_beside(open.facts.path);
  if (!signature) return tl::unexpected(signature.error());
  return last.signature == *signature;
}

// Judges an open file, and reads it unless the last scan did. RETURNS nullptr if `plugin` now holds
// what was found, else what the last scan found.
Result<Plugin> judge(const OpenPlugin& open, const Plugin& last, Trust& trust,
                     FoundPlugin& plugin) {
  auto relaxed = trust.judge(open.facts);
  if (!relaxed) return tl::unexpected(relaxed.error());
  plugin.grounds.relaxed = *std::move(relaxed);
  const auto unchanged = last ? is_unchanged(*last, open, trust) : Result<bool>(false);
  if (!unchanged) return tl::unexpected(unchanged.error());
  if (*unchanged) {
    const auto links =
        trust.judge(last->links, std::filesystem::path(open.facts.path).parent_path());
    if (!links) return tl::unexpected(links.error());
    auto all = plugin.grounds.relaxed;
    all.insert(all.end(), links->begin(), links->end());
    if (!last->fault.empty() || !last->present_fault.empty() || all == last->grounds.relaxed)
      return last;
  }
  if (auto examined = examine(open, trust, plugin); !examined)
    return tl::unexpected(examined.error());
  return nullptr;
}

// Looks at one file. last: what the last scan found there, or nullptr. RETURNS nullptr if the file
// is gone.
Result<Plugin> look_at(const std::string& path, const std::vector<std::string>& real_directories,
                       const Plugin& last, Trust& trust) {
  auto plugin = std::make_shared<FoundPlugin>();
  plugin->path = path;
  plugin->trust = trust.policy();
  Result<Plugin> judged;
  if (const auto open = open_plugin(path, real_directories); !open) {
    struct stat link {};
    if (lstat(path.c_str(), &link) != 0 && errno == ENOENT) return nullptr;
    judged = tl::unexpected(open.error());
  } else {
    judged = judge(*open, last, trust, *plugin);
    if (judged && *judged) return judged;
  }
  if (!judged) {
    if (says_nothing_about_the_file(judged.error())) {
      return fail(judged.error().code, "discover: {}: {}; try again", path, judged.error().message);
    }
    plugin->fault = judged.error().message;
    plugin->manifest.reset();
  }
  if (!last) return plugin;
  // The same bytes as before need no second copy.
  if (plugin->fault.empty() && plugin->hash == last->hash && last->bytes)
    plugin->bytes = last->bytes;
  if (is_usable(*last) && !is_usable(*plugin) &&
      still_trusted(*trust.policy(), last->grounds, last->manifest->name, last->hash))
    return keep_last_good(*last, *plugin);
  return plugin;
}

// Closes a directory.
struct DirectoryEnd {
  void operator()(DIR* stream) const { closedir(stream); }
};

// A directory that is scanned: its names, and what it was then.
struct Listing {
  std::vector<std::string> names;
  dev_t device = 0;
  ino_t inode = 0;
};

Result<Listing> list_plugins(const std::string& directory) {
  const std::unique_ptr<DIR, DirectoryEnd> stream(opendir(directory.c_str()));
  struct stat status {};
  if (!stream || fstat(dirfd(stream.get()), &status) != 0) return system_error("cannot be read");
  Listing listing{{}, status.st_dev, status.st_ino};
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(stream.get());
    if (entry == nullptr && errno != 0) return system_error("cannot be read");
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (name.size() > kSuffix.size() && name.ends_with(kSuffix)) listing.names.emplace_back(name);
  }
  std::sort(listing.names.begin(), listing.names.end());  // readdir has no particular order
  return listing;
}

// Checks that the directory's path still leads to what was listed: else its files only seem to be
// gone.
Result<void> check_still_there(const std::string& directory, const Listing& listing) {
  struct stat status {};
  const bool there = stat(directory.c_str(), &status) == 0;
  if (!there && could_not_look(errno)) return system_error("cannot be found");
  if (there && status.st_dev == listing.device && status.st_ino == listing.inode) return {};
  return fail(ATTNRT_INTERNAL, "vanished while it was read");
}

// Puts the directory before an error of this process, and says what to do.
tl::unexpected<Error> could_not_look_into(const std::string& directory, const Error& error) {
  return fail(error.code, "discover: plugin directory {}: {}; try again", directory, error.message);
}

void warn_of_bad_bytes(Discovery& found) {
  for (const Plugin& plugin : found.plugins) {
    if (plugin->present_fault.empty()) continue;
    found.warnings.push_back(fmt::format(
        "discover: {}: {}; its last good version, {} {}, stays in service", plugin->path,
        plugin->present_fault, plugin->manifest->name, plugin->manifest->version_text));
  }
}

// What becomes of a directory that cannot be listed: an error, or a warning.
Result<void> miss_directory(const std::string& directory, const Error& error,
                            const Discovery* previous, Discovery& found) {
  if (says_nothing_about_the_file(error)) return could_not_look_into(directory, error);
  if (previous != nullptr && std::find(previous->directories.begin(), previous->directories.end(),
                                       directory) != previous->directories.end()) {
    return fail(
        ATTNRT_INTERNAL,
        "discover: plugin directory {}: {}, but could be read before; put it back (an empty "
        "one will do), or take it out of the list of directories",
        directory, error.message);
  }
  found.warnings.push_back(fmt::format("plugin directory {}: {}", directory, error.message));
  return {};
}

// Returns the directories with all links resolved. Leaves out those that are not there.
Result<std::vector<std::string>> resolved_directories(const std::vector<std::string>& directories) {
  std::vector<std::string> all;
  for (const auto& directory : directories) {
    auto real = resolved(directory);
    if (real) {
      all.push_back(*std::move(real));
    } else if (says_nothing_about_the_file(real.error())) {
      return could_not_look_into(directory, real.error());
    }
  }
  return all;
}

}  // namespace

bool twins(const FoundPlugin& one, const FoundPlugin& other) {
  return one.manifest && other.manifest && one.manifest->name == other.manifest->name &&
         one.manifest->version_text == other.manifest->version_text &&
         one.manifest->devices == other.manifest->devices;
}

std::string default_plugin_directory() {
  const std::filesystem::path file = own_file();
  if (file.empty()) return {};
  const auto here = file.parent_path();
  std::error_code error;
  const auto beside = here / "attnrt" / "plugins";
  if (std::filesystem::is_directory(beside, error)) return beside;
  // The command is in bin; the folder of libattnrt.so is beside that.
  const auto library = std::filesystem::weakly_canonical(here / ATTNRT_LIBDIR_FROM_BINDIR, error);
  const auto below = library / "attnrt" / "plugins";
  return std::filesystem::is_directory(below, error) ? below : beside;
}

Result<Discovery> discover(const std::vector<std::string>& directories, const Discovery* previous,
                           std::shared_ptr<const TrustPolicy> trust_policy) {
  Discovery found;
  Trust trust(std::move(trust_policy));
  const auto real_directories = resolved_directories(directories);
  if (!real_directories) return tl::unexpected(real_directories.error());
  std::set<std::pair<dev_t, ino_t>> seen;
  const ByPath before = by_path(previous);
  for (const auto& directory : directories) {
    const auto listing = list_plugins(directory);
    if (!listing) {
      if (auto missed = miss_directory(directory, listing.error(), previous, found); !missed)
        return tl::unexpected(missed.error());
      continue;
    }
    found.directories.push_back(directory);
    // The same directory may be named twice.
    if (!seen.insert({listing->device, listing->inode}).second) continue;
    for (const auto& name : listing->names) {
      const std::string path = std::filesystem::path(directory) / name;
      const auto last = before.find(path);
      auto plugin =
          look_at(path, *real_directories, last != before.end() ? last->second : nullptr, trust);
      if (!plugin) return tl::unexpected(plugin.error());
      if (*plugin) found.plugins.push_back(*std::move(plugin));
    }
    if (auto there = check_still_there(directory, *listing); !there)
      return could_not_look_into(directory, there.error());
  }
  warn_of_bad_bytes(found);
  warn_of_twins(found);
  return found;
}

}  // namespace attnrt::core
