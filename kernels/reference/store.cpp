// kernels/reference/store.cpp: stores numbers in any element type
#include "kernels/reference/store.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/common/half.hpp"

namespace kernels::reference {
namespace {

// A number of 8 bits.
struct Code {
  float value;
  uint8_t bits;
};

// All numbers of a dtype, the lowest first.
std::vector<Code> codes_of(DType dtype) {
  uint8_t all[256];
  std::iota(all, all + 256, uint8_t{0});
  std::vector<Code> codes;
  for (const uint8_t bits : all) {
    const float value = load_float(dtype, all, bits);
    if (!std::isnan(value)) codes.push_back({value, bits});
  }
  std::sort(codes.begin(), codes.end(),
            [](const Code& a, const Code& b) { return a.value < b.value; });
  return codes;
}

}  // namespace

void store_nearest(DType dtype, void* data, int64_t index, float value) {
  if (dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16)
    return store_float(dtype, data, index, value);
  static const std::vector<Code> tables[] = {codes_of(DType::i8), codes_of(DType::f8_e4m3fn),
                                             codes_of(DType::f8_e4m3fnuz)};
  const std::vector<Code>& codes = tables[static_cast<int>(dtype) - static_cast<int>(DType::i8)];
  if (std::isnan(value)) {
    static_cast<uint8_t*>(data)[index] = dtype == DType::f8_e4m3fnuz ? 0x80 : 0x7F;
    return;
  }
  auto nearest = std::lower_bound(codes.begin(), codes.end(), value,
                                  [](const Code& code, float x) { return code.value < x; });
  if (nearest == codes.end() ||
      (nearest != codes.begin() && value - (nearest - 1)->value < nearest->value - value))
    --nearest;
  static_cast<uint8_t*>(data)[index] = nearest->bits;
}

}  // namespace kernels::reference
