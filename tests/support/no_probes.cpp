// tests/support/no_probes.cpp: lets a test's runtimes load fakes without probing them first
//
// Linked into tests that are not about probes. Those that are set RuntimeOptions::admission_level.
#include <cstdlib>

namespace {

[[maybe_unused]] const int no_probes = setenv("ATTNRT_ADMISSION", "off", 0);

}  // namespace
