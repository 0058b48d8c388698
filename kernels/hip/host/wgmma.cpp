// kernels/hip/host/wgmma.cpp: products of a warpgroup on the CPU
#include "kernels/hip/host/wgmma.hpp"

#include <algorithm>
#include <cstring>
#include <deque>

#include "kernels/common/half.hpp"
#include "kernels/hip/host/block.hpp"

namespace gpu::host {

namespace {

constexpr uint32_t kThreads = 128;  // of a warpgroup
constexpr uint32_t kRows = 64, kK = 16;

// An operand in workgroup memory: `size` rows of A or columns of B, by 16 k.
struct Operand {
  uint64_t descriptor;
  uint32_t size;
  bool transposed;  // MN-major

  uint32_t start() const { return field(0); }
  uint32_t leading() const { return field(16); }
  uint32_t stride() const { return field(32); }
  uint32_t row_bytes() const { return descriptor >> 62 == 1 ? 128 : 64; }
  uint32_t panel() const { return row_bytes() / 2; }       // elements of a row
  uint32_t atom_bytes() const { return 8 * row_bytes(); }  // 8 rows: what swizzling permutes

  // Calls visit(offset, n, k) for each 16 bytes, whose first element is (n, k).
  template <class Visit>
  void for_each_chunk(const Visit& visit) const {
    if (transposed) {
      for (uint32_t k = 0; k < kK; ++k) {
        for (uint32_t n = 0; n < size; n += 8) {
          visit(place(start() + n / panel() * leading() + n % panel() * 2 + k / 8 * stride() +
                      k % 8 * row_bytes()),
                n, k);
        }
      }
    } else {
      for (uint32_t n = 0; n < size; ++n) {
        for (uint32_t k = 0; k < kK; k += 8)
          visit(place(start() + n / 8 * stride() + n % 8 * row_bytes() + k * 2), n, k);
      }
    }
  }
  // Calls visit(offset) for each group of 8 rows.
  template <class Visit>
  void for_each_atom(const Visit& visit) const {
    const uint32_t first = start() / atom_bytes() * atom_bytes();
    if (transposed) {
      for (uint32_t n = 0; n < size; n += panel()) {
        for (uint32_t k = 0; k < kK; k += 8)
          visit(first + n / panel() * leading() + k / 8 * stride());
      }
    } else {
      for (uint32_t n = 0; n < size; n += 8) visit(first + n / 8 * stride());
    }
  }

  void check(const Block& block) const {
    constexpr uint64_t kFields = 0x00003FFF3FFF3FFF;
    const uint64_t swizzle = descriptor >> 62;
    if ((swizzle != 1 && swizzle != 2) || (descriptor & ~kFields) << 2 != 0)
      fail("wgmma: 0x%llx is no descriptor of an operand with 128 or 64 bytes swizzled",
           static_cast<unsigned long long>(descriptor));
    const uint32_t within = start() % row_bytes();
    const bool in_row = within + (transposed ? row_bytes() : kK * 2) <= row_bytes();
    if (start() / row_bytes() % 8 != 0 || !in_row)
      fail("wgmma: an operand begins at offset %u, which is not the begin of %s", start(),
           transposed ? "8 rows" : "16 k of the first of 8 rows");
    if (stride() % atom_bytes() != 0 ||
        (transposed && size > panel() && leading() % atom_bytes() != 0))
      fail("wgmma: groups of 8 rows %u and panels %u bytes apart are not at multiples of %u",
           stride(), leading(), atom_bytes());
    for_each_atom([&](uint32_t offset) {
      if (offset + atom_bytes() > block.shared_bytes())
        fail("wgmma: an operand extends to offset %u, past the end of workgroup memory",
             offset + atom_bytes());
    });
  }

