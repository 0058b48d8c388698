// kernels/hip/device/hip_runtime.cpp: opens libamdhip64.so and looks its functions up
#include "kernels/hip/device/hip_runtime.hpp"

#include <dlfcn.h>

#include <atomic>
#include <cstring>
#include <mutex>

#include "kernels/hip/device/status.hpp"

namespace kernels::hip::runtime {
namespace {

constexpr const char* kNames[] = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"};

// Opens the HIP runtime. The application's own comes first, because two HIP runtimes in one process
// would each claim the devices. Frameworks ship theirs without a version in its name.
void* open_library(Message* message) {
  for (const char* name : {kNames[0], kNames[1], kNames[2], "libamdhip64.so"}) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD); library != nullptr)
      return library;
  }
  Message load_error;  // of a library that is there and cannot be loaded
  for (const char* name : kNames) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL); library != nullptr) return library;
    const char* text = dlerror();
    const bool absent = text == nullptr || (std::strncmp(text, name, std::strlen(name)) == 0 &&
                                            std::strstr(text, "No such file") != nullptr);
    if (!absent && load_error.text[0] == '\0') fail(&load_error, Status::internal, "%s", text);
  }
  if (load_error.text[0] != '\0') {
    fail(message, Status::internal, "no HIP runtime could be loaded: %s", load_error.text);
  } else {
    fail(message, Status::internal,
         "no HIP runtime was found (libamdhip64.so.7, .6 or .5); install ROCm's");
  }
  return nullptr;
}

template <class Function>
bool resolve(void* library, const char* name, Function* function, Message* message) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function != nullptr) return true;
  fail(message, Status::internal, "the HIP runtime has no %s", name);
  return false;
}

bool resolve_all(void* library, Functions* f, Message* message) {
  const auto found = [&](const char* name, auto* function) {
    return resolve(library, name, function, message);
  };
  // Since 6.0 the new layout has a function of its own, and hipGetDeviceProperties gives the old
  // one.
  const bool properties =
      resolve(library, "hipGetDevicePropertiesR0600", &f->GetDeviceProperties, nullptr) ||
      found("hipGetDeviceProperties", &f->GetDeviceProperties);
  // Stream-ordered memory came with 5.2.
  if (!resolve(library, "hipMallocAsync", &f->MallocAsync, nullptr) ||
      !resolve(library, "hipFreeAsync", &f->FreeAsync, nullptr)) {
    f->MallocAsync = nullptr;
  }
  return properties && found("hipGetDeviceCount", &f->GetDeviceCount) &&
         found("hipGetDevice", &f->GetDevice) && found("hipSetDevice", &f->SetDevice) &&
         found("hipDeviceGetName", &f->DeviceGetName) &&
         found("hipDeviceTotalMem", &f->DeviceTotalMem) &&
         found("hipDeviceGetAttribute", &f->DeviceGetAttribute) &&
         found("hipGetErrorName", &f->GetErrorName) &&
         found("hipGetErrorString", &f->GetErrorString) &&
         found("hipGetLastError", &f->GetLastError) &&
         found("hipModuleLoadData", &f->ModuleLoadData) &&
         found("hipModuleGetFunction", &f->ModuleGetFunction) &&
         found("hipModuleLaunchKernel", &f->ModuleLaunchKernel) && found("hipMalloc", &f->Malloc) &&
         found("hipFree", &f->Free) && found("hipHostMalloc", &f->HostMalloc) &&
         found("hipHostFree", &f->HostFree) && found("hipMemcpyAsync", &f->MemcpyAsync) &&
         found("hipStreamCreateWithFlags", &f->StreamCreateWithFlags) &&
         found("hipStreamDestroy", &f->StreamDestroy) &&
         found("hipStreamSynchronize", &f->StreamSynchronize) &&
         found("hipStreamWaitEvent", &f->StreamWaitEvent) &&
         found("hipStreamGetCaptureInfo", &f->StreamGetCaptureInfo) &&
         found("hipThreadExchangeStreamCaptureMode", &f->ThreadExchangeStreamCaptureMode) &&
         found("hipEventCreate", &f->EventCreate) &&
         found("hipEventCreateWithFlags", &f->EventCreateWithFlags) &&
         found("hipEventQuery", &f->EventQuery) && found("hipEventDestroy", &f->EventDestroy) &&
         found("hipEventRecord", &f->EventRecord) &&
         found("hipEventSynchronize", &f->EventSynchronize) &&
         found("hipEventElapsedTime", &f->EventElapsedTime);
}

std::mutex opening;
std::atomic<const Functions*> opened = nullptr;

}  // namespace

const Functions* functions(Message* message) {
  if (const Functions* known = opened.load(std::memory_order_acquire); known != nullptr)
    return known;
  const std::lock_guard lock(opening);
  if (const Functions* known = opened.load(std::memory_order_relaxed); known != nullptr)
    return known;
  void* library = open_library(message);  // never closed, because unloading HIP is known to crash
  if (library == nullptr) return nullptr;
  static Functions table;
  if (!resolve_all(library, &table, message)) return nullptr;
  opened.store(&table, std::memory_order_release);
  return &table;
}

}  // namespace kernels::hip::runtime
