// runtime/src/library.cpp: maps a plugin's shared library into the process
//
// Each library is mapped once and stays mapped until the process ends: unloading GPU libraries is
// known to crash. Opening and reloading a runtime any number of times maps no bytes twice. Only a
// library whose manifest says `unloadable: true` is unmapped, after its last use.
//
//   libraries().by_key:  SHA-256 of the bytes     if a sealed copy was mapped
//                        SHA-256 + " " + path     if the file at that path was mapped
//
// A sealed copy is opened as /proc/self/fd/N, and descriptor N is closed at once. So the next copy
// may get the same number, and the application may close or reuse any number. That does no harm,
// because each path is spelled in a new way (fresh_path) and what was mapped is compared with what
// was checked (open_mapping).
#include "library.hpp"

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "base/fork.hpp"
#include "formats/elf_file.hpp"
#include "mapping.hpp"

namespace attnrt::core {
namespace {

struct Library {
  std::string path;        // of the file that was mapped; "" for a sealed copy
  void* handle = nullptr;  // the loader's; nullptr: not mapped
  int64_t uses = 0;        // of an unloadable library
};

// The only state that belongs to the process rather than to a runtime.
struct Libraries {
  using ByKey = std::map<std::string, Library>;
  HeldMutex mutex;                 // a fork waits until no library is being mapped
  ByKey by_key;                    // those that are mapped
  std::atomic<int64_t> mapped{0};  // how many those are
};

Libraries& libraries() {
  static constinit std::atomic<Libraries*> all = nullptr;
  return only(all);
}

// One use of an unloadable library: the last one unmaps and forgets it.
class Use {
 public:
  Use() = default;
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;
  ~Use() {
    if (!has_begun_) return;
    const std::lock_guard lock(libraries().mutex);
    if (--library_->second.uses > 0) return;
    close_mapping(library_->second.handle);
    libraries().by_key.erase(library_);
    libraries().mapped.fetch_sub(1, std::memory_order_relaxed);
  }
  // REQUIRES: the mutex is held, and the library is mapped.
  void begin(Libraries::ByKey::iterator library) {
    has_begun_ = true;
    library_ = library;
    ++library_->second.uses;
  }

