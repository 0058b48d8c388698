// kernels/hip/host/async.cpp: copies, mbarriers and named barriers of sm_90a on the CPU
#include "kernels/hip/async.hpp"

#include <algorithm>
#include <cstring>
#include <map>

#include "kernels/hip/host/block.hpp"

namespace gpu::host {

namespace {

struct Async;
struct Mbarrier;

// What a TensorMap's bytes are.
struct Encoded {
  uint64_t mark;
  Tensor tensor;
};
constexpr uint64_t kEncoded = 0x70616D726F736E65;
static_assert(sizeof(Encoded) <= sizeof(TensorMap));

constexpr uint32_t kMostRowBytes = 128;     // of a box in workgroup memory
constexpr uint32_t kAtomBytes = 128;        // copies begin at multiples of it
constexpr uint32_t kMaxExpected = 0xFFFFF;  // bytes that a phase can wait for

struct Copy {
  Tensor tensor;
  uint32_t to, bytes;
  int32_t at[5];
  uint32_t mbarrier;
};

// The last copy to bytes of workgroup memory.
struct Copied {
  const Mbarrier* mbarrier = nullptr;  // null: none
  uint64_t phase = 0;
};

struct Mbarrier : Awaited {
  Async* owner = nullptr;
  uint32_t at = 0;
  size_t index = 0;        // of creation, in the workgroup
  uint32_t arrivals = 0;   // of each phase
  uint32_t arrived = 0;    // in the current phase, whose number is `passes`
  uint32_t expected = 0;   // bytes of the current phase for which no copy has been issued
  uint32_t in_flight = 0;  // bytes of copies
  bool waited_for = true;  // whether a thread has waited for the phase before
  bool fenced = false;     // whether copies may use it
  uint32_t creator = 0;
  uint64_t created = 0;  // barriers that the workgroup had passed

  std::string missing() const override;
  void poll() override;
};

struct NamedBarrier : Awaited {
  uint32_t id = 0, threads = 0, arrived = 0;
  std::string missing() const override {
    return "named barrier " + std::to_string(id) + ": " + std::to_string(arrived) + " of " +
           std::to_string(threads) + " threads have come";
  }
};

// Copies a box, row by row, and swizzles each. Where a chunk goes depends on its place in workgroup
// memory, not in the box.
void copy_box(const Copy& copy, char* shared) {
  const Tensor& t = copy.tensor;
  const uint32_t row_bytes = t.box[0] * 2;
  uint32_t place[5] = {};  // in the box
  for (uint32_t row = 0; row < copy.bytes / row_bytes; ++row) {
    bool inside = true;
    uint64_t offset = 0;
    for (uint32_t d = 1; d < t.rank && inside; ++d) {
      const int64_t x = int64_t{copy.at[d]} + place[d];
      inside = x >= 0 && x < static_cast<int64_t>(t.size[d]);
      if (inside) offset += static_cast<uint64_t>(x) * t.stride[d - 1];
    }
    uint16_t elements[kMostRowBytes / 2] = {};
    const int64_t first = std::max<int64_t>(0, -int64_t{copy.at[0]}),
                  end = std::min<int64_t>(t.box[0], static_cast<int64_t>(t.size[0]) - copy.at[0]);
    if (inside && first < end) {
      const char* from = static_cast<const char*>(t.base) + offset + (copy.at[0] + first) * 2;
      std::memcpy(elements + first, from, static_cast<size_t>(end - first) * 2);
    }
    for (uint32_t chunk = 0; chunk < row_bytes / 16; ++chunk) {
      std::memcpy(shared + swizzled(copy.to + row * row_bytes + chunk * 16, row_bytes),
                  elements + chunk * 8, 16);
    }
    for (uint32_t d = 1; d < t.rank && ++place[d] == t.box[d]; ++d) place[d] = 0;
  }
}

uint64_t pattern_of(uint32_t at) { return 0x7265697272616246u ^ (uint64_t{at} << 40); }

struct Async : Unit {
  explicit Async(Block& owner) : block(owner) {
    for (uint32_t id = 0; id < 16; ++id) named[id].id = id;
  }

  Block& block;
  std::map<uint32_t, Mbarrier> mbarriers;  // by offset
  NamedBarrier named[16];
  std::vector<Copy> copies;    // in flight
  std::vector<Copied> copied;  // of each kAtomBytes; empty: no copies

  void start() override {
    mbarriers.clear();
    copies.clear();
    copied.clear();
    for (NamedBarrier& barrier : named) {
      barrier.passes = barrier.arrived = 0;
      barrier.arriving.forget();
    }
  }
  void end() override {
    if (copies.empty()) return;
    fail(
        "the workgroup ends while a copy to offset %u is in flight; no thread has waited for its "
        "mbarrier at %u",
        copies[0].to, copies[0].mbarrier);
  }
  std::string user_of(uint32_t offset, uint32_t bytes) const override {
    if (copied.empty()) return {};
    for (uint32_t i = offset / kAtomBytes; i <= (offset + bytes - 1) / kAtomBytes; ++i) {
      const Mbarrier* m = copied[i].mbarrier;
      if (m != nullptr && block.knowledge().of(Knowledge::kPhases + m->index) <= copied[i].phase)
        return "a copy may be writing: it has not waited for phase " +
               std::to_string(copied[i].phase) + " of the mbarrier at offset " +
               std::to_string(m->at);
    }
    return {};
  }

