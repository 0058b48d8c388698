// kernels/hip/host/async.hpp: copies, mbarriers, named barriers and wgmma of sm_90a on the CPU
// (see async.hpp, tile/wgmma.hpp)
#pragma once

#include <cstdint>

#include "kernels/common/problem.hpp"

namespace gpu {
struct TensorMap;
}

namespace gpu::host {

void mbarrier_init(uint32_t at, uint32_t arrivals);
void mbarrier_init_fence();
void mbarrier_arrive(uint32_t at);
void mbarrier_arrive_expect(uint32_t at, uint32_t bytes);
void mbarrier_wait(uint32_t at, uint32_t parity);
void named_barrier_wait(uint32_t id, uint32_t threads);
void named_barrier_arrive(uint32_t id, uint32_t threads);
void copy_tile(uint32_t to, const TensorMap& map, uint32_t mbarrier, const int32_t* at,
               uint32_t rank);
void fence_async_proxy();

// What a TensorMap holds on the host: a tensor of 16-bit elements, its innermost dimension first.
struct Tensor {
  const void* base;
  uint32_t rank;
  uint64_t size[5];    // in elements
  uint64_t stride[4];  // in bytes, of dimensions 1 and up
  uint32_t box[5];     // in elements
};
void encode(const Tensor& tensor, TensorMap* map);

// Encodes a request that has the members of Tensor.
template <class Request>
void encode(const Request& request, TensorMap* map) {
  Tensor tensor = {request.base, request.rank, {}, {}, {}};
  for (uint32_t i = 0; i < request.rank && i < 5; ++i) {
    tensor.size[i] = request.size[i];
    tensor.box[i] = request.box[i];
    if (i > 0) tensor.stride[i - 1] = request.stride[i - 1];
  }
  encode(tensor, map);
}

// One wgmma of the calling thread: D[64, columns] (+)= A[64, 16] B[16, columns].
struct Product {
  kernels::DType dtype;  // f16 or bf16, of A and B
  uint32_t columns;
  float* d;                     // this thread's columns / 2 accumulators
  bool accumulate;              // else D is overwritten
  const uint32_t* a_registers;  // this thread's four words of A; null: A is in workgroup memory
  uint64_t a, b;                // descriptors
  bool b_transposed;            // B is MN-major
};
void wgmma(const Product& product);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(uint32_t pending);

}  // namespace gpu::host