 private:
  bool has_begun_ = false;
  Libraries::ByKey::iterator library_{};
};

// The parts of the file that the loader reads. The rest, such as symbols for debuggers, need not be
// copied.
std::vector<ByteRange> loaded_ranges(std::string_view bytes) {
  Elf64_Ehdr header{};
  std::memcpy(&header, bytes.data(), sizeof header);
  std::vector<ByteRange> ranges = {{0, sizeof header},
                                   {header.e_phoff, uint64_t{header.e_phnum} * sizeof(Elf64_Phdr)}};
  for (const Elf64_Phdr& segment : segments_of(bytes)) {
    if (segment.p_offset > bytes.size()) continue;
    ranges.push_back(
        {segment.p_offset, std::min<uint64_t>(segment.p_filesz, bytes.size() - segment.p_offset)});
  }
  return ranges;
}

// Whether the path leads to the open file.
bool leads_to(const std::string& path, const Descriptor& file) {
  struct stat there {
  }, here{};
  return stat(path.c_str(), &there) == 0 && fstat(file.number(), &here) == 0 &&
         there.st_dev == here.st_dev && there.st_ino == here.st_ino;
}

// Makes a sealed copy that the loader can open by a path of /proc. If this system does not let it,
// the error is UNSUPPORTED and says why.
Result<Descriptor> loadable_copy(const FoundPlugin& plugin, std::string_view bytes) {
  auto copy =
      sealed_file(bytes, loaded_ranges(bytes), std::filesystem::path(plugin.path).filename());
  if (!copy) return copy;
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* code = mmap(nullptr, page, PROT_READ | PROT_EXEC, MAP_PRIVATE, copy->number(), 0);
  if (code == MAP_FAILED) return system_error("its copy cannot be mapped as code");
  munmap(code, page);
  if (!leads_to(fmt::format("/proc/self/fd/{}", copy->number()), *copy))
    return fail(ATTNRT_UNSUPPORTED, "/proc is not mounted");
  return copy;
}

// Maps a sealed copy. fallback: gets the reason if this system does not let it; the error is then
// of no use.
Result<void*> map_copy(const FoundPlugin& plugin, std::string* fallback) {
  const auto bytes = bytes_of(plugin);
  if (!bytes) return tl::unexpected(bytes.error());
  const auto copy = loadable_copy(plugin, (*bytes)->view());
  if (!copy) {
    if (!says_nothing_about_the_file(copy.error())) *fallback = copy.error().message;
    return tl::unexpected(copy.error());
  }
  return open_mapping(fresh_path("/proc/self/fd", std::to_string(copy->number())),
                      (*bytes)->view());
}

// Maps the file at the plugin's path, if it still has the bytes that were checked before and after.
Result<void*> map_file(const FoundPlugin& plugin, const std::string& file) {
  FileIdentity before;
  const auto bytes = read_again(plugin, &before);
  if (!bytes) return tl::unexpected(bytes.error());
  // A file that this process mapped before, with other bytes, needs a name that the loader does not
  // know.
  const auto& known = libraries().by_key;
  const bool is_known = std::any_of(known.begin(), known.end(), [&file](const auto& each) {
    return each.second.handle != nullptr && each.second.path == file;
  });
  const std::filesystem::path parts = file;
  auto handle = open_mapping(is_known ? fresh_path(parts.parent_path(), parts.filename()) : file,
                             bytes->view());
  if (!handle) return handle;
  struct stat status {};
  const bool same = stat(file.c_str(), &status) == 0 && identity_of(status) == before;
  const bool is_old = std::any_of(known.begin(), known.end(), [&](const auto& each) {
    return each.second.handle == *handle && !each.first.starts_with(plugin.hash);
  });
  if (same && !is_old) return handle;
  close_mapping(*handle);
  if (!same) {
    return fail(ATTNRT_UNSUPPORTED,
                "has changed since it was found and checked; reload the runtime");
  }
  return fail(ATTNRT_UNSUPPORTED,
              "was overwritten in place after this process had loaded it by path; write a new file "
              "and rename it, or restart the process");
}

Result<const attnrt_plugin*> table_of(void* handle) {
  const void* table = dlsym(handle, ATTNRT_PLUGIN_SYMBOL);
  if (table == nullptr)
    return fail(ATTNRT_UNSUPPORTED, "exports no symbol {}", ATTNRT_PLUGIN_SYMBOL);
  return static_cast<const attnrt_plugin*>(table);
}

}  // namespace

Result<MappedLibrary> map_library(const FoundPlugin& plugin, bool by_path) {
  Libraries& all = libraries();
  MappedLibrary mapped;
  // Made before the library is mapped, so that no failed allocation leaves one without a use.
  const auto use =
      plugin.manifest && plugin.manifest->unloadable ? std::make_shared<Use>() : nullptr;
  const auto keep = [&all](void* handle, Library& library) {
    library.handle = handle;
    all.mapped.fetch_add(1, std::memory_order_relaxed);
  };
  const std::lock_guard lock(all.mutex);
  auto found = all.by_key.end();
  if (!by_path) {
    // The entry comes first, so that a library which is mapped can always be kept.
    found = all.by_key.try_emplace(plugin.hash).first;
    if (found->second.handle == nullptr) {
      auto opened = map_copy(plugin, &mapped.fallback);
      if (opened) {
        keep(*opened, found->second);
      } else {
        all.by_key.erase(std::exchange(found, all.by_key.end()));
        if (mapped.fallback.empty()) return tl::unexpected(opened.error());
      }
    }
  }
  if (found == all.by_key.end()) {
    const std::string& file = plugin.real_path.empty() ? plugin.path : plugin.real_path;
    found = all.by_key.try_emplace(plugin.hash + " " + file).first;
    if (found->second.handle == nullptr) {
      found->second.path = file;
      auto opened = map_file(plugin, file);
      if (!opened) {
        all.by_key.erase(found);
        return tl::unexpected(opened.error());
      }
      keep(*opened, found->second);
    }
  }
  if (use) use->begin(found);
  mapped.use = use;
  const auto table = table_of(found->second.handle);
  if (!table) return tl::unexpected(table.error());
  if (plugin.bytes) plugin.bytes->drop();
  mapped.table = *table;
  return mapped;
}

int64_t mapped_libraries() { return libraries().mapped.load(std::memory_order_relaxed); }

}  // namespace attnrt::core
