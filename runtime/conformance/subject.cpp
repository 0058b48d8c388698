// runtime/conformance/subject.cpp: the plugin under test: its file, table, instance and devices
#include "conformance/subject.hpp"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "conformance/trials.hpp"
#include "library.hpp"

namespace attnrt::conformance {
namespace {

// Returns the plugin whose bytes an open file has. Who opened it has judged whether it is trusted.
std::shared_ptr<const core::FoundPlugin> examine_library(const std::string& path, int library) {
  auto plugin = std::make_shared<core::FoundPlugin>();
  plugin->path = path;
  struct stat status {};
  core::Trust trust(core::trust_everybody());
  core::Result<void> examined = core::fail(ATTNRT_INTERNAL, "its copy cannot be read");
  if (const int file = fcntl(library, F_DUPFD_CLOEXEC, 0); file >= 0 && fstat(file, &status) == 0)
    examined = core::examine(
        {core::Descriptor(file), core::identity_of(status), core::facts_of(path, status, false)},
        trust, *plugin);
  if (!examined) plugin->fault = examined.error().message;
  return plugin;
}

std::shared_ptr<const core::FoundPlugin> find_plugin(const std::string& path, int library) {
  if (library >= 0) return examine_library(path, library);
  namespace fs = std::filesystem;
  std::error_code error;
  // A link may lead to a file of another name, or in another folder: name.so -> name.so.1.2.
  const fs::path folder = fs::canonical(fs::absolute(path).parent_path(), error);
  const fs::path real = error ? fs::path() : fs::canonical(path, error);
  if (error) return nullptr;
  // Whoever names the file trusts it; the command judges those that it finds.
  const auto found = core::discover({folder.string(), real.parent_path().string()}, nullptr,
                                    core::trust_everybody());
  if (!found) {
    auto unread = std::make_shared<core::FoundPlugin>();
    unread->path = path;
    unread->fault = found.error().message;
    return unread;
  }
  const fs::path named = folder / fs::path(path).filename();
  for (const auto& plugin : found->plugins) {
    if (fs::path(plugin->path) == named) return plugin;
  }
  return nullptr;
}

void add_device(void* sink, const attnrt_device* device) {
  auto& devices = *static_cast<std::vector<core::Device>*>(sink);
  core::Device copy;
  if (device == nullptr || !ATTNRT_HAS(device, attnrt_device, name)) {
    copy.type = 0;  // no kind of device has this number, so ABI-8 fails
  } else {
    copy.type = device->device_type;
    copy.id = device->device_id;
    copy.arch = device->arch != nullptr ? device->arch : "(null)";
    copy.name = device->name != nullptr ? device->name : "(null)";
    if (ATTNRT_HAS(device, attnrt_device, total_memory_bytes))
      copy.total_memory_bytes = device->total_memory_bytes;
  }
  devices.push_back(std::move(copy));
}

}  // namespace

Host::Host(int32_t threads) : threads_(core::Threads::pool(threads)) {
  host_.struct_size = sizeof host_;
  host_.abi_minor = ATTNRT_ABI_MINOR;
  host_.thread_count = threads_->count();
  host_.self = this;
  host_.log = [](void* self, int32_t, const char* text) {
    auto& host = *static_cast<Host*>(self);
    const std::lock_guard lock(host.mutex_);
    host.log_.emplace_back(text != nullptr ? text : "(null)");
  };
  host_.parallel_for = [](void* self, int64_t count, attnrt_parallel_body body, void* arg) {
    static_cast<Host*>(self)->threads_->parallel_for(count, body, arg);
  };
}

std::vector<std::string> Host::log() const {
  const std::lock_guard lock(mutex_);
  return log_;
}

Instance::Instance(Instance&& other) noexcept
    : table(other.table),
      value(other.value),
      open(std::exchange(other.open, false)),
      status(other.status),
      message(std::move(other.message)) {}

Instance::~Instance() {
  if (open && ATTNRT_HAS(table, attnrt_plugin, close) && table->close != nullptr)
    table->close(value);
}

Subject::Subject(const std::string& path_, const Settings& settings_, Progress progress)
    : path(path_),
      settings(settings_),
      host(std::max(2, core::usable_cpus())),
      progress_(std::move(progress)),
      file_(find_plugin(path_, settings_.library)) {}

Subject::~Subject() = default;

std::string Subject::map() {
  if (mapped_) return map_error_;
  mapped_ = true;
  if (file_ == nullptr || !file_->fault.empty())
    return map_error_ = "the file is not a plugin (ABI-1)";
  before_ = ProcessState::now();
  const auto mapped = core::map_library(*file_, false);
  if (!mapped) return map_error_ = mapped.error().message;
  table_ = mapped->table;
  use_ = mapped->use;
  Dl_info info{};
  void* entry = nullptr;
  if (dladdr1(table_, &info, &entry, RTLD_DL_SYMENT) != 0 && entry != nullptr) {
    symbol_bytes_ = static_cast<int64_t>(static_cast<const ElfW(Sym)*>(entry)->st_size);
  }
  return map_error_;
}

std::vector<attnrt_option> Subject::options() const {
  std::vector<attnrt_option> options;
  for (const auto& [key, value] : settings.options) options.push_back({key.c_str(), value.c_str()});
  return options;
}

Instance Subject::open(const std::vector<attnrt_option>& options) {
  Instance opened;
  opened.table = table();
  if (opened.table->open == nullptr) return opened;
  attnrt_error error = ATTNRT_ERROR_INIT;
  opened.status = opened.table->open(host.get(), options.data(),
                                     static_cast<int32_t>(options.size()), &opened.value, &error);
  opened.open = opened.status == ATTNRT_OK;
  opened.message = error.message;
  return opened;
}

void* Subject::instance() {
  if (!instance_) instance_ = std::make_unique<Instance>(open(options()));
  return instance_->value;
}

void Subject::find_devices() {
  if (devices_known_) return;
  devices_known_ = true;
  void* const value = instance();
  if (table_->devices == nullptr) {
    devices_.push_back({ATTNRT_DEVICE_CPU, 0, "", "cpu", 0});
    return;
  }
  attnrt_error error = ATTNRT_ERROR_INIT;
  devices_status_ = table_->devices(value, add_device, &devices_, &error);
  devices_message_ = error.message;
}

const std::vector<core::Device>& Subject::devices() {
  find_devices();
  return devices_;
}

const std::string& Subject::devices_message() {
  find_devices();
  return devices_message_;
}

attnrt_status Subject::devices_status() {
  find_devices();
  return devices_status_;
}

const void* Subject::extension(const char* id) {
  void* const value = instance();
  if (!ATTNRT_HAS(table_, attnrt_plugin, get_extension) || table_->get_extension == nullptr)
    return nullptr;
  return table_->get_extension(value, id);
}

attnrt_status Subject::supports(const attnrt_problem& problem, std::vector<std::string>* reasons) {
  void* const value = instance();
  if (table_->supports == nullptr) return ATTNRT_OK;
  const auto add = [](void* sink, const char* reason) {
    static_cast<std::vector<std::string>*>(sink)->emplace_back(reason != nullptr ? reason : "");
  };
  return table_->supports(value, &problem, add, reasons);
}

Trials& Subject::trials() {
  if (!trials_) trials_ = std::make_unique<Trials>(*this);
  return *trials_;
}

}  // namespace attnrt::conformance
