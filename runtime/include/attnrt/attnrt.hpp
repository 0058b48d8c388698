// attnrt/attnrt.hpp: the C++20 API of the attention runtime: plain structs, owners, results
//
//   auto runtime = attnrt::Runtime::open().value();
//   attnrt::Args args{.q = attnrt::tensor(q, {1, 128, 8, 64}), ...};
//   if (auto done = runtime.attention({.causal = true}, args); !done)
//     std::puts(done.error().message.c_str());
//
// Header only, on top of attnrt.h: link libattnrt. No call reports a failure by throwing: each that
// can fail returns a Result.
// ERRORS and THREADS are those of attnrt.h. OWNERSHIP: a Runtime, a Plan and a Schedule close
// themselves; tensors and their memory always stay yours.
#pragma once

#include <attnrt/attnrt.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <utility>

#if defined(__has_include) && __has_include(<version>)
#include <version>
#endif
#if defined(__cpp_lib_expected) && __cpp_lib_expected >= 202202L
#include <expected>
#define ATTNRT_EXPECTED ::std::expected
#define ATTNRT_UNEXPECTED ::std::unexpected
#define ATTNRT_EXPECTED_NAMESPACE with_std_expected
#else
#include <tl/expected.hpp>
#define ATTNRT_EXPECTED ::tl::expected
#define ATTNRT_UNEXPECTED ::tl::unexpected
#define ATTNRT_EXPECTED_NAMESPACE with_tl_expected
#endif

