// runtime/cli/io/inputs.cpp: reads and checks the tensors and attributes of `attnrt run`
//
// The file holds the tensors of attnrt_args by their names, except out and lse, which a run
// computes. It may also hold expected and expected_lse, with which the results are compared. The
// order of the checks: attributes, tensor names, dtypes and shapes of q, k and v, then the
// runtime's own checks of everything else.
#include "cli/io/inputs.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "base/nearest.hpp"
#include "kernels/common/half.hpp"
#include "problem/check_args.hpp"
#include "problem/infer.hpp"
#include "problem/tensors.hpp"

namespace attnrt::cli {
namespace {

using core::fail;
using core::Result;

constexpr std::array<std::string_view, 2> expected_names = {"expected", "expected_lse"};

// Returns the names of the tensors that a file may hold.
std::vector<std::string_view> input_names() {
  std::vector<std::string_view> names;
  for (const core::TensorEntry& tensor : core::kTensors) {
    if (!tensor.rule.written) names.emplace_back(tensor.name);
  }
  names.insert(names.end(), expected_names.begin(), expected_names.end());
  return names;
}

// Those of q, k and v that the file must hold. With v_in_k, v is in k.
std::vector<const char*> row_tensors(const Inputs& inputs) {
  if (inputs.problem.v_in_k != 0) return {"q", "k"};
  return {"q", "k", "v"};
}

// Removes the name of the runtime's step, which means nothing to the user who gave a file.
std::string without(std::string message, std::string_view prefix) {
  if (message.starts_with(prefix)) message.erase(0, prefix.size());
  return message;
}

Result<void> read_tensors(const SafetensorsReader& reader, Inputs& inputs) {
  const std::vector<std::string_view> names = input_names();
  for (const auto& [name, entry] : reader.header().tensors) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    return fail(ATTNRT_INVALID_ARGUMENT, "tensor {}: unknown name, expected one of {}{}", name,
                fmt::join(names, ", "), core::did_you_mean(name, names));
  }
  for (const char* name : row_tensors(inputs))
    if (reader.header().tensors.count(name) == 0)
      return fail(ATTNRT_INVALID_ARGUMENT, "there is no tensor {}; expected q, k and v", name);
  for (const auto& [name, entry] : reader.header().tensors) {
    auto tensor = reader.read(name);
    if (!tensor) return tl::unexpected(tensor.error());
    inputs.tensors.emplace(name, std::move(*tensor));
  }
  return {};
}

// Checks that two tensors have the same extent in one dimension. `word` is its name in messages.
Result<void> check_equal(const Inputs& inputs, const char* name, const char* other,
                         size_t dimension, const char* word) {
  const auto &shape = inputs.tensors.at(name).shape(),
             &other_shape = inputs.tensors.at(other).shape();
  if (shape[dimension] == other_shape[dimension]) return {};
  return fail(ATTNRT_INVALID_ARGUMENT,
              "tensor {}: shape {} disagrees with {} {}: {} is {}, expected {}", name,
              shape_text(shape), other, shape_text(other_shape), word, shape[dimension],
              other_shape[dimension]);
}

Result<void> check_dtypes(const Inputs& inputs) {
  const auto dtype_of = [&](const char* name) {
    return safetensors_name(inputs.tensors.at(name).dtype());
  };
  const auto is_narrow = [](std::string_view dtype) { return dtype == "I8" || dtype == "F8_E4M3"; };
  const std::string_view q_dtype = dtype_of("q"), k_dtype = dtype_of("k");
  for (const char* name : row_tensors(inputs)) {
    const std::string_view dtype = dtype_of(name);
    const bool narrow = is_narrow(dtype) && dtype != q_dtype;
    if (!narrow && dtype != "F32" && dtype != "F16" && dtype != "BF16")
      return fail(ATTNRT_INVALID_ARGUMENT, "tensor {} is {}, expected F32, F16 or BF16", name,
                  dtype);
    const std::string_view expected = narrow || is_narrow(k_dtype) ? k_dtype : q_dtype;
    if (dtype != expected && dtype != q_dtype)
      return fail(ATTNRT_INVALID_ARGUMENT, "tensor {} is {}, expected {}, the dtype of {}", name,
                  dtype, expected, expected == q_dtype ? "q" : "k");
  }
  return {};
}

// Checks the shapes of q, k and v. The runtime checks them again, but its messages show one tensor
// at a time.
Result<void> check_shapes(const Inputs& inputs) {
  const bool dense =
      inputs.tensors.count("offsets_q") == 0 && inputs.tensors.count("page_table") == 0;
  for (const char* name : row_tensors(inputs)) {
    const auto& shape = inputs.tensors.at(name).shape();
    if (shape.size() == 4 || (!dense && shape.size() == 3)) continue;
    return fail(ATTNRT_INVALID_ARGUMENT, "tensor {}: shape {} has {} dimensions, expected {}", name,
                shape_text(shape), shape.size(),
                dense ? "4: [batch, seq, heads, head_dim]"
                      : "3 or 4, of which the last two are heads and head_dim");
  }
  for (const char* name : row_tensors(inputs)) {
    const auto& shape = inputs.tensors.at(name).shape();
    for (const size_t from_end : {2, 1}) {
      if (shape[shape.size() - from_end] != 0) continue;
      return fail(ATTNRT_INVALID_ARGUMENT, "tensor {}: shape {}: {} is 0, expected at least 1",
                  name, shape_text(shape), from_end == 2 ? "heads" : "head_dim");
    }
  }
  if (!dense) return {};
  auto checked = check_equal(inputs, "k", "q", 0, "batch");
  if (checked) checked = check_equal(inputs, "k", "q", 3, "head_dim");
  if (inputs.problem.v_in_k != 0) return checked;
  if (checked) checked = check_equal(inputs, "v", "k", 0, "batch");
  if (checked) checked = check_equal(inputs, "v", "k", 1, "seq_kv");
  if (checked) checked = check_equal(inputs, "v", "k", 2, "heads_kv");
  return checked;
}

// Sets the problem's attributes. Where an option is given, the metadata is not read for that word.
// Other keys of the metadata are comments.
Result<void> read_attributes(const Attributes& options, const std::string& path, Inputs& inputs) {
  for (const auto& [key, value] : inputs.metadata) {
    const bool known =
        std::find(attribute_words.begin(), attribute_words.end(), key) != attribute_words.end();
    const std::string hint = known ? "" : core::did_you_mean(key, attribute_words);
    if (hint.empty()) continue;
    inputs.warnings.push_back(
        fmt::format("{}: __metadata__ {}: unknown word, ignored{}", path, core::shown(key), hint));
  }
  std::string arch;
  for (const std::string_view name : attribute_words) {
    const core::Word* word = core::find_word(name);
    const auto option = std::find_if(options.begin(), options.end(),
                                     [&](const auto& given) { return given.first == name; });
    const auto stored = inputs.metadata.find(std::string(name));
    if (option != options.end()) {
      const auto set = core::set_word(*word, option->second, inputs.problem, arch);
      if (!set) return tl::unexpected(set.error());
    } else if (stored != inputs.metadata.end()) {
      const auto set = core::set_word(*word, stored->second, inputs.problem, arch);
      if (!set)
        return fail(ATTNRT_INVALID_ARGUMENT, "{}: __metadata__ {}", path, set.error().message);
    }
  }
  return {};
}

// Returns what an option made of the problem that the file does not say, if the file has expected
// tensors. They answer the file's problem. lse, out_dtype and what is promised of the bits do not
// change the answer.
std::string why_not_compared(const Inputs& inputs) {
  const auto& tensors = inputs.tensors;
  if (std::none_of(expected_names.begin(), expected_names.end(),
                   [&](std::string_view name) { return tensors.count(std::string(name)) != 0; }))
    return {};
  core::Problem said = core::default_problem();
  said.head_dim = inputs.problem.head_dim;  // the default of scale depends on it
  std::string arch;
  for (const std::string_view name : attribute_words) {
    if (name == "lse" || name == "deterministic" || name == "batch_invariant") continue;
    if (name == "out_dtype") continue;
    if (name == "head_dim_v") continue;  // the shape of what is expected says it
    const core::Word& word = *core::find_word(name);
    const auto stored = inputs.metadata.find(std::string(name));
    // A value that cannot be read was replaced by an option. Then the default stands for it.
    if (stored != inputs.metadata.end()) (void)core::set_word(word, stored->second, said, arch);
    const core::Value is = core::value_of(word, inputs.problem, arch),
                      was = core::value_of(word, said, arch);
    if (is == was) continue;
    return fmt::format("the options say {0}={1}, and the file's expected values are for {0}={2}",
                       name, core::to_text(word, is), core::to_text(word, was));
  }
  return {};
}

// Allocates out and lse in the shapes that the problem gives them.
Result<void> allocate_outputs(Inputs& inputs) {
  const Tensor& q = inputs.tensors.at("q");
  std::vector<int64_t> shape = q.shape();
  const core::Problem& problem = inputs.problem;
  if (problem.v_in_k == 0) {
    shape.back() = inputs.tensors.at("v").shape().back();
  } else if (problem.head_dim_v > 0) {
    shape.back() = problem.head_dim_v;
  }
  const attnrt_dtype dtype = core::is_off(problem.out_dtype) ? q.dtype() : problem.out_dtype;
  int64_t bytes = dtype.bits / 8;
  for (const int64_t dimension : shape)
    if (dimension != 0 && __builtin_mul_overflow(bytes, dimension, &bytes))
      return fail(ATTNRT_INVALID_ARGUMENT,
                  "out would have the shape {}, which has too many elements", shape_text(shape));
  auto out = Tensor::allocate(dtype, shape);
  if (!out) return fail(out.error().code, "out: {}", out.error().message);
  inputs.out = std::move(*out);
  inputs.args.out = inputs.out.view();
  if (inputs.problem.lse == 0) return {};

  const auto& rows =
      q.shape();  // [batch, seq_q, heads_q, head_dim] or [total_q, heads_q, head_dim]
  auto lse = Tensor::allocate(
      {ATTNRT_DTYPE_FLOAT, 32, 1},
      rows.size() == 4 ? std::vector{rows[0], rows[2], rows[1]} : std::vector{rows[1], rows[0]});
  if (!lse) return fail(lse.error().code, "lse: {}", lse.error().message);
  inputs.lse = std::move(*lse);
  inputs.args.lse = inputs.lse->view();
  return {};
}

// Checks that a tensor of expected results, if the file has it, can be compared with the results.
Result<void> check_expected(const Inputs& inputs, const std::string& name, const Tensor& found) {
  const auto expected = inputs.tensors.find(name);
  if (expected == inputs.tensors.end()) return {};
  const Tensor& tensor = expected->second;
  if (safetensors_name(tensor.dtype()) != "F64")
    return fail(ATTNRT_INVALID_ARGUMENT, "tensor {} is {}, expected F64", name,
                safetensors_name(tensor.dtype()));
  if (tensor.shape() != found.shape())
    return fail(ATTNRT_INVALID_ARGUMENT,
                "tensor {}: shape {}, expected {}, the shape of the result", name,
                shape_text(tensor.shape()), shape_text(found.shape()));
  return {};
}

// Whether the shapes fit if heads come before seq, which is the layout of other libraries: heads_q
// is not a multiple of heads_kv, but the dimensions before them are.
bool looks_transposed(const Inputs& inputs) {
  const auto &q = inputs.tensors.at("q").shape(), &k = inputs.tensors.at("k").shape();
  if (q.size() != 4 || k.size() != 4 || inputs.tensors.count("page_table") != 0) return false;
  return q[2] % k[2] != 0 && k[1] > 0 && q[1] % k[1] == 0;
}

// Points args at the file's tensors, each by its name.
void set_args(Inputs& inputs) {
  const auto set = [&](const char* name, attnrt_tensor& view) {
    const auto tensor = inputs.tensors.find(name);
    if (tensor != inputs.tensors.end()) view = tensor->second.view();
  };
#define ATTNRT_SET(name) set(#name, inputs.args.name);
  ATTNRT_TENSORS(ATTNRT_SET)
#undef ATTNRT_SET
}

// Completes the problem from the tensors, and finds everything else that can be wrong with them
// before anything is planned.
Result<void> infer_and_check(Inputs& inputs) {
  set_args(inputs);
  attnrt_error error = ATTNRT_ERROR_INIT;
  if (const auto status = core::infer_problem(inputs.args, &inputs.problem, &error);
      status != ATTNRT_OK)
    return fail(status, "{}", without(error.message, "run: "));
  const auto problem = core::check_problem(&inputs.problem);
  if (!problem) {
    return fail(problem.error().code, "{}{}", without(problem.error().message, "problem: "),
                looks_transposed(inputs) ? "; the shapes fit [batch, heads, seq, head_dim], "
                                           "expected [batch, seq, heads, head_dim]"
                                         : "");
  }
  inputs.problem = *problem;
  core::Extents extents;
  attnrt_args args = inputs.args;
  if (const auto status = core::check_args(inputs.problem, args, &extents, &error);
      status != ATTNRT_OK)
    return fail(status, "{}", without(error.message, "run: "));
  auto checked = check_expected(inputs, "expected", inputs.out);
  if (checked && inputs.lse) checked = check_expected(inputs, "expected_lse", *inputs.lse);
  return checked;
}

}  // namespace

