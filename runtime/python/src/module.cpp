// runtime/python/src/module.cpp: the extension module attnrt._attnrt, a binding of attnrt.h
//
// Reads tensors of any library through DLPack, allocates results, and raises the exceptions of
// attnrt/errors.py. The package around it documents and checks arguments. This module owns pointers
// and lifetimes, and releases the GIL while the runtime works.
// A call with torch tensors runs no Python code but torch's own, to allocate the result.
#include <attnrt/attnrt.h>
#include <dlfcn.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "allocator.hpp"
#include "attributes.hpp"
#include "errors.hpp"
#include "tensors.hpp"

namespace nb = nanobind;

namespace {

using namespace attnrt_python;

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
