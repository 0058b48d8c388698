// plugins/hip_flash/plugin.cpp: the table of hip_flash; it has no options
#include "plugins/hip_flash/backend.hpp"

namespace attnrt_hip_flash {
namespace {

attnrt_status open(const attnrt_host* host, const attnrt_option* options, int32_t count, void** instance,
                   attnrt_error* error) {
  if (count > 0) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "options: found %s, expected none: this backend has no options",
                       options[0].key);
  }
  return attnrt_hip::open(host, instance, error);
}

}  // namespace
}  // namespace attnrt_hip_flash

ATTNRT_PLUGIN_EXPORT const attnrt_plugin attnrt_plugin_v1 = {
    sizeof(attnrt_plugin),          ATTNRT_ABI_MINOR,       ATTNRT_PLUGIN_NAME,
    ATTNRT_PLUGIN_VERSION,          attnrt_hip_flash::open, attnrt_hip::devices,
    attnrt_hip_flash::supports,     attnrt_hip_flash::plan, attnrt_hip_flash::run,
    attnrt_hip_flash::plan_destroy, attnrt_hip::close,      attnrt_hip::get_extension,
};
