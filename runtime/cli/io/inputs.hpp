// runtime/cli/io/inputs.hpp: reads one run's tensors and problem from a file and options
#pragma once

#include <attnrt/plugin.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/io/safetensors.hpp"
#include "problem/problem.hpp"

namespace attnrt::cli {

// Words of the vocabulary with their values: {"causal", "true"}.
using Attributes = std::vector<std::pair<std::string, std::string>>;

struct Inputs {
  std::map<std::string, Tensor> tensors;  // those of the file, by name
  Tensor out;
  std::optional<Tensor> lse;  // absent if it is not wanted
  Metadata metadata;
  std::vector<std::string> warnings;  // about keys of the metadata that look like misspelt words
  core::Problem problem{};
  attnrt_args args{};  // views of the tensors above
};

// Reads the tensors and checks them against each other. Attributes that the tensors do not
// determine come from `options`, else from the file's metadata, else they have their defaults.
// Errors begin with the file's name, unless an option is wrong.
core::Result<Inputs> read_inputs(const std::string& path, const Attributes& options);

// Returns an element of a floating-point tensor. The index counts elements in memory order.
double element(const Tensor& tensor, int64_t index);

// The absolute errors of a tensor's elements. They are infinite where only one of the two values is
// NaN, or where they are different infinities.
struct Accuracy {
  double max = 0, mean = 0;
};

// REQUIRES: floating-point tensors of the same shape.
Accuracy compare(const Tensor& found, const Tensor& expected);

}  // namespace attnrt::cli
