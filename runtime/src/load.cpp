// runtime/src/load.cpp: the load step: opens a found plugin as a Backend
#include "load.hpp"

#include <cstddef>

#include "base/floating_point.hpp"
#include "base/text.hpp"
#include "library.hpp"

namespace attnrt::core {
namespace {

// Checks the part of the table that every plugin of this ABI version has (up to run), and that the
// table and the manifest agree.
Result<void> check_table(const attnrt_plugin& table, const Manifest& manifest) {
  if (!ATTNRT_HAS(&table, attnrt_plugin, run)) {
    return fail(ATTNRT_UNSUPPORTED,
                "its attnrt_plugin has struct_size {}; expected at least {}, the end of run",
                table.struct_size, offsetof(attnrt_plugin, run) + sizeof table.run);
  }
  if (table.name == nullptr || table.version == nullptr) {
    return fail(ATTNRT_UNSUPPORTED, "its attnrt_plugin has no {}",
                table.name == nullptr ? "name" : "version");
  }
  constexpr size_t kMostBytes = 256;  // of a text (plugin.h)
  const std::string name = cut(table.name, kMostBytes), version = cut(table.version, kMostBytes);
  if (manifest.name != name) {
    return fail(ATTNRT_UNSUPPORTED, "its manifest says name {}, its attnrt_plugin {}",
                manifest.name, name);
  }
  if (manifest.version_text != version) {
    return fail(ATTNRT_UNSUPPORTED, "its manifest says version {}, its attnrt_plugin {}",
                manifest.version_text, version);
  }
  if (table.abi_minor < 0) {
    return fail(ATTNRT_UNSUPPORTED, "its abi_minor is {}; expected at least 0", table.abi_minor);
  }
  if (table.run == nullptr) return fail(ATTNRT_UNSUPPORTED, "its attnrt_plugin has no run");
  return {};
}

}  // namespace

Result<std::shared_ptr<Backend>> load(std::shared_ptr<const FoundPlugin> plugin,
                                      const Options& options, std::shared_ptr<Services> services,
                                      bool by_path) {
  if (!plugin->fault.empty()) return fail(ATTNRT_UNSUPPORTED, "{}", plugin->fault);
  // Loading a library that is built with -ffast-math changes the loading thread's environment.
  const DefaultFloatingPoint floating_point;
  const auto mapped = map_library(*plugin, by_path);
  if (!mapped) return tl::unexpected(mapped.error());
  if (!mapped->fallback.empty()) {
    services->log(ATTNRT_LOG_WARNING,
                  fmt::format("load: {}: its checked copy cannot be loaded here ({}), so the file "
                              "itself is; do not overwrite it in place",
                              plugin->path, mapped->fallback));
  }
  if (auto checked = check_table(*mapped->table, *plugin->manifest); !checked)
    return tl::unexpected(checked.error());
  auto backend = std::make_shared<Backend>(std::move(plugin), *mapped->table, std::move(services),
                                           mapped->use);
  if (auto opened = backend->open(options); !opened) return tl::unexpected(opened.error());
  if (auto found = backend->find_devices(); !found) return tl::unexpected(found.error());
  return backend;
}

}  // namespace attnrt::core
