// runtime/src/mapping.cpp: opens a library with the loader, and checks what the loader mapped
#include "mapping.hpp"

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <vector>

#include "formats/elf_file.hpp"

namespace attnrt::core {
namespace {

// Makes an error of the loader's message about the path.
tl::unexpected<Error> loader_error(const std::string& path) {
  const char* message = dlerror();
  std::string text = message != nullptr ? message : "the loader gives no reason";
  const std::string prefix = path + ": ";
  if (text.starts_with(prefix)) text.erase(0, prefix.size());
  const auto says = [&text](const char* words) { return text.find(words) != std::string::npos; };
  // The loader gives no number, and errno is not kept.
  attnrt_status code = ATTNRT_UNSUPPORTED;
  if (says("out of memory") || says(std::strerror(ENOMEM))) code = ATTNRT_OUT_OF_MEMORY;
  for (const int error : {EMFILE, ENFILE, EIO}) {
    if (says(std::strerror(error))) code = ATTNRT_INTERNAL;
  }
  return fail(code, "cannot be loaded: {}", text);
}

// Whether the library in memory has these program headers, so that its segments can be compared.
bool has_segments(const link_map& library, const std::vector<Elf64_Phdr>& segments) {
  struct Search {
    const link_map& library;
    const std::vector<Elf64_Phdr>& segments;
    bool same;
  } search{library, segments, false};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& [wanted, expected, same] = *static_cast<Search*>(data);
        if (info->dlpi_addr != wanted.l_addr || info->dlpi_name != wanted.l_name) return 0;
        same = info->dlpi_phnum == expected.size() &&
               std::memcmp(info->dlpi_phdr, expected.data(),
                           expected.size() * sizeof expected[0]) == 0;
        return 1;
      },
      &search);
  return search.same;
}

// Whether the bytes are equal. In a build with AddressSanitizer, a segment holds the red zones
// between its variables, too, which only code without its checks may read.
#if defined(__SANITIZE_ADDRESS__)
__attribute__((no_sanitize_address)) bool same_bytes(const char* memory, const char* file,
                                                     size_t size) {
  for (size_t i = 0; i < size; ++i) {
    if (memory[i] != file[i]) return false;
  }
  return true;
}
#else
bool same_bytes(const char* memory, const char* file, size_t size) {
  return std::memcmp(memory, file, size) == 0;
}
#endif

// Whether the bytes in memory are those of the file, except where a debugger or a tracer of the
// kernel has put a breakpoint.
bool same_but_for_breakpoints(const char* memory, const char* file, size_t size) {
  if (same_bytes(memory, file, size)) return true;
#if defined(__x86_64__)
  for (size_t i = 0; i < size; ++i) {
    if (memory[i] != file[i] && memory[i] != '\xCC') return false;  // int3
  }
  return true;
#elif defined(__aarch64__)
  for (size_t i = 0; i + 4 <= size; i += 4) {
    uint32_t word = 0;
    std::memcpy(&word, memory + i, 4);
    if (std::memcmp(memory + i, file + i, 4) != 0 && (word & 0xFFE0001FU) != 0xD4200000U)
      return false;  // brk
  }
  return std::memcmp(memory + size / 4 * 4, file + size / 4 * 4, size % 4) == 0;
#else
  return false;
#endif
}

bool is_mapped_from(void* handle, std::string_view bytes) {
  const link_map* library = nullptr;
  const std::vector<Elf64_Phdr> segments = segments_of(bytes);
  if (dlinfo(handle, RTLD_DI_LINKMAP, &library) != 0 || !has_segments(*library, segments))
    return false;
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_type != PT_LOAD || (segment.p_flags & (PF_R | PF_W)) != PF_R) continue;
    const auto* memory =  // NOLINTNEXTLINE(performance-no-int-to-ptr): the loader gives a number
        reinterpret_cast<const char*>(library->l_addr + segment.p_vaddr);
    const char* file = bytes.data() + segment.p_offset;
    const bool same = (segment.p_flags & PF_X) != 0
                          ? same_but_for_breakpoints(memory, file, segment.p_filesz)
                          : same_bytes(memory, file, segment.p_filesz);
    if (!same) return false;
  }
  return true;
}

}  // namespace

// Spells a counter in binary between the directory and the name: "/" is 0 and "/." is 1. The kernel
// skips both, and the loader compares paths letter by letter. The counter starts at the time of the
// first call, so that a second copy of this code in the process, with a counter of its own, spells
// other paths.
std::string fresh_path(const std::string& directory, const std::string& name) {
  static constinit std::atomic<uint64_t> counter{0};
  uint64_t unused = 0;
  counter.compare_exchange_strong(
      unused, static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()));
  std::string path = directory;
  for (uint64_t bits = counter.fetch_add(1, std::memory_order_relaxed); bits != 0; bits >>= 1)
    path += (bits & 1) != 0 ? "/." : "/";
  return path + "/" + name;
}

Result<void*> open_mapping(const std::string& path, std::string_view bytes) {
  // Twice, because the loader reports some failed allocations of its own as other errors ("No such
  // file or directory"), and a library that is refused for good is refused twice.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return loader_error(path);
  if (is_mapped_from(handle, bytes)) return handle;
  close_mapping(handle);
  return fail(ATTNRT_UNSUPPORTED,
              "cannot be loaded: the loader mapped other bytes than were checked; the file was "
              "replaced meanwhile, so reload the runtime");
}

void close_mapping(void* handle) { dlclose(handle); }

}  // namespace attnrt::core
