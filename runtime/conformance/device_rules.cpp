// runtime/conformance/device_rules.cpp: checks the rules ABI-n on devices, memory and timestamps
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <set>
#include <utility>

#include "conformance/rule_checks.hpp"
#include "conformance/subject.hpp"

namespace attnrt::conformance {
namespace {

// Seconds by which the device's clock may show more than the host's.
constexpr double kClockError = 1e-3;

bool matches_any(const std::vector<std::string>& archs, const std::string& arch) {
  return archs.empty() || std::any_of(archs.begin(), archs.end(), [&](const auto& pattern) {
           return core::arch_matches(pattern, arch);
         });
}

// Makes calls of a device's extensions one after another, until one fails.
class Calls {
 public:
  Calls(Subject& subject, const core::Device& device)
      : memory(*subject.memory()), instance(subject.instance()), id(device.id) {}
  Calls(const Calls&) = delete;
  Calls& operator=(const Calls&) = delete;
  ~Calls() {
    for (void* data : allocations_) memory.free(instance, id, data, stream);
    if (stream != nullptr) memory.stream_destroy(instance, id, stream);
  }

  // Notes the call's failure. RETURNS false from the first failure on.
  bool ok(const char* call, attnrt_status status) {
    if (trouble.empty() && status != ATTNRT_OK) {
      trouble = fmt::format("{} on device {}: {}: {}", call, id, core::status_name(status),
                            error.message);
    }
    return trouble.empty();
  }
  bool create_stream() {
    return ok("stream_create", memory.stream_create(instance, id, &stream, &error));
  }
  bool allocate(int64_t bytes, void** data) {
    const bool allocated =
        ok("allocate", memory.allocate(instance, id, bytes, stream, data, &error));
    allocations_.push_back(*data);
    return allocated;
  }
  bool copy(void* to, const void* from, int64_t bytes, int32_t direction) {
    return ok("copy", memory.copy(instance, id, to, from, bytes, direction, stream, &error));
  }
  bool synchronize() {
    return ok("stream_synchronize", memory.stream_synchronize(instance, id, stream, &error));
  }

  const attnrt_memory& memory;
  void* const instance;
  const int32_t id;
  void* stream = nullptr;
  attnrt_error error = ATTNRT_ERROR_INIT;
  std::string trouble;  // the first failure; "": none

