// runtime/conformance/abi.cpp: the rules ABI-n: a plugin's file, table, instance, devices, memory and timestamps
#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <set>

#include "base/file.hpp"
#include "conformance/checks.hpp"
#include "conformance/tensors.hpp"
#include "formats/elf_file.hpp"

namespace attnrt::cli::verify {
namespace {

// The names that the file defines for others. discover has checked that all headers lie inside the bytes.
std::vector<std::string> exported_names(std::string_view bytes) {
  std::vector<std::string> names;
  const auto read = [bytes](uint64_t at, auto* value) {
    if (at > bytes.size() || sizeof *value > bytes.size() - at) return false;
    std::memcpy(value, bytes.data() + at, sizeof *value);
    return true;
  };
  Elf64_Ehdr header{};
  if (!read(0, &header)) return names;
  for (int n = 0; n < header.e_shnum; ++n) {
    Elf64_Shdr section{}, strings{};
    if (!read(header.e_shoff + static_cast<uint64_t>(n) * sizeof section, &section)) break;
    if (section.sh_type != SHT_DYNSYM) continue;
    if (!read(header.e_shoff + section.sh_link * sizeof strings, &strings)) break;
    for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= section.sh_size; at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol{};
      if (!read(section.sh_offset + at, &symbol)) break;
      const bool local = ELF64_ST_BIND(symbol.st_info) == STB_LOCAL;
      const uint64_t name = strings.sh_offset + symbol.st_name;
      if (symbol.st_shndx == SHN_UNDEF || local || name >= bytes.size()) continue;
      names.emplace_back(bytes.data() + name, strnlen(bytes.data() + name, bytes.size() - name));
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string said(const std::string& message) {
  return message.empty() ? "without a message" : message;
}

bool named_by(const std::vector<std::string>& archs, const std::string& arch) {
  return archs.empty() || std::any_of(archs.begin(), archs.end(), [&](const auto& pattern) {
           return core::arch_matches(pattern, arch);
         });
}

// A round trip host, device, device, host. "": the bytes came back.
std::string round_trip(Subject& subject, const core::Device& device) {
  const attnrt_memory& memory = *subject.memory();
  void* const instance = subject.instance();
  constexpr int64_t kBytes = 10'000;
  attnrt_error error = ATTNRT_ERROR_INIT;
  void *stream = nullptr, *pinned = nullptr, *one = nullptr, *two = nullptr;
  std::string trouble;
  const auto step = [&](const char* call, attnrt_status status) {
    if (trouble.empty() && status != ATTNRT_OK) {
      trouble = fmt::format("{} on device {}: {}: {}", call, device.id, core::status_name(status),
                            error.message);
    }
    return trouble.empty();
  };
  const int32_t id = device.id;
  int32_t capturing = -1;
  if (step("stream_create", memory.stream_create(instance, id, &stream, &error)) &&
      step("is_capturing", memory.is_capturing(instance, id, stream, &capturing, &error)) &&
      step("allocate_pinned", memory.allocate_pinned(instance, id, kBytes, &pinned, &error)) &&
      step("allocate", memory.allocate(instance, id, kBytes, &one, &error)) &&
      step("allocate", memory.allocate(instance, id, kBytes, &two, &error))) {
    auto* bytes = static_cast<uint8_t*>(pinned);
    for (int64_t n = 0; n < kBytes; ++n) bytes[n] = static_cast<uint8_t>(n * 7);
    const auto copy = [&](void* to, const void* from, int32_t direction) {
      return step("copy", memory.copy(instance, id, to, from, kBytes, direction, stream, &error));
    };
    const auto wait = [&] {
      return step("stream_synchronize", memory.stream_synchronize(instance, id, stream, &error));
    };
    if (copy(one, pinned, ATTNRT_COPY_TO_DEVICE) && copy(two, one, ATTNRT_COPY_ON_DEVICE) &&
        wait()) {
      std::memset(pinned, 0, kBytes);
      if (copy(pinned, two, ATTNRT_COPY_TO_HOST) && wait()) {
        for (int64_t n = 0; n < kBytes && trouble.empty(); ++n) {
          if (bytes[n] != static_cast<uint8_t>(n * 7))
            trouble = fmt::format("byte {} came back as {}", n, bytes[n]);
        }
      }
    }
  }
  if (trouble.empty() && capturing != 0)
    trouble = fmt::format("is_capturing says {} of a fresh stream", capturing);
  memory.free(instance, id, one);
  memory.free(instance, id, two);
  memory.free_pinned(instance, id, pinned);
  if (stream != nullptr) memory.stream_destroy(instance, id, stream);
  return trouble;
}

// Copies between timestamps, twice with the same ones. "": they took no less than nothing, and no longer than the host saw.
std::string time_copies(Subject& subject, const attnrt_timing& timing, const core::Device& device) {
  const attnrt_memory& memory = *subject.memory();
  void* const instance = subject.instance();
  const int32_t id = device.id;
  constexpr int64_t kBytes = 1 << 20;
  attnrt_error error = ATTNRT_ERROR_INIT;
  void *stream = nullptr, *one = nullptr, *two = nullptr, *from = nullptr, *to = nullptr;
  std::string trouble;
  const auto step = [&](const char* call, attnrt_status status) {
    if (trouble.empty() && status != ATTNRT_OK) {
      trouble = fmt::format("{} on device {}: {}: {}", call, id, core::status_name(status),
                            error.message);
    }
    return trouble.empty();
  };
  bool ready = step("stream_create", memory.stream_create(instance, id, &stream, &error)) &&
               step("allocate", memory.allocate(instance, id, kBytes, &one, &error)) &&
               step("allocate", memory.allocate(instance, id, kBytes, &two, &error)) &&
               step("timestamp_create", timing.timestamp_create(instance, id, &from, &error)) &&
               step("timestamp_create", timing.timestamp_create(instance, id, &to, &error));
  for (int n = 0; n < 2 && ready; ++n) {
    double seconds = -1;
    const auto start = std::chrono::steady_clock::now();
    ready = step("record", timing.record(instance, id, from, stream, &error)) &&
            step("copy", memory.copy(instance, id, two, one, kBytes, ATTNRT_COPY_ON_DEVICE, stream,
                                     &error)) &&
            step("record", timing.record(instance, id, to, stream, &error)) &&
            step("elapsed", timing.elapsed(instance, id, from, to, &seconds, &error));
    const std::chrono::duration<double> host = std::chrono::steady_clock::now() - start;
    constexpr double kClocks = 1e-3;  // what two clocks may disagree by
    if (ready && !(seconds >= 0 && seconds <= host.count() + kClocks)) {
      trouble = fmt::format("elapsed on device {} says {} s of a copy that took the host {} s", id,
                            seconds, host.count());
      ready = false;
    }
  }
  if (from != nullptr) timing.timestamp_destroy(instance, id, from);
  if (to != nullptr) timing.timestamp_destroy(instance, id, to);
  memory.free(instance, id, one);
  memory.free(instance, id, two);
  if (stream != nullptr) memory.stream_destroy(instance, id, stream);
  return trouble;
}

}  // namespace

Outcome check_file(Subject& subject) {
  if (subject.file() == nullptr)
    return failed("there is no such file, or its name does not end in .so");
  const core::FoundPlugin& file = *subject.file();
  if (!file.fault.empty()) return failed(file.fault);
  if (!file.manifest->notes.empty())
    return failed(fmt::format("{}", fmt::join(file.manifest->notes, "; ")));
  return passed();
}

Outcome check_exports(Subject& subject) {
  const auto map = core::MappedFile::map(subject.file()->file.number());
  if (!map) return failed(map.error().message);
  const std::vector<std::string> names = exported_names(map->bytes());
  if (names == std::vector<std::string>{ATTNRT_PLUGIN_SYMBOL}) return passed();
  return failed(
      fmt::format("it exports {}; only {} may be", fmt::join(names, ", "), ATTNRT_PLUGIN_SYMBOL));
}

Outcome check_loads(Subject& subject) {
  const std::string error = subject.map();
  return error.empty() ? passed() : failed(error);
}

Outcome check_table(Subject& subject) {
  const attnrt_plugin& table = *subject.table();
  constexpr auto kLeast = static_cast<int64_t>(offsetof(attnrt_plugin, run) + sizeof table.run);
  if (table.struct_size < kLeast) {
    return failed(fmt::format("struct_size is {}; it must reach past run, {} or more",
                              table.struct_size, kLeast));
  }
  if (subject.symbol_bytes() > 0 && table.struct_size > subject.symbol_bytes()) {
    return failed(fmt::format("struct_size is {}, but the symbol has {} bytes", table.struct_size,
                              subject.symbol_bytes()));
  }
  if (table.abi_minor < 0) return failed(fmt::format("abi_minor is {}", table.abi_minor));
  return passed();
}

Outcome check_identity(Subject& subject) {
  const attnrt_plugin& table = *subject.table();
  const core::Manifest& manifest = subject.manifest();
  if (table.name == nullptr || table.version == nullptr) return failed("name or version is NULL");
  if (manifest.name != table.name) {
    return failed(
        fmt::format("the manifest says name {}, attnrt_plugin {}", manifest.name, table.name));
  }
  if (manifest.version_text != table.version) {
    return failed(fmt::format("the manifest says version {}, attnrt_plugin {}",
                              manifest.version_text, table.version));
  }
  return passed();
}

Outcome check_calls(Subject& subject) {
  const attnrt_plugin& table = *subject.table();
  if (table.run == nullptr) return failed("run is NULL");
  const bool destroys =
      ATTNRT_HAS(&table, attnrt_plugin, plan_destroy) && table.plan_destroy != nullptr;
  const bool closes = ATTNRT_HAS(&table, attnrt_plugin, close) && table.close != nullptr;
  if (table.plan != nullptr && !destroys) return failed("there is plan but no plan_destroy");
  if (table.open != nullptr && !closes) return failed("there is open but no close");
  return passed();
}

Outcome check_open(Subject& subject) {
  if (subject.table()->open == nullptr) return skipped("it has no open");
  for (int n = 0; n < 3; ++n) {
    const Instance one = subject.open(), two = subject.open();  // two runtimes in one process
    for (const Instance* instance : {&one, &two}) {
      if (instance->status == ATTNRT_OK) continue;
      return failed(fmt::format("open without options: {}: {}", core::status_name(instance->status),
                                said(instance->message)));
    }
  }
  subject.instance();
  return passed();
}

Outcome check_devices(Subject& subject) {
  if (subject.devices_status() != ATTNRT_OK) {
    return failed(fmt::format("devices: {}: {}", core::status_name(subject.devices_status()),
                              said(subject.devices_message())));
  }
  if (subject.devices().empty() && subject.devices_message().empty()) {
    return failed("devices adds none and does not say why in the error's text");
  }
  const auto& kinds = subject.manifest().devices;
  std::set<std::pair<int32_t, int32_t>> seen;
  for (const core::Device& device : subject.devices()) {
    const std::string kind = core::device_name(device.type);
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) {
      return failed(
          fmt::format("devices adds a {}; the manifest names {}", kind, fmt::join(kinds, ", ")));
    }
    if (!named_by(subject.manifest().archs, device.arch)) {
      return failed(fmt::format("devices adds arch \"{}\"; the manifest names {}", device.arch,
                                fmt::join(subject.manifest().archs, ", ")));
    }
    if (device.arch == "(null)" || device.name == "(null)")
      return failed("a device's arch or name is NULL");
    if (!seen.emplace(device.type, device.id).second)
      return failed(fmt::format("device {} is added twice", device.id));
  }
  return passed();
}

Outcome check_memory(Subject& subject) {
  const auto on_cpu = [](const core::Device& device) { return device.type == ATTNRT_DEVICE_CPU; };
  const auto& devices = subject.devices();
  if (std::all_of(devices.begin(), devices.end(), on_cpu))
    return skipped("it has no device here other than the cpu");
  for (const core::Device& device : devices) {
    if (on_cpu(device)) continue;
    const attnrt_memory* memory = subject.memory();
    if (memory == nullptr) return failed(fmt::format("it offers no {}", ATTNRT_MEMORY));
    if (!ATTNRT_HAS(memory, attnrt_memory, is_capturing)) {
      return failed(fmt::format("struct_size of {} is {}", ATTNRT_MEMORY, memory->struct_size));
    }
    if (memory->allocate == nullptr || memory->free == nullptr ||
        memory->allocate_pinned == nullptr || memory->free_pinned == nullptr ||
        memory->copy == nullptr || memory->stream_create == nullptr ||
        memory->stream_destroy == nullptr || memory->stream_synchronize == nullptr ||
        memory->is_capturing == nullptr) {
      return failed(fmt::format("a call of {} is NULL", ATTNRT_MEMORY));
    }
    if (const std::string trouble = round_trip(subject, device); !trouble.empty())
      return failed(trouble);
  }
  return passed();
}

Outcome check_unknown_extension(Subject& subject) {
  const attnrt_plugin& table = *subject.table();
  if (!ATTNRT_HAS(&table, attnrt_plugin, get_extension) || table.get_extension == nullptr)
    return skipped("it has no get_extension");
  for (const char* id :
       {"attnrt.no_such_extension/1", "", "attnrt.memory/999", "attnrt.timing/999"}) {
    if (subject.extension(id) != nullptr)
      return failed(fmt::format("get_extension(\"{}\") is not NULL", id));
  }
  return passed();
}

Outcome check_timing(Subject& subject) {
  const auto* timing = static_cast<const attnrt_timing*>(subject.extension(ATTNRT_TIMING));
  if (timing == nullptr) return skipped(fmt::format("it offers no {}", ATTNRT_TIMING));
  if (!ATTNRT_HAS(timing, attnrt_timing, elapsed)) {
    return failed(fmt::format("struct_size of {} is {}", ATTNRT_TIMING, timing->struct_size));
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

}  // namespace attnrt::cli::verify
