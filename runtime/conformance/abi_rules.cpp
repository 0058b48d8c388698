// runtime/conformance/abi_rules.cpp: checks the rules ABI-n on a plugin's file, table and instance
#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/file.hpp"
#include "conformance/rule_checks.hpp"
#include "conformance/subject.hpp"

namespace attnrt::conformance {
namespace {

// Returns the names that the file exports, sorted. discover has checked that all headers lie inside
// the bytes.
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
  const auto bytes = core::bytes_of(*subject.file());
  if (!bytes) return failed(bytes.error().message);
  const std::vector<std::string> names = exported_names((*bytes)->view());
  if (names == std::vector<std::string>{ATTNRT_PLUGIN_SYMBOL}) return passed();
  return failed(fmt::format("it exports {}; only {} may be exported", fmt::join(names, ", "),
                            ATTNRT_PLUGIN_SYMBOL));
}

Outcome check_loads(Subject& subject) {
  const std::string error = subject.map();
  return error.empty() ? passed() : failed(error);
}

Outcome check_table(Subject& subject) {
  const attnrt_plugin& table = *subject.table();
  constexpr auto kSmallest = static_cast<int64_t>(offsetof(attnrt_plugin, run) + sizeof table.run);
  if (table.struct_size < kSmallest) {
    return failed(fmt::format("struct_size is {}; to include run it must be at least {}",
                              table.struct_size, kSmallest));
  }
  if (subject.symbol_bytes() > 0 && table.struct_size > subject.symbol_bytes()) {
    return failed(fmt::format("struct_size is {}, but the symbol has only {} bytes",
                              table.struct_size, subject.symbol_bytes()));
  }
  if (table.abi_minor < 0)
    return failed(fmt::format("abi_minor is {}, expected 0 or more", table.abi_minor));
  return passed();
}

Outcome check_identity(Subject& subject) {
  const attnrt_plugin& table = *subject.table();
  const core::Manifest& manifest = subject.manifest();
  if (table.name == nullptr || table.version == nullptr) return failed("name or version is NULL");
  if (manifest.name != table.name) {
    return failed(
        fmt::format("the manifest says name {}, attnrt_plugin says {}", manifest.name, table.name));
  }
  if (manifest.version_text != table.version) {
    return failed(fmt::format("the manifest says version {}, attnrt_plugin says {}",
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
  if (table.plan != nullptr && !destroys) return failed("plan is set, but plan_destroy is not");
  if (table.open != nullptr && !closes) return failed("open is set, but close is not");
  return passed();
}

Outcome check_open(Subject& subject) {
  if (subject.table()->open == nullptr) return skipped("it has no open");
  const auto options = subject.options();
  for (int n = 0; n < 3; ++n) {
    // As two runtimes in one process do.
    const Instance one = subject.open(options), two = subject.open(options);
    for (const Instance* instance : {&one, &two}) {
      if (instance->status == ATTNRT_OK) continue;
      return failed(fmt::format("open {}: {}: {}",
                                options.empty() ? "without options" : "with the policy's options",
                                core::status_name(instance->status), said(instance->message)));
    }
  }
  subject.instance();
  return passed();
}

}  // namespace attnrt::conformance
