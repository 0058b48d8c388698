// plugins/common/translate.hpp: the ABI's structs in the kernels' words, for this tree's plugins, conformance and bench
#pragma once

#include "attnrt/plugin.h"
#include "kernels/common/problem.hpp"

namespace attnrt_plugins {

// device_type: where this plugin's tensors live. INVALID_ARGUMENT for numbers that have no word.
attnrt_status translate(const attnrt_problem& problem, int32_t device_type, kernels::Problem* to,
                        attnrt_error* error);

// A dtype that the kernels have no word for becomes DType::unknown, so that their check names the tensor.
kernels::DType translate(attnrt_dtype dtype);
kernels::Tensor translate(const attnrt_tensor& tensor);

attnrt_status translate(const attnrt_args& args, kernels::Args* to, attnrt_error* error);

}  // namespace attnrt_plugins
