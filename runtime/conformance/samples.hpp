// runtime/conformance/samples.hpp: cases that the plugin runs completely, to be run again
#pragma once

#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "conformance/judge.hpp"
#include "conformance/rules.hpp"
#include "conformance/run.hpp"

namespace attnrt::conformance {

// A case with everything that is needed to compare another run of it.
struct Sample {
  Case drawn;
  Tensors tensors;
  Expectation expectation;
  RunResult alone;  // of the first run
};

// Draws up to `count` cases that `wanted` accepts, and whose result the plugin writes completely.
// Two results that lack the same values would compare equal there, since both hold the same poison.
std::vector<Sample> draw_samples(Subject& subject, size_t count,
                                 const std::function<bool(const Case&)>& wanted);
inline bool any_case(const Case&) { return true; }
Outcome no_sample();

// Runs the sample again. RETURNS failed if the result differs; its detail begins with `how`.
Outcome run_again(Subject& subject, const Sample& sample, const RunOptions& options,
                  const char* how);

// Calls body(n) for each n of [0, count), each on a thread of its own.
template <class Body>
void on_threads(int count, Body&& body) {
  std::vector<std::jthread> threads;
  for (int n = 0; n < count; ++n) threads.emplace_back([&body, n] { body(n); });
}

}  // namespace attnrt::conformance
