// runtime/python/src/module.cpp: the extension module attnrt._attnrt, a binding of attnrt.h
//
// Reads tensors of any library through DLPack, allocates results, and raises the exceptions of
// attnrt/errors.py. The package around it documents and checks arguments. This module owns pointers
// and lifetimes, and releases the GIL while the runtime works.
// A call with torch tensors runs no Python code but torch's own, to allocate the result.
#include <attnrt/attnrt.h>
#include <dlfcn.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <array>
#include <deque>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attributes.hpp"
#include "torch.hpp"

namespace nb = nanobind;

namespace {

using attnrt_python::ExchangeApi;
using attnrt_python::ParsedAttributes;
using attnrt_python::Torch;

// ---- Errors ----

const char* status_name(attnrt_status status) {
  constexpr std::array names{
      "ok",          "unsupported", "out of memory", "invalid argument", "internal error",
      "device lost", "not found"};
  const auto index = static_cast<size_t>(status);
  return index < names.size() ? names.at(index) : "unknown status";
}

// Raises attnrt.Error or one of its subclasses. REQUIRES: the GIL is held.
[[noreturn]] void raise(attnrt_status status, const std::string& message) {
  const auto size = static_cast<Py_ssize_t>(message.size());
  const auto text = nb::steal<nb::str>(PyUnicode_DecodeUTF8(message.data(), size, "replace"));
  const nb::object error =
      nb::module_::import_("attnrt.errors").attr("error_of")(status_name(status), text);
  PyErr_SetObject(error.type().ptr(), error.ptr());
  throw nb::python_error();
}

[[noreturn]] void invalid(const std::string& message) { raise(ATTNRT_INVALID_ARGUMENT, message); }

// Calls without the GIL, and raises if the status that call(error) returns is not OK.
template <class Function>
void unlocked(Function&& call) {
  attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_status status = ATTNRT_OK;
  {
    const nb::gil_scoped_release release;
    status = call(&error);
  }
  if (status != ATTNRT_OK) raise(status, error.message);
}

// ---- Tensors ----

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
constexpr TensorEntry kTensors[] = {ATTNRT_TENSORS(ATTNRT_ENTRY)};
#undef ATTNRT_ENTRY
constexpr size_t kTensorCount = std::size(kTensors);

constexpr size_t index_of(std::string_view name) {
  size_t i = 0;
  while (kTensors[i].name != name) ++i;
  return i;
}
constexpr size_t kOut = index_of("out"), kLse = index_of("lse");

nb::tuple tensor_names() {
  nb::list names;
  for (const TensorEntry& entry : kTensors) names.append(entry.name);
  return nb::tuple(names);
}

struct DeviceId {
  int32_t type, id;
  bool operator==(const DeviceId&) const = default;
};

std::string text_of(DeviceId device) {
  switch (device.type) {
    case ATTNRT_DEVICE_CPU: return "cpu";
    case ATTNRT_DEVICE_CUDA: return "cuda:" + std::to_string(device.id);
    case ATTNRT_DEVICE_ROCM: return "rocm:" + std::to_string(device.id);
    default: return "device type " + std::to_string(device.type) + " of DLPack";
  }
}

// The device as the runtime counts it: pinned host memory is the cpu's, managed memory the GPU's.
DeviceId device_of(int32_t type, int32_t id) {
  constexpr int cuda_host = 3, rocm_host = 11, cuda_managed = 13;  // DLPack's numbers
  switch (type) {
    case ATTNRT_DEVICE_CPU:
    case cuda_host:
    case rocm_host: return {ATTNRT_DEVICE_CPU, 0};
    case cuda_managed: return {ATTNRT_DEVICE_CUDA, id};
    default: return {type, id};
  }
}
DeviceId device_of(const Array& array) { return device_of(array.device_type(), array.device_id()); }

// Takes a view of the object's memory. RETURNS false if the object gives none, or if `written` is
// set and the memory is read-only.
bool import(nb::handle object, bool written, Array& array) {
  if (!written) return nb::try_cast(object, array);
  nb::ndarray<> writable;
  if (!nb::try_cast(object, writable)) return false;
  array = Array(writable);
  return true;
}

// For the dtypes that a library has but does not export by DLPack (bfloat16 and float8 of ml_dtypes
// in numpy, bool and float8 in older versions of torch): returns the tensor viewed as integers of
// the same size, and sets dtype to the real one. For all others, returns an invalid object.
nb::object bits_of(nb::handle object, attnrt_dtype& dtype) {
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
bool says_why(const nb::python_error& error) {
  return error.matches(PyExc_BufferError) || error.matches(PyExc_RuntimeError) ||
         error.matches(PyExc_TypeError) || error.matches(PyExc_ValueError);
}

// Raises InvalidArgumentError, which says why this object cannot be this tensor.
[[noreturn]] void refuse(const TensorEntry& entry, nb::handle object) {
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
constinit PythonFunction allocated("attnrt._tensors", "allocated");
constinit PythonFunction without_gradient("attnrt._tensors", "without_gradient");
constinit PythonFunction stream_pointer("attnrt._tensors", "stream_pointer");
constinit PythonFunction attribute_words("attnrt._arguments", "attribute_words");
constinit PythonFunction text_or_none("attnrt._arguments", "text_or_none");

bool requires_grad(nb::handle tensor) {
  static PyObject* const name = PyUnicode_InternFromString("requires_grad");
  const auto answer = nb::steal(PyObject_GetAttr(tensor.ptr(), name));
  if (!answer.is_valid()) throw nb::python_error();
  return answer.is(Py_True);
}

// Whether the values are those in memory with the other sign (the imaginary part of a conjugate).
bool is_negated(nb::handle tensor) {
  static PyObject* const name = PyUnicode_InternFromString("is_neg");
  const auto answer = nb::steal(PyObject_CallMethodNoArgs(tensor.ptr(), name));
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
void give_an_address(attnrt_tensor& tensor) {
  alignas(64) static char nothing[64];
  tensor.data = nothing;
  int64_t stride = 1;
  for (int32_t i = tensor.ndim - 1; i >= 0; --i) {
    tensor.stride[i] = stride;
    stride *= std::max<int64_t>(tensor.shape[i], 1);
  }
}

void expect_dimensions(const TensorEntry& entry, size_t ndim) {
  if (ndim >= (entry.is_scale() ? 0 : 1) && ndim <= 4) return;
  invalid(std::string(entry.name) + " has " + std::to_string(ndim) +
          " dimensions; expected 1 to 4");
}

// Reads a tensor by torch's table. RETURNS false if it has no view of it, as of a sparse one.
bool read_by_table(const TensorEntry& entry, nb::handle object, const ExchangeApi& table,
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

void read_by_dlpack(const TensorEntry& entry, nb::handle object, View& view) {
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
void read(const TensorEntry& entry, nb::handle object, View& view) {
  if (!Torch::has(object)) return read_by_dlpack(entry, object, view);
  nb::object tensor = nb::borrow(object);
  if (requires_grad(tensor)) tensor = without_gradient(entry.name, tensor);
  if (is_negated(object)) {
    invalid(std::string(entry.name) +
            " is a view that torch negates when it reads it; give its resolve_neg()");
  }
  const ExchangeApi* const table = Torch::table_for(object);
  if (table != nullptr && read_by_table(entry, object, *table, view)) return;
  read_by_dlpack(entry, tensor, view);
}

// Whether the layout is "bhsd" and not "bshd". Raises for anything else.
bool is_heads_first(nb::handle layout) {
  if (PyUnicode_Check(layout.ptr()) != 0) {
    if (PyUnicode_CompareWithASCIIString(layout.ptr(), "bshd") == 0) return false;
    if (PyUnicode_CompareWithASCIIString(layout.ptr(), "bhsd") == 0) return true;
  }
  invalid("layout: found " + std::string(nb::repr(layout).c_str()) + "; expected 'bshd' or 'bhsd'");
}

// The tensors of one call, as attnrt_args. REQUIRES: the tuple outlives it, which keeps the Python
// objects alive.
class Tensors {
 public:
  // objects: in the order of tensor_names; None: absent. If out is None, it is allocated as q is
  // (but not if q and v have no such shapes: the C library says more); likewise lse if with_lse is
  // set. layout: see is_heads_first.
  Tensors(const nb::tuple& objects, nb::handle stream, nb::handle layout, bool with_lse = false)
      : heads_first_(is_heads_first(layout)) {
    if (objects.size() != kTensorCount) throw nb::type_error("expected a tuple of all tensors");
    args_.struct_size = sizeof args_;
    for (size_t i = 0; i < kTensorCount; ++i) {
      const TensorEntry& entry = kTensors[i];
      const nb::handle object = PyTuple_GetItem(objects.ptr(), static_cast<Py_ssize_t>(i));
      if (!object.is_none()) {
        add(i, object);
      } else if (entry.required) {
        invalid(std::string(entry.name) + " is None; expected a tensor");
      }
    }
    broadcast_batch();
    const nb::handle q = PyTuple_GetItem(objects.ptr(), 0);
    out_ = nb::borrow(PyTuple_GetItem(objects.ptr(), kOut));
    allocate_results(q, with_lse);
    device_ = views_.front().device;
    expect(device_, "as q is");
    args_.stream = reinterpret_cast<void*>(stream_of(stream, q));
  }

  // Raises if a tensor is on another device.
  void expect(DeviceId device, const char* why) const {
    for (size_t i = 0; i < kTensorCount; ++i) {
      if (!given_.at(i) || views_.at(i).device == device) continue;
      invalid(std::string(kTensors[i].name) + " is on " + text_of(views_.at(i).device) +
              "; expected " + text_of(device) + ", " + why);
    }
  }

  const attnrt_args* args() const { return &args_; }
  DeviceId device() const { return device_; }
  const nb::object& out() const { return out_; }
  const nb::object& lse() const { return lse_; }

 private:
  void add(size_t i, nb::handle object) {
    read(kTensors[i], object, views_.at(i));
    check_habits(i, views_.at(i).tensor);
    if (heads_first_) put_seq_first(i, views_.at(i).tensor);
    args_.*kTensors[i].member = views_.at(i).tensor;
    given_.at(i) = true;
  }

  // Takes a number for a scale of one element, and refuses a mask of bytes.
  static void check_habits(size_t i, attnrt_tensor& tensor) {
    if (tensor.ndim == 0) {
      tensor.ndim = 1;
      tensor.shape[0] = tensor.stride[0] = 1;
    }
    if (i == index_of("mask") && tensor.dtype.code == ATTNRT_DTYPE_UINT)
      invalid("mask is uint" + std::to_string(tensor.dtype.bits) +
              "; expected bool (give mask != 0), or an additive mask in float");
  }

  // Shows one sequence of k, v and their scales to all of q's. Pages have no such dimension.
  void broadcast_batch() {
    const attnrt_tensor& q = args_.q;
    if (q.ndim != 4 || given_.at(index_of("page_table"))) return;
    for (size_t i = 0; i < kTensorCount; ++i) {
      const TensorEntry& entry = kTensors[i];
      attnrt_tensor& tensor = args_.*entry.member;
      const bool of_keys = entry.has_heads && !entry.written && i != index_of("q");
      if (!of_keys || !given_.at(i) || tensor.ndim != (entry.is_scale() ? 3 : 4)) continue;
      if (tensor.shape[0] != 1 || q.shape[0] == 1) continue;
      tensor.shape[0] = q.shape[0];
      tensor.stride[0] = 0;
    }
  }

  // Turns a view of [batch, heads, seq, .] into the C library's [batch, seq, heads, .].
  static void put_seq_first(size_t i, attnrt_tensor& tensor) {
    if (!kTensors[i].has_heads) return;
    const int32_t expected = kTensors[i].is_scale() ? 3 : 4;
    if (tensor.ndim == expected) {
      std::swap(tensor.shape[1], tensor.shape[2]);
      std::swap(tensor.stride[1], tensor.stride[2]);
    } else if (!kTensors[i].is_scale()) {
      invalid(std::string(kTensors[i].name) + " has " + std::to_string(tensor.ndim) +
              " dimensions; layout \"bhsd\" expects 4 (packed sequences: layout \"bshd\")");
    }
  }

  void allocate_results(nb::handle q, bool with_lse) {
    const attnrt_tensor& rows = args_.q;
    const attnrt_tensor& values = given_.at(index_of("v")) ? args_.v : args_.k;
    const bool packed = given_.at(index_of("offsets_q"));
    if (rows.ndim != (packed ? 3 : 4)) return;
    if (!given_.at(kOut)) {
      const int64_t columns = values.shape[values.ndim - 1];
      out_ = packed || Torch::table_for(q) == nullptr ? allocate(q, columns, packed)
                                                      : new_empty(q, columns);
      add(kOut, out_);
    }
    if (!with_lse) return;
    const int64_t* const s = rows.shape;
    lse_ = packed ? allocated(q, nb::make_tuple(s[1], s[0]), packed, true)
                  : allocated(q, nb::make_tuple(s[0], s[2], s[1]), packed, true);
    add(kLse, lse_);
  }

  // The shape of out in the caller's layout: q's, with another number of columns.
  nb::tuple out_shape(int64_t columns) const {
    const int64_t* const s = args_.q.shape;
    if (args_.q.ndim == 3) return nb::make_tuple(s[0], s[1], columns);
    return heads_first_ ? nb::make_tuple(s[0], s[2], s[1], columns)
                        : nb::make_tuple(s[0], s[1], s[2], columns);
  }
  nb::object allocate(nb::handle q, int64_t columns, bool packed) const {
    return allocated(q, out_shape(columns), packed, false);
  }
  // q.new_empty(batch, seq, heads, columns): torch reads numbers faster than a tuple of them.
  nb::object new_empty(nb::handle q, int64_t columns) const {
    static PyObject* const name = PyUnicode_InternFromString("new_empty");
    const int64_t* const s = args_.q.shape;
    return q.attr(nb::handle(name))(s[0], s[1], s[2], columns);
  }

  // The stream that the caller names; else, for a tensor of torch on a device, torch's current one.
  uint64_t stream_of(nb::handle stream, nb::handle q) const {
    if (stream.is_none() && (device_.type == ATTNRT_DEVICE_CPU || !Torch::has(q))) return 0;
    const ExchangeApi* const table = stream.is_none() ? Torch::table_for(q) : nullptr;
    if (table == nullptr) return nb::cast<uint64_t>(stream_pointer(stream, q));
    void* current = nullptr;
    if (table->current_stream(device_.type, device_.id, &current) != 0) throw nb::python_error();
    return reinterpret_cast<uintptr_t>(current);
  }

  bool heads_first_;
  attnrt_args args_{};
  std::array<View, kTensorCount> views_;
  std::array<bool, kTensorCount> given_{};
  DeviceId device_{};
  nb::object out_, lse_ = nb::none();
};

// The tensors of one merge. REQUIRES: the caller keeps the Python objects alive.
class Partials {
 public:
  // REQUIRES: outs and lses have the same length, at least 1.
  Partials(const nb::list& outs, const nb::list& lses, nb::handle out, nb::handle lse) {
    for (size_t i = 0; i < outs.size(); ++i) {
      outs_.push_back(view("outs[" + std::to_string(i) + "]", outs[i], false));
      lses_.push_back(view("lses[" + std::to_string(i) + "]", lses[i], false));
    }
    out_ = view("out", out, true);
    if (!lse.is_none()) lse_ = view("lse", lse, true);
  }

  attnrt_status merge(attnrt_runtime* runtime, uint64_t stream, attnrt_error* error) const {
    return attnrt_merge(runtime, device_->type, device_->id, outs_.data(), lses_.data(),
                        static_cast<int32_t>(outs_.size()), &out_, &lse_,
                        reinterpret_cast<void*>(stream), error);
  }

 private:
  attnrt_tensor view(const std::string& name, nb::handle object, bool written) {
    View& view = views_.emplace_back();
    read({name.c_str(), nullptr, written, true, false}, object, view);
    if (!device_) device_ = view.device;
    if (view.device != *device_) {
      invalid(name + " is on " + text_of(view.device) + "; expected " + text_of(*device_) +
              ", as outs[0] is");
    }
    return view.tensor;
  }

  std::vector<attnrt_tensor> outs_, lses_;
  attnrt_tensor out_{}, lse_{};
  std::deque<View> views_;
  std::optional<DeviceId> device_;  // of outs[0]
};

// ---- Problems ----

// A problem parsed from words and, if with_arch is set, the architecture that they name.
struct ParsedProblem {
  attnrt_problem problem = ATTNRT_PROBLEM_INIT;
  std::array<char, 128> arch{};

  ParsedProblem(const std::string& words, bool with_arch) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    const auto status =
        attnrt_problem_parse(words.c_str(), &problem, with_arch ? arch.data() : nullptr,
                             with_arch ? static_cast<int32_t>(arch.size()) : 0, &error);
    if (status != ATTNRT_OK) raise(status, error.message);
  }
};

using Text = std::optional<std::string>;

const char* text_or_null(const Text& text) { return text ? text->c_str() : nullptr; }

attnrt_call call_for(const Text& backend, uint64_t stream = 0) {
  return {static_cast<int32_t>(sizeof(attnrt_call)), 0, text_or_null(backend),
          reinterpret_cast<void*>(stream)};
}

// Returns the text that call(&text, error) gives.
template <class Function>
std::string text_of_call(Function&& call) {
  char* text = nullptr;
  unlocked([&](attnrt_error* error) { return call(&text, error); });
  const std::unique_ptr<char, void (*)(char*)> owner(text, attnrt_text_free);
  return owner.get();
}

// ---- Device memory of a Python library ----

// Two Python functions, allocate(device_type, device_id, bytes, stream) and free(device_type,
// device_id, pointer, stream). allocate returns an address, or None where the backend's own memory
// is to be used. The runtime calls them from any thread, but never holds a lock that a thread with
// the GIL may wait for.
class PythonAllocator {
 public:
  explicit PythonAllocator(const nb::tuple& functions)
      : allocate_(functions[0]), free_(functions[1]) {}

  static attnrt_status allocate(void* self, int32_t device_type, int32_t device_id, int64_t bytes,
                                void* stream, void** pointer, attnrt_error* error) {
    if (!nb::is_alive() || Py_IsInitialized() == 0) return ATTNRT_UNSUPPORTED;
    const nb::gil_scoped_acquire gil;
    try {
      const nb::object address = static_cast<PythonAllocator*>(self)->allocate_(
          device_type, device_id, bytes, reinterpret_cast<uintptr_t>(stream));
      if (address.is_none()) return ATTNRT_UNSUPPORTED;
      *pointer = reinterpret_cast<void*>(nb::cast<uintptr_t>(address));
      return ATTNRT_OK;
    } catch (nb::python_error& raised) {
      const std::string type = nb::type_name(raised.type()).c_str();
      const bool no_memory =
          type.find("OutOfMemory") != std::string::npos || raised.matches(PyExc_MemoryError);
      return attnrt_fail(error, no_memory ? ATTNRT_OUT_OF_MEMORY : ATTNRT_INTERNAL, "%s",
                         raised.what());
    } catch (const std::exception& raised) {
      return attnrt_fail(error, ATTNRT_INTERNAL, "%s", raised.what());
    }
  }

  // At the end of the process the memory goes with it.
  static void free(void* self, int32_t device_type, int32_t device_id, void* pointer,
                   void* stream) {
    if (!nb::is_alive() || Py_IsInitialized() == 0) return;
    const nb::gil_scoped_acquire gil;
    try {
      static_cast<PythonAllocator*>(self)->free_(device_type, device_id,
                                                 reinterpret_cast<uintptr_t>(pointer),
                                                 reinterpret_cast<uintptr_t>(stream));
    } catch (nb::python_error& raised) {
      raised.discard_as_unraisable("attnrt: freeing device memory");
    }
  }

 private:
  nb::object allocate_, free_;
};

// ---- The classes ----

using Handle = std::shared_ptr<attnrt_runtime>;

class Schedule;

class Plan {
 public:
  Plan(Handle runtime, attnrt_plan* plan, DeviceId device)
      : runtime_(std::move(runtime)), plan_(plan), device_(device) {}

  // Returns out. schedule: nullptr if there is none.
  nb::object run(const nb::tuple& objects, nb::handle stream, nb::handle layout,
                 const Schedule* schedule);
  std::unique_ptr<Schedule> schedule();

  const char* backend() const { return attnrt_plan_backend(plan_.get()); }
  const char* version() const { return attnrt_plan_version(plan_.get()); }
  const char* kernel() const { return attnrt_plan_kernel(plan_.get()); }
  int64_t workspace_bytes() const { return attnrt_plan_workspace_bytes(plan_.get()); }
  std::string explain(bool json) const {
    return text_of_call([&](char** text, attnrt_error* error) {
      return attnrt_plan_explain(plan_.get(), json ? ATTNRT_JSON : ATTNRT_TEXT, text, error);
    });
  }

 private:
  struct Destroy {
    void operator()(attnrt_plan* plan) const { attnrt_plan_destroy(plan); }
  };
  // Calls with one run's tensors while no other run or build of the plan is being enqueued.
  template <class Function>
  nb::object call(const nb::tuple& objects, nb::handle stream, nb::handle layout,
                  Function&& function) {
    const Tensors tensors(objects, stream, layout);
    tensors.expect(device_, "the plan's device");
    unlocked([&](attnrt_error* error) {
      const std::lock_guard one_at_a_time(running_);
      return function(tensors.args(), error);
    });
    return tensors.out();
  }

  friend class Schedule;
  Handle runtime_;  // outlives the plan
  std::unique_ptr<attnrt_plan, Destroy> plan_;
  DeviceId device_;
  std::mutex running_;
};

// REQUIRES: the plan outlives it (keep_alive below).
class Schedule {
 public:
  Schedule(Plan& plan, attnrt_schedule* schedule) : plan_(plan), schedule_(schedule) {}

  void build(const nb::tuple& objects, nb::handle stream, nb::handle layout) {
    plan_.call(objects, stream, layout, [this](const attnrt_args* args, attnrt_error* error) {
      return attnrt_schedule_build(schedule_.get(), args, error);
    });
  }
  int64_t bytes() const { return attnrt_schedule_bytes(schedule_.get()); }
  const attnrt_schedule* c() const { return schedule_.get(); }

 private:
  struct Destroy {
    void operator()(attnrt_schedule* schedule) const { attnrt_schedule_destroy(schedule); }
  };
  Plan& plan_;
  std::unique_ptr<attnrt_schedule, Destroy> schedule_;
};

nb::object Plan::run(const nb::tuple& objects, nb::handle stream, nb::handle layout,
                     const Schedule* schedule) {
  return call(objects, stream, layout, [&](const attnrt_args* args, attnrt_error* error) {
    return schedule != nullptr ? attnrt_plan_run_scheduled(plan_.get(), schedule->c(), args, error)
                               : attnrt_plan_run(plan_.get(), args, error);
  });
}

std::unique_ptr<Schedule> Plan::schedule() {
  attnrt_schedule* made = nullptr;
  unlocked([&](attnrt_error* error) { return attnrt_schedule_create(plan_.get(), &made, error); });
  return std::make_unique<Schedule>(*this, made);
}

class Runtime {
 public:
  // allocator: the functions of a PythonAllocator, or None.
  Runtime(const Text& policy_path, const Text& policy_text, const Text& plugin_path,
          int32_t threads, const nb::object& allocator) {
    attnrt_runtime_options options = ATTNRT_RUNTIME_OPTIONS_INIT;
    options.policy_path = text_or_null(policy_path);
    options.policy_text = text_or_null(policy_text);
    options.plugin_path = text_or_null(plugin_path);
    options.thread_count = threads;
    std::shared_ptr<PythonAllocator> memory;
    if (!allocator.is_none()) {
      memory = std::make_shared<PythonAllocator>(nb::cast<nb::tuple>(allocator));
      options.allocate = PythonAllocator::allocate;
      options.free = PythonAllocator::free;
      options.allocator_self = memory.get();
    }
    attnrt_runtime* opened = nullptr;
    unlocked([&](attnrt_error* error) { return attnrt_runtime_open(&options, &opened, error); });
    // The allocator outlives the runtime, and plans hold this handle, too.
    runtime_ = Handle(opened, [memory](attnrt_runtime* runtime) { attnrt_runtime_close(runtime); });
  }

  void reload() {
    unlocked([&](attnrt_error* error) { return attnrt_runtime_reload(runtime_.get(), error); });
  }
  int32_t watch() {
    int32_t descriptor = -1;
    unlocked([&](attnrt_error* error) {
      return attnrt_runtime_watch(runtime_.get(), &descriptor, error);
    });
    return descriptor;
  }
  void handle_events() {
    unlocked(
        [&](attnrt_error* error) { return attnrt_runtime_handle_events(runtime_.get(), error); });
  }
  void retry() {
    unlocked([&](attnrt_error* error) { return attnrt_runtime_retry(runtime_.get(), error); });
  }
  void promote(const std::string& backend) {
    unlocked([&](attnrt_error* error) {
      return attnrt_runtime_promote(runtime_.get(), backend.c_str(), error);
    });
  }
  void roll_back(const std::string& backend) {
    unlocked([&](attnrt_error* error) {
      return attnrt_runtime_roll_back(runtime_.get(), backend.c_str(), error);
    });
  }

  void trim(int64_t bytes) {
    unlocked(
        [&](attnrt_error* error) { return attnrt_runtime_trim(runtime_.get(), bytes, error); });
  }

  // attributes: see attribute_words. Returns out, or out and lse.
  nb::object attention(const nb::tuple& objects, const nb::tuple& attributes, nb::handle backend,
                       nb::handle stream, nb::handle layout, bool return_lse) {
    attnrt_problem problem = ParsedAttributes::problem_of(attributes, [&] {
      return ParsedProblem(nb::cast<std::string>(attribute_words(attributes)), false).problem;
    });
    if (objects.size() == kTensorCount && nb::handle(objects[index_of("v")]).is_none() &&
        problem.v_in_k == 0)
      invalid("v is None; expected a tensor, or v_in_k=True");
    const Tensors tensors(objects, stream, layout, return_lse);
    problem.device_type = tensors.device().type;
    problem.device_id = tensors.device().id;
    const Text name = backend.is_none() ? Text() : nb::cast<Text>(text_or_none("backend", backend));
    const attnrt_call call = call_for(name);
    unlocked([&](attnrt_error* error) {
      return attnrt_attention(runtime_.get(), &problem, tensors.args(), &call, error);
    });
    return return_lse ? nb::make_tuple(tensors.out(), tensors.lse()) : tensors.out();
  }

  void merge(const nb::list& outs, const nb::list& lses, const nb::object& out,
             const nb::object& lse, uint64_t stream) {
    const Partials partials(outs, lses, out, lse);
    unlocked([&](attnrt_error* error) { return partials.merge(runtime_.get(), stream, error); });
  }

  std::unique_ptr<Plan> plan(const std::string& words, int32_t device_id, const Text& backend,
                             uint64_t stream) {
    ParsedProblem parsed(words, false);
    parsed.problem.device_id = device_id;
    const attnrt_call call = call_for(backend, stream);
    attnrt_plan* plan = nullptr;
    unlocked([&](attnrt_error* error) {
      return attnrt_plan_create(runtime_.get(), &parsed.problem, &call, &plan, error);
    });
    return std::make_unique<Plan>(runtime_, plan, DeviceId{parsed.problem.device_type, device_id});
  }

  std::string explain(const std::string& words, const Text& backend, bool json) {
    const ParsedProblem parsed(words, true);
    const attnrt_call call = call_for(backend);
    return text_of_call([&](char** text, attnrt_error* error) {
      return attnrt_explain(runtime_.get(), &parsed.problem, parsed.arch.data(), &call,
                            json ? ATTNRT_JSON : ATTNRT_TEXT, text, error);
    });
  }

  std::string plugins() {
    return text_of_call([&](char** text, attnrt_error* error) {
      return attnrt_plugins(runtime_.get(), ATTNRT_JSON, text, error);
    });
  }

  std::string policy() {
    return text_of_call([&](char** text, attnrt_error* error) {
      return attnrt_policy(runtime_.get(), ATTNRT_JSON, text, error);
    });
  }

  std::string stats() {
    return text_of_call([&](char** text, attnrt_error* error) {
      return attnrt_stats(runtime_.get(), ATTNRT_JSON, text, error);
    });
  }

  std::string decisions(int64_t after) {
    return text_of_call([&](char** text, attnrt_error* error) {
      return attnrt_decisions(runtime_.get(), after, text, error);
    });
  }

 private:
  Handle runtime_;
};

// The file of libattnrt.so that the loader gave to this module.
std::string library() {
  Dl_info found{};
  const auto* inside = reinterpret_cast<const void*>(&attnrt_version);
  return dladdr(inside, &found) != 0 && found.dli_fname != nullptr ? found.dli_fname : "";
}

}  // namespace

NB_MODULE(_attnrt, module) {
  nb::set_leak_warnings(false);  // Python need not free everything at its end
  module.doc() = "attnrt.h as it is; use the package attnrt";
  module.attr("built_for") = ATTNRT_PYTHON_BUILT_FOR;
  module.def("version", &attnrt_version);
  module.def("library", &library);
  module.attr("tensor_names") = tensor_names();
  nb::class_<Plan>(module, "Plan")
      .def("run", &Plan::run, nb::arg("tensors"), nb::arg("stream").none(),
           nb::arg("layout").none(), nb::arg("schedule").none())
      .def("schedule", &Plan::schedule, nb::keep_alive<0, 1>())
      .def_prop_ro("backend", &Plan::backend)
      .def_prop_ro("version", &Plan::version)
      .def_prop_ro("kernel", &Plan::kernel)
      .def_prop_ro("workspace_bytes", &Plan::workspace_bytes)
      .def("explain", &Plan::explain, nb::arg("json"));
  nb::class_<Schedule>(module, "Schedule")
      .def("build", &Schedule::build, nb::arg("tensors"), nb::arg("stream").none(),
           nb::arg("layout").none())
      .def_prop_ro("bytes", &Schedule::bytes);
  nb::class_<Runtime>(module, "Runtime")
      .def(nb::init<const Text&, const Text&, const Text&, int32_t, const nb::object&>(),
           nb::arg("policy_path").none(), nb::arg("policy_text").none(),
           nb::arg("plugin_path").none(), nb::arg("threads"), nb::arg("allocator").none())
      .def("reload", &Runtime::reload)
      .def("watch", &Runtime::watch)
      .def("handle_events", &Runtime::handle_events)
      .def("trim", &Runtime::trim, nb::arg("bytes"))
      .def("retry", &Runtime::retry)
      .def("promote", &Runtime::promote, nb::arg("backend"))
      .def("roll_back", &Runtime::roll_back, nb::arg("backend"))
      .def("attention", &Runtime::attention, nb::arg("tensors"), nb::arg("attributes"),
           nb::arg("backend").none(), nb::arg("stream").none(), nb::arg("layout").none(),
           nb::arg("return_lse"))
      .def("merge", &Runtime::merge, nb::arg("outs"), nb::arg("lses"), nb::arg("out"),
           nb::arg("lse").none(), nb::arg("stream"))
      .def("plan", &Runtime::plan, nb::arg("words"), nb::arg("device_id"),
           nb::arg("backend").none(), nb::arg("stream"))
      .def("explain", &Runtime::explain, nb::arg("words"), nb::arg("backend").none(),
           nb::arg("json"))
      .def("plugins", &Runtime::plugins)
      .def("policy", &Runtime::policy)
      .def("stats", &Runtime::stats)
      .def("decisions", &Runtime::decisions, nb::arg("after"));
}
