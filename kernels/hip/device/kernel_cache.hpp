// kernels/hip/device/kernel_cache.hpp: the kernels that are loaded, by device, code object and name
#pragma once

#include <algorithm>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "kernels/hip/device/device.hpp"
#include "kernels/hip/device/status.hpp"

namespace kernels::hip {

class KernelCache {
 public:
  // Finds a kernel, and loads it at its first use. Calls, under the lock: load(void** module) and
  // resolve(void* module, void** function) once for each key, until they succeed; allow(void*
  // function) whenever a kernel is to use more dynamic shared memory than before.
  template <class Load, class Resolve, class Allow>
  Status find(int32_t device_id, const void* code_object, const char* name, uint32_t shared_bytes,
              Kernel* kernel, Message* message, Load&& load, Resolve&& resolve, Allow&& allow) try {
    const std::lock_guard lock(mutex_);
    Module& module = modules_[{device_id, code_object}];
    if (module.handle == nullptr) {
      if (const Status status = load(&module.handle); status != Status::ok) return status;
    }
    auto found = module.functions.find(name);  // by const char*: copies no name
    if (found == module.functions.end()) {
      Function function;
      if (const Status status = resolve(module.handle, &function.handle); status != Status::ok)
        return status;
      found = module.functions.emplace(name, function).first;
    }
    Function& function = found->second;
    if (!function.allowed || shared_bytes > function.shared_bytes) {
      if (const Status status = allow(function.handle); status != Status::ok) return status;
      function.allowed = true;
      function.shared_bytes = std::max(function.shared_bytes, shared_bytes);
    }
    *kernel = {device_id, function.handle};
    return Status::ok;
  } catch (const std::bad_alloc&) {
    return fail(message, Status::out_of_memory, "%s: out of host memory while caching the kernel",
                name);
  }

 private:
  struct Function {
    void* handle = nullptr;
    uint32_t shared_bytes = 0;
    bool allowed = false;
  };
  struct Module {
    void* handle = nullptr;
    std::map<std::string, Function, std::less<>> functions;
  };
  std::mutex mutex_;
  std::map<std::pair<int32_t, const void*>, Module> modules_;
};

}  // namespace kernels::hip
