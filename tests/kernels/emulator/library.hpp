// tests/kernels/emulator/library.hpp: the architecture whose code objects this library's tests run
#pragma once

namespace kernels::test {

extern const char* emulated_arch;  // "gfx1100"; set before any test

}  // namespace kernels::test
