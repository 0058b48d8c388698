// runtime/conformance/tensors.cpp: a case's tensors, by name and as structs of kernels/reference
#include "conformance/tensors.hpp"

#include <algorithm>
#include <stdexcept>

#include "conformance/tensor_builder.hpp"
#include "plugins/common/translate.hpp"
#include "problem/tensors.hpp"

namespace attnrt::conformance {

Tensors make_tensors(const Case& drawn) { return TensorBuilder(drawn).build(); }

Image make_image(const attnrt_tensor& view, std::byte fill, int64_t alignment) {
  int64_t last = 0;
  bool empty = false;
  for (int32_t d = 0; d < view.ndim; ++d) {
    empty |= view.shape[d] == 0;
    last += (view.shape[d] - 1) * view.stride[d];
  }
  const int64_t content = empty ? 0 : (last + 1) * view.dtype.bits / 8;
  Image image;
  image.view = view;
  image.bytes.assign(static_cast<size_t>(content + 2 * Image::kGuard), fill);
  image.alignment = alignment;
  return image;
}

void make_output(Image& image, const attnrt_tensor& used) {
  std::fill(image.bytes.begin(), image.bytes.end(), image.poison);
  image.must_write.assign(image.bytes.size(), false);
  const int64_t size = used.dtype.bits / 8;
  for_each_element(used, [&](int64_t at) {
    for (int64_t n = 0; n < size; ++n)
      image.must_write[static_cast<size_t>(Image::kGuard + at * size + n)] = true;
  });
}

std::string_view text_of(TensorName name) { return core::kTensors[static_cast<size_t>(name)].name; }

attnrt_tensor& tensor_of(attnrt_args& args, TensorName name) {
  return args.*core::kTensors[static_cast<size_t>(name)].member;
}

ReferenceRun reference_run(const Case& drawn, const Tensors& tensors) {
  attnrt_args args{};
  args.struct_size = sizeof args;
  for (const TensorName name : kTensorNames) {
    const Image& image = tensors[name];
    if (image.absent()) continue;
    attnrt_tensor& tensor = tensor_of(args, name);
    tensor = image.view;
    tensor.data = const_cast<std::byte*>(image.first());  // the reference only reads
  }
  ReferenceRun run;
  attnrt_error error = ATTNRT_ERROR_INIT;
  const core::Problem& problem = drawn.problem;
  if (attnrt_plugins::translate(problem, problem.device_type, &run.problem, &error) != ATTNRT_OK ||
      attnrt_plugins::translate(args, &run.args, &error) != ATTNRT_OK) {
    throw std::logic_error(error.message);  // cases are drawn from what check_problem accepts
  }
  return run;
}

kernels::reference::Expectation expect(const Case& drawn, const Tensors& tensors,
                                       const std::function<void()>& at_work) {
  const ReferenceRun run = reference_run(drawn, tensors);
  return kernels::reference::expect(run.problem, run.args, at_work);
}

}  // namespace attnrt::conformance
