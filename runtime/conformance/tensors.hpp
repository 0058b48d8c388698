// runtime/conformance/tensors.hpp: a case into tensors with guarded edges, in host memory and on the device
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "conformance/case.hpp"
#include "conformance/subject.hpp"
#include "kernels/common/problem.hpp"

namespace attnrt::cli::verify {

// The order of attnrt_args.
enum TensorName {
  q,
  k,
  v,
  out,
  mask,
  lse,
  alibi_slopes,
  sinks,
  kv_lengths,
  offsets_q,
  offsets_kv,
  page_table
};
constexpr int kTensors = 12;
extern const std::array<const char*, kTensors> kTensorNames;

// One tensor's bytes as they shall lie in memory: a guard, the elements with the gaps between rows, a guard.
struct Image {
  attnrt_tensor view{};          // data is not set: that is for each place that the image is put at
  std::vector<std::byte> bytes;  // empty: the tensor is absent
  std::vector<bool> owned;       // out, lse: which bytes belong to elements
  std::byte poison{0xFF};        // out, lse: every byte before a run
  int64_t alignment =
      16;  // the first element lies at a multiple of this, and of no larger power of two
  std::byte* first() { return bytes.data() + kGuard; }
  const std::byte* first() const { return bytes.data() + kGuard; }
  static constexpr int64_t kGuard = 512;
};

struct Tensors {
  std::array<Image, kTensors> images;
  int64_t nan_keys =
      0;  // keys with NaN that a sequence has: hidden ones in style nan_masked, visible in nan_visible
  Image& operator[](int name) { return images[static_cast<size_t>(name)]; }
  const Image& operator[](int name) const { return images[static_cast<size_t>(name)]; }
};

// Draws layouts and numbers by the case's seed and style. out and lse are poisoned, with NaN where no input has any.
Tensors make_tensors(const Case& drawn);

// For the reference: the same problem and tensors, in this process's memory.
kernels::DType kernel_dtype(attnrt_dtype dtype);
kernels::Problem kernel_problem(const core::Problem& problem);
kernels::Args kernel_args(Tensors& tensors);

// May query i of head h see key j of its sequence b? For the plain evaluation, and for NaN where nobody looks.
bool visible(const Case& drawn, const Tensors& tensors, int64_t b, int64_t h, int64_t i, int64_t j);

// Memory of the subject's device that holds one image or workspace, at an address that is aligned exactly so.
class Place {
 public:
  Place(Subject& subject, int64_t bytes, int64_t alignment, int64_t before);
  Place(Place&& other) noexcept;
  Place& operator=(Place&&) = delete;
  ~Place();
  std::byte* address() const { return start_; }  // `before` bytes further lies what is aligned
  // Empty texts: done.
  std::string write(const void* from, int64_t bytes, void* stream);
  std::string read(void* to, int64_t bytes, void* stream);
  const std::string& error() const { return error_; }

 private:
  std::string copy(void* host, int64_t bytes, int32_t direction, void* stream);
  Subject* subject_;
  void* raw_ = nullptr;
  std::byte* start_ = nullptr;
  std::string error_;
};

}  // namespace attnrt::cli::verify
