// runtime/cli/bench/peak.cpp: measures what a device can compute, read and copy at most
//
// A backend's speed is compared with a peak, so a peak has to be a speed that this machine really
// reaches, on the threads that the backends use:
//
//   fma, amx   every thread multiplies and adds in registers. Of many short tries the best
//              one counts, which other work on the machine did not slow.
//   copy       all threads together copy one buffer to the other. Bytes read and written count.
//   read       all threads together read both buffers. Together these are twice as large as the
//              last cache, so that the data come from memory.
//
// The peaks are measured before the first problem and after the last one, and the better value
// counts. A processor that was slowed down for a while would otherwise raise every percentage.
#include "cli/bench/peak.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "cli/bench/device_memory.hpp"
#include "cli/bench/peak_loops.hpp"

namespace attnrt::cli::bench {
namespace {

constexpr int kRegisterTries = 12, kMemoryTries = 3;
// Rounds of one call of a loop in registers: about half a millisecond.
constexpr int64_t kMultiplyAddRounds = 250'000, kTileProductRounds = 25'000;
constexpr int64_t kCallsPerThread = 8;  // of such a loop, so that fast threads take over work
// The unit of work in memory: 3 MiB, which is small enough that the threads finish together.
constexpr int64_t kPieceFloats = kReadUnit * 4096;
constexpr int64_t kPieceBytes = kPieceFloats * static_cast<int64_t>(sizeof(float));
// Bytes of each buffer: the size of the last cache, but within these bounds, because a cache may be
// unknown and memory is limited.
constexpr int64_t kMinBufferBytes = int64_t{64} << 20, kMaxBufferBytes = int64_t{256} << 20;
// Bytes of a large page. With small pages, most of the time would go into page faults and TLB
// misses.
constexpr size_t kLargePage = size_t{2} << 20;

// For a device's memory: two buffers of this size. Each try copies kDeviceCopies times from one to
// the other.
constexpr int64_t kDeviceBytes = int64_t{256} << 20;
constexpr int64_t kDeviceAlignment = 256;  // bytes
constexpr int kDeviceTries = 5, kDeviceCopies = 4;

int64_t pieces_in_buffer() {
  const int64_t cache = std::max<int64_t>(0, sysconf(_SC_LEVEL3_CACHE_SIZE));
  return std::clamp(cache, kMinBufferBytes, kMaxBufferBytes) / kPieceBytes;
}

// Calls body(0) to body(count - 1) on the threads, a few times. RETURNS the seconds of the best
// try.
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

void raise(std::optional<double>& limit, double rate) { limit = std::max(rate, limit.value_or(0)); }

}  // namespace

CpuPeak::CpuPeak(core::Threads& threads) : threads_(threads), pieces_(pieces_in_buffer()) {
  const size_t bytes = (static_cast<size_t>(pieces_ * kPieceBytes) / kLargePage + 1) * kLargePage;
  for (Buffer* buffer : {&from_, &to_}) {
    buffer->reset(static_cast<float*>(std::aligned_alloc(kLargePage, bytes)));
    if (*buffer != nullptr) (void)madvise(buffer->get(), bytes, MADV_HUGEPAGE);
  }
  if (from_ == nullptr || to_ == nullptr) pieces_ = 0;
  // The threads that will use the memory write it first: on a machine with several memory nodes,
  // Linux gives a page to the node of the thread that writes it first.
  (void)best_seconds(threads_, 1, pieces_, [this](int64_t index) {
    std::memset(from_.get() + index * kPieceFloats, 0, kPieceBytes);
    std::memset(to_.get() + index * kPieceFloats, 0, kPieceBytes);
  });
}

void CpuPeak::measure(Peak& peak) {
  measure_registers(peak.fma, [] {
    float sink = 0;
    return multiply_add_loop(kMultiplyAddRounds, &sink);
  });
  if (has_amx()) measure_registers(peak.amx, [] { return tile_product_loop(kTileProductRounds); });
  if (pieces_ > 0) measure_memory(peak);
}

// Times a loop on all threads. The loop returns its FLOP, the same in every call.
void CpuPeak::measure_registers(std::optional<double>& limit, const std::function<double()>& loop) {
  const int64_t calls = kCallsPerThread * threads_.count();
  double flop = 0;
  const double seconds = best_seconds(threads_, kRegisterTries, calls, [&](int64_t index) {
    const double computed = loop();
    if (index == 0) flop = computed;
  });
  raise(limit, flop * static_cast<double>(calls) / seconds);
}

void CpuPeak::measure_memory(Peak& peak) {
  const auto buffer_bytes = static_cast<double>(pieces_ * kPieceBytes);
  const double copied = best_seconds(threads_, kMemoryTries, pieces_, [this](int64_t index) {
    std::memcpy(to_.get() + index * kPieceFloats, from_.get() + index * kPieceFloats, kPieceBytes);
  });
  raise(peak.copy, 2 * buffer_bytes / copied);

  std::vector<float> sinks(static_cast<size_t>(2 * pieces_));
  const double read = best_seconds(threads_, kMemoryTries, 2 * pieces_, [&](int64_t index) {
    const float* buffer = index < pieces_ ? from_.get() : to_.get();
    read_loop(buffer + index % pieces_ * kPieceFloats, kPieceFloats,
              &sinks[static_cast<size_t>(index)]);
  });
  raise(peak.read, 2 * buffer_bytes / read);
}

void measure_device_peak(const std::shared_ptr<const core::Backend>& backend, Peak& peak) {
  using core::DeviceMemory;
  const auto memory = BenchMemory::open(backend, peak.device);
  if (!memory) return;
  const auto allocate = [&] {
    return DeviceMemory::allocate(backend, peak.device, DeviceMemory::Kind::device, kDeviceBytes,
                                  kDeviceAlignment);
  };
  const auto from = allocate(), to = allocate();
  if (!from || !to) return;
  const auto copy_all = [&] {
    core::Result<void> copied;
    for (int n = 0; copied && n < kDeviceCopies; ++n)
      copied = (*memory)->copy_on_device(to->data(), from->data(), kDeviceBytes);
    return copied;
  };
  (void)(*memory)->time(copy_all);  // warms up
  for (int n = 0; n < kDeviceTries; ++n) {
    const auto seconds = (*memory)->time(copy_all);
    if (seconds && *seconds > 0) raise(peak.copy, 2.0 * kDeviceBytes * kDeviceCopies / *seconds);
  }
}

}  // namespace attnrt::cli::bench
