// kernels/hip/flash_attention_sm90.hpp: fused attention on sm_90a: one warpgroup copies, the others
// compute
//
// The same arithmetic as flash_attention.hpp, in a loop that keeps the tensor cores busy
// (FlashAttention-3's, arXiv 2407.08608). A workgroup has one warpgroup of producers, of which one
// thread works (two in the masked kernel), and Tile::kGroups of consumers, with 64 queries each.
// The producer copies Q, K, V and, if copies can, the mask to workgroup memory by tensor maps. K, V
// and the mask have kStages places each, and Q kQueryStages, which the two sides hand to each other
// by barriers in workgroup memory, "full" and "empty":
//
//   producer    wait until empty | start the copy, which makes it full
//   consumers   wait until full  | multiply | arrive at empty
//
// Steps of keys are walked from the last to the first. A consumer starts the scores of step n
// before O += P V of the step before, n + 1, and computes the softmax of step n while the tensor
// cores work on that:
//
//   start S(n) = Q K(n)^T | start O += P(n + 1) V(n + 1)
//   wait for S(n)         | softmax: S(n) -> weights
//   wait for O            | P(n) = weights; O is scaled if a reference rose
//
// The consumers take turns to start their products (ping-pong, by named barriers), so that one
// computes its softmax while another's products run.
//
// A workgroup takes one block of queries after the other, as long as there are any. The producer
// takes the next one by an atomic addition, and hands it over with its queries.
//
// Blocks may also come from a list (work_list.hpp): of sequences of different lengths, packed
// heads, pages. Only the producer differs then, and where results go.
#pragma once

#include "kernels/hip/pipeline_consumer.hpp"
#include "kernels/hip/pipeline_listed_producer.hpp"
#include "kernels/hip/pipeline_producer.hpp"
#include "kernels/hip/pipeline_wide_consumer.hpp"

namespace kernels::hip {

template <class Tile, Kind kKind>
class PipelinedAttention : Pipeline<Tile, kKind> {
  using Base = Pipeline<Tile, kKind>;
  using Base::params_, Base::full, Base::empty, Base::kBarriers, Base::kHandsSteps,
      Base::kSplitsCopies, Base::kWorkAt, Base::kWorkBytes, Base::kListed;

 public:
  using Base::Base;
  using Base::kSharedBytes, Base::kThreads;

  GPU_DEVICE void run() {
    if constexpr (!kListed && kKind != Kind::generic) {
      if (params_.gate.tiles != nullptr && all_clear() != (kKind != Kind::masked)) return;
    }
    if (gpu::thread() == 0) {
      for (uint32_t n = 0; n < kBarriers; ++n) {
        gpu::mbarrier_init(full(n), Base::full_arrivals(n));
        gpu::mbarrier_init(empty(n), Base::empty_arrivals(n));
      }
      gpu::mbarrier_init_fence();
    }
    gpu::barrier();
    if constexpr (kListed) {
      gpu::wait_for_previous_kernel();
      gpu::start_next_kernel();
    }
    const int group = gpu::uniform(static_cast<int>(gpu::thread()) / Tile::kGroupThreads);
    if (group == 0) {
      gpu::lower_registers<kProducerRegisters>();
      if constexpr (kListed) {
        const int wave = gpu::uniform(static_cast<int>(gpu::thread()) / Tile::kWave);
        if (wave == 0) ListedProducer<Tile, kKind>(params_).produce();
        if (wave == 1) WorkFinder<Tile, kKind>(params_).find();
      } else {
        if (gpu::thread() == 0) Producer<Tile, kKind>(params_).produce();
        if (kSplitsCopies && gpu::thread() == Tile::kWave)
          Producer<Tile, kKind>(params_).produce_values();
      }
    } else {
      gpu::raise_registers<kConsumerRegisters>();
      if constexpr (Tile::kSharesRows) {
        WideConsumer<Tile, kKind>(params_).consume(group - 1);
      } else {
        Consumer<Tile, kKind>(params_).consume(group - 1);
      }
    }
  }

 private:
  // Whether the mask hides nothing in any tile. All threads call it.
  GPU_DEVICE bool all_clear() const {
    const Gate& gate = params_.gate;
    bool clear = true;
    for (uint32_t n = gpu::thread(); n < gate.rows * gate.row_words; n += kThreads) {
      const uint64_t existing = n % gate.row_words + 1 == gate.row_words ? gate.last_word : ~0ull;
      clear = clear && (gate.tiles[n] & kNothingHidden & existing) == (kNothingHidden & existing);
    }
    // Each wave's answer, where blocks are handed over later.
    static_assert(kThreads / Tile::kWave * 4 <= kWorkBytes);
    const bool wave_clear = !gpu::any<Tile::kWave>(!clear);
    if (gpu::thread() % Tile::kWave == 0)
      gpu::shared_store(kWorkAt + gpu::thread() / Tile::kWave * 4, wave_clear ? 1u : 0u);
    gpu::barrier();
    for (uint32_t wave = 0; wave < kThreads / Tile::kWave; ++wave)
      clear = clear && gpu::shared_load<uint32_t>(kWorkAt + wave * 4) != 0;
    gpu::barrier();
    return clear;
  }

  // Registers of a thread after setmaxnreg. At launch every thread has kRegisters. setmaxnreg only
  // moves registers between warpgroups, so the sum may not grow.
  // Where steps are handed over, or work comes from a list, the producer does more; at head_dim 128
  // the consumers of the former need theirs.
  struct Registers {
    int producer, consumer;
  };
  static constexpr Registers registers() {
    if (Tile::kGroups != 2) return {32, 160};
    if (kListed) return Tile::kSharesRows ? Registers{72, 216} : Registers{56, 224};
    if (!kHandsSteps) return {24, 240};
    return kKind == Kind::generic && Tile::kDim == 128 ? Registers{40, 232} : Registers{56, 224};
  }
  static constexpr int kProducerRegisters = registers().producer,
                       kConsumerRegisters = registers().consumer;
  static constexpr int kRegisters = (64 << 10) / kThreads / 8 * 8;
  static_assert(kProducerRegisters + Tile::kGroups * kConsumerRegisters <=
                (1 + Tile::kGroups) * kRegisters);
};

}  // namespace kernels::hip
