// kernels/hip/tile/mma_sm80.hpp: NVIDIA's mma.sync, ldmatrix and cp.async (sm_80 and newer), 16 x 8
// x 16
//
// Which lane l holds which element (PTX ISA, mma.m16n8k16):
//
//   A  words 0, 1: rows l / 4 and l / 4 + 8, k 2 (l % 4) and the next; words 2, 3: k 8 further
//   B  column l / 4: word 0 is k 2 (l % 4) and the next; word 1 the same, k 8 further
//   C  elements 0, 1: row l / 4, columns 2 (l % 4) and the next; elements 2, 3: row l / 4 + 8
//
//                 columns 0 1   2 3   4 5   6 7
//        C  row 0    lane 0  lane 1  lane 2  lane 3    elements 0, 1
//           row 8    lane 0  lane 1  lane 2  lane 3    elements 2, 3
//           row 1    lane 4  lane 5  lane 6  lane 7    elements 0, 1
#pragma once

#include "kernels/hip/tile/matrix.hpp"

namespace kernels::hip {

struct MmaSm80 {
  static constexpr int kWave = 32, kM = 16, kN = 8, kK = 16, kA = 4, kB = 2, kC = 4;
  static constexpr bool kReplicated = false;
  static constexpr int a_lane(int row, int k) { return row % 8 * 4 + k % 8 / 2; }
  static constexpr int a_element(int row, int k) { return (k / 8 * 2 + row / 8) * 2 + k % 2; }
  static constexpr int b_lane(int k, int col) { return col * 4 + k % 8 / 2; }
  static constexpr int b_element(int k, int) { return k / 8 * 2 + k % 2; }
  static constexpr int c_row(int lane, int e) { return lane / 4 + e / 2 * 8; }
  static constexpr int c_col(int lane, int e) { return lane % 4 * 2 + e % 2; }

  // C += A B. c0: elements 0 and 1; c1: elements 2 and 3.
  template <class T>
  GPU_DEVICE static void multiply(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                  gpu::Floats<2>& c0, gpu::Floats<2>& c1) {
#if defined(GPU_NVIDIA)
    if constexpr (sizeof(T) && T::kDType == DType::f16) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
          "{%8,%9}, {%0,%1,%2,%3};"
          : "+f"(c0[0]), "+f"(c0[1]), "+f"(c1[0]), "+f"(c1[1])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
          "{%8,%9}, {%0,%1,%2,%3};"
          : "+f"(c0[0]), "+f"(c0[1]), "+f"(c1[0]), "+f"(c1[1])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
#elif defined(GPU_ON_HOST)
    const uint32_t b[2] = {b0, b1};
    float c[4] = {c0[0], c0[1], c1[0], c1[1]};
    matrix_multiply<MmaSm80, T>(a, b, c);
    c0[0] = c[0], c0[1] = c[1], c1[0] = c[2], c1[1] = c[3];
#endif
  }

  // Reads four 8 x 8 matrices of 16-bit elements from workgroup memory. offset: lane l gives that
  // of row l % 8 of matrix l / 8. words[m]: lane l gets row l / 4, columns 2 (l % 4) and the next,
  // of matrix m or (kTransposed) of its transpose.
  template <bool kTransposed>
  GPU_DEVICE static void load_matrices(uint32_t offset, uint32_t (&words)[4]) {
#if defined(GPU_NVIDIA)
    const uint32_t at = gpu::shared_address(offset);
    if constexpr (kTransposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                   : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                   : "r"(at)
                   : "memory");
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                   : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                   : "r"(at)
                   : "memory");
    }
#elif defined(GPU_ON_HOST)
    gpu::host::Thread& thread = gpu::host::current();
    const uint32_t* rows = thread.gather(&offset, 1, kWave);
    const uint32_t lane = thread.thread % kWave;
    for (uint32_t m = 0; m < 4; ++m) {
      const auto element = [&](uint32_t row, uint32_t col) {
        return static_cast<uint32_t>(gpu::shared_load<uint16_t>(rows[m * 8 + row] + col * 2));
      };
      const uint32_t i = lane / 4, j = lane % 4 * 2;
      words[m] = kTransposed ? element(j, i) | element(j + 1, i) << 16
                             : element(i, j) | element(i, j + 1) << 16;
    }
#endif
  }

  // Starts a copy to workgroup memory that needs no registers, of the first 0, 8 or 16 of 16 bytes.
  // The others become zero. With none, it does not read `from`.
  GPU_DEVICE static void copy_async(uint32_t to, const void* from, int bytes) {
#if defined(GPU_NVIDIA)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(gpu::shared_address(to)),
                 "l"(from), "r"(bytes)
                 : "memory");
#elif defined(GPU_ON_HOST)
    gpu::Bits128 bits{};
    __builtin_memcpy(&bits, from, static_cast<size_t>(bytes));
    gpu::shared_store(to, bits);
#endif
  }
  GPU_DEVICE static void copy_async(uint32_t to, const void* from, bool exists) {
    copy_async(to, from, exists ? 16 : 0);
  }
  // The same of one float.
  GPU_DEVICE static void copy_float_async(uint32_t to, const float* from, bool exists) {
#if defined(GPU_NVIDIA)
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(gpu::shared_address(to)),
                 "l"(from), "r"(exists ? 4 : 0)
                 : "memory");
#elif defined(GPU_ON_HOST)
    gpu::shared_store(to, exists ? *from : 0.0F);
#endif
  }
  GPU_DEVICE static void wait_for_copies() {
#if defined(GPU_NVIDIA)
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
  }
  // Makes a group of the copies that this thread started since its last one; waits until all but
  // its last kLeft groups are complete.
  GPU_DEVICE static void group_copies() {
#if defined(GPU_NVIDIA)
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
  }
  template <int kLeft>
  GPU_DEVICE static void wait_for_groups() {
#if defined(GPU_NVIDIA)
    asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
  }
};

}  // namespace kernels::hip
