// tests/bench/host_time_bench.cpp: what the host spends in a call for a GPU, which it only enqueues
//
// null/...  hip_flash on a CUDA runtime that does nothing (null_cuda.cpp): attnrt's own time.
// gpu/...   hip_flash on an NVIDIA GPU, if there is one: with the driver's time. Plugins are those
//           of $ATTNRT_PLUGIN_PATH. What is enqueued is waited for after kCallsInFlight calls,
//           outside of the time that counts. Driver_...: what the driver takes for an empty kernel
//           with an argument as large, for a tensor map, and for the event of a one-shot call.
// Goals on the host of an H200: a run of one launch takes at most 4 us, each further launch 2.5 us.
#include <benchmark/benchmark.h>
#include <dlfcn.h>

#include <attnrt/attnrt.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace {

constexpr int kCallsInFlight = 64;

// ---- Memory of the device ----

// The driver's calls that the benchmarks need, opened at run time: no CUDA is needed to build them.
class Driver {
 public:
  // Null if there is no GPU.
  static const Driver* get() {
    static const Driver driver;
    return driver.works_ ? &driver : nullptr;
  }
  void* allocate(size_t bytes) const {
    unsigned long long address = 0;
    if (allocate_(&address, bytes) != 0 || clear_(address, 0, bytes) != 0) std::abort();
    return reinterpret_cast<void*>(address);
  }
  void wait() const { (void)wait_(); }
  // Enqueues a kernel that does nothing, with an argument of 1024 bytes.
  bool launch() const {
    static unsigned char argument[1024];
    void* arguments[] = {argument};
    return launch_(kernel_, 1, 1, 1, 32, 1, 1, 0, nullptr, arguments, nullptr) == 0;
  }
  // Encodes a map of [1, 256, 16, 128] elements of 16 bits.
  bool encode(void* memory) const {
    alignas(64) unsigned char map[128];
    const uint64_t size[] = {128, 256, 16, 1}, stride[] = {4096, 256, 1 << 20};
    const uint32_t box[] = {64, 64, 1, 1}, every[] = {1, 1, 1, 1};
    constexpr int kUint16 = 1, kSwizzle128 = 3, kPromotion256 = 3;  // the driver's numbers
    return encode_(map, kUint16, 4, memory, size, stride, box, every, 0, kSwizzle128, kPromotion256,
                   0) == 0;
  }

  bool record() const { return record_(event_, nullptr) == 0; }
  bool wait_for_event() const { return wait_for_event_(nullptr, event_, 0) == 0; }

 private:
  Driver() {
    library_ = dlopen("libcuda.so.1", RTLD_NOW);
    int (*initialise)(unsigned) = nullptr;
    int (*retain)(void**, int) = nullptr;
    int (*set_current)(void*) = nullptr;
    int (*load)(void**, const char*) = nullptr;
    int (*get_function)(void**, void*, const char*) = nullptr;
    int (*create_event)(void**, unsigned) = nullptr;
    const bool found = find("cuInit", &initialise) && find("cuDevicePrimaryCtxRetain", &retain) &&
                       find("cuCtxSetCurrent", &set_current) && find("cuModuleLoadData", &load) &&
                       find("cuModuleGetFunction", &get_function) &&
                       find("cuMemAlloc_v2", &allocate_) && find("cuMemsetD8_v2", &clear_) &&
                       find("cuCtxSynchronize", &wait_) && find("cuLaunchKernel", &launch_) &&
                       find("cuEventCreate", &create_event) && find("cuEventRecord", &record_) &&
                       find("cuStreamWaitEvent", &wait_for_event_) &&
                       find("cuTensorMapEncodeTiled", &encode_);
    constexpr unsigned kWithoutTime = 2;  // the driver's number
    constexpr char kPtx[] =
        ".version 7.0\n.target sm_80\n.address_size 64\n"
        ".visible .entry empty(.param .align 64 .b8 argument[1024]) { ret; }\n";
    void *context = nullptr, *module = nullptr;
    works_ = found && initialise(0) == 0 && retain(&context, 0) == 0 && set_current(context) == 0 &&
             load(&module, kPtx) == 0 && get_function(&kernel_, module, "empty") == 0 &&
             create_event(&event_, kWithoutTime) == 0;
  }
  template <class Function>
  bool find(const char* name, Function* function) const {
    *function = library_ != nullptr ? reinterpret_cast<Function>(dlsym(library_, name)) : nullptr;
    return *function != nullptr;
  }

