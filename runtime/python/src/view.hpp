// runtime/python/src/view.hpp: a tensor of any Python library as the C library's attnrt_tensor
//
// A tensor is read by torch's table where that is possible, else by __dlpack__. What DLPack does
// not carry (some dtypes, gradients, negated views) is asked of the tensor itself.
#pragma once

#include <attnrt/attnrt.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "errors.hpp"
#include "torch.hpp"

namespace attnrt_python {

namespace nb = nanobind;

using Array = nb::ndarray<nb::ro>;

constexpr bool is_written(std::string_view name) { return name == "out" || name == "lse"; }
constexpr bool is_required(std::string_view name) { return name == "q" || name == "k"; }

// Whether "bhsd" is another order of the tensor's dimensions than "bshd".
constexpr bool has_heads_and_seq(std::string_view name) {
  return name == "q" || name == "k" || name == "v" || name == "out" || name.ends_with("_scale");
}

struct TensorEntry {
  const char* name;
  attnrt_tensor attnrt_args::*member;
  bool written, required, has_heads;

  // Whether it is k_scale or v_scale, which have no dimension head_dim.
  constexpr bool is_scale() const { return std::string_view(name).ends_with("_scale"); }
};
#define ATTNRT_ENTRY(name)                                                      \
  TensorEntry{#name, &attnrt_args::name, is_written(#name), is_required(#name), \
              has_heads_and_seq(#name)},
inline constexpr TensorEntry kTensors[] = {ATTNRT_TENSORS(ATTNRT_ENTRY)};
#undef ATTNRT_ENTRY
inline constexpr size_t kTensorCount = std::size(kTensors);

constexpr size_t index_of(std::string_view name) {
  size_t i = 0;
  while (kTensors[i].name != name) ++i;
  return i;
}
inline constexpr size_t kOut = index_of("out"), kLse = index_of("lse");

inline nb::tuple tensor_names() {
  nb::list names;
  for (const TensorEntry& entry : kTensors) names.append(entry.name);
  return nb::tuple(names);
}

struct DeviceId {
  int32_t type, id;
  bool operator==(const DeviceId&) const = default;
};

inline std::string text_of(DeviceId device) {
  switch (device.type) {
    case ATTNRT_DEVICE_CPU: return "cpu";
    case ATTNRT_DEVICE_CUDA: return "cuda:" + std::to_string(device.id);
    case ATTNRT_DEVICE_ROCM: return "rocm:" + std::to_string(device.id);
    default: return "device type " + std::to_string(device.type) + " of DLPack";
  }
}

// The device as the runtime counts it: pinned host memory is the cpu's, managed memory the GPU's.
inline DeviceId device_of(int32_t type, int32_t id) {
  constexpr int cuda_host = 3, rocm_host = 11, cuda_managed = 13;  // DLPack's numbers
  switch (type) {
    case ATTNRT_DEVICE_CPU:
    case cuda_host:
    case rocm_host: return {ATTNRT_DEVICE_CPU, 0};
    case cuda_managed: return {ATTNRT_DEVICE_CUDA, id};
    default: return {type, id};
  }
}
inline DeviceId device_of(const Array& array) {
  return device_of(array.device_type(), array.device_id());
}

// Takes a view of the object's memory. RETURNS false if the object gives none, or if `written` is
// set and the memory is read-only.
inline bool import(nb::handle object, bool written, Array& array) {
  if (!written) return nb::try_cast(object, array);
  nb::ndarray<> writable;
  if (!nb::try_cast(object, writable)) return false;
  array = Array(writable);
  return true;
}

// For the dtypes that a library has but does not export by DLPack (bfloat16 and float8 of ml_dtypes
// in numpy, bool and float8 in older versions of torch): returns the tensor viewed as integers of
// the same size, and sets dtype to the real one. For all others, returns an invalid object.
inline nb::object bits_of(nb::handle object, attnrt_dtype& dtype) {
  if (!nb::hasattr(object, "view") || !nb::hasattr(object, "dtype")) return {};
  const nb::object given = object.attr("dtype");
  const std::string name = nb::str(nb::handle(given)).c_str();
  if (name == "bfloat16") {
    dtype = {ATTNRT_DTYPE_BFLOAT, 16, 1};
    return object.attr("view")("uint16");
  }
  const bool torch = name.starts_with("torch.");
  const std::string kind = torch ? name.substr(6) : name;
  if (kind == "float8_e4m3fn") {
    dtype = {ATTNRT_DTYPE_FLOAT8_E4M3FN, 8, 1};
  } else if (kind == "float8_e4m3fnuz") {
    dtype = {ATTNRT_DTYPE_FLOAT8_E4M3FNUZ, 8, 1};
  } else if (name == "torch.bool") {
    dtype = {ATTNRT_DTYPE_BOOL, 8, 1};
  } else {
    return {};
  }
  return torch ? object.attr("view")(nb::module_::import_("torch").attr("uint8"))
               : object.attr("view")("uint8");
}

// Whether a library raises this to say that it cannot export a tensor. Anything else (an interrupt,
// no memory, a fault of the library) is for the caller.
inline bool says_why(const nb::python_error& error) {
  return error.matches(PyExc_BufferError) || error.matches(PyExc_RuntimeError) ||
         error.matches(PyExc_TypeError) || error.matches(PyExc_ValueError);
}

// Raises InvalidArgumentError, which says why this object cannot be this tensor.
[[noreturn]] inline void refuse(const TensorEntry& entry, nb::handle object) {
  Array readable;
  const std::string type = nb::type_name(object.type()).c_str();
  if (!nb::hasattr(object, "__dlpack__")) {
    invalid(std::string(entry.name) + " is a " + type +
            "; expected a tensor with __dlpack__ (numpy, torch, ...)");
  }
  if (entry.written && import(object, false, readable)) {
    invalid(std::string(entry.name) + " is read-only; expected a tensor that can be written to");
  }
  std::string reason = "no memory to share";
  try {
    (void)object.attr("__dlpack__")();
  } catch (nb::python_error& error) {
    if (!says_why(error)) throw;
    reason = nb::str(error.value()).c_str();
  }
  invalid(std::string(entry.name) + " is a " + type +
          " that gives no view of its memory: " + reason);
}

// ---- What Python does for a call: see attnrt/_tensors.py and attnrt/_arguments.py ----

// A function of the package, imported at its first call and kept for ever.
class PythonFunction {
 public:
  constexpr PythonFunction(const char* module, const char* name) : module_(module), name_(name) {}
  template <class... Arguments>
  nb::object operator()(Arguments&&... arguments) {
    if (function_ == nullptr)
      function_ = nb::object(nb::module_::import_(module_).attr(name_)).release().ptr();
    return nb::handle(function_)(std::forward<Arguments>(arguments)...);
  }

 private:
  const char *module_, *name_;
  PyObject* function_ = nullptr;
};
inline constinit PythonFunction allocated("attnrt._tensors", "allocated");
inline constinit PythonFunction without_gradient("attnrt._tensors", "without_gradient");
inline constinit PythonFunction without_tangent("attnrt._tensors", "without_tangent");
inline constinit PythonFunction stream_pointer("attnrt._tensors", "stream_pointer");
inline constinit PythonFunction attribute_words("attnrt._arguments", "attribute_words");
inline constinit PythonFunction text_or_none("attnrt._arguments", "text_or_none");

inline bool requires_grad(nb::handle tensor) {
  static PyObject* const name = PyUnicode_InternFromString("requires_grad");
  const auto answer = nb::steal(PyObject_GetAttr(tensor.ptr(), name));
  if (!answer.is_valid()) throw nb::python_error();
  return answer.is(Py_True);
}

// Whether the values are those in memory with the other sign (the imaginary part of a conjugate).
inline bool is_negated(nb::handle tensor) {
  static PyObject* const name = PyUnicode_InternFromString("is_neg");
  const auto answer = nb::steal(PyObject_CallMethodObjArgs(tensor.ptr(), name, nullptr));
  if (!answer.is_valid()) throw nb::python_error();
  return answer.is(Py_True);
}

// A view of one tensor, and where it is. A view by __dlpack__ keeps the memory alive itself; one of
// torch's table holds as long as the tensor.
struct View {
  attnrt_tensor tensor{};
  DeviceId device{};
  Array array;
};

// A tensor without elements may have no address, but NULL would mean that it is absent. So it gets
// the address of some bytes that nobody reads, and dense strides.
inline void give_an_address(attnrt_tensor& tensor) {
  alignas(64) static char nothing[64];
  tensor.data = nothing;
  int64_t stride = 1;
  for (int32_t i = tensor.ndim - 1; i >= 0; --i) {
    tensor.stride[i] = stride;
    stride *= std::max<int64_t>(tensor.shape[i], 1);
  }
}

inline void expect_dimensions(const TensorEntry& entry, size_t ndim) {
  if (ndim >= (entry.is_scale() ? 0 : 1) && ndim <= 4) return;
  invalid(std::string(entry.name) + " has " + std::to_string(ndim) +
          " dimensions; expected 1 to 4");
}

// Reads a tensor by torch's table. RETURNS false if it has no view of it, as of a sparse one.
inline bool read_by_table(const TensorEntry& entry, nb::handle object, const ExchangeApi& table,
                          View& view) {
  nb::dlpack::dltensor found{};
  if (table.view(object.ptr(), &found) != 0) {
    PyErr_Clear();
    return false;
  }
  if (found.strides == nullptr && found.ndim > 0) return false;
  expect_dimensions(entry, static_cast<size_t>(found.ndim));
  attnrt_tensor& tensor = view.tensor;
  tensor.dtype = {found.dtype.code, found.dtype.bits, found.dtype.lanes};
  tensor.ndim = found.ndim;
  bool empty = false;
  for (int32_t i = 0; i < found.ndim; ++i) {
    tensor.shape[i] = found.shape[i];
    tensor.stride[i] = found.strides[i];
    empty = empty || found.shape[i] == 0;
  }
  tensor.data = static_cast<char*>(found.data) + found.byte_offset;
  if (empty) give_an_address(tensor);
  view.device = device_of(found.device.device_type, found.device.device_id);
  return true;
}

inline void read_by_dlpack(const TensorEntry& entry, nb::handle object, View& view) {
  attnrt_tensor& tensor = view.tensor;
  Array& array = view.array;
  const bool plain = import(object, entry.written, array);
  if (!plain) {
    const nb::object bits = bits_of(object, tensor.dtype);
    if (!bits.is_valid() || !import(bits, entry.written, array)) refuse(entry, object);
  }
  expect_dimensions(entry, array.ndim());
  const nb::dlpack::dtype dtype = array.dtype();
  if (plain) tensor.dtype = {dtype.code, dtype.bits, dtype.lanes};
  tensor.ndim = static_cast<int32_t>(array.ndim());
  for (size_t i = 0; i < array.ndim(); ++i) {
    tensor.shape[i] = static_cast<int64_t>(array.shape(i));
    tensor.stride[i] = array.stride(i);
  }
  tensor.data = const_cast<void*>(static_cast<const void*>(array.data()));
  if (array.size() == 0) give_an_address(tensor);
  view.device = device_of(array);
}

// Reads a tensor. Raises if torch records gradients of it.
inline void read(const TensorEntry& entry, nb::handle object, View& view) {
  if (!Torch::has(object)) return read_by_dlpack(entry, object, view);
  nb::object tensor = nb::borrow(object);
  if (Torch::in_forward_mode()) without_tangent(entry.name, tensor);
  if (requires_grad(tensor)) tensor = without_gradient(entry.name, tensor);
  if (is_negated(object)) {
    invalid(std::string(entry.name) +
            " is a view that torch negates when it reads it; give its resolve_neg()");
  }
  const ExchangeApi* const table = Torch::table_for(object);
  if (table != nullptr && read_by_table(entry, object, *table, view)) return;
  read_by_dlpack(entry, tensor, view);
}

}  // namespace attnrt_python
