// plugins/common/gpu/arch.cpp: which code objects run on a device of a given architecture
#include <charconv>
#include <cstring>
#include <string_view>

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

// The number of an architecture of NVIDIA, and what follows it: of "sm_90a" 90 and "a".
struct Number {
  int value = 0;  // 0: it does not start with the prefix and a number
  std::string_view suffix;
};
Number number_after(std::string_view prefix, std::string_view arch) {
  Number number;
  if (!arch.starts_with(prefix)) return number;
  const char* const end = arch.data() + arch.size();
  const auto [stop, error] = std::from_chars(arch.data() + prefix.size(), end, number.value);
  if (error == std::errc()) number.suffix = {stop, static_cast<size_t>(end - stop)};
  return number;
}

// RETURNS how well NVIDIA code fits a device; 0: it does not run there.
//   sm_80       runs on sm_80, sm_86 and sm_89: the same major number, and the same or a later
//               minor number
//   sm_90a      runs on sm_90 alone, and fits it best
//   compute_80  is PTX, which the driver compiles for any device from sm_80 on; all other code fits
//               better
int nvidia_fit(std::string_view code, std::string_view device, bool ptx_only) {
  constexpr int kCompiled = 1 << 16;  // above the fit of any PTX
  const int want = number_after("sm_", device).value;
  if (const Number ptx = number_after(kPtxPrefix, code); ptx.value > 0)
    return ptx.suffix.empty() && ptx.value <= want ? ptx.value : 0;
  const Number have = number_after("sm_", code);
  if (ptx_only || have.value <= 0 || have.value / 10 != want / 10 || have.value > want) return 0;
  const bool specific = have.suffix == "a";
  if (specific && have.value != want) return 0;
  return kCompiled + 2 * have.value + (specific ? 1 : 0);
}

// RETURNS the code object that fits best among those with the name (null: any name); null if none
// runs.
const kernels::hip::CodeObject* best_fit(const char* name, const char* device_arch, bool ptx_only) {
  const kernels::hip::CodeObject* best = nullptr;
  int most = 0;
  for (uint32_t n = 0; n < kernels::hip::code_object_count; ++n) {
    const kernels::hip::CodeObject& object = kernels::hip::code_objects[n];
    if (name != nullptr && std::strcmp(object.name, name) != 0) continue;
    const int fit = device_type() == ATTNRT_DEVICE_ROCM
                        ? amd_fit(object.arch, device_arch)
                        : nvidia_fit(object.arch, device_arch, ptx_only);
    if (fit > most) best = &object, most = fit;
  }
  return best;
}

}  // namespace

const char* code_arch_for(const char* device_arch, bool ptx_only) {
  const kernels::hip::CodeObject* best = best_fit(nullptr, device_arch, ptx_only);
  return best != nullptr ? best->arch : nullptr;
}

const kernels::hip::CodeObject* code_object_for(const ServedDevice& device, const char* name) {
  return best_fit(name, device.full_arch, device.ptx_only);
}

bool runs_ptx(const ServedDevice& device) {
  const auto is_ptx = [](const char* arch) {
    return std::strncmp(arch, kPtxPrefix, std::strlen(kPtxPrefix)) == 0;
  };
  bool found = false;
  for (uint32_t n = 0; n < kernels::hip::code_object_count; ++n) {
    const char* arch = kernels::hip::code_objects[n].arch;
    const int fit = nvidia_fit(arch, device.full_arch, device.ptx_only);
    // Of sm_90a there are only some kernels, and of what they replace there is nothing for sm_90.
    const bool every_kernel = std::strcmp(arch, "sm_90a") != 0;
    if (fit > 0 && !is_ptx(arch) && every_kernel) return false;
    found = found || (fit > 0 && is_ptx(arch));
  }
  return found;
}

}  // namespace attnrt_gpu
