// runtime/cli/bench/peak.hpp: measures the speed limits of the processor and of other devices
#pragma once

#include <cstdlib>
#include <functional>
#include <memory>

#include "base/threads.hpp"
#include "cli/bench/report.hpp"
#include "load.hpp"

namespace attnrt::cli::bench {

// Measures the limits of this processor on some threads. It keeps its memory between measurements.
// OWNERSHIP: `threads` has to live as long as the object.
class CpuPeak {
 public:
  explicit CpuPeak(core::Threads& threads);
  // Measures each limit a few times, and raises it in `peak` if the best try was faster.
  void measure(Peak& peak);

 private:
  void measure_registers(std::optional<double>& limit, const std::function<double()>& loop);
  void measure_memory(Peak& peak);

  struct Free {
    void operator()(float* data) const { std::free(data); }
  };
  using Buffer = std::unique_ptr<float, Free>;

  core::Threads& threads_;
  int64_t pieces_;  // pieces in each buffer; 0 if there was no memory for the buffers
  Buffer from_, to_;
};

// Measures copies within the device's memory, and raises peak.copy if the best try was faster. It
// leaves the limit absent if the device fails; the runs that follow report that error.
void measure_device_peak(const std::shared_ptr<const core::Backend>& backend, Peak& peak);

}  // namespace attnrt::cli::bench
