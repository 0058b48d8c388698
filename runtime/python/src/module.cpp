// runtime/python/src/module.cpp: attnrt.h into the Python module attnrt._attnrt: tensors by DLPack, statuses as exceptions
//
// The Python side (attnrt/__init__.py) names and documents what is here; this side owns pointers, lifetimes and the GIL.
#include <attnrt/attnrt.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace nb = nanobind;

namespace {

// ---- Errors ----

const char* status_name(attnrt_status status) {
  constexpr std::array names{
      "ok",          "unsupported", "out of memory", "invalid argument", "internal error",
      "device lost", "not found"};
  const auto place = static_cast<size_t>(status);
  return place < names.size() ? names.at(place) : "unknown status";
}

// attnrt.Error or one of its subclasses. REQUIRES: the GIL.
[[noreturn]] void raise(attnrt_status status, const std::string& message) {
  const auto size = static_cast<Py_ssize_t>(message.size());
  const auto text = nb::steal<nb::str>(PyUnicode_DecodeUTF8(message.data(), size, "replace"));
  const nb::object error = nb::module_::import_("attnrt").attr("_error")(status_name(status), text);
  PyErr_SetObject(error.type().ptr(), error.ptr());
  throw nb::python_error();
}

[[noreturn]] void invalid(const std::string& message) { raise(ATTNRT_INVALID_ARGUMENT, message); }

// Calls without the GIL; call(error) gives the status.
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

struct Part {
  const char* name;
  attnrt_tensor attnrt_args::*tensor;
  bool written;
};
constexpr std::array<Part, 12> kParts{{{"q", &attnrt_args::q, false},
                                       {"k", &attnrt_args::k, false},
                                       {"v", &attnrt_args::v, false},
                                       {"out", &attnrt_args::out, true},
                                       {"lse", &attnrt_args::lse, true},
                                       {"mask", &attnrt_args::mask, false},
                                       {"alibi_slopes", &attnrt_args::alibi_slopes, false},
                                       {"sinks", &attnrt_args::sinks, false},
                                       {"kv_lengths", &attnrt_args::kv_lengths, false},
                                       {"offsets_q", &attnrt_args::offsets_q, false},
                                       {"offsets_kv", &attnrt_args::offsets_kv, false},
                                       {"page_table", &attnrt_args::page_table, false}}};

struct Place {
  int32_t type, id;
  bool operator==(const Place&) const = default;
};

std::string text_of(Place place) {
  switch (place.type) {
    case ATTNRT_DEVICE_CPU: return "cpu";
    case ATTNRT_DEVICE_CUDA: return "cuda:" + std::to_string(place.id);
    case ATTNRT_DEVICE_ROCM: return "rocm:" + std::to_string(place.id);
    default: return "device type " + std::to_string(place.type) + " of DLPack";
  }
}

Place place_of(const Array& array) {
  constexpr int cuda_host = 3, rocm_host = 11, cuda_managed = 13;  // DLPack's numbers
  switch (array.device_type()) {
    case ATTNRT_DEVICE_CPU:
    case cuda_host:
    case rocm_host: return {ATTNRT_DEVICE_CPU, 0};
    case cuda_managed: return {ATTNRT_DEVICE_CUDA, array.device_id()};
    default: return {array.device_type(), array.device_id()};
  }
}

bool import(nb::handle object, bool written, Array& array) {
  if (!written) return nb::try_cast(object, array);
  nb::ndarray<> writable;
  if (!nb::try_cast(object, writable)) return false;
  array = Array(writable);
  return true;
}

// What a library has but does not hand out, as its bits: numpy no bfloat16 (ml_dtypes'), older torch no bool.
nb::object bits_of(nb::handle object, attnrt_dtype& dtype) {
  if (!nb::hasattr(object, "view") || !nb::hasattr(object, "dtype")) return {};
  const nb::object given = object.attr("dtype");
  const std::string name = nb::str(nb::handle(given)).c_str();
  if (name == "bfloat16") {
    dtype = {ATTNRT_DTYPE_BFLOAT, 16, 1};
    return object.attr("view")("uint16");
  }
  if (name == "torch.bool") {
    dtype = {ATTNRT_DTYPE_BOOL, 8, 1};
    return object.attr("view")(nb::module_::import_("torch").attr("uint8"));
  }
  return {};
}

[[noreturn]] void refuse(const Part& part, nb::handle object) {
  Array readable;
  const std::string type = nb::type_name(object.type()).c_str();
  if (!nb::hasattr(object, "__dlpack__")) {
    invalid(std::string(part.name) + " is a " + type +
            "; expected a tensor with __dlpack__ (numpy, torch, ...)");
  }
  if (part.written && import(object, false, readable)) {
    invalid(std::string(part.name) + " is read-only; expected a tensor that can be written to");
  }
  std::string reason = "no memory to share";
  try {
    (void)object.attr("__dlpack__")();
  } catch (nb::python_error& error) {
    reason = nb::str(error.value()).c_str();
  }
  invalid(std::string(part.name) + " is a " + type +
          " that gives no view of its memory: " + reason);
}

// What one call was given: the views, and the Python objects behind them for as long as the call lasts.
class Tensors {
 public:
  Tensors(const nb::args& objects, uint64_t stream) {
    if (objects.size() != kParts.size()) invalid("expected 12 tensors or None");
    args_.struct_size = sizeof args_;
    args_.stream = reinterpret_cast<void*>(stream);
    for (size_t i = 0; i < kParts.size(); ++i) {
      const nb::handle object = objects[i];
      if (object.is_none() && i < 3)
        invalid(std::string(kParts.at(i).name) + " is None; expected a tensor");
      if (!object.is_none()) args_.*kParts.at(i).tensor = view(kParts.at(i), object, arrays_.at(i));
    }
    place_ = place_of(arrays_.front());
    expect(place_, "as q is");
  }

