// kernels/hip/host/wgmma.hpp: products of a warpgroup on the CPU (see kernels/hip/tile/wgmma.hpp)
//
// By the launch's seed a product is computed when all threads of the warpgroup have issued it, or
// when one of them comes to the wgmma_wait that covers it. It reads workgroup memory then. From the
// issue to that wait D is NaN. What ends the process, with the reason:
//
//   products   without wgmma_fence since the last wait, or wgmma_commit before it; without a wait
//              when the thread ends; that are not the same in all threads of the warpgroup
//   operands   not laid out as tile/wgmma.hpp says; that a copy may be writing (see async.hpp), or
//              where a thread stored without fence_async_proxy()
//   registers  D or A that change between multiply and the wait; or between wgmma_fence and
//              multiply, if an earlier product had them in the same place
//
// Stricter than the GPU: every product after a wait needs a fence, also if nobody touched its
// registers. Not modelled: D that a product overwrites, written after the fence; pin().
#pragma once

#include <cstdint>

#include "kernels/common/problem.hpp"

namespace gpu::host {

// One product of the calling thread: D[64, columns] (+)= A[64, 16] B[16, columns].
struct Product {
  kernels::DType dtype;  // f16 or bf16, of A and B
  uint32_t columns;
  float* d;                     // this thread's columns / 2 floats of D
  bool accumulate;              // else D is overwritten
  const uint32_t* a_registers;  // this thread's four words of A; null: A is in workgroup memory
  uint64_t a, b;                // descriptors
  bool b_transposed;            // B is MN-major
};
// d and a_registers must live until the wait.
void wgmma(const Product& product);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(uint32_t pending);

}  // namespace gpu::host
