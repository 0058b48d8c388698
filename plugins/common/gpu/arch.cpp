// plugins/common/gpu/arch.cpp: which code objects run on a device of a given architecture
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "kernels/hip/device/code_objects.hpp"
#include "plugins/common/gpu/backend.hpp"

namespace attnrt_gpu {
namespace {

// RETURNS how well AMD code fits a device; 0: it does not run there. Code for "gfx90a:xnack-" runs
// on "gfx90a:sramecc+:xnack-": the processor is the same, and the device has every feature as the
// code names it. The more features the code names, the better it fits.
int amd_fit(std::string_view code, std::string_view device) {
  if (code.substr(0, code.find(':')) != device.substr(0, device.find(':'))) return 0;
  int fit = 1;
  for (size_t at = code.find(':'); at != std::string_view::npos; ++fit) {
    const size_t end = code.find(':', at + 1);
    const std::string_view feature =
        code.substr(at, end == std::string_view::npos ? end : end - at);
    const size_t found = device.find(feature);
    if (found == std::string_view::npos) return 0;
    const size_t after = found + feature.size();
    if (after != device.size() && device[after] != ':') return 0;
    at = end;
  }
  return fit;
}

// RETURNS how well NVIDIA code fits a device; 0: it does not run there. Code for sm_80 runs on
// sm_80, sm_86 and sm_89: devices of the same major number and the same or a later minor number.
// Code for sm_90a runs on sm_90 alone, and fits it best.
int nvidia_fit(const char* code, const char* device) {
  constexpr size_t kPrefix = 3;  // "sm_"
  if (std::strncmp(code, "sm_", kPrefix) != 0 || std::strncmp(device, "sm_", kPrefix) != 0)
    return 0;
  char* suffix = nullptr;
  const auto have = static_cast<int>(std::strtol(code + kPrefix, &suffix, 10));
  const auto want = static_cast<int>(std::strtol(device + kPrefix, nullptr, 10));
  if (have <= 0 || have / 10 != want / 10 || have > want) return 0;
  const bool specific = *suffix == 'a';
  if (specific && have != want) return 0;
  return 2 * have + (specific ? 1 : 0);
}

}  // namespace

const char* code_arch_for(const char* device_arch) {
  const char* best = nullptr;
  int best_fit = 0;
  for (uint32_t n = 0; n < kernels::hip::code_object_count; ++n) {
    const char* code = kernels::hip::code_objects[n].arch;
    const int fit = device_type() == ATTNRT_DEVICE_ROCM ? amd_fit(code, device_arch)
                                                        : nvidia_fit(code, device_arch);
    if (fit > best_fit) {
      best = code;
      best_fit = fit;
    }
  }
  return best;
}

}  // namespace attnrt_gpu