  void expect(Place place, const char* why) const {
    for (size_t i = 0; i < kParts.size(); ++i) {
      if (!arrays_.at(i).is_valid() || place_of(arrays_.at(i)) == place) continue;
      invalid(std::string(kParts.at(i).name) + " is on " + text_of(place_of(arrays_.at(i))) +
              "; expected " + text_of(place) + ", " + why);
    }
  }

  const attnrt_args* args() const { return &args_; }
  Place place() const { return place_; }

 private:
  static attnrt_tensor view(const Part& part, nb::handle object, Array& array) {
    attnrt_tensor tensor{};
    const bool plain = import(object, part.written, array);
    if (!plain) {
      const nb::object bits = bits_of(object, tensor.dtype);
      if (!bits.is_valid() || !import(bits, part.written, array)) refuse(part, object);
    }
    if (array.ndim() < 1 || array.ndim() > 4) {
      invalid(std::string(part.name) + " has " + std::to_string(array.ndim()) +
              " dimensions; expected 1 to 4");
    }
    const nb::dlpack::dtype dtype = array.dtype();
    if (plain) tensor.dtype = {dtype.code, dtype.bits, dtype.lanes};
    tensor.ndim = static_cast<int32_t>(array.ndim());
    for (size_t i = 0; i < array.ndim(); ++i) {
      tensor.shape[i] = static_cast<int64_t>(array.shape(i));
      tensor.stride[i] = array.stride(i);
    }
    tensor.data = const_cast<void*>(static_cast<const void*>(array.data()));
    if (array.size() == 0) give_an_address(tensor);
    return tensor;
  }

  // A tensor without elements is given all the same, and then its address and strides mean nothing: any dense ones.
  static void give_an_address(attnrt_tensor& tensor) {
    alignas(64) static char nothing[64];
    tensor.data = nothing;
    int64_t stride = 1;
    for (int32_t i = tensor.ndim - 1; i >= 0; --i) {
      tensor.stride[i] = stride;
      stride *= std::max<int64_t>(tensor.shape[i], 1);
    }
  }

  attnrt_args args_{};
  std::array<Array, kParts.size()> arrays_;
  Place place_{};
};

// ---- Problems ----

struct Question {
  attnrt_problem problem = ATTNRT_PROBLEM_INIT;
  std::array<char, 128> arch{};

  Question(const std::string& words, bool with_arch) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    const auto status =
        attnrt_problem_parse(words.c_str(), &problem, with_arch ? arch.data() : nullptr,
                             with_arch ? static_cast<int32_t>(arch.size()) : 0, &error);
    if (status != ATTNRT_OK) raise(status, error.message);
  }
};

using Text = std::optional<std::string>;

const char* text_or_null(const Text& text) { return text ? text->c_str() : nullptr; }

attnrt_call call_for(const Text& backend) {
  return {static_cast<int32_t>(sizeof(attnrt_call)), 0, text_or_null(backend)};
}

// ---- The two classes ----

using Handle = std::shared_ptr<attnrt_runtime>;

class Plan {
 public:
  Plan(Handle runtime, attnrt_plan* plan, Place place)
      : runtime_(std::move(runtime)), plan_(plan), place_(place) {}

  void run(uint64_t stream, const nb::args& objects) {
    const Tensors tensors(objects, stream);
    tensors.expect(place_, "where the plan is for");
    unlocked([&](attnrt_error* error) {
      const std::lock_guard one_at_a_time(running_);
      return attnrt_plan_run(plan_.get(), tensors.args(), error);
    });
  }