 private:
  uint32_t field(int bit) const { return static_cast<uint32_t>(descriptor >> bit & 0x3FFF) << 4; }
  uint32_t place(uint32_t offset) const { return swizzled(offset, row_bytes()); }
};

float to_float(kernels::DType dtype, uint16_t bits) {
  return dtype == kernels::DType::f16 ? kernels::f16_to_f32(bits) : kernels::bf16_to_f32(bits);
}

// D[64][columns] += A[64][16] B[16][columns], in registers of eight columns of two rows.
void multiply_add(const float* a, const float* b, float* d, uint32_t columns) {
  typedef float Eight __attribute__((vector_size(32)));
  const auto load = [](Eight& value, const float* from) { std::memcpy(&value, from, 32); };
  for (uint32_t row = 0; row < kRows; row += 2, a += 2 * kK, d += 2 * columns) {
    for (uint32_t n = 0; n < columns; n += 8) {
      Eight d0, d1, bn;
      load(d0, d + n);
      load(d1, d + columns + n);
      for (uint32_t k = 0; k < kK; ++k) {
        load(bn, b + k * columns + n);
        d0 += a[k] * bn;
        d1 += a[kK + k] * bn;
      }
      std::memcpy(d + n, &d0, 32);
      std::memcpy(d + columns + n, &d1, 32);
    }
  }
}

// A product as the warpgroup issues it.
struct Issued {
  Product product;  // of the thread that came first; d and a_registers are others' elsewhere
  uint64_t matrix;
  uint32_t threads = 0;      // that have issued it
  float a[kRows * kK] = {};  // A, if in registers

  template <class Visit>
  void for_each_operand(const Visit& visit) const {
    if (product.a_registers == nullptr) visit(a_operand());
    visit(b_operand());
  }
  Operand a_operand() const { return {product.a, kRows, false}; }
  Operand b_operand() const { return {product.b, product.columns, product.b_transposed}; }
};

// D of a warpgroup, from its first product to the wait that covers its last.
struct Matrix {
  uint64_t number;
  uint32_t holders = kThreads;  // threads that have not got their part back
  std::vector<float> d;         // [64][columns]
};

// `passes` counts the products that all threads have issued.
struct Warpgroup : Awaited {
  uint32_t first_thread = 0;
  std::deque<Issued> products;  // not yet computed
  uint64_t computed = 0;        // so this is the number of products.front()
  std::vector<Matrix> matrices;

  Matrix& matrix(uint64_t number) {
    return *std::find_if(matrices.begin(), matrices.end(),
                         [&](const Matrix& m) { return m.number == number; });
  }
  std::string missing() const override {
    const Issued& next = products[static_cast<size_t>(passes - computed)];
    return "wgmma product " + std::to_string(passes) + " of the warpgroup of thread " +
           std::to_string(first_thread) + ", which " + std::to_string(next.threads) +
           " of 128 threads have issued";
  }
};

// Registers of a thread that products in flight use: its part of D, or of A.
struct Held {
  const void* at;
  uint32_t words;
  bool is_d;
  uint64_t end;     // number of the last product that uses them, + 1
  uint64_t matrix;  // D: where its value is meanwhile
  uint32_t a_when_issued[4];
};

// Registers that some product of the thread has used, as they were at its last wgmma_fence.
struct Used {
  const void* at;
  uint32_t words;
  std::vector<uint32_t> when_fenced;  // empty: no fence since
};

struct ThreadState {
  uint64_t issued = 0, committed = 0, waited_for = 0;  // products
  uint64_t matrices = 0;
  bool fenced = false;
  std::vector<uint64_t> groups;  // products issued before each commit not yet waited for
  std::vector<Held> held;
  std::vector<Used> used;
};

// A signalling NaN: arithmetic makes another NaN of it, which shows.
constexpr uint32_t kNaN = 0xFFBFFFFF;

// RETURNS a word of another function's variable, which may be gone. AddressSanitizer must not know.
__attribute__((no_sanitize_address, noinline)) uint32_t word_at(const void* at, uint32_t i) {
  return static_cast<const volatile uint32_t*>(at)[i];
}

struct Products : Unit {
  explicit Products(Block& owner) : block(owner) {}