  // RETURNS the mbarrier at an offset, which the running thread is about to use.
  Mbarrier& find(uint32_t at) {
    const auto found = mbarriers.find(at);
    if (found == mbarriers.end()) fail("there is no mbarrier at offset %u", at);
    Mbarrier& m = found->second;
    uint64_t pattern;
    std::memcpy(&pattern, block.shared(at), sizeof pattern);
    if (pattern != pattern_of(at)) fail("the mbarrier at offset %u has been overwritten", at);
    if (current().thread != m.creator && block.meeting_of_block().passes == m.created) {
      fail("uses the mbarrier at offset %u: no barrier() since thread %u created it", at,
           m.creator);
    }
    return m;
  }

  void arrive(Mbarrier& m, uint32_t bytes) {
    m.expected += bytes;
    if (m.expected + m.in_flight > kMaxExpected)
      fail("the mbarrier at offset %u cannot expect %u bytes", m.at, m.expected + m.in_flight);
    if (m.arrived == m.arrivals) fail("an arrival too many: %s", m.missing().c_str());
    ++m.arrived;
    m.arriving.learn(block.knowledge());
    advance(m);
  }

  // Ends the current phase if it is complete.
  void advance(Mbarrier& m) {
    if (m.arrived != m.arrivals || m.expected != 0 || m.in_flight != 0) return;
    const auto number = static_cast<unsigned long long>(m.passes);
    const int late = block.passed_and_not_run(m);
    if (late >= 0)
      fail(
          "phase %llu of the mbarrier at offset %u completes, and thread %d has not yet seen that "
          "the phase before did",
          number, m.at, late);
    if (!m.waited_for)
      fail(
          "phase %llu of the mbarrier at offset %u completes, and no thread has waited for the "
          "phase before",
          number, m.at);
    m.pass();
    m.arrived = 0;
    m.waited_for = false;
  }

  void complete(const Copy& copy) {
    copy_box(copy, block.shared(0));
    Mbarrier& m = mbarriers.at(copy.mbarrier);
    m.in_flight -= copy.bytes;
    advance(m);
  }
};

Async& async() { return static_cast<Async&>(*current().owner->async); }

std::string Mbarrier::missing() const {
  return "phase " + std::to_string(passes) + " (parity " + std::to_string(passes % 2) +
         ") of the mbarrier at offset " + std::to_string(at) + ", which lacks " +
         std::to_string(arrivals - arrived) + " of " + std::to_string(arrivals) +
         " arrivals and copies of " + std::to_string(expected) + " bytes";
}

// Completes the copies that this mbarrier waits for.
void Mbarrier::poll() {
  std::vector<Copy>& all = owner->copies;
  for (size_t i = 0; i < all.size();) {
    if (all[i].mbarrier != at) {
      ++i;
      continue;
    }
    const Copy copy = all[i];
    all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
    owner->complete(copy);
  }
}

void named_barrier(uint32_t id, uint32_t threads, bool wait) {
  Block& block = *current().owner;
  if (id < 1 || id > 15) fail("named barrier %u: ids are 1 to 15", id);
  if (threads == 0 || threads % 32 != 0 || threads > block.threads())
    fail("named barrier %u: %u threads are not whole waves of a workgroup of %u", id, threads,
         block.threads());
  block.meet(block.meeting_of_wave(current().thread, 32), 0);
  NamedBarrier& barrier = async().named[id];
  if (barrier.arrived == 0) barrier.threads = threads;
  if (barrier.threads != threads)
    fail("named barrier %u: %u threads, where others say %u", id, threads, barrier.threads);
  const uint64_t mine = barrier.passes;
  barrier.arriving.learn(block.knowledge());
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    barrier.pass();
  }
  if (wait) block.wait(barrier, mine + 1);
}

}  // namespace

std::unique_ptr<Unit> make_async(Block& block) { return std::make_unique<Async>(block); }

void mbarrier_init(uint32_t at, uint32_t arrivals) {
  Async& here = async();
  Block& block = here.block;
  if (at % 8 != 0 || at + 8 > block.shared_bytes()) fail("an mbarrier cannot be at offset %u", at);
  if (arrivals == 0 || arrivals >= 1u << 20) fail("an mbarrier cannot count %u arrivals", arrivals);
  const auto [entry, is_new] = here.mbarriers.try_emplace(at);
  if (!is_new) fail("there is an mbarrier at offset %u already", at);
  Mbarrier& m = entry->second;
  m.owner = &here;
  m.at = at;
  m.index = here.mbarriers.size() - 1;
  m.arrivals = arrivals;
  m.creator = current().thread;
  m.created = block.meeting_of_block().passes;
  const uint64_t pattern = pattern_of(at);
  std::memcpy(block.shared(at), &pattern, sizeof pattern);
}

