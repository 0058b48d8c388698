// plugins/common/translate.hpp: the ABI's structs in the kernels' words, for this tree's plugins,
// conformance and bench
#pragma once

#include "attnrt/plugin.h"
#include "kernels/common/problem.hpp"

namespace attnrt_plugins {

// Translates a problem. device_type: where this plugin's tensors live. RETURNS INVALID_ARGUMENT for
// a number of an enum or a dtype that the kernels do not know.
attnrt_status translate(const attnrt_problem& problem, int32_t device_type, kernels::Problem* to,
                        attnrt_error* error);

// Translates a dtype or a tensor. A dtype that the kernels do not know becomes DType::unknown, so
// that their check names the tensor.
kernels::DType translate(attnrt_dtype dtype);
kernels::Tensor translate(const attnrt_tensor& tensor);

// Translates a run's tensors. REQUIRES: *to is new.
attnrt_status translate(const attnrt_args& args, kernels::Args* to, attnrt_error* error);

}  // namespace attnrt_plugins
