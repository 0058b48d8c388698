// runtime/conformance/tensors.hpp: a case's tensors, as images in host memory
#pragma once

#include <attnrt/plugin.h>

#include <array>
#include <cstddef>
#include <functional>
#include <string_view>
#include <vector>

#include "conformance/case.hpp"
#include "kernels/common/problem.hpp"
#include "kernels/reference/expectation.hpp"

namespace attnrt::conformance {

// The tensors of attnrt_args, in its order.
enum class TensorName : int {
#define ATTNRT_ENUMERATOR(name) name,
  ATTNRT_TENSORS(ATTNRT_ENUMERATOR)
#undef ATTNRT_ENUMERATOR
};
#define ATTNRT_LISTED(name) TensorName::name,
constexpr std::array kTensorNames{ATTNRT_TENSORS(ATTNRT_LISTED)};
#undef ATTNRT_LISTED

std::string_view text_of(TensorName name);
attnrt_tensor& tensor_of(attnrt_args& args, TensorName name);

// One tensor's bytes as they will lie in memory: a guard, the elements with the gaps between rows,
// a guard.
struct Image {
  static constexpr int64_t kGuard = 512;  // bytes

  attnrt_tensor view{};          // without data: the address depends on where the image is written
  std::vector<std::byte> bytes;  // empty: the tensor is absent
  std::vector<bool> must_write;  // out, lse: for each byte, whether a run must write it
  std::byte poison{0xFF};        // out, lse: what every byte is before a run
  int64_t alignment = 16;        // of the first element (guarded_memory.hpp)

  bool absent() const { return bytes.empty(); }
  std::byte* first() { return bytes.data() + kGuard; }
  const std::byte* first() const { return bytes.data() + kGuard; }
};

// Calls body(offset in elements) for every element.
template <class Body>
void for_each_element(const attnrt_tensor& t, Body&& body) {
  int64_t at[4] = {}, shape[4] = {1, 1, 1, 1}, stride[4] = {};
  for (int32_t d = 0; d < t.ndim; ++d) shape[d] = t.shape[d], stride[d] = t.stride[d];
  for (at[0] = 0; at[0] < shape[0]; ++at[0])
    for (at[1] = 0; at[1] < shape[1]; ++at[1])
      for (at[2] = 0; at[2] < shape[2]; ++at[2])
        for (at[3] = 0; at[3] < shape[3]; ++at[3])
          body(at[0] * stride[0] + at[1] * stride[1] + at[2] * stride[2] + at[3] * stride[3]);
}

// Makes room for the view's elements. Every byte is `fill`.
Image make_image(const attnrt_tensor& view, std::byte fill, int64_t alignment);

// Makes the image an output: every byte is its poison, and a run must write the elements of `used`,
// which are some of the view's, or all.
void make_output(Image& image, const attnrt_tensor& used);

struct Tensors {
  std::array<Image, kTensorNames.size()> images;
  // The keys with NaN: hidden ones in style nan_masked, visible ones in nan_visible.
  int64_t nan_keys = 0;
  // Bytes from the first element of k to that of v, if both lie in one allocation; 0: they do not.
  // Each still has an image of its own, in which the other's elements are gaps.
  int64_t v_after_k = 0;
  Image& operator[](TensorName name) { return images[static_cast<size_t>(name)]; }
  const Image& operator[](TensorName name) const { return images[static_cast<size_t>(name)]; }
};

// Draws layouts and numbers from the case's seed, as its style asks for.
Tensors make_tensors(const Case& drawn);

// The case and its tensors in the structs of kernels/reference. args points into the images.
struct ReferenceRun {
  kernels::Problem problem;
  kernels::Args args;
};
ReferenceRun reference_run(const Case& drawn, const Tensors& tensors);

// Returns the exact results of the case, and how much a right result may differ from them.
// at_work: called again and again while it computes.
kernels::reference::Expectation expect(const Case& drawn, const Tensors& tensors,
                                       const std::function<void()>& at_work);

}  // namespace attnrt::conformance