Result<Inputs> read_inputs(const std::string& path, const Attributes& options) {
  const auto reader = SafetensorsReader::open(path);
  if (!reader) return tl::unexpected(reader.error());
  Inputs inputs;
  inputs.problem = core::default_problem();
  inputs.args.struct_size = static_cast<int32_t>(sizeof inputs.args);
  inputs.metadata = reader->header().metadata;
  auto attributes = read_attributes(options, path, inputs);
  if (!attributes) return tl::unexpected(attributes.error());

  auto checked = read_tensors(*reader, inputs);
  if (checked) checked = check_dtypes(inputs);
  if (checked) checked = check_shapes(inputs);
  if (checked) checked = allocate_outputs(inputs);
  if (checked) checked = infer_and_check(inputs);
  if (!checked) {
    const std::string message = without(checked.error().message, path + ": ");
    return fail(checked.error().code, "{}: {}", path, message);
  }
  inputs.not_compared = why_not_compared(inputs);
  return inputs;
}

double element(const Tensor& tensor, int64_t index) {
  const std::byte* data = tensor.data() + index * (tensor.dtype().bits / 8);
  const auto load = [data]<class T>(T value) {
    std::memcpy(&value, data, sizeof value);
    return value;
  };
  if (tensor.dtype().bits == 64) return load(double{});
  if (tensor.dtype().bits == 32) return load(float{});
  const auto half = load(uint16_t{});
  return tensor.dtype().code == ATTNRT_DTYPE_BFLOAT ? kernels::bf16_to_f32(half)
                                                    : kernels::f16_to_f32(half);
}

}  // namespace attnrt::cli
