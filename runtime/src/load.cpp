// runtime/src/load.cpp: a found plugin into an open Backend: its table checked, its instance open, its devices known
#include "load.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#define BOOST_DLL_USE_STD_FS
#include <boost/dll/shared_library.hpp>

#include "base/guarded.hpp"

namespace attnrt::core {
namespace {

namespace dll = boost::dll;

// A library that is mapped. It stays so until the process ends, and so does its descriptor: the loader knows a library by
// the path it was opened by (/proc/self/fd/N), and would give the old one for a new file under the same number.
struct Library {
  std::string hash;
  dll::shared_library handle;
  Descriptor file;
};

// The one state of the process: since nothing is ever unmapped, the same bytes are mapped once, however often runtimes
// are opened and reloaded. Key: hash, or path where plugins are loaded by path.
struct Libraries {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<Library>> by_key;
};

Libraries& libraries() {
  static auto* const all =
      new Libraries;  // outlives every static destructor: a plugin's may still run
  return *all;
}

Result<const attnrt_plugin*> map_library(const FoundPlugin& plugin, bool by_path) {
  Libraries& all = libraries();
  const std::lock_guard lock(all.mutex);
  const std::string& place = plugin.real_path.empty() ? plugin.path : plugin.real_path;
  auto& library = all.by_key[by_path ? "path " + place : plugin.hash];
  if (!library) {
    auto opened = std::make_unique<Library>();
    opened->hash = plugin.hash;
    std::string path = place;
    if (by_path) {
      if (auto same = unchanged(plugin); !same) return tl::unexpected(same.error());
    } else {
      opened->file = Descriptor(fcntl(plugin.file.number(), F_DUPFD_CLOEXEC, 0));
      path = fmt::format("/proc/self/fd/{}", opened->file.number());
    }
    try {
      // The throwing load: its text has the loader's own words, error_code has not.
      opened->handle.load(path, dll::load_mode::rtld_now | dll::load_mode::rtld_local);
    } catch (const std::exception& error) {
      std::string text = error.what();
      for (const std::string& before : {std::string("dlerror system message: "), path + ": "}) {
        if (const size_t at = text.find(before); at != std::string::npos)
          text.erase(0, at + before.size());
      }
      text = text.substr(
          0, text.rfind("): "));  // Boost.DLL's bracket, and an errno that means nothing
      return fail(ATTNRT_UNSUPPORTED, "cannot be loaded: {}", text);
    }
    library = std::move(opened);
  }
  if (library->hash != plugin.hash) {
    return fail(ATTNRT_UNSUPPORTED,
                "was loaded by path before with other bytes, and the loader would give those; use "
                "`plugins.load: memory`, or start the process anew");
  }
  if (!library->handle.has(ATTNRT_PLUGIN_SYMBOL)) {
    return fail(ATTNRT_UNSUPPORTED, "exports no symbol {}", ATTNRT_PLUGIN_SYMBOL);
  }
  return &library->handle.get<const attnrt_plugin>(ATTNRT_PLUGIN_SYMBOL);
}

// The part that every plugin of this major has: everything up to run.
Result<void> check_table(const attnrt_plugin& table, const Manifest& manifest) {
  if (!ATTNRT_HAS(&table, attnrt_plugin, run)) {
    return fail(ATTNRT_UNSUPPORTED,
                "its attnrt_plugin has struct_size {}; it must reach past run, {} or more",
                table.struct_size, offsetof(attnrt_plugin, run) + sizeof table.run);
  }
  if (table.name == nullptr || table.version == nullptr) {
    return fail(ATTNRT_UNSUPPORTED, "its attnrt_plugin has no {}",
                table.name == nullptr ? "name" : "version");
  }
  if (manifest.name != table.name) {
    return fail(ATTNRT_UNSUPPORTED, "its manifest says name {}, its attnrt_plugin {}",
                manifest.name, table.name);
  }
  if (manifest.version_text != table.version) {
    return fail(ATTNRT_UNSUPPORTED, "its manifest says version {}, its attnrt_plugin {}",
                manifest.version_text, table.version);
  }
  if (table.abi_minor < 0) return fail(ATTNRT_UNSUPPORTED, "its abi_minor is {}", table.abi_minor);
  if (table.run == nullptr) return fail(ATTNRT_UNSUPPORTED, "its attnrt_plugin has no run");
  return {};
}

// Makes one call into the plugin. An exception that crosses the boundary, or a status that does not exist, is INTERNAL.
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

}  // namespace

std::string device_text(const Device& device) {
  std::string text = device_name(device.type);
  if (device.type != ATTNRT_DEVICE_CPU) text += fmt::format(":{}", device.id);
  if (!device.arch.empty()) text += " " + device.arch;
  return text;
}

const void* Backend::extension(const char* id) const {
  if (!ATTNRT_HAS(table_, attnrt_plugin, get_extension) || table_->get_extension == nullptr)
    return nullptr;
  const void* found = nullptr;
  call_plugin(nullptr, [&] { return found = table_->get_extension(instance_, id), ATTNRT_OK; });
  return found;
}

void Backend::log(int32_t severity, const std::string& text) const {
  services_->log(severity, manifest().name + ": " + text);
}

Result<void> Backend::open(const Options& options) {
  host_ = {sizeof(attnrt_host),
           ATTNRT_ABI_MINOR,
           services_->threads->count(),
           0,
           this,
           host_log,
           nullptr};
  host_.parallel_for = [](void* self, int64_t count, attnrt_parallel_body body, void* arg) {
    static_cast<const Backend*>(self)->services_->threads->parallel_for(count, body, arg);
  };
  if (table_->open == nullptr) {
    if (options.empty()) return {};
    return fail(ATTNRT_INVALID_ARGUMENT, "option {} is not known to it: it takes none",
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

Result<void> Backend::find_devices() {
  if (table_->devices == nullptr) {
    devices_.push_back({ATTNRT_DEVICE_CPU, 0, "", "cpu", 0});
  } else {
    attnrt_error error = ATTNRT_ERROR_INIT;
    const auto add = [](void* sink, const attnrt_device* device) {
      if (device == nullptr || !ATTNRT_HAS(device, attnrt_device, name)) return;
      Device copy{device->device_type, device->device_id,
                  device->arch != nullptr ? device->arch : "",
                  device->name != nullptr ? device->name : "", 0};
      if (ATTNRT_HAS(device, attnrt_device, total_memory_bytes))
        copy.total_memory_bytes = device->total_memory_bytes;
      static_cast<std::vector<Device>*>(sink)->push_back(std::move(copy));
    };
    const attnrt_status status =
        call_plugin(&error, [&] { return table_->devices(instance_, add, &devices_, &error); });
    if (status != ATTNRT_OK) devices_.clear();
    if (devices_.empty())
      no_devices_because_ = error.message[0] != '\0' ? error.message : "it found no device";
  }
  // A device of a kind that the manifest does not name is not one that anybody agreed to.
  std::erase_if(devices_, [this](const Device& device) {
    const std::string name = device_name(device.type);
    const auto& known = manifest().devices;
    if (std::find(known.begin(), known.end(), name) != known.end()) return false;
    log(ATTNRT_LOG_WARNING,
        fmt::format("its device {} is not in its manifest and is left out", name));
    no_devices_because_ =
        fmt::format("its only device is a {}, which is not in its manifest", name);
    return true;
  });
  memory_ = static_cast<const attnrt_memory*>(extension(ATTNRT_MEMORY));
  const bool on_device = std::any_of(devices_.begin(), devices_.end(), [](const Device& device) {
    return device.type != ATTNRT_DEVICE_CPU;
  });
  if (memory_ != nullptr && !ATTNRT_HAS(memory_, attnrt_memory, is_capturing)) memory_ = nullptr;
  if (on_device && memory_ == nullptr) {
    return fail(ATTNRT_UNSUPPORTED, "has a device but not the extension {}, which it needs",
                ATTNRT_MEMORY);
  }
  return {};
}

Backend::~Backend() {
  if (open_ && ATTNRT_HAS(table_, attnrt_plugin, close) && table_->close != nullptr) {
    call_plugin(nullptr, [this] { return table_->close(instance_), ATTNRT_OK; });
  }
}

attnrt_status Backend::supports(const Problem& problem, std::vector<std::string>* reasons) const {
  if (table_->supports == nullptr) return ATTNRT_OK;
  const auto add = [](void* sink, const char* reason) {
    if (reason != nullptr) static_cast<std::vector<std::string>*>(sink)->emplace_back(reason);
  };
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status =
      call_plugin(&error, [&] { return table_->supports(instance_, &problem, add, reasons); });
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

void Backend::plan_destroy(void* plan) const {
  if (table_->plan == nullptr || !ATTNRT_HAS(table_, attnrt_plugin, plan_destroy) ||
      table_->plan_destroy == nullptr) {
    return;
  }
  call_plugin(nullptr, [&] { return table_->plan_destroy(instance_, plan), ATTNRT_OK; });
}

Result<std::shared_ptr<Backend>> load(std::shared_ptr<const FoundPlugin> plugin,
                                      const Options& options, std::shared_ptr<Services> services,
                                      bool by_path) {
  if (!plugin->fault.empty()) return fail(ATTNRT_UNSUPPORTED, "{}", plugin->fault);
  if (!by_path && access("/proc/self/fd", X_OK) != 0) {
    services->log(
        ATTNRT_LOG_WARNING,
        "load: /proc is not mounted, so plugins are loaded by path, not from their checked "
        "copies");
    by_path = true;
  }
  const auto table = map_library(*plugin, by_path);
  if (!table) return tl::unexpected(table.error());
  if (auto checked = check_table(**table, *plugin->manifest); !checked)
    return tl::unexpected(checked.error());
  const std::shared_ptr<Backend> backend(new Backend);
  backend->plugin_ = std::move(plugin);
  backend->services_ = std::move(services);
  backend->table_ = *table;
  if (auto opened = backend->open(options); !opened) return tl::unexpected(opened.error());
  if (auto devices = backend->find_devices(); !devices) return tl::unexpected(devices.error());
  return backend;
}

}  // namespace attnrt::core