namespace attnrt {
// One program may link object files that were built with std::expected and without it. Different
// namespaces keep their symbols apart.
inline namespace ATTNRT_EXPECTED_NAMESPACE {

// Why a call failed.
struct Error {
  attnrt_status code = ATTNRT_OK;
  std::string message;  // one line: where, what was found, what was expected
};

template <class T>
using Result = ATTNRT_EXPECTED<T, Error>;

// off: kv_dtype or out_dtype that is the problem's dtype.
enum class DType { f32, f16, bf16, boolean, int32, i8, f8_e4m3fn, f8_e4m3fnuz, off };
enum class Device : int32_t {
  cpu = ATTNRT_DEVICE_CPU,
  cuda = ATTNRT_DEVICE_CUDA,
  rocm = ATTNRT_DEVICE_ROCM
};
enum class Mask : int32_t {
  none = ATTNRT_MASK_NONE,
  boolean = ATTNRT_MASK_BOOLEAN,
  additive = ATTNRT_MASK_ADDITIVE
};
enum class Align : int32_t {
  bottom_right = ATTNRT_ALIGN_BOTTOM_RIGHT,
  top_left = ATTNRT_ALIGN_TOP_LEFT
};
enum class KvScale : int32_t {
  none = ATTNRT_KV_SCALE_NONE,
  tensor = ATTNRT_KV_SCALE_TENSOR,
  head = ATTNRT_KV_SCALE_HEAD,
  token = ATTNRT_KV_SCALE_TOKEN
};
enum class Format : int32_t { text = ATTNRT_TEXT, json = ATTNRT_JSON };

constexpr attnrt_dtype dtype_of(DType dtype) {
  switch (dtype) {
    case DType::f16: return {ATTNRT_DTYPE_FLOAT, 16, 1};
    case DType::bf16: return {ATTNRT_DTYPE_BFLOAT, 16, 1};
    case DType::boolean: return {ATTNRT_DTYPE_BOOL, 8, 1};
    case DType::int32: return {ATTNRT_DTYPE_INT, 32, 1};
    case DType::i8: return {ATTNRT_DTYPE_INT, 8, 1};
    case DType::f8_e4m3fn: return {ATTNRT_DTYPE_FLOAT8_E4M3FN, 8, 1};
    case DType::f8_e4m3fnuz: return {ATTNRT_DTYPE_FLOAT8_E4M3FNUZ, 8, 1};
    case DType::off: return {0, 0, 0};
    case DType::f32: break;
  }
  return {ATTNRT_DTYPE_FLOAT, 32, 1};
}

using Tensor = attnrt_tensor;

// Returns a view of dense memory of this shape (1 to 4 dimensions); the last dimension varies
// fastest. A shape of more dimensions keeps their number in ndim, so that the call which gets the
// view refuses it.
inline Tensor tensor(const void* data, DType dtype, std::initializer_list<int64_t> shape) {
  Tensor view{};
  view.data = const_cast<void*>(data);  // inputs are never written to
  view.dtype = dtype_of(dtype);
  view.ndim = static_cast<int32_t>(shape.size());
  if (view.ndim > 4) return view;
  std::copy(shape.begin(), shape.end(), view.shape);
  int64_t stride = 1;
  for (int32_t i = view.ndim - 1; i >= 0; --i) {
    view.stride[i] = stride;
    stride *= view.shape[i];
  }
  return view;
}
inline Tensor tensor(const float* data, std::initializer_list<int64_t> shape) {
  return tensor(data, DType::f32, shape);
}
inline Tensor tensor(const int32_t* data, std::initializer_list<int64_t> shape) {
  return tensor(data, DType::int32, shape);
}

// What is to be computed: the fields of attnrt_problem under the same names. The defaults are those
// of ATTNRT_PROBLEM_INIT, except that head_dim is 1.
struct Problem {
  Device device = Device::cpu;
  int32_t device_id = 0;
  DType dtype = DType::f32;
  int64_t batch = 1, heads_q = 1, heads_kv = 1, seq_q = 1, seq_kv = 1, head_dim = 1;
  int64_t head_dim_v = 0;  // 0: head_dim
  float scale = 0;         // 0: 1 / sqrt(head_dim)
  Mask mask = Mask::none;
  DType mask_dtype = DType::boolean;
  bool causal = false;
  Align align = Align::bottom_right;
  int64_t window_left = -1, window_right = -1;  // -1: unbounded
  float softcap = 0;                            // 0: none
  bool alibi = false, sinks = false, kv_lengths = false, varlen = false;
  int32_t page_size = 0;
  bool lse = false;
  int32_t alignment_bytes = 16;
  bool deterministic = false;
  DType kv_dtype = DType::off;
  KvScale kv_scale = KvScale::none;
  bool v_in_k = false;
  DType out_dtype = DType::off;
  bool diagonal_offset = false;
  bool batch_invariant = false;

  attnrt_problem c() const {
    attnrt_problem p = ATTNRT_PROBLEM_INIT;
    p.device_type = static_cast<int32_t>(device);
    p.device_id = device_id;
    p.dtype = dtype_of(dtype);
    p.batch = batch;
    p.heads_q = heads_q;
    p.heads_kv = heads_kv;
    p.seq_q = seq_q;
    p.seq_kv = seq_kv;
    p.head_dim = head_dim;
    p.head_dim_v = head_dim_v != 0 ? head_dim_v : head_dim;
    p.scale = scale;
    p.mask = static_cast<int32_t>(mask);
    p.mask_dtype = dtype_of(mask_dtype);
    p.causal = causal ? 1 : 0;
    p.align = static_cast<int32_t>(align);
    p.softcap = softcap;
    p.window_left = window_left;
    p.window_right = window_right;
    p.alibi = alibi ? 1 : 0;
    p.sinks = sinks ? 1 : 0;
    p.kv_lengths = kv_lengths ? 1 : 0;
    p.varlen = varlen ? 1 : 0;
    p.page_size = page_size;
    p.lse = lse ? 1 : 0;
    p.alignment_bytes = alignment_bytes;
    p.deterministic = deterministic ? 1 : 0;
    p.kv_dtype = dtype_of(kv_dtype);
    p.kv_scale = static_cast<int32_t>(kv_scale);
    p.v_in_k = v_in_k ? 1 : 0;
    p.out_dtype = dtype_of(out_dtype);
    p.diagonal_offset = diagonal_offset ? 1 : 0;
    p.batch_invariant = batch_invariant ? 1 : 0;
    return p;
  }
};

// One run's tensors: the fields of attnrt_args under the same names. Leave a tensor that the
// problem does not use as it is. out and lse overlap no other tensor.
struct Args {
#define ATTNRT_MEMBER(name) Tensor name{};
  ATTNRT_TENSORS(ATTNRT_MEMBER)  // Tensor q, k, v, out, mask, lse, ...: in plugin.h's order
#undef ATTNRT_MEMBER
  void* workspace = nullptr;  // nullptr: the plan's own
  int64_t workspace_bytes = 0;
  void* stream = nullptr;  // of the tensors' device; nullptr: its default stream

  attnrt_args c() const {
    attnrt_args args{};
    args.struct_size = static_cast<int32_t>(sizeof args);
#define ATTNRT_COPY(name) args.name = name;
    ATTNRT_TENSORS(ATTNRT_COPY)
#undef ATTNRT_COPY
    args.workspace = workspace;
    args.workspace_bytes = workspace_bytes;
    args.stream = stream;
    return args;
  }
};

// What a runtime is opened with: the fields of attnrt_runtime_options under the same names.
struct Options {
  std::string policy_path, policy_text, plugin_path;  // "": not given
  int32_t thread_count = 0;
  void (*log)(void* self, int32_t severity, const char* text) = nullptr;
  void* log_self = nullptr;
  attnrt_parallel_for parallel_for = nullptr;
  void* parallel_self = nullptr;
  attnrt_device_allocate allocate = nullptr;
  attnrt_device_free free = nullptr;
  void* allocator_self = nullptr;
};

namespace detail {
inline ATTNRT_UNEXPECTED<Error> unexpected(const attnrt_error& error) {
  return ATTNRT_UNEXPECTED<Error>(Error{error.code, error.message});
}
inline attnrt_call call(const std::string& backend, void* stream = nullptr) {
  return {static_cast<int32_t>(sizeof(attnrt_call)), 0, backend.empty() ? nullptr : backend.c_str(),
          stream};
}
inline std::string take(char* text) {
  const std::unique_ptr<char, void (*)(char*)> owner(text, attnrt_text_free);
  return owner.get();
}
}  // namespace detail

// How runs divide their work, built once for the runs of all layers; see attnrt.h.
// THREADS: one build at a time, and no run with it meanwhile. REQUIRES: its plan outlives it.
class Schedule {
 public:
  // Builds it for runs on tensors of these sizes and lengths; enqueues on args.stream.
  Result<void> build(const Args& args) {
    const attnrt_args c = args.c();
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_schedule_build(schedule_.get(), &c, &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return {};
  }
  int64_t bytes() const { return attnrt_schedule_bytes(schedule_.get()); }  // 0: it does nothing

 private:
  friend class Plan;
  explicit Schedule(attnrt_schedule* schedule) : schedule_(schedule, attnrt_schedule_destroy) {}
  std::unique_ptr<attnrt_schedule, void (*)(attnrt_schedule*)> schedule_;
};

// Prepared work for one problem. THREADS: one run at a time. REQUIRES: it outlives its schedules.
class Plan {
 public:
  // Checks args against the problem, then runs; for device tensors, enqueues on args.stream.
  Result<void> run(const Args& args) {
    const attnrt_args c = args.c();
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_plan_run(plan_.get(), &c, &error) != ATTNRT_OK) return detail::unexpected(error);
    return {};
  }
  // Runs with a schedule of this plan, or of another plan of an equal problem.
  Result<void> run(const Args& args, const Schedule& schedule) {
    const attnrt_args c = args.c();
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_plan_run_scheduled(plan_.get(), schedule.schedule_.get(), &c, &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return {};
  }
  // Allocates a schedule for runs of this plan, and of all others of an equal problem.
  Result<Schedule> schedule() {
    attnrt_schedule* schedule = nullptr;
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_schedule_create(plan_.get(), &schedule, &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return Schedule(schedule);
  }
  const char* backend() const { return attnrt_plan_backend(plan_.get()); }
  const char* version() const { return attnrt_plan_version(plan_.get()); }
  const char* kernel() const { return attnrt_plan_kernel(plan_.get()); }
  int64_t workspace_bytes() const { return attnrt_plan_workspace_bytes(plan_.get()); }

  // Gives the decision that the plan was made by.
  Result<std::string> explain(Format format = Format::text) const {
    char* text = nullptr;
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_plan_explain(plan_.get(), static_cast<int32_t>(format), &text, &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return detail::take(text);
  }

 private:
  friend class Runtime;
  explicit Plan(attnrt_plan* plan) : plan_(plan, attnrt_plan_destroy) {}
  std::unique_ptr<attnrt_plan, void (*)(attnrt_plan*)> plan_;
};

// A policy and the plugins that it finds. THREADS: any call from any threads at once.
// REQUIRES: it outlives its plans.
class Runtime {
 public:
  static Result<Runtime> open(const Options& options = {}) {
    attnrt_runtime_options c = ATTNRT_RUNTIME_OPTIONS_INIT;
    c.thread_count = options.thread_count;
    c.policy_path = options.policy_path.empty() ? nullptr : options.policy_path.c_str();
    c.policy_text = options.policy_text.empty() ? nullptr : options.policy_text.c_str();
    c.plugin_path = options.plugin_path.empty() ? nullptr : options.plugin_path.c_str();
    c.log = options.log;
    c.log_self = options.log_self;
    c.parallel_for = options.parallel_for;
    c.parallel_self = options.parallel_self;
    c.allocate = options.allocate;
    c.free = options.free;
    c.allocator_self = options.allocator_self;
    attnrt_runtime* runtime = nullptr;
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_runtime_open(&c, &runtime, &error) != ATTNRT_OK) return detail::unexpected(error);
    return Runtime(runtime);
  }

  // Reads the policy and the plugin directories again.
  Result<void> reload() {
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_runtime_reload(runtime_.get(), &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return {};
  }

  // Returns a descriptor for the application's loop: when it is readable, call handle_events. The
  // runtime closes it.
  Result<int> watch() {
    int32_t descriptor = -1;
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_runtime_watch(runtime_.get(), &descriptor, &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return descriptor;
  }

  // Reloads if watched files have changed and it has been quiet for a while.
  Result<void> handle_events() {
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_runtime_handle_events(runtime_.get(), &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return {};
  }

  // Gives back what idle plans of one-shot calls hold, until the others hold at most so many bytes.
  Result<void> trim(int64_t bytes = 0) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_runtime_trim(runtime_.get(), bytes, &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return {};
  }

  // Looks again for devices that were missing or lost.
  Result<void> retry() {
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_runtime_retry(runtime_.get(), &error) != ATTNRT_OK) return detail::unexpected(error);
    return {};
  }

  // Ends the rollout of a backend's new versions: after promote they are ranked as if there were no
  // rollout; after roll_back they serve nothing new. NOT_FOUND if no version of it has a rollout.
  Result<void> promote(const std::string& backend) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_runtime_promote(runtime_.get(), backend.c_str(), &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return {};
  }
  Result<void> roll_back(const std::string& backend) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_runtime_roll_back(runtime_.get(), backend.c_str(), &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return {};
  }

  // Selects a backend and prepares the work. backend: this one or an error; "": the policy decides.
  // stream: its workspace may be used there, and on streams that wait for it; nullptr: anywhere.
  Result<Plan> plan(const Problem& problem, const std::string& backend = {},
                    void* stream = nullptr) {
    const attnrt_problem c = problem.c();
    const attnrt_call call = detail::call(backend, stream);
    attnrt_plan* plan = nullptr;
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_plan_create(runtime_.get(), &c, &call, &plan, &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return Plan(plan);
  }

  // Infers the problem, plans and runs in one call. problem gives what tensors cannot say
  // (causal, scale, ...).
  Result<void> attention(const Problem& problem, const Args& args,
                         const std::string& backend = {}) {
    const attnrt_problem c = problem.c();
    const attnrt_args a = args.c();
    const attnrt_call call = detail::call(backend);
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_attention(runtime_.get(), &c, &a, &call, &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return {};
  }

  // Merges the results of several runs, each over a part of the keys; see attnrt_merge. lse:
  // leave it out if it is not wanted. device, device_id: where all tensors are.
  Result<void> merge(std::span<const Tensor> outs, std::span<const Tensor> lses, const Tensor& out,
                     const Tensor& lse = {}, Device device = Device::cpu, int32_t device_id = 0,
                     void* stream = nullptr) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (outs.size() != lses.size()) {
      (void)attnrt_fail(&error, ATTNRT_INVALID_ARGUMENT,
                        "merge: found %zu outs and %zu lses; expected as many of each", outs.size(),
                        lses.size());
      return detail::unexpected(error);
    }
    const auto count = static_cast<int32_t>(outs.size());
    const auto type = static_cast<int32_t>(device);
    if (attnrt_merge(runtime_.get(), type, device_id, outs.data(), lses.data(), count, &out, &lse,
                     stream, &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return {};
  }

  // Gives the decision for a problem, with the reasons of each candidate. arch: decide as if a
  // device of this architecture were here.
  Result<std::string> explain(const Problem& problem, const std::string& arch = {},
                              const std::string& backend = {}, Format format = Format::text) {
    const attnrt_problem c = problem.c();
    const attnrt_call call = detail::call(backend);
    char* text = nullptr;
    attnrt_error error = ATTNRT_ERROR_INIT;
    const auto status = attnrt_explain(runtime_.get(), &c, arch.c_str(), &call,
                                       static_cast<int32_t>(format), &text, &error);
    if (status != ATTNRT_OK) return detail::unexpected(error);
    return detail::take(text);
  }

  // Lists each plugin file that was found.
  Result<std::string> plugins(Format format = Format::text) { return text(attnrt_plugins, format); }
  // Lists the effective policy, and where each value comes from.
  Result<std::string> policy(Format format = Format::text) { return text(attnrt_policy, format); }

  // Gives what was counted since the runtime was opened.
  Result<std::string> stats(Format format = Format::text) { return text(attnrt_stats, format); }
  // Gives the last decisions that were made, after number `after`, as lines of JSON.
  Result<std::string> decisions(int64_t after = 0) {
    char* lines = nullptr;
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_decisions(runtime_.get(), after, &lines, &error) != ATTNRT_OK)
      return detail::unexpected(error);
    return detail::take(lines);
  }

  // The C handle, which this object keeps owning.
  attnrt_runtime* c() const { return runtime_.get(); }

 private:
  explicit Runtime(attnrt_runtime* runtime) : runtime_(runtime, attnrt_runtime_close) {}

  template <class Function>
  Result<std::string> text(Function function, Format format) {
    char* text = nullptr;
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (function(runtime_.get(), static_cast<int32_t>(format), &text, &error) != ATTNRT_OK) {
      return detail::unexpected(error);
    }
    return detail::take(text);
  }

  std::unique_ptr<attnrt_runtime, void (*)(attnrt_runtime*)> runtime_;
};

}  // namespace ATTNRT_EXPECTED_NAMESPACE
}  // namespace attnrt
