// tests/fuzz/feed_seeds.cpp: calls every fuzz target once for each of its seeds
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#define FUZZ_TARGET(name) void fuzz_##name(std::string_view input);
#include "targets.inc"
#undef FUZZ_TARGET

namespace {

struct Target {
  const char* name;
  void (*call)(std::string_view);
};

constexpr Target kTargets[] = {
#define FUZZ_TARGET(name) {#name, &fuzz_##name},
#include "targets.inc"
#undef FUZZ_TARGET
};

}  // namespace

// A property that does not hold ends the process; the last line then names the seed.
int main() {
  int missing = 0;
  for (const Target& target : kTargets) {
    const auto folder = std::filesystem::path(ATTNRT_FUZZ_SEEDS) / target.name;
    int seeds = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      std::printf("%s\n", entry.path().c_str());
      std::fflush(stdout);
      std::ifstream stream(entry.path(), std::ios::binary);
      target.call(std::string(std::istreambuf_iterator<char>(stream), {}));
      ++seeds;
    }
    if (seeds == 0) std::printf("%s: found no seeds in %s\n", target.name, folder.c_str());
    missing += seeds == 0 ? 1 : 0;
  }
  return missing == 0 ? 0 : 1;
}