  void *library_ = nullptr, *kernel_ = nullptr, *event_ = nullptr;
  int (*record_)(void*, void*) = nullptr;
  int (*wait_for_event_)(void*, void*, unsigned) = nullptr;
  int (*allocate_)(unsigned long long*, size_t) = nullptr;
  int (*clear_)(unsigned long long, unsigned char, size_t) = nullptr;
  int (*wait_)() = nullptr;
  int (*launch_)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                 void**, void**) = nullptr;
  int (*encode_)(void*, int, uint32_t, void*, const uint64_t*, const uint64_t*, const uint32_t*,
                 const uint32_t*, int, int, int, int) = nullptr;
  bool works_ = false;
};

// ---- What is run ----

struct Shape {
  const char* name;
  int64_t batch, heads_q, heads_kv, seq_q, seq_kv;
  bool kv_lengths = false, scheduled = false;
};
constexpr int64_t kDim = 128;
constexpr Shape kShapes[] = {
    {"prefill, 1 launch", 2, 16, 16, 256, 256},
    {"prefill, 2 launches", 2, 16, 16, 2048, 2048},
    {"decode, 2 launches", 1, 32, 8, 1, 4096},
    {"decode of unequal lengths, 3 launches", 16, 32, 8, 1, 256, true},
    {"decode with a schedule, 2 launches", 16, 32, 8, 1, 256, true, true},
};

// The folder of the plugin that has no CUDA, beside this program.
std::string null_plugins() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "null_plugins";
}