 private:
  std::vector<void*> allocations_;
};

// Copies bytes from the host to the device, on the device, and back. RETURNS what went wrong, or
// "".
std::string round_trip(Subject& subject, const core::Device& device) {
  constexpr int64_t kBytes = 10'000;
  const auto pattern = [](int64_t n) { return static_cast<uint8_t>(n * 7); };
  Calls calls(subject, device);
  void *pinned = nullptr, *one = nullptr, *two = nullptr;
  int32_t capturing = -1;
  uint64_t capture_id = 1;
  if (calls.create_stream() &&
      calls.ok("is_capturing", calls.memory.is_capturing(calls.instance, calls.id, calls.stream,
                                                         &capturing, &capture_id, &calls.error)) &&
      calls.ok("allocate_pinned", calls.memory.allocate_pinned(calls.instance, calls.id, kBytes,
                                                               &pinned, &calls.error)) &&
      calls.allocate(kBytes, &one) && calls.allocate(kBytes, &two)) {
    auto* const bytes = static_cast<uint8_t*>(pinned);
    for (int64_t n = 0; n < kBytes; ++n) bytes[n] = pattern(n);
    if (calls.copy(one, pinned, kBytes, ATTNRT_COPY_TO_DEVICE) &&
        calls.copy(two, one, kBytes, ATTNRT_COPY_ON_DEVICE) && calls.synchronize()) {
      std::memset(pinned, 0, kBytes);
      if (calls.copy(pinned, two, kBytes, ATTNRT_COPY_TO_HOST) && calls.synchronize()) {
        for (int64_t n = 0; n < kBytes && calls.trouble.empty(); ++n) {
          if (bytes[n] != pattern(n))
            calls.trouble =
                fmt::format("byte {} came back as {}, expected {}", n, bytes[n], pattern(n));
        }
      }
    }
  }
  calls.memory.free_pinned(calls.instance, calls.id, pinned);
  calls.memory.free(calls.instance, calls.id, nullptr, calls.stream);
  if (calls.trouble.empty() && (capturing != 0 || capture_id != 0)) {
    return fmt::format("is_capturing says {}, with id {}, of a new stream, expected 0 and 0",
                       capturing, capture_id);
  }
  return calls.trouble;
}

// Records an event behind copies and waits for it, on the host and by another stream. RETURNS what
// went wrong, or "".
std::string pass_event(Subject& subject, const core::Device& device) {
  constexpr int64_t kBytes = 1 << 20;
  Calls calls(subject, device);
  const attnrt_memory& memory = calls.memory;
  void* const instance = calls.instance;
  const int32_t id = calls.id;
  void *event = nullptr, *other = nullptr, *one = nullptr, *two = nullptr;
  int32_t before = -1, after = -1;
  const auto query = [&](int32_t* passed) {
    return calls.ok("event_query", memory.event_query(instance, id, event, passed, &calls.error));
  };
  const bool done =
      calls.create_stream() && calls.allocate(kBytes, &one) && calls.allocate(kBytes, &two) &&
      calls.ok("stream_create", memory.stream_create(instance, id, &other, &calls.error)) &&
      calls.ok("event_create", memory.event_create(instance, id, &event, &calls.error)) &&
      query(&before) && calls.copy(two, one, kBytes, ATTNRT_COPY_ON_DEVICE) &&
      calls.ok("event_record",
               memory.event_record(instance, id, event, calls.stream, &calls.error)) &&
      calls.ok("stream_wait_event",
               memory.stream_wait_event(instance, id, other, event, &calls.error)) &&
      calls.ok("stream_synchronize",
               memory.stream_synchronize(instance, id, other, &calls.error)) &&
      query(&after) &&
      calls.ok("event_synchronize", memory.event_synchronize(instance, id, event, &calls.error)) &&
      calls.synchronize();
  if (event != nullptr) memory.event_destroy(instance, id, event);
  if (other != nullptr) memory.stream_destroy(instance, id, other);
  if (!done) return calls.trouble;
  if (before != 1)
    return fmt::format("event_query says {} of an event that is not recorded, expected 1", before);
  if (after == 1) return {};
  return fmt::format(
      "event_query says {} after a stream that waits for the event was synchronized, expected 1",
      after);
}

// Records two timestamps around a copy, twice with the same timestamps. RETURNS what went wrong, or
// "". It is wrong if a time is negative, or longer than the host measured.
std::string time_copies(Subject& subject, const attnrt_timing& timing, const core::Device& device) {
  constexpr int64_t kBytes = 1 << 20;
  Calls calls(subject, device);
  void* const instance = calls.instance;
  const int32_t id = calls.id;
  void *one = nullptr, *two = nullptr, *from = nullptr, *to = nullptr;
  const auto create = [&](void** timestamp) {
    return calls.ok("timestamp_create",
                    timing.timestamp_create(instance, id, timestamp, &calls.error));
  };
  const auto record = [&](void* timestamp) {
    return calls.ok("record", timing.record(instance, id, timestamp, calls.stream, &calls.error));
  };
  bool ready = calls.create_stream() && calls.allocate(kBytes, &one) &&
               calls.allocate(kBytes, &two) && create(&from) && create(&to);
  for (int n = 0; n < 2 && ready; ++n) {
    double seconds = -1;
    const auto start = std::chrono::steady_clock::now();
    ready = record(from) && calls.copy(two, one, kBytes, ATTNRT_COPY_ON_DEVICE) && record(to) &&
            calls.ok("elapsed", timing.elapsed(instance, id, from, to, &seconds, &calls.error));
    const std::chrono::duration<double> host = std::chrono::steady_clock::now() - start;
    if (ready && !(seconds >= 0 && seconds <= host.count() + kClockError)) {
      calls.trouble =
          fmt::format("elapsed on device {} says {} s of a copy that took the host {} s", id,
                      seconds, host.count());
      ready = false;
    }
  }
  if (from != nullptr) timing.timestamp_destroy(instance, id, from);
  if (to != nullptr) timing.timestamp_destroy(instance, id, to);
  return calls.trouble;
}

bool is_cpu(const core::Device& device) { return device.type == ATTNRT_DEVICE_CPU; }

}  // namespace

Outcome check_devices(Subject& subject) {
  if (subject.devices_status() != ATTNRT_OK) {
    const std::string& message = subject.devices_message();
    return failed(fmt::format("devices: {}: {}", core::status_name(subject.devices_status()),
                              message.empty() ? "without a message" : message));
  }
  if (subject.devices().empty() && subject.devices_message().empty()) {
    return failed("devices adds none, and does not say why in the error's text");
  }
  const auto& kinds = subject.manifest().devices;
  std::set<std::pair<int32_t, int32_t>> seen;
  for (const core::Device& device : subject.devices()) {
    const std::string kind = core::device_name(device.type);
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) {
      return failed(fmt::format("devices adds a device of kind {}; the manifest names {}", kind,
                                fmt::join(kinds, ", ")));
    }
    if (!matches_any(subject.manifest().archs, device.arch)) {
      return failed(fmt::format("devices adds arch \"{}\"; the manifest names {}", device.arch,
                                fmt::join(subject.manifest().archs, ", ")));
    }
    if (device.arch == "(null)" || device.name == "(null)")
      return failed("the arch or name of a device is NULL");
    if (!seen.emplace(device.type, device.id).second)
      return failed(fmt::format("device {} is added twice", device.id));
  }
  return passed();
}

