// tests/fakes/fake_hip.hpp: the devices, memory, streams and queued work of the fake HIP runtime
#pragma once

#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "hip.hpp"

namespace fake {

constexpr int kSuccess = 0;
constexpr int kInvalidValue = 1;
constexpr int kOutOfMemory = 2;
constexpr int kInvalidMemcpyDirection = 21;
constexpr int kNoDevice = 100;
constexpr int kInvalidDevice = 101;
constexpr int kInvalidHandle = 400;
constexpr int kNotFound = 500;
constexpr int kNotReady = 600;
constexpr int kNotSupported = 801;
constexpr int kRelaxed = 2;  // hipStreamCaptureModeRelaxed
constexpr int kCaptureUnsupported = 900;

struct Block {
  size_t bytes;
  bool pinned;
  int device;
  bool stream_ordered = false;  // by hipMallocAsync
};
struct Stream {
  int device;
};
struct Module {
  int device;
};
struct Function {
  int device;
  std::string name;
};
struct Event {
  int device;
  bool recorded = false, passed = false;
  Stream* stream = nullptr;
  std::chrono::steady_clock::time_point at{};
};
struct Work {
  Stream* stream;  // nullptr: the device's default stream
  int device;
  std::function<void()> run;
};

struct FakeHip {
  std::mutex mutex;
  fake_hip_state state = {};
  std::vector<std::string> archs;
  int64_t memory_bytes = int64_t{1} << 30;
  std::map<char*, Block> blocks;
  std::map<void*, Stream*> streams;
  std::map<void*, Event*> events;
  std::map<std::string, fake_hip_kernel> kernels;
  std::vector<Work> queue;  // the oldest comes first

  void add(const fake_hip_kernel* list) {
    for (; list->name != nullptr; ++list) kernels[list->name] = *list;
  }

  FakeHip() {
    const char* devices = std::getenv("FAKE_HIP_DEVICES");
    std::string rest = devices != nullptr ? devices : "gfx1100";
    while (!rest.empty()) {
      const size_t comma = rest.find(',');
      archs.push_back(rest.substr(0, comma));
      rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    }
    state.device_count = static_cast<int32_t>(archs.size());
    if (const char* bytes = std::getenv("FAKE_HIP_MEMORY")) memory_bytes = std::atoll(bytes);
    if (const char* fail = std::getenv("FAKE_HIP_FAIL")) {
      (void)std::sscanf(fail, "%63[^=]=%d", state.failing_function, &state.failing_error);
    }
    if (const char* path = std::getenv("FAKE_HIP_KERNELS")) {
      void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
      if (library == nullptr) std::fprintf(stderr, "fake HIP: %s\n", dlerror()), std::abort();
      add(static_cast<const fake_hip_kernel*>(dlsym(library, "fake_hip_kernels")));
    }
  }

  // Returns the block that holds all these bytes, or nullptr.
  const Block* block_of(const void* pointer, size_t bytes) const {
    const auto after = blocks.upper_bound(static_cast<char*>(const_cast<void*>(pointer)));
    if (after == blocks.begin()) return nullptr;
    const auto& [start, block] = *std::prev(after);
    return static_cast<const char*>(pointer) + bytes <= start + block.bytes ? &block : nullptr;
  }

  void finish(const Stream* stream, int device, bool all) {
    std::vector<Work> later;
    for (Work& work : queue) {
      if (all || (work.stream == stream && (stream != nullptr || work.device == device))) {
        work.run();
      } else {
        later.push_back(std::move(work));
      }
    }
    queue = std::move(later);
  }
};

inline FakeHip& fake_hip_runtime() {
  static auto* const made = new FakeHip;  // never destroyed: others may free memory at exit
  return *made;
}

}  // namespace fake
