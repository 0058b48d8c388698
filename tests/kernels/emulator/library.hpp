// tests/kernels/emulator/library.hpp: which GPU's code objects the tests of this library run on
#pragma once

namespace kernels::test {

extern const char* emulated_arch;  // "gfx1100"; set before any test

}  // namespace kernels::test
