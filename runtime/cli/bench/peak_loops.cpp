// runtime/cli/bench/peak_loops.cpp: multiply-adds, memory reads and tile products
//
// Highway compiles the first part of this file once for each instruction set, and calls the version
// for the best one that this processor has. kernels/cpu does the same. The AMX part needs no such
// choice: it is compiled for AMX, and has_amx() says whether it may be called.
#include "cli/bench/peak_loops.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

// Sums is a struct of vectors, which is not allowed where the size of vectors is not known at
// compile time.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cli/bench/peak_loops.cpp"
// clang-format off
#include "hwy/foreach_target.h"  // before highway.h
#include "hwy/highway.h"
// clang-format on
#include "kernels/common/instruction_set.hpp"

HWY_BEFORE_NAMESPACE();
namespace attnrt::cli::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

bool attainable() { return kernels::has_instruction_set(HWY_TARGET); }

using Floats = hn::ScalableTag<float>;
using Vector = hn::Vec<Floats>;

// Twelve independent sums, each in a register: as many as the multiply-adds that the widest cores
// keep under way, which is their latency times the number of vector units.
struct Sums {
  Vector a, b, c, d, e, f, g, h, i, j, k, l;
  float total() const {
    return hn::GetLane(hn::Add(
        hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, d)), hn::Add(hn::Add(e, f), hn::Add(g, h))),
        hn::Add(hn::Add(i, j), hn::Add(k, l))));
  }
};
constexpr int64_t kSums = 12;

double multiply_add(int64_t rounds, float* sink) {
  const Floats t;
  const Vector x = hn::Set(t, 0.5F + *sink), y = hn::Set(t, 0.25F);
  // All start values differ, because the compiler would compute equal sums only once.
  const auto start = [&](float n) HWY_ATTR { return hn::Set(t, n + *sink); };
  Sums s{start(1), start(2), start(3), start(4),  start(5),  start(6),
         start(7), start(8), start(9), start(10), start(11), start(12)};
  for (int64_t round = 0; round < rounds; ++round) {
    s.a = hn::MulAdd(s.a, x, y), s.b = hn::MulAdd(s.b, x, y), s.c = hn::MulAdd(s.c, x, y);
    s.d = hn::MulAdd(s.d, x, y), s.e = hn::MulAdd(s.e, x, y), s.f = hn::MulAdd(s.f, x, y);
    s.g = hn::MulAdd(s.g, x, y), s.h = hn::MulAdd(s.h, x, y), s.i = hn::MulAdd(s.i, x, y);
    s.j = hn::MulAdd(s.j, x, y), s.k = hn::MulAdd(s.k, x, y), s.l = hn::MulAdd(s.l, x, y);
  }
  *sink = s.total();
  return 2.0 * static_cast<double>(kSums * rounds) * static_cast<double>(hn::Lanes(t));
}

void read(const float* from, int64_t count, float* sink) {
  const Floats t;
  const auto lanes = static_cast<int64_t>(hn::Lanes(t));
  const Vector zero = hn::Zero(t);
  Sums s{zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero};
  const auto load = [&](int64_t n) HWY_ATTR { return hn::LoadU(t, from + n * lanes); };
  for (int64_t at = 0; at < count; at += kSums * lanes, from += kSums * lanes) {
    s.a = hn::Add(s.a, load(0)), s.b = hn::Add(s.b, load(1)), s.c = hn::Add(s.c, load(2));
    s.d = hn::Add(s.d, load(3)), s.e = hn::Add(s.e, load(4)), s.f = hn::Add(s.f, load(5));
    s.g = hn::Add(s.g, load(6)), s.h = hn::Add(s.h, load(7)), s.i = hn::Add(s.i, load(8));
    s.j = hn::Add(s.j, load(9)), s.k = hn::Add(s.k, load(10)), s.l = hn::Add(s.l, load(11));
  }
  *sink = s.total();
}

}  // namespace attnrt::cli::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attnrt::cli::bench {

namespace {

// Every version of a function, the best instruction set's first; null where none was compiled.
#define ATTNRT_VERSIONS(function) \
  { HWY_CHOOSE_TARGET_LIST(function), HWY_CHOOSE_FALLBACK(function) }
constexpr bool (*kAttainable[])() = ATTNRT_VERSIONS(attainable);
constexpr double (*kMultiplyAdd[])(int64_t, float*) = ATTNRT_VERSIONS(multiply_add);
constexpr void (*kRead[])(const float*, int64_t, float*) = ATTNRT_VERSIONS(read);
#undef ATTNRT_VERSIONS

// Returns which version is the best for this processor. The last one always runs.
size_t best_version() {
  static const size_t best = [] {
    size_t at = 0;
    while (kAttainable[at] == nullptr || !kAttainable[at]()) ++at;
    return at;
  }();
  return best;
}

}  // namespace

double multiply_add_loop(int64_t rounds, float* sink) {
  return kMultiplyAdd[best_version()](rounds, sink);
}

void read_loop(const float* from, int64_t count, float* sink) {
  kRead[best_version()](from, count, sink);
}

#if defined(__x86_64__)
bool has_amx() {
  constexpr unsigned kTile = 1U << 24, kBf16 = 1U << 22;  // bits of EDX of CPUID leaf 7
  constexpr int kRequestPermission = 0x1023;              // ARCH_REQ_XCOMP_PERM of arch_prctl
  constexpr int kTileData = 18;  // XFEATURE_XTILEDATA: the state to be permitted
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (edx & kTile) != 0 && (edx & kBf16) != 0 &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Four sums of 16 x 16 floats in tiles 0 to 3, from 2 x 2 products of tiles 4 and 5 with 6 and 7,
// each of 16 rows of 32 bf16 numbers. All tiles stay in registers.
__attribute__((target("amx-tile,amx-bf16"))) double tile_product_loop(int64_t rounds) {
  struct Config {  // the operand of LDTILECFG: bytes in a row and rows, for each tile
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  };
  // Static, because the compiler does not know how many bytes the instruction reads.
  alignas(64) static constexpr Config kConfig = {
      1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
  alignas(64) static constexpr uint16_t kHalves[16 * 32] = {0x3F00,
                                                            0x3E80};  // bf16: 0.5, 0.25, 0 ...
  _tile_loadconfig(&kConfig);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, kHalves, 64);
  _tile_loadd(5, kHalves, 64);
  _tile_loadd(6, kHalves, 64);
  _tile_loadd(7, kHalves, 64);
  for (int64_t round = 0; round < rounds; ++round) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 4.0 * 2 * 16 * 16 * 32 * static_cast<double>(rounds);
}
#else
bool has_amx() { return false; }
double tile_product_loop(int64_t) { return 0; }
#endif

}  // namespace attnrt::cli::bench
#endif
