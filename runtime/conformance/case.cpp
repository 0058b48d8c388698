// runtime/conformance/case.cpp: draws a random problem that a manifest allows, and a run of it
#include "conformance/case.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace attnrt::conformance {
namespace {

using core::Constraint;
using core::Problem;

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1};
constexpr attnrt_dtype kDtypes[] = {
    kFloat32, {ATTNRT_DTYPE_FLOAT, 16, 1}, {ATTNRT_DTYPE_BFLOAT, 16, 1}};

// Multiplications that one case may take. The reference takes about 10 ms for this many.
constexpr int64_t kMostWork = 3'000'000;

// Problems that are drawn before an entry is given up because none fits it.
constexpr int kAttempts = 400;

// A batch of one long sequence and many short ones: how many there are, and how long the long one
// is at most.
constexpr int64_t kMinCrowd = 9, kMaxCrowd = 17, kLongSequence = 1500;

template <class T>
T any_of(Random& random, const std::vector<T>& values) {
  return values[static_cast<size_t>(between(random, 0, static_cast<int64_t>(values.size()) - 1))];
}

const Constraint* constraint_of(const core::Manifest::Entry& entry, std::string_view word) {
  for (const Constraint& constraint : entry.constraints) {
    if (constraint.word->name == word) return &constraint;
  }
  return nullptr;
}

// Draws a number that the entry allows for the word. If the entry allows some of the usual ones, it
// is mostly one of those.
int64_t draw_number(Random& random, const core::Manifest::Entry& entry, std::string_view word,
                    std::vector<int64_t> usual) {
  const Constraint* c = constraint_of(entry, word);
  if (c == nullptr || c->equals != nullptr) return any_of(random, usual);
  if (!c->values.empty()) {
    std::vector<int64_t> values;
    for (const core::Value& value : c->values) {
      if (const auto* whole = std::get_if<int64_t>(&value)) values.push_back(*whole);
    }
    return values.empty() ? any_of(random, usual) : any_of(random, values);
  }
  const int64_t step = c->multiple_of.value_or(1);
  // A minimum beyond 1e15 is cut to fit into int64_t. No number that is drawn fits such an entry.
  const auto low = static_cast<int64_t>(std::clamp(c->min.value_or(1), 1.0, 1e15));
  const auto high = static_cast<int64_t>(std::min(c->max.value_or(1e6), 1e6));
  std::erase_if(usual, [&](int64_t n) { return n < low || n > high || n % step != 0; });
  if (!usual.empty() && !one_in(random, 4)) return any_of(random, usual);
  const int64_t first = (low - 1) / step + 1, last = std::min(high / step, first + 64);
  return step * between(random, first, std::max(first, last));
}

bool has(const core::Manifest::Entry& entry, std::string_view feature) {
  return std::find(entry.features.begin(), entry.features.end(), feature) != entry.features.end();
}

// Whether the entry's constraint requires the flag to be set.
bool must_be_set(const core::Manifest::Entry& entry, std::string_view word) {
  const Constraint* c = constraint_of(entry, word);
  return c != nullptr && c->values.size() == 1 && std::get_if<int64_t>(&c->values[0]) != nullptr &&
         std::get<int64_t>(c->values[0]) == 1;
}

void draw_dimensions(Random& random, const core::Manifest::Entry& entry, Problem& p) {
  const Constraint* dtype = constraint_of(entry, "dtype");
  p.dtype = kDtypes[between(random, 0, 2)];
  if (dtype != nullptr && !dtype->values.empty()) {
    const auto name = std::get<std::string>(any_of(random, dtype->values));
    for (const attnrt_dtype known : kDtypes) {
      if (core::dtype_name(known) == name) p.dtype = known;
    }
  }
  p.head_dim = draw_number(random, entry, "head_dim",
                           {32, 64, 128, 64, 80, 96, 40, 72, 7, 1, 33, 192, 256, 512});
  p.head_dim_v = one_in(random, 2)
                     ? p.head_dim
                     : draw_number(random, entry, "head_dim_v", {32, 64, 128, 80, 5, 1, 17, 256});
  const Constraint* equal = constraint_of(entry, "head_dim_v");
  if (equal != nullptr && equal->equals != nullptr && equal->equals->name == "head_dim")
    p.head_dim_v = p.head_dim;
  p.heads_kv = draw_number(random, entry, "heads_kv", {1, 1, 2, 3});
  p.heads_q =
      has(entry, "gqa") ? p.heads_kv * any_of<int64_t>(random, {1, 1, 2, 3, 4}) : p.heads_kv;
  if (constraint_of(entry, "heads_q") != nullptr)
    p.heads_q = draw_number(random, entry, "heads_q", {p.heads_q});
  p.alignment_bytes =
      static_cast<int32_t>(draw_number(random, entry, "alignment_bytes", {16, 16, 4, 1, 32, 64}));
  while ((p.alignment_bytes & (p.alignment_bytes - 1)) != 0) ++p.alignment_bytes;
}

