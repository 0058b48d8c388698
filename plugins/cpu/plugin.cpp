// plugins/cpu/plugin.cpp: the CPU backend's function table, and opening an instance of it
#include <cstdio>
#include <cstring>
#include <new>

#include "plugins/cpu/backend.hpp"

namespace attnrt_cpu {
namespace {

struct TargetNames {
  char text[96] = "";
};

// The instruction sets that this machine has, for a message: "avx512 avx2 sse4 ...".
TargetNames target_names() {
  TargetNames names;
  for (const kernels::cpu::Target* target = kernels::cpu::next_target(nullptr); target != nullptr;
       target = kernels::cpu::next_target(target)) {
    const size_t used = std::strlen(names.text);
    std::snprintf(names.text + used, sizeof names.text - used, used == 0 ? "%s" : " %s",
                  kernels::cpu::target_name(*target));
  }
  return names;
}

// The one option is "target", the name of an instruction set; without it, the best one is taken.
attnrt_status open(const attnrt_host* host, const attnrt_option* options, int32_t count,
                   void** instance, attnrt_error* error) {
  const kernels::cpu::Target* target = kernels::cpu::find_target(nullptr);
  for (int32_t n = 0; n < count; ++n) {
    if (std::strcmp(options[n].key, "target") != 0) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "options: found %s, expected target",
                         options[n].key);
    }
    target = kernels::cpu::find_target(options[n].value);
    if (target == nullptr) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                         "options.target: found %s, expected one of: %s", options[n].value,
                         target_names().text);
    }
  }
  Instance* made = new (std::nothrow) Instance;
  if (made == nullptr)
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "open: out of host memory for the instance");
  if (host != nullptr && ATTNRT_HAS(host, attnrt_host, parallel_for) &&
      host->parallel_for != nullptr) {
    made->workers = {host->self, host->thread_count, host->parallel_for};
  }
  made->target = target;
  *instance = made;
  return ATTNRT_OK;
}

const void* get_extension(void*, const char* id) {
  return std::strcmp(id, ATTNRT_MERGE) == 0 ? &merging : nullptr;
}

void close(void* instance) { delete static_cast<Instance*>(instance); }

}  // namespace
}  // namespace attnrt_cpu

ATTNRT_PLUGIN_EXPORT const attnrt_plugin attnrt_plugin_v1 = {
    sizeof(attnrt_plugin),
    ATTNRT_ABI_MINOR,
    ATTNRT_PLUGIN_NAME,
    ATTNRT_PLUGIN_VERSION,
    attnrt_cpu::open,
    nullptr,  // devices: one cpu
    attnrt_cpu::supports,
    attnrt_cpu::plan,
    attnrt_cpu::run,
    attnrt_cpu::plan_destroy,
    attnrt_cpu::close,
    attnrt_cpu::get_extension,
};
