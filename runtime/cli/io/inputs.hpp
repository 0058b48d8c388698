// runtime/cli/io/inputs.hpp: a safetensors file and flags into one run's tensors, and the problem that they pose
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

// Words of the vocabulary and their values: {"causal", "true"}.
using Attributes = std::vector<std::pair<std::string, std::string>>;

struct Inputs {
  std::map<std::string, Tensor> tensors;  // of the file: q k v, and what else it has
  Tensor out;
  std::optional<Tensor> lse;  // if it is wanted
  Metadata metadata;
  std::vector<std::string> warnings;  // a key of the metadata that looks like a misspelt word
  core::Problem problem{};
  attnrt_args args{};  // points into the tensors above
};

// What the tensors do not say comes from flags, then from the file's metadata, then it is off. Errors begin with the file.
core::Result<Inputs> read_inputs(const std::string& path, const Attributes& flags);

// Of a floating-point tensor, in the order of memory.
double element(const Tensor& tensor, int64_t index);

// How far found is from what was expected, element by element.
struct Accuracy {
  double max = 0,
         mean = 0;  // infinity where only one of the two is NaN, or an infinity has no partner
};

// REQUIRES: floating-point tensors of one shape.
Accuracy compare(const Tensor& found, const Tensor& expected);

}  // namespace attnrt::cli