void draw_features(Random& random, const core::Manifest::Entry& entry, Problem& p) {
  const auto flag = [&](const char* word, const char* feature, int64_t n) {
    return has(entry, feature) && (must_be_set(entry, word) || one_in(random, n)) ? 1 : 0;
  };
  p.varlen = flag("varlen", "varlen", 5);
  if (has(entry, "paged") && one_in(random, 5))
    p.page_size = static_cast<int32_t>(
        draw_number(random, entry, "page_size", {16, 16, 4, 1, 5, 32, 64, 128, 256}));
  p.kv_lengths = p.page_size > 0 || (!p.varlen && flag("kv_lengths", "kv_lengths", 4));
  p.causal = flag("causal", "causal", 2);
  if (has(entry, "window") && one_in(random, 4)) {
    if (!one_in(random, 4)) p.window_left = any_of<int64_t>(random, {0, 1, 5, 31, 64, 1000});
    if (!one_in(random, 3)) p.window_right = any_of<int64_t>(random, {0, 1, 5, 31, 64});
  }
  p.alibi = flag("alibi", "alibi", 4);
  p.sinks = flag("sinks", "sinks", 4);
  p.lse = flag("lse", "lse", 2);
  p.deterministic = flag("deterministic", "deterministic", 4);
  if (has(entry, "softcap") && one_in(random, 5))
    p.softcap = any_of<float>(random, {1.0F, 5.0F, 30.0F});
  if (has(entry, "align_top_left") && one_in(random, 2)) p.align = ATTNRT_ALIGN_TOP_LEFT;
  if (one_in(random, 4)) p.scale = any_of<float>(random, {1.0F, 0.05F, -0.125F});

  const Constraint* mask = constraint_of(entry, "mask");
  std::string name = any_of<std::string>(random, {"none", "none", "boolean", "additive"});
  if (mask != nullptr && !mask->values.empty())
    name = std::get<std::string>(any_of(random, mask->values));
  if (p.varlen) name = "none";
  p.mask = name == "boolean"    ? ATTNRT_MASK_BOOLEAN
           : name == "additive" ? ATTNRT_MASK_ADDITIVE
                                : ATTNRT_MASK_NONE;
  if (p.mask == ATTNRT_MASK_ADDITIVE) p.mask_dtype = one_in(random, 3) ? kFloat32 : p.dtype;
}

// Draws one of the names that the entry allows for the word, in half of the cases `usual` if it is
// one of them. If there is no choice, draws nothing at random.
void draw_name(Random& random, const core::Manifest::Entry& entry, const char* word,
               std::string_view usual, Problem& p) {
  const Constraint* c = constraint_of(entry, word);
  if (c == nullptr || c->values.empty()) return;
  std::vector<std::string> names;
  for (const core::Value& value : c->values) names.push_back(std::get<std::string>(value));
  const auto found = std::find(names.begin(), names.end(), usual);
  if (names.size() > 1 && found != names.end()) {
    if (one_in(random, 2)) return;
    names.erase(found);
  }
  std::string arch;
  const std::string name = names.size() > 1 ? any_of(random, names) : names.front();
  (void)core::set_word(*core::find_word(word), name, p, arch);  // a name may be unknown here
}