  Block& block;
  std::vector<Warpgroup> warpgroups;  // empty until one of them multiplies
  std::vector<ThreadState> threads;
  // For each 16 bytes of workgroup memory and each warpgroup: number of the last product that reads
  // them, + 1; empty: none.
  std::vector<uint64_t> reads;
  float a[kRows * kK], b[kK * 256];  // operands of the product being computed

  void start() override {
    warpgroups.clear();
    threads.clear();
    reads.clear();
  }
  void thread_ends(uint32_t thread) override {
    if (!threads.empty() && threads[thread].issued != threads[thread].waited_for)
      fail("ends without a wgmma_wait() for its last products");
  }
  std::string user_of(uint32_t offset, uint32_t bytes) const override {
    if (reads.empty()) return {};
    for (uint32_t chunk = offset / 16; chunk <= (offset + bytes - 1) / 16; ++chunk) {
      for (size_t g = 0; g < warpgroups.size(); ++g) {
        if (reads[chunk * warpgroups.size() + g] <= block.knowledge().of(Knowledge::kProducts + g))
          continue;
        const uint32_t first = warpgroups[g].first_thread;
        return "a product of threads " + std::to_string(first) + " to " +
               std::to_string(first + kThreads - 1) + " may be reading";
      }
    }
    return {};
  }

  ThreadState& state_of_thread() {
    if (threads.empty()) {
      threads.resize(block.threads());
      warpgroups.resize(block.threads() / kThreads);
      reads.resize(warpgroups.size() * ((block.shared_bytes() + 15) / 16));
      for (uint32_t i = 0; i < warpgroups.size(); ++i) warpgroups[i].first_thread = i * kThreads;
    }
    return threads[current().thread];
  }
  Warpgroup& warpgroup() {
    const uint32_t index = current().thread / kThreads;
    if (index >= warpgroups.size()) fail("wgmma: its warpgroup has less than 128 threads");
    return warpgroups[index];
  }

