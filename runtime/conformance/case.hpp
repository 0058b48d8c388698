// runtime/conformance/case.hpp: a random problem that a manifest allows, and the extents of a run
//
// A case is drawn from a seed, so that a failure can be repeated from its number:
//     style = seed modulo kStyles
//     entry = seed / kStyles modulo the number of the manifest's entries
// So consecutive seeds try every style of one entry, then those of the next.
//
// First the problem is drawn: dtype, dimensions, features, mask and storage, each as the entry's
// constraints allow. Then the style asks for what it needs (a mask, causal, kv_lengths). If the
// entry does not allow that, the case becomes a plain one. Last come the extents of the run:
// sequence lengths, spare rows, pages. The problem's batch, seq_q and seq_kv are bounds. In half of
// the cases they are larger than the run.
//
// Every random number of these steps comes from one generator in a fixed order. If that order
// changes, every seed means another case, including the seeds in old reports. A second generator
// of the same seed then replaces some of what was drawn by what a server's batches look like:
//     lengths      at the ends of tiles and pages, or one very long sequence among many short ones
//     k and v      two views of one allocation
//     page_table   stale entries past a sequence's last page (tensor_layouts.cpp)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend.hpp"
#include "kernels/reference/lengths.hpp"
#include "manifest.hpp"
#include "problem/problem.hpp"

namespace attnrt::conformance {

using kernels::reference::between;
using kernels::reference::one_in;
using kernels::reference::Random;

// What is special about the numbers of a case. Each style is there to expose one kind of mistake.
enum class Style {
  plain,
  long_rows,    // few queries, many keys
  empty_rows,   // some rows see no key
  huge_logits,  // scores of thousands
  lowest_mask,  // an additive mask that holds the lowest finite number
  nan_outside,  // NaN in what does not exist: past kv_lengths, between rows, in unused pages
  nan_masked,   // NaN in k where no query may look
  nan_visible   // NaN in k that some rows see
};
constexpr int kStyles = 8;

// Where the pages of k and v lie. Serving engines make one tensor for both, and views of its
// halves.
enum class KvMemory {
  separate,  // each has an allocation of its own
  halves,    // [2, pages, ...]: all pages of k, then all pages of v
  pairs      // [pages, 2, ...]: each page of k is followed by one of v
};

struct Case {
  uint64_t seed = 0;
  Style style = Style::plain;
  int entry = 0;                               // of the manifest
  core::Problem problem{};                     // its batch, seq_q and seq_kv bound the run below
  int64_t batch = 0, seq_q = 0, seq_kv = 0;    // sizes of the tensors that are not packed
  std::vector<int64_t> q_lengths, kv_lengths;  // one for each sequence
  int64_t spare_rows = 0;                      // varlen: rows past the last offset
  int64_t pages = 0, max_pages = 0;            // page_size > 0: in k and v, in a row of page_table
  KvMemory kv_memory = KvMemory::separate;     // other than separate only with page_size > 0
};

// Draws the case of this seed for a device. RETURNS nullopt if no problem that was drawn fits the
// entry.
std::optional<Case> draw_case(const core::Manifest& manifest, const core::Device& device,
                              uint64_t seed);

// Whether the problem fits the entry's constraints and features.
bool fits(const core::Manifest::Entry& entry, const core::Problem& problem,
          const std::string& arch);

// Gives the case these extents, and its problem bounds that are just large enough for them.
void set_extents(Case& drawn, std::vector<int64_t> q_lengths, std::vector<int64_t> kv_lengths);

// Gives a paged case as many pages as its lengths need, and `unused` more.
void set_pages(Case& drawn, int64_t unused);

// Returns the problem and the lengths of the run in words.
std::string describe(const Case& drawn);

}  // namespace attnrt::conformance