// Draws the words that say how k, v and out are stored, and what is promised of a batch.
void draw_storage(Random& random, const core::Manifest::Entry& entry, Problem& p) {
  const auto flag = [&](const char* word, int64_t n) {
    return has(entry, word) && (must_be_set(entry, word) || one_in(random, n)) ? 1 : 0;
  };
  draw_name(random, entry, "kv_dtype", "off", p);
  if (!core::is_off(p.kv_dtype)) draw_name(random, entry, "kv_scale", "", p);
  p.v_in_k = flag("v_in_k", 4);
  const Constraint* width = constraint_of(entry, "head_dim_v");
  const bool tied = width != nullptr && width->equals != nullptr;
  if (p.v_in_k && !tied && !one_in(random, 3)) {
    const int64_t half = std::max<int64_t>(1, p.head_dim / 2);
    p.head_dim_v = draw_number(random, entry, "head_dim_v", {half, p.head_dim - half + 1});
  }
  if (p.v_in_k) p.head_dim_v = std::min(p.head_dim_v, p.head_dim);
  draw_name(random, entry, "out_dtype", "off", p);
  if (core::same_dtype(p.out_dtype, p.dtype)) p.out_dtype = {};
  p.diagonal_offset = flag("diagonal_offset", 4);
  p.batch_invariant = flag("batch_invariant", 4);
  if (p.batch_invariant) p.deterministic = 1;
}

// Whether NaN can be put into a key: into its numbers, of which i8 has none, or into its scale.
bool can_be_nan(const Problem& p) {
  return core::dtype_name(p.kv_dtype) != "i8" || p.kv_scale == ATTNRT_KV_SCALE_TOKEN;
}

// Whether NaN can be put into k at a key, and not into v.
bool k_can_be_nan(const Problem& p) {
  if (!p.v_in_k) return can_be_nan(p);
  return p.head_dim_v < p.head_dim && core::dtype_name(p.kv_dtype) != "i8";
}

// Makes a change that the case's style asks for, and keeps it if the entry still fits.
template <class Change>
bool try_change(const core::Manifest::Entry& entry, const std::string& arch, Problem& problem,
                Change&& change) {
  Problem changed = problem;
  change(changed);
  if (!fits(entry, changed, arch)) return false;
  problem = changed;
  return true;
}

// Gives the problem what the style needs. RETURNS false if the entry does not allow it.
bool apply_style(Random& random, const core::Manifest::Entry& entry, const std::string& arch,
                 Style style, Problem& p) {
  const auto masked = [&](int32_t mask) {
    return !p.varlen && try_change(entry, arch, p, [&](Problem& changed) {
      changed.mask = mask;
      changed.mask_dtype =
          mask == ATTNRT_MASK_BOOLEAN ? core::default_problem().mask_dtype : p.dtype;
    });
  };
  const auto causal = [&](int32_t align) {
    return try_change(entry, arch, p,
                      [&](Problem& changed) { changed.causal = 1, changed.align = align; });
  };
  switch (style) {
    case Style::empty_rows:
      return masked(ATTNRT_MASK_BOOLEAN) || masked(ATTNRT_MASK_ADDITIVE) ||
             causal(ATTNRT_ALIGN_BOTTOM_RIGHT) || (p.kv_lengths != 0);
    case Style::lowest_mask: return masked(ATTNRT_MASK_ADDITIVE);
    case Style::nan_outside:
      return can_be_nan(p) &&
             (p.varlen || p.page_size > 0 ||
              try_change(entry, arch, p, [](Problem& changed) { changed.kv_lengths = 1; }));
    case Style::nan_visible: return k_can_be_nan(p);
    case Style::nan_masked:
      if (!k_can_be_nan(p)) return false;
      return (one_in(random, 2) && masked(ATTNRT_MASK_BOOLEAN)) || masked(ATTNRT_MASK_ADDITIVE) ||
             masked(ATTNRT_MASK_BOOLEAN) || causal(ATTNRT_ALIGN_TOP_LEFT);
    default: return true;
  }
}

// Returns the largest value that the entry allows for a bound, but at most `otherwise`.
int64_t most(const core::Manifest::Entry& entry, const char* word, int64_t otherwise) {
  const Constraint* c = constraint_of(entry, word);
  const bool less = c != nullptr && c->max && *c->max < static_cast<double>(otherwise);
  return less ? static_cast<int64_t>(*c->max) : otherwise;
}

// Returns the multiplications for one query and one key of each of `sequences` sequences.
int64_t work_of_pair(const Problem& p, int64_t sequences) {
  return sequences * p.heads_q * (p.head_dim + p.head_dim_v);
}

