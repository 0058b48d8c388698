// tests/kernels/hip/targets.hpp: the architectures and dtypes whose tiles the tests run
#pragma once

#include <ostream>
#include <string>

#include "kernels/common/problem.hpp"

namespace kernels::test {

// Together they run every tile that serves a GPU. f32 has the same tile on several architectures.
struct Target {
  const char* arch;
  DType dtype;
};
inline constexpr Target kTargets[] = {
    {"sm_80", DType::f16},    {"sm_80", DType::bf16},  {"gfx1100", DType::f16},
    {"gfx1100", DType::bf16}, {"gfx1200", DType::f16}, {"gfx1200", DType::bf16},
    {"gfx942", DType::f16},   {"gfx942", DType::bf16}, {"gfx1030", DType::f16},
    {"gfx1030", DType::bf16}, {"gfx906", DType::f16},  {"gfx906", DType::bf16},
    {"gfx1030", DType::f32},  {"gfx906", DType::f32},  {"sm_80", DType::f32},
};
// Only the fused kernels have a loop of their own here.
inline constexpr Target kPipelinedTargets[] = {{"sm_90a", DType::f16}, {"sm_90a", DType::bf16}};

inline std::string name_of(const Target& t) {
  return std::string(t.arch) + (t.dtype == DType::f32   ? "_f32"
                                : t.dtype == DType::f16 ? "_f16"
                                                        : "_bf16");
}
inline void PrintTo(const Target& t, std::ostream* out) { *out << name_of(t); }

}  // namespace kernels::test
