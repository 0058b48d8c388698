// tests/fuzz/manifest_fuzz.cpp: reads a plugin's manifest, and asks it about problems
#include "fuzz.hpp"
#include "manifest.hpp"
#include "policy_text.hpp"

void fuzz_manifest(std::string_view input) {
  using namespace attnrt;
  using fuzz::require;
  const auto manifest = core::parse_manifest(input, "plugin.so");
  if (!manifest) {
    const core::Error& error = manifest.error();
    require(error.code == ATTNRT_INVALID_ARGUMENT || error.code == ATTNRT_UNSUPPORTED,
            "an error of a manifest is INVALID_ARGUMENT or UNSUPPORTED");
    fuzz::require_one_line(error.message);
    if (error.code == ATTNRT_INVALID_ARGUMENT)
      fuzz::require_place(error.message, "plugin.so", input);
    return;
  }
  require(!manifest->name.empty() && manifest->name.size() <= 64 &&
              manifest->name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") ==
                  std::string::npos,
          "a name is a-z, 0-9 and _");
  require(manifest->abi == ATTNRT_ABI_MAJOR, "only this major version of the ABI is accepted");
  const auto version = core::parse_version(manifest->version_text);
  require(version && *version == manifest->version, "the version is that of its text");
  for (const std::string& note : manifest->notes) fuzz::require_place(note, "plugin.so", input);
  for (const auto& entry : manifest->entries)
    fuzz::require_conditions_read_again(entry.constraints);
  (void)manifest->serves_nothing();
  core::Problem problem = core::default_problem();
  problem.head_dim_v = problem.head_dim;
  for (const char* arch : {"", "gfx1100", "sm_90"}) {
    // A reason may quote what the manifest lists, which is any text: the runtime makes it one line
    // where it prints it.
    for (const std::string& reason : manifest->refusals(problem, arch))
      fuzz::require_one_line(core::one_line(reason));
  }
}