// Makes the batch one long sequence among many of one key, or of none. The lengths stay as they are
// if the entry does not allow such a batch.
void draw_crowd(Random& random, const core::Manifest::Entry& entry, Case& drawn) {
  const Problem& p = drawn.problem;
  const int64_t largest = most(entry, "batch", kMaxCrowd);
  if (largest < kMinCrowd) return;
  const int64_t batch = between(random, kMinCrowd, largest);
  // A mask, and k and v that are not packed, have room for the longest length in each sequence.
  const bool packed = (p.varlen || p.page_size > 0) && p.mask == ATTNRT_MASK_NONE;
  const int64_t seq_q = p.varlen ? std::min(most(entry, "seq_q", 4), between(random, 1, 4)) : 1;
  const int64_t pairs = kMostWork / work_of_pair(p, packed ? 1 : batch) / seq_q;
  const int64_t longest =
      std::min({pairs, most(entry, "seq_kv", kLongSequence), between(random, 300, kLongSequence)});
  if (longest < 1) return;
  using kernels::reference::Lengths;
  std::vector<int64_t> q_lengths(static_cast<size_t>(batch), 1);
  if (p.varlen) q_lengths[static_cast<size_t>(between(random, 0, batch - 1))] = seq_q;
  const int64_t least = one_in(random, 4) ? 0 : 1;
  set_extents(drawn, std::move(q_lengths),
              kernels::reference::draw_lengths(random, Lengths::one_long, batch, {least, longest}));
  if (p.varlen) drawn.seq_kv = 0;
}

// Replaces the lengths of some cases by those at which kernels err: at the ends of tiles and pages,
// or one long sequence among many short ones.
void draw_serving_lengths(Random& random, const core::Manifest::Entry& entry, Case& drawn) {
  const Problem& p = drawn.problem;
  if (!p.varlen && !p.kv_lengths) return;
  using kernels::reference::Lengths;
  if (one_in(random, 4)) return draw_crowd(random, entry, drawn);
  if (!one_in(random, 3)) return;
  const auto edges = [&](int64_t longest, int64_t page) {
    const auto batch = static_cast<int64_t>(drawn.q_lengths.size());
    return kernels::reference::draw_lengths(random, Lengths::edges, batch, {0, longest, page});
  };
  if (p.varlen) drawn.q_lengths = edges(p.seq_q, 0);
  drawn.kv_lengths = edges(p.varlen ? p.seq_kv : drawn.seq_kv, p.page_size);
}

// Draws views of one allocation for k and v, which need pages of the same shape.
void draw_kv_memory(Random& random, Case& drawn) {
  const Problem& p = drawn.problem;
  if (p.page_size == 0 || p.v_in_k || p.head_dim != p.head_dim_v || one_in(random, 2)) return;
  drawn.kv_memory = one_in(random, 2) ? KvMemory::halves : KvMemory::pairs;
}

void draw_extents(Random& random, Random& serving, const core::Manifest::Entry& entry,
                  Case& drawn) {
  const Problem& p = drawn.problem;
  const int64_t most_q = most(entry, "seq_q", 200), most_kv = most(entry, "seq_kv", 2000);
  const bool decode = drawn.style == Style::long_rows;
  const std::vector<int64_t> usual_q = {1, 1, 2, 3, 7, 16, 17, 31, 33, 64, 65, 100, 130};
  const std::vector<int64_t> usual_kv = {1, 2, 5, 16, 17, 31, 33, 64, 65, 100, 128, 192, 250};
  const int64_t batch = std::min(most(entry, "batch", 3), between(random, 1, 3));
  int64_t seq_q = decode ? between(random, 1, 2) : any_of(random, usual_q);
  int64_t seq_kv = decode ? between(random, 300, 1500) : any_of(random, usual_kv);
  if (p.causal && one_in(random, 2)) seq_q = seq_kv;
  seq_q = std::min(seq_q, most_q);
  seq_kv = std::min(seq_kv, most_kv);
  const int64_t each = work_of_pair(p, batch);
  while (each * seq_q * seq_kv > kMostWork && (seq_q > 1 || seq_kv > 1)) {
    const bool halve_q = seq_q > 1 && (decode ? seq_kv < 64 : seq_q >= seq_kv / 2);
    int64_t& halved = halve_q ? seq_q : seq_kv;
    halved = std::max<int64_t>(1, halved / 2);
  }
  std::vector<int64_t> q_lengths(static_cast<size_t>(batch), seq_q),
      kv_lengths(static_cast<size_t>(batch), seq_kv);
  for (size_t b = 0; b < q_lengths.size(); ++b) {
    if (p.varlen) q_lengths[b] = one_in(random, 6) ? 0 : between(random, 1, seq_q);
    if (p.varlen || p.kv_lengths)
      kv_lengths[b] = one_in(random, 8) ? 0 : between(random, 1, seq_kv);
  }
  set_extents(drawn, std::move(q_lengths), std::move(kv_lengths));
  drawn.seq_kv = p.varlen ? 0 : seq_kv;
  draw_serving_lengths(serving, entry, drawn);
  // Half of the plans have bounds that are larger than the run.
  if (one_in(random, 2)) {
    Problem larger = drawn.problem;
    larger.batch += between(random, 0, 2);
    larger.seq_q += between(random, 0, 40);
    larger.seq_kv += between(random, 0, 300);
    drawn.problem = larger;
  }
  drawn.problem.seq_kv = std::max(drawn.problem.seq_kv, seq_kv);
}

}  // namespace

