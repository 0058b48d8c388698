// runtime/src/backend.cpp: an open plugin: its devices, and its calls
#include "backend.hpp"

#include <algorithm>

#include "base/guarded.hpp"

namespace attnrt::core {
namespace {

// Makes one call into the plugin. The status is INTERNAL if the call throws or returns a status
// that does not exist.
template <class Call>
attnrt_status call_plugin(attnrt_error* error, Call&& call) {
  const attnrt_status status = guarded(call, [error](const std::exception* exception) {
    if (exception == nullptr)
      return attnrt_fail(error, ATTNRT_INTERNAL, "threw an exception across the plugin boundary");
    return attnrt_fail(error, ATTNRT_INTERNAL, "threw an exception across the plugin boundary: %s",
                       exception->what());
  });
  if (status < ATTNRT_OK || status > ATTNRT_DEVICE_LOST) {
    return attnrt_fail(error, ATTNRT_INTERNAL, "returned status %d, which does not exist",
                       static_cast<int>(status));
  }
  return status;
}

std::string message_of(const attnrt_error& error, attnrt_status status) {
  return error.message[0] != '\0' ? error.message : status_name(status);
}

extern "C" void host_log(void* self, int32_t severity, const char* text) {
  static_cast<const Backend*>(self)->log(severity, text != nullptr ? text : "");
}

// Copies a device that a plugin reports. The sink is a std::vector<Device>.
extern "C" void add_device(void* sink, const attnrt_device* device) {
  if (device == nullptr || !ATTNRT_HAS(device, attnrt_device, name)) return;
  Device copy{device->device_type, device->device_id, device->arch != nullptr ? device->arch : "",
              device->name != nullptr ? device->name : "", 0};
  if (ATTNRT_HAS(device, attnrt_device, total_memory_bytes))
    copy.total_memory_bytes = device->total_memory_bytes;
  static_cast<std::vector<Device>*>(sink)->push_back(std::move(copy));
}

// Copies a reason that a plugin gives. The sink is a std::vector<std::string>.
extern "C" void add_reason(void* sink, const char* reason) {
  if (reason != nullptr) static_cast<std::vector<std::string>*>(sink)->emplace_back(reason);
}

}  // namespace

std::string device_text(const Device& device) {
  std::string text = device_name(device.type);
  if (device.type != ATTNRT_DEVICE_CPU) text += fmt::format(":{}", device.id);
  if (!device.arch.empty()) text += " " + device.arch;
  return text;
}

Backend::Backend(std::shared_ptr<const FoundPlugin> plugin, const attnrt_plugin& table,
                 std::shared_ptr<Services> services, std::shared_ptr<const void> library)
    : library_(std::move(library)),
      plugin_(std::move(plugin)),
      services_(std::move(services)),
      table_(&table) {
  host_.struct_size = sizeof host_;
  host_.abi_minor = ATTNRT_ABI_MINOR;
  host_.thread_count = services_->threads->count();
  host_.self = this;
  host_.log = host_log;
  host_.parallel_for = [](void* self, int64_t count, attnrt_parallel_body body, void* arg) {
    static_cast<const Backend*>(self)->services_->threads->parallel_for(count, body, arg);
  };
}

Backend::~Backend() {
  for (const auto& [device_id, stream] : own_streams_)
    memory_->stream_destroy(instance_, device_id, stream);
  if (open_ && ATTNRT_HAS(table_, attnrt_plugin, close) && table_->close != nullptr) {
    call_plugin(nullptr, [this] { return table_->close(instance_), ATTNRT_OK; });
  }
}

Result<void> Backend::open(const Options& options) {
  if (table_->open == nullptr) {
    if (options.empty()) return {};
    return fail(ATTNRT_INVALID_ARGUMENT, "option {} is not known: this plugin takes no options",
                options.front().first);
  }
  std::vector<attnrt_option> list;
  for (const auto& [key, value] : options) list.push_back({key.c_str(), value.c_str()});
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status = call_plugin(&error, [&] {
    return table_->open(&host_, list.data(), static_cast<int32_t>(list.size()), &instance_, &error);
  });
  if (status != ATTNRT_OK) return fail(status, "cannot be opened: {}", message_of(error, status));
  open_ = true;
  return {};
}

void Backend::add_devices() {
  if (table_->devices == nullptr) {
    devices_.push_back({ATTNRT_DEVICE_CPU, 0, "", "cpu", 0});
    return;
  }
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status = call_plugin(
      &error, [&] { return table_->devices(instance_, add_device, &devices_, &error); });
  if (status != ATTNRT_OK) devices_.clear();
  if (devices_.empty())
    no_device_reason_ = error.message[0] != '\0' ? error.message : "it found no device";
}

// Drops devices of a kind that the manifest does not name: candidates are found by the manifest.
void Backend::drop_devices_outside_manifest() {
  std::erase_if(devices_, [this](const Device& device) {
    const std::string name = device_name(device.type);
    const auto& named = manifest().devices;
    if (std::find(named.begin(), named.end(), name) != named.end()) return false;
    log(ATTNRT_LOG_WARNING,
        fmt::format("its device {} is left out: its manifest does not name this kind", name));
    no_device_reason_ = fmt::format("its manifest does not name {}, the kind of its device", name);
    return true;
  });
}

Result<void> Backend::find_devices() {
  add_devices();
  drop_devices_outside_manifest();
  memory_ = static_cast<const attnrt_memory*>(extension(ATTNRT_MEMORY));
  if (memory_ != nullptr && !ATTNRT_HAS(memory_, attnrt_memory, stream_wait_event))
    memory_ = nullptr;
  const bool needs_memory = std::any_of(devices_.begin(), devices_.end(), [](const Device& device) {
    return device.type != ATTNRT_DEVICE_CPU;
  });
  if (needs_memory && memory_ == nullptr) {
    return fail(ATTNRT_UNSUPPORTED, "has a device but not the extension {}, which it needs",
                ATTNRT_MEMORY);
  }
  return {};
}

const void* Backend::extension(const char* id) const {
  if (!ATTNRT_HAS(table_, attnrt_plugin, get_extension) || table_->get_extension == nullptr)
    return nullptr;
  const void* found = nullptr;
  call_plugin(nullptr, [&] { return found = table_->get_extension(instance_, id), ATTNRT_OK; });
  return found;
}

void* Backend::own_stream(int32_t device_id) const {
  const std::lock_guard lock(own_streams_mutex_);
  const auto known = own_streams_.find(device_id);
  if (known != own_streams_.end()) return known->second;
  void* stream = nullptr;
  if (memory_->stream_create(instance_, device_id, &stream, nullptr) != ATTNRT_OK) return nullptr;
  own_streams_.emplace(device_id, stream);
  return stream;
}

void Backend::log(int32_t severity, const std::string& text) const {
  services_->log(severity, manifest().name + ": " + text);
}

attnrt_status Backend::supports(const Problem& problem, std::vector<std::string>* reasons) const {
  if (table_->supports == nullptr) return ATTNRT_OK;
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status = call_plugin(
      &error, [&] { return table_->supports(instance_, &problem, add_reason, reasons); });
  if (status == ATTNRT_OK) return status;
  if (error.message[0] != '\0') reasons->emplace_back(error.message);
  if (reasons->empty()) reasons->emplace_back("it says no, without a reason");
  return status;
}

attnrt_status Backend::plan(const Problem& problem, attnrt_plan_info* info, void** plan,
                            attnrt_error* error) const {
  if (table_->plan == nullptr) return ATTNRT_OK;
  return call_plugin(error, [&] { return table_->plan(instance_, &problem, info, plan, error); });
}

attnrt_status Backend::run(void* plan, const Problem& problem, const attnrt_args& args,
                           attnrt_error* error) const {
  return call_plugin(error, [&] { return table_->run(instance_, plan, &problem, &args, error); });
}

attnrt_status Backend::merge(const attnrt_merging& extension, const MergeArgs& args,
                             attnrt_error* error) const {
  return call_plugin(error, [&] {
    return extension.merge(instance_, args.device_id, args.outs.data(), args.lses.data(),
                           static_cast<int32_t>(args.outs.size()), &args.out, &args.lse,
                           args.stream, error);
  });
}

void Backend::plan_destroy(void* plan) const {
  if (table_->plan == nullptr || !ATTNRT_HAS(table_, attnrt_plugin, plan_destroy) ||
      table_->plan_destroy == nullptr) {
    return;
  }
  call_plugin(nullptr, [&] { return table_->plan_destroy(instance_, plan), ATTNRT_OK; });
}

}  // namespace attnrt::core
