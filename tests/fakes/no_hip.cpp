// tests/fakes/no_hip.cpp: a dlopen to preload that finds no HIP runtime, even if one is installed
#include <dlfcn.h>

#include <string>

extern "C" __attribute__((visibility("default"))) void* dlopen(const char* name,
                                                               int flags) noexcept {
  const auto next = reinterpret_cast<void* (*)(const char*, int)>(dlsym(RTLD_NEXT, "dlopen"));
  std::string file = name != nullptr ? name : "";
  if (file.starts_with("libamdhip64.so"))
    file += ".hidden";  // so that dlerror still gives the loader's own message
  return next(name != nullptr ? file.c_str() : nullptr, flags);
}
