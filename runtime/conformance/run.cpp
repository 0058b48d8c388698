// runtime/conformance/run.cpp: runs one case on the plugin, and checks what it did to memory
#include "conformance/run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "problem/tensors.hpp"

namespace attnrt::conformance {
namespace {

constexpr int64_t kWorkspaceGuard = 4096;    // bytes
constexpr int64_t kLargestAlignment = 4096;  // bytes; the most that plan may ask for
constexpr int64_t kDefaultAlignment = 64;    // bytes; used if plan asks for none (attnrt/plugin.h)
constexpr int64_t kScheduleAlignment = 256;  // bytes (attnrt/plugin.h)
constexpr std::byte kGuardByte{0xC3};

// Returns the struct's bytes and `growth` zeros after them, with a struct_size that includes both:
// what a newer host would pass.
template <class Struct>
std::vector<std::byte> grown(const Struct& value, int32_t growth) {
  std::vector<std::byte> bytes(sizeof value + static_cast<size_t>(growth));
  std::memcpy(bytes.data(), &value, sizeof value);
  const auto size = static_cast<int32_t>(bytes.size());
  std::memcpy(bytes.data(), &size, sizeof size);
  return bytes;
}

std::string failure(const char* call, attnrt_status status, const attnrt_error& error) {
  return fmt::format("{}: {}: {}", call, core::status_name(status), error.message);
}

// Returns what is wrong with the workspace that plan asks for, or "".
std::string check_info(const attnrt_plan_info& info) {
  const int64_t alignment = info.workspace_alignment;
  if (info.workspace_bytes < 0)
    return fmt::format("plan asks for a workspace of {} bytes", info.workspace_bytes);
  if (alignment < 0 || (alignment & (alignment - 1)) != 0 || alignment > kLargestAlignment) {
    return fmt::format("plan asks for alignment {}, expected 0 or a power of two up to {}",
                       alignment, kLargestAlignment);
  }
  if (info.capturable != 0 && info.capturable != 1)
    return fmt::format("plan says capturable {}, expected 0 or 1", info.capturable);
  if (info.held_bytes < 0) return fmt::format("plan says that it holds {} bytes", info.held_bytes);
  return {};
}

// A workspace or schedule as the plugin asked for it, between guards.
class Scratch {
 public:
  // name: as messages call it.
  Scratch(Subject& subject, const char* name, int64_t bytes, int64_t alignment, std::byte fill,
          void* stream)
      : name_(name),
        bytes_(bytes),
        image_(static_cast<size_t>(bytes + 2 * kWorkspaceGuard), fill),
        memory_(subject, static_cast<int64_t>(image_.size()), alignment, kWorkspaceGuard, stream),
        stream_(stream) {
    std::fill_n(image_.begin(), kWorkspaceGuard, kGuardByte);
    std::fill_n(image_.end() - kWorkspaceGuard, kWorkspaceGuard, kGuardByte);
    error_ = memory_.write(image_.data(), stream);
  }
  void* data() const { return bytes_ > 0 ? memory_.content() : nullptr; }
  int64_t bytes() const { return bytes_; }
  const std::string& error() const { return error_; }

  // Returns where a guard was written, or "".
  std::string check_guards() {
    if (std::string error = memory_.read(image_.data(), stream_); !error.empty()) return error;
    const int64_t end = static_cast<int64_t>(image_.size()) - kWorkspaceGuard;
    for (int64_t n = 0; n < kWorkspaceGuard; ++n) {
      if (image_[static_cast<size_t>(n)] != kGuardByte)
        return fmt::format("the {} was written {} bytes before its start", name_,
                           kWorkspaceGuard - n);
      if (image_[static_cast<size_t>(end + n)] != kGuardByte)
        return fmt::format("the {} was written {} bytes past its end", name_, n);
    }
    return {};
  }