bool fits(const core::Manifest::Entry& entry, const Problem& problem, const std::string& arch) {
  if (!core::check_problem(&problem) || !core::refusals(entry.constraints, problem, arch).empty())
    return false;
  for (const std::string_view feature : core::features_of(problem)) {
    if (!has(entry, feature)) return false;
  }
  return true;
}

void set_extents(Case& drawn, std::vector<int64_t> q_lengths, std::vector<int64_t> kv_lengths) {
  Problem& p = drawn.problem;
  const auto largest = [](const std::vector<int64_t>& lengths) {
    return lengths.empty() ? int64_t{0} : *std::max_element(lengths.begin(), lengths.end());
  };
  drawn.batch = static_cast<int64_t>(q_lengths.size());
  drawn.seq_q = largest(q_lengths);
  drawn.seq_kv = largest(kv_lengths);
  p.batch = std::max<int64_t>(1, drawn.batch);
  p.seq_q = std::max<int64_t>(1, drawn.seq_q);
  p.seq_kv = std::max<int64_t>(1, drawn.seq_kv);
  drawn.q_lengths = std::move(q_lengths);
  drawn.kv_lengths = std::move(kv_lengths);
}

void set_pages(Case& drawn, int64_t unused) {
  const int64_t page = drawn.problem.page_size;
  drawn.max_pages = (drawn.problem.seq_kv + page - 1) / page;
  drawn.pages = unused;
  for (const int64_t length : drawn.kv_lengths) drawn.pages += (length + page - 1) / page;
}

std::optional<Case> draw_case(const core::Manifest& manifest, const core::Device& device,
                              uint64_t seed) {
  if (manifest.entries.empty()) return std::nullopt;
  Random random(seed * 0x9E3779B97F4A7C15u + 1), serving(seed * 0x9E3779B97F4A7C15u + 2);
  Case drawn;
  drawn.seed = seed;
  drawn.entry = static_cast<int>(seed / kStyles % manifest.entries.size());
  const core::Manifest::Entry& entry = manifest.entries[static_cast<size_t>(drawn.entry)];
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    drawn.style = static_cast<Style>(seed % kStyles);
    drawn.problem = core::default_problem();
    drawn.problem.device_type = device.type;
    drawn.problem.device_id = device.id;
    draw_dimensions(random, entry, drawn.problem);
    draw_features(random, entry, drawn.problem);
    draw_storage(random, entry, drawn.problem);
    if (!fits(entry, drawn.problem, device.arch)) continue;
    if (!apply_style(random, entry, device.arch, drawn.style, drawn.problem))
      drawn.style = Style::plain;
    drawn.kv_memory = KvMemory::separate;
    draw_extents(random, serving, entry, drawn);
    if (drawn.problem.varlen) drawn.spare_rows = between(random, 0, 3);
    if (drawn.problem.page_size > 0) set_pages(drawn, between(random, 1, 3));
    draw_kv_memory(serving, drawn);
    if (fits(entry, drawn.problem, device.arch)) return drawn;
  }
  return std::nullopt;
}

std::string describe(const Case& drawn) {
  const char* memory = drawn.kv_memory == KvMemory::halves  ? "; k and v in one [2, pages, ...]"
                       : drawn.kv_memory == KvMemory::pairs ? "; k and v in one [pages, 2, ...]"
                                                            : "";
  return fmt::format("{}; run: q {} kv {}{}", core::describe(drawn.problem),
                     fmt::join(drawn.q_lengths, ","), fmt::join(drawn.kv_lengths, ","), memory);
}

}  // namespace attnrt::conformance
