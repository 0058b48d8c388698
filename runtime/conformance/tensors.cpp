// runtime/conformance/tensors.cpp: a case's tensors, by name and as structs of kernels/reference
#include "conformance/tensors.hpp"

#include <stdexcept>

#include "conformance/tensor_builder.hpp"
#include "plugins/common/translate.hpp"
#include "problem/tensors.hpp"

namespace attnrt::conformance {

Tensors make_tensors(const Case& drawn) { return TensorBuilder(drawn).build(); }

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

kernels::reference::Expectation expect(const Case& drawn, const Tensors& tensors) {
  const ReferenceRun run = reference_run(drawn, tensors);
  return kernels::reference::expect(run.problem, run.args);
}

}  // namespace attnrt::conformance
