// runtime/src/library.cpp: maps a plugin's shared library into the process
//
// Each library is mapped once and stays mapped until the process ends, for two reasons. Unloading
// GPU libraries is known to crash. And the dynamic loader recognises a library by the path that it
// was opened with, and returns the library that it already has for a path that it knows. A sealed
// copy is opened as /proc/self/fd/N: if its descriptor N were closed, the next copy could get the
// same number, hence the same path, and the loader would return the old library for the new file.
// Therefore:
//
//   libraries().by_key:  SHA-256 of the bytes               the library and its open descriptor
//                        "path " + path, if loaded by path  the library and the hash of its bytes
//
// Opening and reloading a runtime any number of times maps no bytes twice. A path whose file has
// changed since it was mapped is an error, because the loader would silently return the old code.
#include "library.hpp"

#include <fcntl.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

#define BOOST_DLL_USE_STD_FS
#include <boost/dll/shared_library.hpp>

namespace attnrt::core {
namespace {

namespace dll = boost::dll;

struct Library {
  std::string hash;  // of the bytes that were mapped
  dll::shared_library handle;
  Descriptor file;  // the sealed copy; none if the library was loaded by path
};

// The only state that belongs to the process rather than to a runtime.
struct Libraries {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<Library>> by_key;
};

Libraries& libraries() {
  // Never destroyed: a plugin's static destructors may still run after ours.
  static auto* const all = new Libraries;
  return *all;
}

// Removes what Boost.DLL puts around the loader's own message.
std::string loader_message(std::string text, const std::string& path) {
  for (const std::string& prefix : {std::string("dlerror system message: "), path + ": "}) {
    if (const size_t at = text.find(prefix); at != std::string::npos)
      text.erase(0, at + prefix.size());
  }
  return text.substr(0, text.rfind("): "));  // followed by an errno that means nothing here
}

Result<std::unique_ptr<Library>> open_library(const FoundPlugin& plugin, const std::string& file,
                                              bool by_path) {
  auto library = std::make_unique<Library>();
  library->hash = plugin.hash;
  std::string path = file;
  if (by_path) {
    if (auto same = unchanged(plugin); !same) return tl::unexpected(same.error());
  } else {
    library->file = Descriptor(fcntl(plugin.file.number(), F_DUPFD_CLOEXEC, 0));
    path = fmt::format("/proc/self/fd/{}", library->file.number());
  }
  try {
    // The overload that throws: its exception holds the loader's message, and an error_code does
    // not.
    library->handle.load(path, dll::load_mode::rtld_now | dll::load_mode::rtld_local);
  } catch (const std::exception& error) {
    return fail(ATTNRT_UNSUPPORTED, "cannot be loaded: {}", loader_message(error.what(), path));
  }
  return library;
}

}  // namespace

Result<const attnrt_plugin*> map_library(const FoundPlugin& plugin, bool by_path) {
  Libraries& all = libraries();
  const std::lock_guard lock(all.mutex);
  const std::string& file = plugin.real_path.empty() ? plugin.path : plugin.real_path;
  auto& library = all.by_key[by_path ? "path " + file : plugin.hash];
  if (!library) {
    auto opened = open_library(plugin, file, by_path);
    if (!opened) return tl::unexpected(opened.error());
    library = std::move(*opened);
  }
  if (library->hash != plugin.hash) {
    return fail(ATTNRT_UNSUPPORTED,
                "has changed since this process loaded it by path, and the loader would return the "
                "old code; use `plugins.load: memory`, or restart the process");
  }
  if (!library->handle.has(ATTNRT_PLUGIN_SYMBOL)) {
    return fail(ATTNRT_UNSUPPORTED, "exports no symbol {}", ATTNRT_PLUGIN_SYMBOL);
  }
  return &library->handle.get<const attnrt_plugin>(ATTNRT_PLUGIN_SYMBOL);
}

}  // namespace attnrt::core
