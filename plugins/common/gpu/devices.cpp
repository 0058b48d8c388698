// plugins/common/gpu/devices.cpp: lists the devices that this build has code objects for
#include <cstring>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <string_view>

#include "plugins/common/gpu/backend.hpp"
#include "plugins/common/translate.hpp"

namespace attnrt_gpu {
namespace {

namespace hip = kernels::hip;

// RETURNS a copy of the text that lives as long as the library: that is how long the host may read
// it.
const char* interned(std::string_view text) {
  static std::mutex mutex;
  static auto* const texts = new std::set<std::string, std::less<>>;
  const std::lock_guard lock(mutex);
  return texts->emplace(text).first->c_str();
}

// The architectures of this build's code objects: "gfx1100, gfx942".
std::string built_archs() {
  std::string list;
  const char* last = "";
  for (uint32_t n = 0; n < hip::code_object_count; ++n) {
    const char* arch = hip::code_objects[n].arch;
    bool known = false;
    for (uint32_t m = 0; m < n && !known; ++m)
      known = std::strcmp(hip::code_objects[m].arch, arch) == 0;
    if (known) continue;
    list += (*last != '\0' ? ", " : "") + std::string(arch);
    last = arch;
  }
  return list;
}

// RETURNS what the user should know about the devices: for which of them the driver compiles PTX.
std::string note_on(const Instance& instance) {
  std::string list;
  for (const ServedDevice& served : instance.devices) {
    if (!runs_ptx(served)) continue;
    list += (list.empty() ? "" : ", ") + std::string("device ") + std::to_string(served.device_id) +
            " (" + served.arch + ")";
  }
  if (list.empty()) return list;
  return "the driver compiles kernels from PTX for " + list +
         (instance.ptx_only ? ", as the option code says" : "");
}

// Logs to the host, if it takes logs.
void log(const Instance& instance, const std::string& text) {
  const attnrt_host* host = instance.host;
  if (host == nullptr || !ATTNRT_HAS(host, attnrt_host, log) || host->log == nullptr) return;
  host->log(host->self, ATTNRT_LOG_INFO, text.c_str());
}

}  // namespace

attnrt_status devices(void* instance, attnrt_add_device add, void* sink, attnrt_error* error) try {
  auto& self = *static_cast<Instance*>(instance);
  self.devices.clear();
  std::vector<hip::Device> found;
  hip::Message message;
  const hip::Status status = hip::devices(&found, &message);
  if (status != hip::Status::ok) return attnrt_fail(error, status_of(status), "%s", message.text);
  if (found.empty()) attnrt_fail(error, ATTNRT_OK, "%s", message.text);
  std::string unserved;
  for (const hip::Device& device : found) {
    const std::string_view arch(device.arch);
    ServedDevice served{device.id,
                        interned(arch.substr(0, arch.find(':'))),
                        interned(arch),
                        code_arch_for(device.arch, self.ptx_only),
                        self.ptx_only,
                        interned(device.name),
                        device.total_memory_bytes,
                        device.shared_bytes,
                        device.multiprocessor_count};
    if (served.code_arch == nullptr) {
      const std::string what =
          "device " + std::to_string(device.id) + " is a " + device.arch + " (" + device.name + ")";
      unserved += (unserved.empty() ? "" : ", ") + what;
      continue;
    }
    if (const hip::CodeObject* object = code_object_for(served, "serving_attention_f32_64");
        object != nullptr)
      served.list_arch = object->arch;
    self.devices.push_back(served);
  }
  if (!unserved.empty()) {
    unserved += (self.ptx_only ? ", the option code says ptx" : "") +
                (", and this build has code for " + built_archs());
    if (self.devices.empty()) attnrt_fail(error, ATTNRT_OK, "%s", unserved.c_str());
    log(self, unserved);
  }
  if (const std::string note = note_on(self); !note.empty())
    attnrt_fail(error, ATTNRT_OK, "%s", note.c_str());
  for (const ServedDevice& served : self.devices) {
    const attnrt_device device = {sizeof(attnrt_device), device_type(), served.device_id,         0,
                                  served.arch,           served.name,   served.total_memory_bytes};
    add(sink, &device);
  }
  return ATTNRT_OK;
} catch (const std::bad_alloc&) {
  return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "devices: out of host memory");
}

const ServedDevice* find_device(const Instance& instance, int32_t device_id, attnrt_error* error) {
  for (const ServedDevice& served : instance.devices) {
    if (served.device_id == device_id) return &served;
  }
  attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
              "device_id: found %d, expected the id of one of this backend's devices", device_id);
  return nullptr;
}

attnrt_status translate_for_device(const Instance& instance, const attnrt_problem& problem,
                                   DeviceProblem* asked, attnrt_error* error) {
  const attnrt_status status =
      attnrt_plugins::translate(problem, device_type(), &asked->problem, error);
  if (status != ATTNRT_OK) return status;
  asked->device = find_device(instance, problem.device_id, error);
  return asked->device != nullptr ? ATTNRT_OK : ATTNRT_INVALID_ARGUMENT;
}

}  // namespace attnrt_gpu
