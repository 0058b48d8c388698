// runtime/cli/io/inputs.hpp: reads one run's tensors and problem from a file and options
#pragma once

#include <attnrt/plugin.h>

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/io/safetensors.hpp"
#include "problem/problem.hpp"

namespace attnrt::cli {

// Words of the vocabulary with their values: {"causal", "true"}.
using Attributes = std::vector<std::pair<std::string, std::string>>;

// The words that the tensors do not determine: those that the file's metadata and options may set.
inline constexpr std::array<std::string_view, 12> attribute_words = {
    "scale", "causal",        "align",           "window_left", "window_right", "softcap",
    "lse",   "deterministic", "batch_invariant", "v_in_k",      "head_dim_v",   "out_dtype"};

struct Inputs {
  std::map<std::string, Tensor> tensors;  // those of the file, by name
  Tensor out;
  std::optional<Tensor> lse;  // absent if it is not wanted
  Metadata metadata;
  // Why the results must not be compared with the file's expected tensors: an option changed the
  // problem that they answer. "" if they may be compared, or if there are none.
  std::string not_compared;
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

}  // namespace attnrt::cli
