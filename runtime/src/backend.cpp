// runtime/src/backend.cpp: an open plugin: its devices, and its calls
#include "backend.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <new>
#include <span>

#include "base/text.hpp"

namespace attnrt::core {
namespace {

std::string message_of(const attnrt_error& error, attnrt_status status) {
  return error.message[0] != '\0' ? error.message : status_name(status);
}

// What plugin.h promises to keep of what a plugin says; the rest is cut.
constexpr size_t kMostDevices = 64;
constexpr size_t kMostReasons = 16;
constexpr size_t kMostTextBytes = 256;   // of a name, an arch or a reason
constexpr size_t kMostLineBytes = 4096;  // of the log

// What a plugin hands over through a callback.
template <class Item>
struct Sink {
  std::vector<Item> items;
  size_t most;
  bool out_of_memory = false;  // something could not be copied

  // Adds what `make` returns. Throws nothing, since its caller is the plugin, which may be C.
  template <class Make>
  void add(Make&& make) {
    if (items.size() >= most) return;
    try {
      items.push_back(make());
    } catch (const std::exception&) {
      out_of_memory = true;
    }
  }
  // After the plugin's call.
  std::vector<Item> take() {
    if (out_of_memory) throw std::bad_alloc();
    return std::move(items);
  }
};

extern "C" void host_log(void* self, int32_t severity, const char* text) {
  try {
    static_cast<const Backend*>(self)->log(severity, cut(text, kMostLineBytes));
  } catch (const std::exception&) {
    return;  // no memory for the line, and the plugin's call need not fail for that
  }
}

extern "C" void add_device(void* sink, const attnrt_device* device) {
  if (device == nullptr || !ATTNRT_HAS(device, attnrt_device, name)) return;
  static_cast<Sink<Device>*>(sink)->add([device] {
    Device copy{device->device_type, device->device_id, cut(device->arch, kMostTextBytes),
                cut(device->name, kMostTextBytes), 0};
    if (ATTNRT_HAS(device, attnrt_device, total_memory_bytes))
      copy.total_memory_bytes = device->total_memory_bytes;
    return copy;
  });
}

extern "C" void add_reason(void* sink, const char* reason) {
  if (reason == nullptr) return;
  static_cast<Sink<std::string>*>(sink)->add([reason] { return cut(reason, kMostTextBytes); });
}

// A call that an extension's struct must have.
struct Member {
  const char* name;
  size_t offset;
};
#define ATTNRT_MEMBER(type, name) \
  { #name, offsetof(type, name) }
constexpr Member kMemoryMembers[] = {ATTNRT_MEMBER(attnrt_memory, allocate),
                                     ATTNRT_MEMBER(attnrt_memory, free),
                                     ATTNRT_MEMBER(attnrt_memory, allocate_pinned),
                                     ATTNRT_MEMBER(attnrt_memory, free_pinned),
                                     ATTNRT_MEMBER(attnrt_memory, copy),
                                     ATTNRT_MEMBER(attnrt_memory, stream_create),
                                     ATTNRT_MEMBER(attnrt_memory, stream_destroy),
                                     ATTNRT_MEMBER(attnrt_memory, stream_synchronize),
                                     ATTNRT_MEMBER(attnrt_memory, is_capturing),
                                     ATTNRT_MEMBER(attnrt_memory, event_create),
                                     ATTNRT_MEMBER(attnrt_memory, event_record),
                                     ATTNRT_MEMBER(attnrt_memory, event_query),
                                     ATTNRT_MEMBER(attnrt_memory, event_synchronize),
                                     ATTNRT_MEMBER(attnrt_memory, event_destroy),
                                     ATTNRT_MEMBER(attnrt_memory, stream_wait_event)};
constexpr Member kTimingMembers[] = {
    ATTNRT_MEMBER(attnrt_timing, timestamp_create), ATTNRT_MEMBER(attnrt_timing, timestamp_destroy),
    ATTNRT_MEMBER(attnrt_timing, record), ATTNRT_MEMBER(attnrt_timing, elapsed)};
constexpr Member kSchedulingMembers[] = {ATTNRT_MEMBER(attnrt_scheduling, bytes),
                                         ATTNRT_MEMBER(attnrt_scheduling, build)};
#undef ATTNRT_MEMBER
constexpr size_t kFirstMember = 2 * sizeof(int32_t);  // after struct_size and reserved
static_assert(sizeof(attnrt_memory) == kFirstMember + std::size(kMemoryMembers) * sizeof(void*));
static_assert(sizeof(attnrt_timing) == kFirstMember + std::size(kTimingMembers) * sizeof(void*));
static_assert(sizeof(attnrt_scheduling) ==
              kFirstMember + std::size(kSchedulingMembers) * sizeof(void*));

// Returns the struct if it has every member, or nullptr, and then says in *fault what is missing.
template <class Extension>
const Extension* complete(const void* found, const char* id, std::span<const Member> members,
                          std::string* fault) {
  const auto* extension = static_cast<const Extension*>(found);
  if (extension == nullptr) {
    *fault = fmt::format("not the extension {}", id);
    return nullptr;
  }
  for (const Member& member : members) {
    const bool ends_before =
        extension->struct_size < static_cast<int64_t>(member.offset + sizeof(void*));
    void* pointer = nullptr;
    if (!ends_before)
      std::memcpy(&pointer, static_cast<const char*>(found) + member.offset, sizeof pointer);
    if (pointer != nullptr) continue;
    *fault = fmt::format("an extension {} without {}", id, member.name);
    return nullptr;
  }
  return extension;
}

// Returns the extension if the backend offers it with every member, else nullptr, and then warns
// of one that lacks a member.
template <class Extension>
const Extension* optional_extension(const Backend& backend, const char* id,
                                    std::span<const Member> members) {
  std::string fault;
  const void* found = backend.extension(id);
  const auto* usable = complete<Extension>(found, id, members, &fault);
  if (usable == nullptr && found != nullptr)
    backend.log(ATTNRT_LOG_WARNING, fmt::format("offers {}, which is not used", fault));
  return usable;
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
  for (const auto& [device_id, stream] : own_streams_) {
    call(nullptr, [&, id = device_id, own = stream] {
      return memory_->stream_destroy(instance_, id, own), ATTNRT_OK;
    });
  }
  if (open_ && ATTNRT_HAS(table_, attnrt_plugin, close) && table_->close != nullptr)
    call(nullptr, [this] { return table_->close(instance_), ATTNRT_OK; });
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
  const attnrt_status status = call(&error, [&] {
    return table_->open(&host_, list.data(), static_cast<int32_t>(list.size()), &instance_, &error);
  });
  if (status != ATTNRT_OK) return fail(status, "cannot be opened: {}", message_of(error, status));
  open_ = true;
  return {};
}

Result<void> Backend::add_devices() {
  if (table_->devices == nullptr) {
    devices_.push_back({ATTNRT_DEVICE_CPU, 0, "", "cpu", 0});
    return {};
  }
  Sink<Device> sink{{}, kMostDevices};
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status =
      call(&error, [&] { return table_->devices(instance_, add_device, &sink, &error); });
  if (status == ATTNRT_OUT_OF_MEMORY)  // says nothing about which devices there are
    return fail(status, "cannot list its devices: {}", message_of(error, status));
  auto added = sink.take();
  if (status == ATTNRT_OK) devices_ = std::move(added);
  if (!devices_.empty()) {
    devices_note_ = error.message;
  } else {
    no_device_reason_ = error.message[0] != '\0' ? error.message : "it found no device";
  }
  return {};
}

// Drops devices of a kind that the manifest does not name: candidates are found by the manifest.
void Backend::drop_devices_outside_manifest() {
  std::string dropped;
  std::erase_if(devices_, [&](const Device& device) {
    const std::string name = device_name(device.type);
    const auto& named = manifest().devices;
    if (std::find(named.begin(), named.end(), name) != named.end()) return false;
    log(ATTNRT_LOG_WARNING,
        fmt::format("its device {} is left out: its manifest does not name this kind", name));
    dropped = name;
    return true;
  });
  if (devices_.empty() && !dropped.empty()) {
    no_device_reason_ =
        fmt::format("its manifest does not name {}, the kind of its device", dropped);
  }
}

Result<void> Backend::find_devices() {
  if (auto added = add_devices(); !added) return added;
  drop_devices_outside_manifest();
  on_device_ = std::any_of(devices_.begin(), devices_.end(),
                           [](const Device& device) { return device.type != ATTNRT_DEVICE_CPU; });
  std::string fault;
  memory_ =
      complete<attnrt_memory>(extension(ATTNRT_MEMORY), ATTNRT_MEMORY, kMemoryMembers, &fault);
  if (on_device_ && memory_ == nullptr) {
    return fail(ATTNRT_UNSUPPORTED, "has a device but {}; a backend of a device needs all of {}",
                fault, ATTNRT_MEMORY);
  }
  return {};
}

const attnrt_timing* Backend::timing() const {
  return optional_extension<attnrt_timing>(*this, ATTNRT_TIMING, kTimingMembers);
}

const attnrt_scheduling* Backend::scheduling() const {
  return optional_extension<attnrt_scheduling>(*this, ATTNRT_SCHEDULE, kSchedulingMembers);
}

const void* Backend::extension(const char* id) const {
  if (!ATTNRT_HAS(table_, attnrt_plugin, get_extension) || table_->get_extension == nullptr)
    return nullptr;
  const void* found = nullptr;
  call(nullptr, [&] { return found = table_->get_extension(instance_, id), ATTNRT_OK; });
  return found;
}

void* Backend::own_stream(int32_t device_id) const {
  const std::lock_guard lock(own_streams_mutex_);
  const auto known = own_streams_.find(device_id);
  if (known != own_streams_.end()) return known->second;
  void* stream = nullptr;
  const attnrt_status status =
      call(nullptr, [&] { return memory_->stream_create(instance_, device_id, &stream, nullptr); });
  if (status != ATTNRT_OK) return nullptr;
  try {
    own_streams_.emplace(device_id, stream);
    return stream;
  } catch (const std::bad_alloc&) {  // memory may be freed by a destructor
    call(nullptr, [&] { return memory_->stream_destroy(instance_, device_id, stream), ATTNRT_OK; });
    return nullptr;
  }
}

attnrt_status Backend::refuse_after_fork(attnrt_error* error) const {
  return attnrt_fail(error, ATTNRT_UNSUPPORTED,
                     "its device was opened before this process was forked, and cannot be used in "
                     "the child; open the runtime after the fork");
}

void Backend::log(int32_t severity, const std::string& text) const {
  services_->log(severity, manifest().name + ": " + text);
}

attnrt_status Backend::supports(const Problem& problem, std::vector<std::string>* reasons) const {
  if (table_->supports == nullptr) return ATTNRT_OK;
  Sink<std::string> sink{{}, kMostReasons};
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status =
      call(&error, [&] { return table_->supports(instance_, &problem, add_reason, &sink); });
  if (status == ATTNRT_OUT_OF_MEMORY) throw std::bad_alloc();  // it may say yes the next time
  auto added = sink.take();
  if (status == ATTNRT_OK) return status;
  std::move(added.begin(), added.end(), std::back_inserter(*reasons));
  if (error.message[0] != '\0') reasons->emplace_back(error.message);
  if (reasons->empty()) reasons->emplace_back("it says no, without a reason");
  return status;
}

attnrt_status Backend::plan(const Problem& problem, attnrt_plan_info* info, void** plan,
                            attnrt_error* error) const {
  if (table_->plan == nullptr) return ATTNRT_OK;
  return call(error, [&] { return table_->plan(instance_, &problem, info, plan, error); });
}

attnrt_status Backend::run(void* plan, const Problem& problem, const attnrt_args& args,
                           attnrt_error* error) const {
  return call(error, [&] { return table_->run(instance_, plan, &problem, &args, error); });
}

attnrt_status Backend::merge(const attnrt_merging& extension, const MergeArgs& args,
                             attnrt_error* error) const {
  return call(error, [&] {
    return extension.merge(instance_, args.device_id, args.outs.data(), args.lses.data(),
                           static_cast<int32_t>(args.outs.size()), &args.out, &args.lse,
                           args.stream, error);
  });
}

attnrt_status Backend::schedule_bytes(const attnrt_scheduling& extension, void* plan,
                                      const Problem& problem, int64_t* bytes,
                                      attnrt_error* error) const {
  return call(error, [&] { return extension.bytes(instance_, plan, &problem, bytes, error); });
}

attnrt_status Backend::build_schedule(const attnrt_scheduling& extension, void* plan,
                                      const Problem& problem, const attnrt_args& args,
                                      attnrt_error* error) const {
  return call(error, [&] { return extension.build(instance_, plan, &problem, &args, error); });
}

void Backend::plan_destroy(void* plan) const {
  if (table_->plan == nullptr || !ATTNRT_HAS(table_, attnrt_plugin, plan_destroy) ||
      table_->plan_destroy == nullptr) {
    return;
  }
  call(nullptr, [&] { return table_->plan_destroy(instance_, plan), ATTNRT_OK; });
}

}  // namespace attnrt::core