Outcome check_memory(Subject& subject) {
  const auto& devices = subject.devices();
  if (std::all_of(devices.begin(), devices.end(), is_cpu))
    return skipped("it has no device here other than the cpu");
  for (const core::Device& device : devices) {
    if (is_cpu(device)) continue;
    const attnrt_memory* memory = subject.memory();
    if (memory == nullptr) return failed(fmt::format("it does not offer {}", ATTNRT_MEMORY));
    if (!ATTNRT_HAS(memory, attnrt_memory, stream_wait_event)) {
      return failed(fmt::format("struct_size of {} is {}, too small for its calls", ATTNRT_MEMORY,
                                memory->struct_size));
    }
    if (memory->allocate == nullptr || memory->free == nullptr ||
        memory->allocate_pinned == nullptr || memory->free_pinned == nullptr ||
        memory->copy == nullptr || memory->stream_create == nullptr ||
        memory->stream_destroy == nullptr || memory->stream_synchronize == nullptr ||
        memory->is_capturing == nullptr || memory->event_create == nullptr ||
        memory->event_record == nullptr || memory->event_query == nullptr ||
        memory->event_synchronize == nullptr || memory->event_destroy == nullptr ||
        memory->stream_wait_event == nullptr) {
      return failed(fmt::format("a call of {} is NULL", ATTNRT_MEMORY));
    }
    if (const std::string trouble = round_trip(subject, device); !trouble.empty())
      return failed(trouble);
    if (const std::string trouble = pass_event(subject, device); !trouble.empty())
      return failed(trouble);
  }
  return passed();
}

Outcome check_unknown_extension(Subject& subject) {
  const attnrt_plugin& table = *subject.table();
  if (!ATTNRT_HAS(&table, attnrt_plugin, get_extension) || table.get_extension == nullptr)
    return skipped("it has no get_extension");
  for (const char* id : {"attnrt.no_such_extension/1", "", "attnrt.memory/999", "attnrt.timing/999",
                         "attnrt.merge/999", "attnrt.schedule/999"}) {
    if (subject.extension(id) != nullptr)
      return failed(fmt::format("get_extension(\"{}\") does not return NULL", id));
  }
  return passed();
}

Outcome check_timing(Subject& subject) {
  const auto* timing = static_cast<const attnrt_timing*>(subject.extension(ATTNRT_TIMING));
  if (timing == nullptr) return skipped(fmt::format("it does not offer {}", ATTNRT_TIMING));
  if (!ATTNRT_HAS(timing, attnrt_timing, elapsed)) {
    return failed(fmt::format("struct_size of {} is {}, too small for its calls", ATTNRT_TIMING,
                              timing->struct_size));
  }
  if (timing->timestamp_create == nullptr || timing->timestamp_destroy == nullptr ||
      timing->record == nullptr || timing->elapsed == nullptr) {
    return failed(fmt::format("a call of {} is NULL", ATTNRT_TIMING));
  }
  for (const core::Device& device : subject.devices()) {
    if (const std::string trouble = time_copies(subject, *timing, device); !trouble.empty())
      return failed(trouble);
  }
  return passed();
}

}  // namespace attnrt::conformance