  void issue(const Product& product);
  void hold_d(ThreadState& me, Warpgroup& w, const Product& product);
  void hold_a(ThreadState& me, const uint32_t* registers);
  Issued& issued(ThreadState& me, Warpgroup& w, const Product& product);
  void wait(uint32_t pending);
  void compute(Warpgroup& w, uint64_t end);
  void check_copies(const Issued& issued) const;
  void check_stores(const Issued& issued) const;
};

Products& products() { return static_cast<Products&>(*current().owner->products); }

// Calls visit(element, place in D[64][columns]) for the running thread's part of D.
template <class Visit>
void for_each_of_d(uint32_t columns, const Visit& visit) {
  const uint32_t lane = current().thread % 32, wave = current().thread / 32 % 4;
  for (uint32_t e = 0; e < columns / 2; ++e) {
    const uint32_t row = wave * 16 + lane / 4 + e / 2 % 2 * 8;
    visit(e, row * columns + e / 4 * 8 + lane % 4 * 2 + e % 2);
  }
}

// Checks that registers are as they were at the last fence, if an earlier product had them too.
void check_since_fence(ThreadState& me, const void* at, uint32_t words, bool read,
                       const char* name) {
  for (const Used& used : me.used) {
    if (used.at != at || used.words != words) continue;
    for (uint32_t i = 0; read && i < used.when_fenced.size(); ++i) {
      if (word_at(at, i) != used.when_fenced[i])
        fail("wgmma: %s changed since the last wgmma_fence()", name);
    }
    return;
  }
  me.used.push_back({at, words, {}});
}

// Takes the value of D from the registers, unless an earlier product in flight has it already.
void Products::hold_d(ThreadState& me, Warpgroup& w, const Product& product) {
  const uint32_t floats = product.columns / 2;
  for (Held& held : me.held) {
    const float* first = static_cast<const float*>(held.at);
    if (!held.is_d || product.d >= first + held.words || first >= product.d + floats) continue;
    if (first != product.d || held.words != floats)
      fail("wgmma: D overlaps the D of a product in flight with other columns");
    for (uint32_t i = 0; i < floats; ++i) {
      if (word_at(held.at, i) != kNaN) fail("wgmma: D changed while a product is in flight");
    }
    held.end = me.issued + 1;
    return;
  }
  check_since_fence(me, product.d, floats, product.accumulate, "D");
  const uint64_t number = me.matrices++;
  if (w.matrices.empty() || w.matrices.back().number < number)
    w.matrices.push_back({number, kThreads, std::vector<float>(size_t{kRows} * product.columns)});
  me.held.push_back({product.d, floats, true, me.issued + 1, number, {}});
  if (product.accumulate) {
    std::vector<float>& d = w.matrix(number).d;
    if (d.size() == size_t{kRows} * product.columns)
      for_each_of_d(product.columns, [&](uint32_t e, uint32_t at) { d[at] = product.d[e]; });
  }
  std::fill_n(reinterpret_cast<uint32_t*>(product.d), floats, kNaN);
}

void Products::hold_a(ThreadState& me, const uint32_t* registers) {
  check_since_fence(me, registers, 4, true, "A");
  Held held = {registers, 4, false, me.issued + 1, 0, {}};
  std::memcpy(held.a_when_issued, registers, sizeof held.a_when_issued);
  me.held.push_back(held);
}

// RETURNS the warpgroup's record of the product that the running thread issues.
Issued& Products::issued(ThreadState& me, Warpgroup& w, const Product& p) {
  uint64_t matrix = 0;
  for (const Held& held : me.held) {
    if (held.is_d && held.at == p.d) matrix = held.matrix;
  }
  const size_t index = static_cast<size_t>(me.issued - w.computed);
  if (index == w.products.size()) {
    w.products.push_back({p, matrix});
    w.products[index].for_each_operand([&](const Operand& operand) {
      operand.check(block);
      operand.for_each_chunk([&](uint32_t offset, uint32_t, uint32_t) {
        reads[offset / 16 * warpgroups.size() + w.first_thread / kThreads] = me.issued + 1;
      });
    });
    check_stores(w.products[index]);
  }
  const Product& other = w.products[index].product;
  if (other.dtype != p.dtype || other.columns != p.columns || other.accumulate != p.accumulate ||
      (other.a_registers == nullptr) != (p.a_registers == nullptr) || other.a != p.a ||
      other.b != p.b || other.b_transposed != p.b_transposed || w.products[index].matrix != matrix)
    fail("wgmma: another thread of its warpgroup issued another product in this place");
  return w.products[index];
}

void Products::issue(const Product& product) {
  ThreadState& me = state_of_thread();
  Warpgroup& w = warpgroup();
  if (!me.fenced) fail("wgmma: no wgmma_fence() since the last wgmma_wait()");
  hold_d(me, w, product);
  if (product.a_registers != nullptr) hold_a(me, product.a_registers);
  Issued& record = issued(me, w, product);
  // One lane of each wave looks, each time another one.
  if (current().thread % 32 == me.issued % 32) check_copies(record);
  if (product.a_registers != nullptr) {
    const uint32_t lane = current().thread % 32, wave = current().thread / 32 % 4;
    for (uint32_t i = 0; i < 8; ++i) {
      const uint32_t row = wave * 16 + lane / 4 + i / 2 % 2 * 8;
      const uint16_t bits = static_cast<uint16_t>(product.a_registers[i / 2] >> (i % 2 * 16));
      record.a[row * kK + lane % 4 * 2 + i % 2 + i / 4 * 8] = to_float(product.dtype, bits);
    }
  }
  ++me.issued;
  if (++record.threads < kThreads) return;
  ++w.passes;
  if (block.chance()) compute(w, w.passes);
}

// Checks that the running thread knows the copies to the operands to be complete.
void Products::check_copies(const Issued& issued) const {
  issued.for_each_operand([&](const Operand& operand) {
    operand.for_each_atom([&](uint32_t offset) {
      const std::string user = block.async->user_of(offset, operand.atom_bytes());
      if (!user.empty()) fail("wgmma: reads offset %u, which %s", offset, user.c_str());
    });
  });
}

void Products::check_stores(const Issued& issued) const {
  issued.for_each_operand([&](const Operand& operand) {
    operand.for_each_chunk([&](uint32_t offset, uint32_t, uint32_t) {
      const int thread = block.marks.unfenced(offset, 16);
      if (thread >= 0)
        fail("wgmma: reads offset %u, where thread %d stored without fence_async_proxy()", offset,
             thread);
    });
  });
}

// Computes the products before `end` that have not been.
void Products::compute(Warpgroup& w, uint64_t end) {
  for (; w.computed < end; ++w.computed) {
    const Issued& issued = w.products.front();
    const Product& p = issued.product;
    check_stores(issued);
    const auto decode = [&](const Operand& operand, float* to, uint32_t per_n, uint32_t per_k) {
      operand.for_each_chunk([&](uint32_t offset, uint32_t n, uint32_t k) {
        uint16_t elements[8];
        std::memcpy(elements, block.shared(offset), sizeof elements);
        float* first = to + n * per_n + k * per_k;
        const uint32_t step = operand.transposed ? per_n : per_k;
        for (uint32_t i = 0; i < 8; ++i) first[i * step] = to_float(p.dtype, elements[i]);
      });
    };
    if (p.a_registers == nullptr) decode(issued.a_operand(), a, kK, 1);
    decode(issued.b_operand(), b, 1, p.columns);
    std::vector<float>& d = w.matrix(issued.matrix).d;
    if (!p.accumulate) std::fill(d.begin(), d.end(), 0.0F);
    multiply_add(p.a_registers == nullptr ? a : issued.a, b, d.data(), p.columns);
    w.products.pop_front();
  }
}

void Products::wait(uint32_t pending) {
  ThreadState& me = state_of_thread();
  Warpgroup& w = warpgroup();
  if (me.issued != me.committed) fail("wgmma_wait: no wgmma_commit() since the last product");
  block.perhaps_yield();
  me.fenced = false;
  if (me.groups.size() <= pending) return;
  const size_t last = me.groups.size() - pending;
  me.waited_for = me.groups[last - 1];
  me.groups.erase(me.groups.begin(), me.groups.begin() + static_cast<std::ptrdiff_t>(last));

  block.wait(w, me.waited_for);
  compute(w, me.waited_for);
  block.knowledge().learn(Knowledge::kProducts + w.first_thread / kThreads, me.waited_for);
  for (const Held& held : me.held) {
    if (held.end > me.waited_for) continue;
    for (uint32_t i = 0; i < held.words; ++i) {
      if (word_at(held.at, i) != (held.is_d ? kNaN : held.a_when_issued[i]))
        fail("wgmma_wait: %s changed while a product was in flight", held.is_d ? "D" : "A");
    }
    if (!held.is_d) continue;
    Matrix& matrix = w.matrix(held.matrix);
    float* to = static_cast<float*>(const_cast<void*>(held.at));
    for_each_of_d(held.words * 2, [&](uint32_t e, uint32_t at) { to[e] = matrix.d[at]; });
    if (--matrix.holders == 0) w.matrices.erase(w.matrices.begin() + (&matrix - &w.matrices[0]));
  }
  std::erase_if(me.held, [&](const Held& held) { return held.end <= me.waited_for; });
}

}  // namespace

std::unique_ptr<Unit> make_products(Block& block) { return std::make_unique<Products>(block); }

void wgmma(const Product& product) { products().issue(product); }

void wgmma_fence() {
  ThreadState& me = products().state_of_thread();
  me.fenced = true;
  for (Used& used : me.used) {
    used.when_fenced.resize(used.words);
    for (uint32_t i = 0; i < used.words; ++i) used.when_fenced[i] = word_at(used.at, i);
  }
}

void wgmma_commit() {
  ThreadState& me = products().state_of_thread();
  me.groups.push_back(me.issued);
  me.committed = me.issued;
}

void wgmma_wait(uint32_t pending) { products().wait(pending); }

}  // namespace gpu::host