void mbarrier_init_fence() {
  for (auto& [at, m] : async().mbarriers) m.fenced |= m.creator == current().thread;
}

void mbarrier_arrive(uint32_t at) { mbarrier_arrive_expect(at, 0); }

void mbarrier_arrive_expect(uint32_t at, uint32_t bytes) {
  Async& here = async();
  here.arrive(here.find(at), bytes);
  here.block.perhaps_yield();
}

void mbarrier_wait(uint32_t at, uint32_t parity) {
  Async& here = async();
  Mbarrier& m = here.find(at);
  if (parity > 1) fail("waits for parity %u of the mbarrier at offset %u", parity, at);
  here.block.wait(m, m.passes % 2 == parity ? m.passes + 1 : m.passes);
  here.block.knowledge().learn(Knowledge::kPhases + m.index, m.passes);
  m.waited_for = true;
}

void named_barrier_wait(uint32_t id, uint32_t threads) { named_barrier(id, threads, true); }
void named_barrier_arrive(uint32_t id, uint32_t threads) { named_barrier(id, threads, false); }

void copy_tile(uint32_t to, const TensorMap& map, uint32_t mbarrier, const int32_t* at,
               uint32_t rank) {
  Async& here = async();
  Block& block = here.block;
  Encoded encoded;
  std::memcpy(&encoded, map.bytes, sizeof encoded);
  if (encoded.mark != kEncoded) fail("copy_tile: the map has not been encoded");
  Copy copy = {encoded.tensor, to, 2, {}, mbarrier};
  if (copy.tensor.rank != rank)
    fail("copy_tile: %u places in a tensor of rank %u", rank, copy.tensor.rank);
  std::copy(at, at + rank, copy.at);
  for (uint32_t d = 0; d < rank; ++d) copy.bytes *= copy.tensor.box[d];
  if (to % 128 != 0 || to + copy.bytes > block.shared_bytes())
    fail("copy_tile: %u bytes cannot go to offset %u", copy.bytes, to);

  Mbarrier& m = here.find(mbarrier);
  if (!m.fenced)
    fail("copy_tile: no mbarrier_init_fence() since the mbarrier at offset %u was created",
         mbarrier);
  if (m.expected < copy.bytes)
    fail("copy_tile: %u bytes, but the mbarrier at offset %u expects %u more", copy.bytes, mbarrier,
         m.expected);
  for (const Unit* unit : {block.async.get(), block.products.get()}) {
    const std::string user = unit->user_of(to, copy.bytes);
    if (!user.empty()) fail("copy_tile: to offset %u, which %s", to, user.c_str());
  }
  const int thread = block.marks.unfenced(to, copy.bytes);
  if (thread >= 0)
    fail("copy_tile: to offset %u, where thread %d stored without fence_async_proxy()", to, thread);
  block.marks.copied(to, copy.bytes);

  here.copied.resize((block.shared_bytes() + kAtomBytes - 1) / kAtomBytes);
  for (uint32_t i = to / kAtomBytes; i * kAtomBytes < to + copy.bytes; ++i)
    here.copied[i] = {&m, m.passes};

  m.expected -= copy.bytes;
  m.in_flight += copy.bytes;
  if (block.chance()) {
    here.complete(copy);
  } else {
    std::memset(block.shared(to), 0xFF, copy.bytes);
    here.copies.push_back(copy);
  }
  block.perhaps_yield();
}

void fence_async_proxy() { current().owner->marks.fenced(current().thread); }

void encode(const Tensor& tensor, TensorMap* map) {
  const auto require = [](bool holds, const char* what) {
    if (!holds) fail("encode: %s", what);
  };
  require(tensor.rank >= 1 && tensor.rank <= 5, "the rank is not 1 to 5");
  require(reinterpret_cast<uintptr_t>(tensor.base) % 16 == 0, "the base is not aligned to 16");
  require(tensor.box[0] == 64 || tensor.box[0] == 32, "the box's innermost size is not 64 or 32");
  for (uint32_t d = 0; d < tensor.rank; ++d) {
    require(tensor.size[d] >= 1 && tensor.size[d] <= uint64_t{1} << 32, "a size is not 1 to 2^32");
    require(tensor.box[d] >= 1 && tensor.box[d] <= 256, "a size of the box is not 1 to 256");
    if (d == 0) continue;
    require(tensor.stride[d - 1] % 16 == 0, "a stride is not a multiple of 16");
    require(tensor.stride[d - 1] != 0, "a stride is 0: leave the dimension out");
    require(tensor.stride[d - 1] < uint64_t{1} << 40, "a stride is 2^40 or more");
  }
  const Encoded encoded = {kEncoded, tensor};
  std::memset(map->bytes, 0, sizeof map->bytes);
  std::memcpy(map->bytes, &encoded, sizeof encoded);
}

}  // namespace gpu::host