  const char* backend() const { return attnrt_plan_backend(plan_.get()); }
  const char* version() const { return attnrt_plan_version(plan_.get()); }
  const char* kernel() const { return attnrt_plan_kernel(plan_.get()); }
  int64_t workspace_bytes() const { return attnrt_plan_workspace_bytes(plan_.get()); }

 private:
  struct Destroy {
    void operator()(attnrt_plan* plan) const { attnrt_plan_destroy(plan); }
  };
  Handle runtime_;  // outlives the plan
  std::unique_ptr<attnrt_plan, Destroy> plan_;
  Place place_;
  std::mutex running_;
};

class Runtime {
 public:
  Runtime(const Text& policy_path, const Text& policy_text, const Text& plugin_path,
          int32_t threads) {
    attnrt_runtime_options options = ATTNRT_RUNTIME_OPTIONS_INIT;
    options.policy_path = text_or_null(policy_path);
    options.policy_text = text_or_null(policy_text);
    options.plugin_path = text_or_null(plugin_path);
    options.thread_count = threads;
    attnrt_runtime* opened = nullptr;
    unlocked([&](attnrt_error* error) { return attnrt_runtime_open(&options, &opened, error); });
    runtime_ = Handle(opened, attnrt_runtime_close);
  }

  void reload() {
    unlocked([&](attnrt_error* error) { return attnrt_runtime_reload(runtime_.get(), error); });
  }

  void attention(const std::string& words, const Text& backend, uint64_t stream,
                 const nb::args& objects) {
    const Tensors tensors(objects, stream);
    Question question(words, false);
    question.problem.device_type = tensors.place().type;
    question.problem.device_id = tensors.place().id;
    const attnrt_call call = call_for(backend);
    unlocked([&](attnrt_error* error) {
      return attnrt_attention(runtime_.get(), &question.problem, tensors.args(), &call, error);
    });
  }

  std::unique_ptr<Plan> plan(const std::string& words, int32_t device_id, const Text& backend) {
    Question question(words, false);
    question.problem.device_id = device_id;
    const attnrt_call call = call_for(backend);
    attnrt_plan* plan = nullptr;
    unlocked([&](attnrt_error* error) {
      return attnrt_plan_create(runtime_.get(), &question.problem, &call, &plan, error);
    });
    return std::make_unique<Plan>(runtime_, plan, Place{question.problem.device_type, device_id});
  }

  std::string explain(const std::string& words, const Text& backend, bool json) {
    const Question question(words, true);
    const attnrt_call call = call_for(backend);
    return text([&](char** text, attnrt_error* error) {
      return attnrt_explain(runtime_.get(), &question.problem, question.arch.data(), &call,
                            json ? ATTNRT_JSON : ATTNRT_TEXT, text, error);
    });
  }

  std::string plugins() {
    return text([&](char** text, attnrt_error* error) {
      return attnrt_plugins(runtime_.get(), ATTNRT_JSON, text, error);
    });
  }

  std::string policy() {
    return text([&](char** text, attnrt_error* error) {
      return attnrt_policy(runtime_.get(), ATTNRT_JSON, text, error);
    });
  }

 private:
  template <class Function>
  static std::string text(Function&& call) {
    char* text = nullptr;
    unlocked([&](attnrt_error* error) { return call(&text, error); });
    const std::unique_ptr<char, void (*)(char*)> owner(text, attnrt_text_free);
    return owner.get();
  }

  Handle runtime_;
};

}  // namespace

NB_MODULE(_attnrt, module) {
  module.doc() = "attnrt.h as it is; use the package attnrt";
  module.def("version", &attnrt_version);
  nb::class_<Plan>(module, "Plan")
      .def("run", &Plan::run, nb::arg("stream"), nb::arg("tensors"))
      .def_prop_ro("backend", &Plan::backend)
      .def_prop_ro("version", &Plan::version)
      .def_prop_ro("kernel", &Plan::kernel)
      .def_prop_ro("workspace_bytes", &Plan::workspace_bytes);
  nb::class_<Runtime>(module, "Runtime")
      .def(nb::init<const Text&, const Text&, const Text&, int32_t>(),
           nb::arg("policy_path").none(), nb::arg("policy_text").none(),
           nb::arg("plugin_path").none(), nb::arg("threads"))
      .def("reload", &Runtime::reload)
      .def("attention", &Runtime::attention, nb::arg("words"), nb::arg("backend").none(),
           nb::arg("stream"), nb::arg("tensors"))
      .def("plan", &Runtime::plan, nb::arg("words"), nb::arg("device_id"),
           nb::arg("backend").none())
      .def("explain", &Runtime::explain, nb::arg("words"), nb::arg("backend").none(),
           nb::arg("json"))
      .def("plugins", &Runtime::plugins)
      .def("policy", &Runtime::policy);
}
