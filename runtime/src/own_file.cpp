// runtime/src/own_file.cpp: the file that this code was loaded from: libattnrt.so, or a program
#include "own_file.hpp"

#include <dlfcn.h>
#include <link.h>
#include <sys/auxv.h>

#include <array>
#include <climits>
#include <filesystem>

#include "plugin_file.hpp"

namespace attnrt::core {
namespace {

// Returns the path of the running program; "" if nothing trustworthy says it.
std::string program() {
  if (auto file = resolved("/proc/self/exe")) return *std::move(file);
  // /proc is not mounted. The kernel keeps the path that the program was started by. Whoever starts
  // a privileged program may choose that path, so there it does not count.
  // NOLINTNEXTLINE(performance-no-int-to-ptr): getauxval gives addresses as numbers
  const auto* started_by = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  return started_by != nullptr && getauxval(AT_SECURE) == 0 ? started_by : "";
}

}  // namespace

std::string own_file() {
  Dl_info info{};
  link_map* object = nullptr;
  const auto* here_in = reinterpret_cast<const void*>(&own_file);
  if (dladdr1(here_in, &info, reinterpret_cast<void**>(&object), RTLD_DL_LINKMAP) == 0 ||
      object == nullptr)
    return {};
  // The loader gives the program itself no name, and argv[0] may be anything.
  const bool in_program = object->l_name == nullptr || object->l_name[0] == '\0';
  std::filesystem::path file = in_program ? program() : "";
  if (!in_program) {
    // l_name may be relative to what was the working directory at load time. RTLD_DI_ORIGIN is the
    // absolute folder.
    std::array<char, PATH_MAX> origin{};
    if (dlinfo(object, RTLD_DI_ORIGIN, origin.data()) != 0) return {};
    file = std::filesystem::path(origin.data()) / std::filesystem::path(object->l_name).filename();
  }
  std::error_code error;
  const auto real = std::filesystem::canonical(file, error);
  return error ? std::string() : real.string();
}

}  // namespace attnrt::core
