// runtime/cli/bench/peak.cpp: this processor into what it can do at most: f32 multiply-adds, bf16 products, memory
//
// Highway compiles the middle of this file once for each instruction set and takes the best one, as kernels/cpu does.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#endif
#include <sys/mman.h>
#include <unistd.h>

#include "cli/bench/bench.hpp"

// Accumulators are an array of vectors, which targets with vectors of unknown size do not allow.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cli/bench/peak.cpp"
// clang-format off
#include "hwy/foreach_target.h"  // before highway.h
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace attnrt::cli::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Vector = hn::Vec<Floats>;

// Independent sums, as many as latency times width of the widest cores needs; each a register.
struct Sums {
  Vector a, b, c, d, e, f, g, h, i, j, k, l;
  float total() const {
    return hn::GetLane(hn::Add(
        hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, d)), hn::Add(hn::Add(e, f), hn::Add(g, h))),
        hn::Add(hn::Add(i, j), hn::Add(k, l))));
  }
};
constexpr int64_t kSums = 12;

// Multiply-adds on registers; how many FLOP they were. *sink makes the sums matter.
double multiply_add(int64_t rounds, float* sink) {
  const Floats t;
  const Vector x = hn::Set(t, 0.5F + *sink), y = hn::Set(t, 0.25F);
  // No two alike, or the compiler would compute them once.
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

// Loads count floats, a multiple of 12 vectors.
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

HWY_EXPORT(multiply_add);
HWY_EXPORT(read);

namespace {

constexpr int kMemoryTries = 3,
              kRegisterTries = 12;  // many short ones: some meet no other work on the machine
constexpr int64_t kProductRounds = 25'000, kMultiplyAddRounds = 250'000;  // half a millisecond each
constexpr int64_t kRegisterPieces = 8;            // of them, for each thread
constexpr int64_t kPieceFloats = 12 * 16 * 4096;  // 3 MiB; a multiple of 12 vectors of any size

// Of each of two buffers. Both together are twice the last cache, so that memory is what answers; but not more than most
// machines can lend.
int64_t memory_pieces() {
  const int64_t cache = std::max<int64_t>(0, sysconf(_SC_LEVEL3_CACHE_SIZE));
  return std::clamp(cache, int64_t{64} << 20, int64_t{256} << 20) / (kPieceFloats * 4);
}

// body(index) for each index on the threads; the seconds of the best of a few tries.
double best_seconds(core::Threads& threads, int tries, int64_t count,
                    const std::function<void(int64_t)>& body) {
  const auto call = [](void* arg, int64_t index, int32_t) {
    (*static_cast<const std::function<void(int64_t)>*>(arg))(index);
  };
  double best = 0;
  for (int n = 0; n < tries; ++n) {
    const auto start = std::chrono::steady_clock::now();
    threads.parallel_for(count, call, const_cast<std::function<void(int64_t)>*>(&body));
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (n == 0 || seconds.count() < best) best = seconds.count();
  }
  return best;
}

void keep_best(std::optional<double>& best, double rate) {
  best = std::max(rate, best.value_or(0));
}

#if defined(__x86_64__)
// The processor has tiles of bf16, and the kernel lets this process use them.
bool has_amx() {
  constexpr unsigned kTile = 1U << 24, kBf16 = 1U << 22;
  constexpr int kRequestPermission = 0x1023,
                kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (edx & kTile) != 0 && (edx & kBf16) != 0 &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Products of tiles that stay where they are: 4 sums of 16 x 16, from 2 x 2 tiles of 16 x 32. How many FLOP they were.
__attribute__((target("amx-tile,amx-bf16"))) double tile_products(int64_t rounds) {
  struct Config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  };
  // Static, because compilers do not know how much of it the instruction reads.
  alignas(64) static constexpr Config kConfig = {
      1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
  alignas(64) static constexpr uint16_t kHalves[16 * 32] = {0x3F00, 0x3E80};  // bf16
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
#endif

}  // namespace

CpuPeak::CpuPeak(core::Threads& threads) : threads_(threads), pieces_(memory_pieces()) {
  for (Memory* memory : {&from_, &to_}) {
    constexpr size_t kPage =
        size_t{2}
        << 20;  // large pages, where there are: else most of the time goes into small ones
    const size_t bytes = (static_cast<size_t>(pieces_ * kPieceFloats * 4) / kPage + 1) * kPage;
    memory->reset(static_cast<float*>(std::aligned_alloc(kPage, bytes)));
    if (*memory != nullptr) (void)madvise(memory->get(), bytes, MADV_HUGEPAGE);
  }
  if (from_ == nullptr || to_ == nullptr) pieces_ = 0;
  const auto touch =
      [this](int64_t index) {  // by the threads: on a machine with several memories, their own
        std::memset(from_.get() + index * kPieceFloats, 0, kPieceFloats * 4);
        std::memset(to_.get() + index * kPieceFloats, 0, kPieceFloats * 4);
      };
  (void)best_seconds(threads_, 1, pieces_, touch);
}

void CpuPeak::measure(Peak& peak) {
  // As many FLOP for each index: one tells for all.
  const auto measure_registers = [this](std::optional<double>& best,
                                        const std::function<double()>& compute) {
    const int64_t pieces = kRegisterPieces * threads_.count();
    double flop = 0;
    const double seconds = best_seconds(threads_, kRegisterTries, pieces, [&](int64_t index) {
      const double done = compute();
      if (index == 0) flop = done;
    });
    keep_best(best, flop * static_cast<double>(pieces) / seconds);
  };
  measure_registers(peak.fma, [] {
    float sink = 0;
    return HWY_DYNAMIC_DISPATCH(multiply_add)(kMultiplyAddRounds, &sink);
  });
#if defined(__x86_64__)
  if (has_amx()) measure_registers(peak.amx, [] { return tile_products(kProductRounds); });
#endif
  if (pieces_ == 0) return;
  const auto bytes = static_cast<double>(pieces_ * kPieceFloats * 4);
  const double copied = best_seconds(threads_, kMemoryTries, pieces_, [this](int64_t index) {
    std::memcpy(to_.get() + index * kPieceFloats, from_.get() + index * kPieceFloats,
                kPieceFloats * 4);
  });
  keep_best(peak.copy, 2 * bytes / copied);
  std::vector<float> sinks(static_cast<size_t>(2 * pieces_));
  const double read = best_seconds(threads_, kMemoryTries, 2 * pieces_, [&](int64_t index) {
    const float* buffer = index < pieces_ ? from_.get() : to_.get();
    HWY_DYNAMIC_DISPATCH(read)
    (buffer + index % pieces_ * kPieceFloats, kPieceFloats, &sinks[static_cast<size_t>(index)]);
  });
  keep_best(peak.read, 2 * bytes / read);
}

}  // namespace attnrt::cli::bench
#endif