 private:
  const char* name_;
  int64_t bytes_;
  std::vector<std::byte> image_;
  GuardedMemory memory_;
  void* stream_;
  std::string error_;
};

// Builds a schedule for the tensors, and waits. Notes in the result a tensor that changed. RETURNS
// what failed, or "".
std::string build_schedule(Subject& subject, PluginPlan& plan, const Tensors& tensors,
                           const Scratch& schedule, RunResult& result) {
  DeviceTensors on_device(subject, tensors);
  if (!on_device.error().empty()) return on_device.error();
  attnrt_args& args = on_device.args();
  args.schedule = schedule.data();
  args.schedule_bytes = schedule.bytes();
  std::string message;
  result.status = plan.build(args, &message);
  if (std::string error = on_device.synchronize(); message.empty()) message = std::move(error);
  for (const TensorName name : kTensorNames) {
    if (tensors[name].absent() || !message.empty()) continue;
    std::vector<std::byte> after;
    message = on_device.read(name, &after);
    if (message.empty() && after != tensors[name].bytes)
      result.schedule = fmt::format("{} changed while a schedule was built", text_of(name));
  }
  return message;
}

// Returns one image with the elements of k and, v_after_k bytes further, those of v.
std::vector<std::byte> merged_kv_image(const Tensors& tensors) {
  const Image &k = tensors[TensorName::k], &v = tensors[TensorName::v];
  std::vector<std::byte> merged = k.bytes;
  merged.resize(v.bytes.size() + static_cast<size_t>(tensors.v_after_k), k.bytes.front());
  const int64_t size = v.view.dtype.bits / 8;
  std::byte* const first = merged.data() + Image::kGuard + tensors.v_after_k;
  for_each_element(v.view, [&](int64_t at) {
    std::memcpy(first + at * size, v.first() + at * size, static_cast<size_t>(size));
  });
  return merged;
}

void check_memory(DeviceTensors& on_device, const Tensors& tensors, RunResult& result) {
  for (const TensorName name : kTensorNames) {
    if (tensors[name].absent()) continue;
    std::vector<std::byte> after;
    if (const std::string error = on_device.read(name, &after); !error.empty()) {
      result.message = error, result.status = ATTNRT_INTERNAL;
      return;
    }
    const bool output = core::kTensors[static_cast<size_t>(name)].rule.written;
    compare_image(text_of(name), output, tensors[name], after, result);
    if (name == TensorName::out) {
      result.out = std::move(after);
    } else if (name == TensorName::lse) {
      result.lse = std::move(after);
    }
  }
}

}  // namespace

PluginPlan::PluginPlan(Subject& subject, const core::Problem& problem, int32_t growth)
    : subject_(subject),
      table_(subject.table()),
      problem_(grown(problem, growth)),
      growth_(growth) {
  info.struct_size = sizeof info;
  if (table_->plan == nullptr) return;
  std::vector<std::byte> info_bytes = grown(info, growth);
  attnrt_error error = ATTNRT_ERROR_INIT;
  status = table_->plan(subject.instance(), this->problem(),
                        reinterpret_cast<attnrt_plan_info*>(info_bytes.data()), &plan_, &error);
  std::memcpy(&info, info_bytes.data(), sizeof info);
  if (status != ATTNRT_OK) message = failure("plan", status, error);
}

PluginPlan::~PluginPlan() {
  if (status != ATTNRT_OK || table_->plan == nullptr) return;
  if (ATTNRT_HAS(table_, attnrt_plugin, plan_destroy) && table_->plan_destroy != nullptr) {
    table_->plan_destroy(subject_.instance(), plan_);
  }
}

attnrt_status PluginPlan::run(const attnrt_args& args, std::string* text) {
  const std::vector<std::byte> bytes = grown(args, growth_);
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status returned =
      table_->run(subject_.instance(), plan_, problem(),
                  reinterpret_cast<const attnrt_args*>(bytes.data()), &error);
  if (returned != ATTNRT_OK) *text = failure("run", returned, error);
  return returned;
}

attnrt_status PluginPlan::schedule_bytes(int64_t* bytes, std::string* text) {
  attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_status returned =
      subject_.scheduling()->bytes(subject_.instance(), plan_, problem(), bytes, &error);
  if (returned == ATTNRT_OK && *bytes < 0)
    returned = attnrt_fail(&error, ATTNRT_INTERNAL, "it is %lld", static_cast<long long>(*bytes));
  if (returned != ATTNRT_OK) *text = failure("bytes of a schedule", returned, error);
  return returned;
}

attnrt_status PluginPlan::build(const attnrt_args& args, std::string* text) {
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status returned =
      subject_.scheduling()->build(subject_.instance(), plan_, problem(), &args, &error);
  if (returned != ATTNRT_OK) *text = failure("build", returned, error);
  return returned;
}

DeviceStream::DeviceStream(Subject& subject) : subject_(subject) {
  if (subject.on_cpu()) return;
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status =
      subject.memory()->stream_create(subject.instance(), subject.device().id, &stream_, &error);
  if (status != ATTNRT_OK) error_ = failure("stream_create", status, error);
}

DeviceStream::~DeviceStream() {
  if (stream_ == nullptr) return;
  subject_.memory()->stream_destroy(subject_.instance(), subject_.device().id, stream_);
}

std::string DeviceStream::synchronize() {
  if (subject_.on_cpu()) return {};
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status = subject_.memory()->stream_synchronize(
      subject_.instance(), subject_.device().id, stream_, &error);
  return status == ATTNRT_OK ? "" : failure("stream_synchronize", status, error);
}

DeviceTensors::DeviceTensors(Subject& subject, const Tensors& tensors)
    : tensors_(tensors), stream_(subject), error_(stream_.error()) {
  args_.struct_size = sizeof args_;
  args_.stream = stream_.get();
  for (const TensorName name : kTensorNames) {
    if (!error_.empty()) return;
    const Image& image = tensors[name];
    attnrt_tensor& tensor = tensor_of(args_, name);
    tensor = image.view;
    if (image.absent()) continue;
    if (shares_kv(name)) {
      if (name == TensorName::k) {
        kv_image_ = merged_kv_image(tensors);
        place(subject, TensorName::k, kv_image_, image.alignment);
      } else if (error_.empty()) {
        tensor.data = static_cast<std::byte*>(args_.k.data) + tensors.v_after_k;
      }
      continue;
    }
    place(subject, name, image.bytes, image.alignment);
  }
}

bool DeviceTensors::shares_kv(TensorName name) const {
  return tensors_.v_after_k > 0 && (name == TensorName::k || name == TensorName::v);
}

void DeviceTensors::place(Subject& subject, TensorName name, const std::vector<std::byte>& image,
                          int64_t alignment) {
  GuardedMemory& memory = memory_[static_cast<size_t>(name)].emplace(
      subject, static_cast<int64_t>(image.size()), alignment, Image::kGuard, args_.stream);
  error_ = memory.write(image.data(), args_.stream);
  if (error_.empty()) tensor_of(args_, name).data = memory.content();
}

// Reads the memory that k and v share. A byte of it that has changed has changed in the image of k,
// and in that of v, where these hold it.
std::string DeviceTensors::read_shared(TensorName name, std::vector<std::byte>* image) {
  std::vector<std::byte> after(kv_image_.size());
  GuardedMemory& memory = *memory_[static_cast<size_t>(TensorName::k)];
  if (std::string error = memory.read(after.data(), args_.stream); !error.empty()) return error;
  *image = tensors_[name].bytes;
  const size_t start = name == TensorName::v ? static_cast<size_t>(tensors_.v_after_k) : 0;
  for (size_t n = 0; n < image->size(); ++n)
    if (after[start + n] != kv_image_[start + n]) (*image)[n] = after[start + n];
  return {};
}

std::string DeviceTensors::read(TensorName name, std::vector<std::byte>* image) {
  if (shares_kv(name)) return read_shared(name, image);
  image->resize(tensors_[name].bytes.size());
  return memory_[static_cast<size_t>(name)]->read(image->data(), args_.stream);
}

void compare_image(std::string_view name, bool output, const Image& image,
                   const std::vector<std::byte>& after, RunResult& result) {
  const int64_t size = image.view.dtype.bits / 8;
  const auto is_poison = [&image](std::byte byte) { return byte == image.poison; };
  int64_t unwritten = 0;
  for (size_t n = 0; n < after.size(); ++n) {
    const int64_t offset = static_cast<int64_t>(n) - Image::kGuard;
    if (output && image.must_write[n]) {
      const auto element = after.begin() + static_cast<int64_t>(n);
      if (offset % size == 0 && std::all_of(element, element + size, is_poison)) ++unwritten;
    } else if (after[n] != image.bytes[n]) {
      std::string& text = output ? result.outside : result.inputs;
      if (text.empty())
        text = fmt::format("{} changed {} bytes after its first element", name, offset);
    }
  }
  if (unwritten > 0 && result.unwritten.empty())
    result.unwritten = fmt::format("{} values of {} were not written", unwritten, name);
}

RunResult run_case(Subject& subject, const Case& drawn, const Tensors& tensors,
                   const RunOptions& options) {
  subject.report_life();
  RunResult result;
  const auto fail = [&result](attnrt_status status, std::string message) {
    result.status = status, result.message = std::move(message);
    return result;
  };
  PluginPlan plan(subject, options.problem != nullptr ? *options.problem : drawn.problem,
                  options.growth);
  if (plan.status != ATTNRT_OK) return fail(plan.status, plan.message);
  result.workspace_bytes = plan.info.workspace_bytes;
  result.workspace = check_info(plan.info);
  if (!result.workspace.empty()) return result;
  DeviceTensors on_device(subject, tensors);
  if (!on_device.error().empty()) return fail(ATTNRT_INTERNAL, on_device.error());
  attnrt_args& args = on_device.args();
  const int64_t alignment =
      plan.info.workspace_alignment > 0 ? plan.info.workspace_alignment : kDefaultAlignment;
  Scratch workspace(subject, "workspace", plan.info.workspace_bytes, alignment,
                    options.workspace_fill, args.stream);
  if (!workspace.error().empty()) return fail(ATTNRT_INTERNAL, workspace.error());
  args.workspace = workspace.data();
  args.workspace_bytes = workspace.bytes();
  std::optional<Scratch> schedule;
  if (!options.schedules.empty()) {
    result.status = plan.schedule_bytes(&args.schedule_bytes, &result.message);
    if (!result.ok()) return result;
  }
  if (args.schedule_bytes > 0) {
    schedule.emplace(subject, "schedule", args.schedule_bytes, kScheduleAlignment,
                     options.workspace_fill, args.stream);
    if (!schedule->error().empty()) return fail(ATTNRT_INTERNAL, schedule->error());
    args.schedule = schedule->data();
    for (const Tensors* each : options.schedules) {
      result.message = build_schedule(subject, plan, *each, *schedule, result);
      if (!result.ok()) return result;
    }
  }
  result.status = plan.run(args, &result.message);
  const std::string error = on_device.synchronize();
  subject.report_life();
  if (result.ok() && !error.empty()) return fail(ATTNRT_INTERNAL, error);
  result.workspace = workspace.check_guards();
  if (schedule && result.schedule.empty()) result.schedule = schedule->check_guards();
  check_memory(on_device, tensors, result);
  return result;
}

}  // namespace attnrt::conformance
