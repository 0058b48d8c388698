// plugins/cpu/plugin.cpp: the CPU backend's table, and its instance: the host's threads
#include <new>

#include "plugins/cpu/backend.hpp"

namespace attnrt_cpu {
namespace {

attnrt_status open(const attnrt_host* host, const attnrt_option* options, int32_t count, void** instance,
                   attnrt_error* error) {
  if (count > 0) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "options: found %s, expected none: this backend has no options",
                       options[0].key);
  }
  Instance* made = new (std::nothrow) Instance;
  if (made == nullptr) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "open: no memory for the instance");
  if (host != nullptr && ATTNRT_HAS(host, attnrt_host, parallel_for) && host->parallel_for != nullptr) {
    made->workers = {host->self, host->thread_count, host->parallel_for};
  }
  *instance = made;
  return ATTNRT_OK;
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
    nullptr,  // devices: the cpu
    attnrt_cpu::supports,
    attnrt_cpu::plan,
    attnrt_cpu::run,
    attnrt_cpu::plan_destroy,
    attnrt_cpu::close,
    nullptr,  // get_extension
};