// A runtime with hip_flash, tensors on its device, and a plan.
class Host {
 public:
  Host(const Shape& shape, const Driver* driver) : driver_(driver) {
    if (const auto made = make(shape); !made) error_ = made.error().message;
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  ~Host() { wait(); }

  const std::string& error() const { return error_; }
  void wait() const {
    if (driver_ != nullptr) driver_->wait();
  }
  attnrt::Result<void> run() { return schedule_ ? plan_->run(args, *schedule_) : plan_->run(args); }
  attnrt::Result<void> attention() {
    return runtime_->attention({.device = attnrt::Device::cuda}, args, "hip_flash");
  }

  attnrt::Args args;

 private:
  template <class T>
  static ATTNRT_UNEXPECTED<attnrt::Error> unexpected(const attnrt::Result<T>& failed) {
    return ATTNRT_UNEXPECTED<attnrt::Error>(failed.error());
  }
  attnrt::Result<void> make(const Shape& shape) {
    attnrt::Options options;
    options.policy_text = "schema: 1\nbackends: {hip_flash: {priority: 300}}\n";
    if (driver_ == nullptr) options.plugin_path = null_plugins();
    auto opened = attnrt::Runtime::open(options);
    if (!opened) return unexpected(opened);
    runtime_.emplace(std::move(*opened));
    args.q = tensor({shape.batch, shape.seq_q, shape.heads_q, kDim});
    args.k = tensor({shape.batch, shape.seq_kv, shape.heads_kv, kDim});
    args.v = tensor({shape.batch, shape.seq_kv, shape.heads_kv, kDim});
    args.out = tensor({shape.batch, shape.seq_q, shape.heads_q, kDim});
    if (shape.kv_lengths) {
      args.kv_lengths = attnrt::tensor(memory(static_cast<size_t>(shape.batch) * 4),
                                       attnrt::DType::int32, {shape.batch});
    }
    const attnrt::Problem problem{.device = attnrt::Device::cuda,
                                  .dtype = attnrt::DType::f16,
                                  .batch = shape.batch,
                                  .heads_q = shape.heads_q,
                                  .heads_kv = shape.heads_kv,
                                  .seq_q = shape.seq_q,
                                  .seq_kv = shape.seq_kv,
                                  .head_dim = kDim,
                                  .kv_lengths = shape.kv_lengths};
    auto made = runtime_->plan(problem, "hip_flash");
    if (!made) return unexpected(made);
    plan_.emplace(std::move(*made));
    if (!shape.scheduled) return {};
    auto schedule = plan_->schedule();
    if (!schedule) return unexpected(schedule);
    schedule_.emplace(std::move(*schedule));
    return schedule_->build(args);
  }
  attnrt::Tensor tensor(std::initializer_list<int64_t> shape) {
    size_t bytes = 2;
    for (const int64_t size : shape) bytes *= static_cast<size_t>(size);
    return attnrt::tensor(memory(bytes), attnrt::DType::f16, shape);
  }
  // Kept until the process ends.
  void* memory(size_t bytes) const {
    return driver_ != nullptr ? driver_->allocate(bytes)
                              : std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  }

  const Driver* driver_;
  std::string error_;
  std::optional<attnrt::Runtime> runtime_;
  std::optional<attnrt::Plan> plan_;
  std::optional<attnrt::Schedule> schedule_;
};

// Times call(), which returns what is wrong; waits for what is enqueued outside of that time.
template <class Call>
void time_calls(benchmark::State& state, const Driver* driver, Call&& call) {
  int in_flight = 0;
  for (auto _ : state) {
    if (const std::string wrong = call(); !wrong.empty()) return state.SkipWithError(wrong.c_str());
    if (driver == nullptr || ++in_flight < kCallsInFlight) continue;
    state.PauseTiming();
    driver->wait();
    in_flight = 0;
    state.ResumeTiming();
  }
}

template <class Call>
void time_host(benchmark::State& state, const Shape& shape, const Driver* driver, Call&& call) {
  Host host(shape, driver);
  if (!host.error().empty()) return state.SkipWithError(host.error().c_str());
  time_calls(state, driver, [&] {
    const auto done = call(host);
    return done ? std::string() : done.error().message;
  });
}

void register_driver(const Driver* driver) {
  const auto add = [driver](const char* name, auto&& does) {
    benchmark::RegisterBenchmark(name, [driver, does](benchmark::State& state) {
      time_calls(state, driver, [&] { return std::string(does() ? "" : "the driver refuses it"); });
    });
  };
  void* const memory = driver->allocate(size_t{1} << 20);
  add("gpu/Driver_LaunchOfAnEmptyKernel", [driver] { return driver->launch(); });
  add("gpu/Driver_EncodeOfATensorMap", [driver, memory] { return driver->encode(memory); });
  add("gpu/Driver_RecordOfAnEvent", [driver] { return driver->record(); });
  add("gpu/Driver_WaitOfItsOwnStreamForAnEvent", [driver] { return driver->wait_for_event(); });
}

void register_all(const std::string& where, const Driver* driver) {
  for (const Shape& shape : kShapes) {
    const std::string name = where + "/Plan_Run: " + shape.name;
    benchmark::RegisterBenchmark(name.c_str(), [&shape, driver](benchmark::State& state) {
      time_host(state, shape, driver, [](Host& host) { return host.run(); });
    });
  }
  const std::string name = where + "/Attention_OneShot: " + kShapes[0].name;
  benchmark::RegisterBenchmark(name.c_str(), [driver](benchmark::State& state) {
    time_host(state, kShapes[0], driver, [](Host& host) { return host.attention(); });
  });
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  register_all("null", nullptr);
  if (const Driver* driver = Driver::get(); driver != nullptr) {
    register_driver(driver);
    register_all("gpu", driver);
  } else {
    std::puts("No GPU is here whose driver works.");
  }
  benchmark::RunSpecifiedBenchmarks();
}
