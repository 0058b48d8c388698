// runtime/conformance/merge_rules.cpp: checks the rule ACC-12 on attnrt.merge/1
//
// Two kinds of partial results are merged:
//     drawn ones, for every number of partials and every layout; their merge is known exactly
//     those that the plugin itself gives for parts of a case's keys; the result is that of all keys
// Bounds are those of kernels/reference/merge.hpp.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>

#include "conformance/parts.hpp"
#include "conformance/rule_checks.hpp"
#include "conformance/samples.hpp"
#include "conformance/subject.hpp"
#include "kernels/common/half.hpp"
#include "kernels/reference/merge.hpp"
#include "kernels/reference/tolerance.hpp"
#include "plugins/common/translate.hpp"

namespace attnrt::conformance {
namespace {

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1};
constexpr attnrt_dtype kOutDtypes[] = {
    kFloat32, {ATTNRT_DTYPE_FLOAT, 16, 1}, {ATTNRT_DTYPE_BFLOAT, 16, 1}};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int kInPlaceOnce = 3;  // one in so many merges writes over its partials
constexpr size_t kSplitCases = 6;

// The numbers of partials that are tried: few, and those beside which code might take blocks.
constexpr int64_t kCounts[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130};

// The tensors of one merge. Where out or lse is in place, its image is that of the partial.
struct Merge {
  std::vector<Image> outs, lses;
  Image out, lse;                // lse may be absent
  int out_at = -1, lse_at = -1;  // the partial that is written over; -1: none
};

// Offsets, in elements, of one row: one query of one head.
struct Row {
  int64_t out, lse;
};

// Returns the offsets of each row in tensors like these two.
std::vector<Row> rows_of(const attnrt_tensor& out, const attnrt_tensor& lse) {
  std::vector<Row> rows;
  const bool packed = out.ndim == 3;
  const int64_t batch = packed ? 1 : out.shape[0];
  const int64_t* const shape = out.shape + (packed ? 0 : 1);  // seq, heads
  const int64_t* const stride = out.stride + (packed ? 0 : 1);
  const int64_t* const lse_stride = lse.stride + (packed ? 0 : 1);  // heads, seq
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < shape[0]; ++i) {
      for (int64_t head = 0; head < shape[1]; ++head) {
        rows.push_back(
            {(packed ? 0 : b * out.stride[0]) + i * stride[0] + head * stride[1],
             (packed ? 0 : b * lse.stride[0]) + head * lse_stride[0] + i * lse_stride[1]});
      }
    }
  }
  return rows;
}

float* floats(Image& image) { return reinterpret_cast<float*>(image.first()); }
const float* floats(const Image& image) { return reinterpret_cast<const float*>(image.first()); }

// ---- Calls the plugin ----

// Makes one merge, and reads everything back. RETURNS what is wrong with the call or with what it
// wrote, or "". The results are then in out and lse.
std::string run_merge(Subject& subject, const attnrt_merging& extension, Merge& merge) {
  DeviceStream stream(subject);
  std::string error = stream.error();
  std::deque<GuardedMemory> memory;  // in the order in which place is called
  const auto place = [&](const Image& image) {
    attnrt_tensor view = image.view;
    if (image.absent() || !error.empty()) return view;
    memory.emplace_back(subject, static_cast<int64_t>(image.bytes.size()), image.alignment,
                        Image::kGuard, stream.get());
    error = memory.back().write(image.bytes.data(), stream.get());
    view.data = memory.back().content();
    return view;
  };
  std::vector<attnrt_tensor> outs, lses;
  for (const Image& image : merge.outs) outs.push_back(place(image));
  for (const Image& image : merge.lses) lses.push_back(place(image));
  const auto at = [](int partial) { return static_cast<size_t>(partial); };
  const attnrt_tensor out = merge.out_at >= 0 ? outs[at(merge.out_at)] : place(merge.out);
  const attnrt_tensor lse = merge.lse_at >= 0 ? lses[at(merge.lse_at)] : place(merge.lse);
  if (!error.empty()) return error;
  attnrt_error found = ATTNRT_ERROR_INIT;
  const attnrt_status status =
      extension.merge(subject.instance(), subject.device().id, outs.data(), lses.data(),
                      static_cast<int32_t>(outs.size()), &out, &lse, stream.get(), &found);
  error = stream.synchronize();
  if (status != ATTNRT_OK)
    return fmt::format("merge: {}: {}", core::status_name(status), found.message);
  if (!error.empty()) return error;

  RunResult written;
  auto next = memory.begin();
  const auto read = [&](const char* name, Image& image, bool output) {
    if (image.absent()) return;
    std::vector<std::byte> after(image.bytes.size());
    if (error.empty()) error = (next++)->read(after.data(), stream.get());
    compare_image(name, output, image, after, written);
    if (output) image.bytes = std::move(after);
  };
  for (size_t n = 0; n < outs.size(); ++n) {
    const bool output = static_cast<int>(n) == merge.out_at;
    read("outs", output ? merge.out : merge.outs[n], output);
  }
  for (size_t n = 0; n < lses.size(); ++n) {
    const bool output = static_cast<int>(n) == merge.lse_at;
    read("lses", output ? merge.lse : merge.lses[n], output);
  }
  if (merge.out_at < 0) read("out", merge.out, true);
  if (merge.lse_at < 0) read("lse", merge.lse, true);
  for (const std::string* text : {&written.inputs, &written.outside, &written.unwritten}) {
    if (error.empty()) error = *text;
  }
  return error;
}

// ---- Judges a merge ----

struct Allowance {
  double out = 0, lse = 0;  // beside what merging costs
};

bool is_right(double found, double exact, double bound) {
  if (std::isnan(exact)) return std::isnan(found);
  return found == exact || std::abs(found - exact) <= bound;
}

// Compares one row with the exact merge of its partials. expected: its out and lse where they are
// known otherwise, with the allowance for that; nullptr: those of the exact merge.
std::string judge_row(const Merge& merge, const std::vector<Row>& of_partials, const Row& row,
                      size_t n, const double* expected, double expected_lse, Allowance more) {
  const attnrt_tensor& out = merge.out.view;
  const int64_t width = out.shape[out.ndim - 1];
  std::vector<const float*> outs;
  std::vector<float> lses;
  for (size_t i = 0; i < merge.outs.size(); ++i) {
    outs.push_back(floats(merge.outs[i]) + of_partials[n].out);
    lses.push_back(floats(merge.lses[i])[of_partials[n].lse]);
  }
  const kernels::DType dtype = attnrt_plugins::translate(out.dtype);
  const auto exact = kernels::reference::merge_row(outs.data(), lses.data(),
                                                   static_cast<int64_t>(outs.size()), width, dtype);
  for (int64_t x = 0; x < width; ++x) {
    const auto column = static_cast<size_t>(x);
    const double wanted = expected != nullptr ? expected[x] : exact.out[column];
    const double bound = exact.out_bound[column] + more.out;
    const double found = kernels::load_float(dtype, merge.out.first(), row.out + x);
    if (!is_right(found, wanted, bound))
      return fmt::format("out of row {}, {} is {:.9g}, expected {:.9g} within {:.2g}", n, x, found,
                         wanted, bound);
  }
  if (merge.lse.absent()) return {};
  const double wanted = expected != nullptr ? expected_lse : exact.lse;
  const double found = floats(merge.lse)[row.lse], bound = exact.lse_bound + more.lse;
  if (is_right(found, wanted, bound)) return {};
  return fmt::format("lse of row {} is {:.9g}, expected {:.9g} within {:.2g}", n, found, wanted,
                     bound);
}

// ---- Partials that are drawn ----

double uniform(Random& random, double low, double high) {
  return low + (high - low) * static_cast<double>(random() >> 11) * 0x1p-53;
}

// Draws the layout of out, outs, lse and lses: dense or packed, with heads outside, with gaps.
std::pair<attnrt_tensor, attnrt_tensor> draw_layout(Random& random) {
  const bool packed = one_in(random, 3), heads_outside = one_in(random, 2);
  const int64_t batch = packed ? 1 : between(random, 1, 3), seq = between(random, 1, 9);
  const int64_t heads = between(random, 1, 4);
  const int64_t widths[] = {1, 7, 16, 33, 64, 130};
  const int64_t width = widths[between(random, 0, 5)];
  const int64_t row = width + (one_in(random, 2) ? between(random, 1, 5) : 0);
  attnrt_tensor out{}, lse{};
  out.dtype = lse.dtype = kFloat32;
  const int64_t shape[] = {batch, seq, heads, width};
  const int64_t stride[] = {row * heads * seq, heads_outside ? row : row * heads,
                            heads_outside ? row * seq : row, 1};
  const int64_t lse_gap = one_in(random, 3) ? 2 : 1;
  const int64_t lse_shape[] = {batch, heads, seq};
  const int64_t lse_stride[] = {heads * seq * lse_gap, seq * lse_gap, lse_gap};
  const int skip = packed ? 1 : 0;
  out.ndim = 4 - skip, lse.ndim = 3 - skip;
  std::copy(shape + skip, shape + 4, out.shape);
  std::copy(stride + skip, stride + 4, out.stride);
  std::copy(lse_shape + skip, lse_shape + 3, lse.shape);
  std::copy(lse_stride + skip, lse_stride + 3, lse.stride);
  return {out, lse};
}

// Draws lse_i of each partial of row n. The first rows are those in which something is special.
void draw_lses(Random& random, size_t n, std::vector<float>& lses) {
  for (float& lse : lses) {
    lse = static_cast<float>(uniform(random, -30, 30));
    if (n == 0 || one_in(random, 4)) lse = -kInfinity;  // row 0: no partial saw a key
    if (n == 3) lse = 30000 + 0.25F * lse;              // weights follow from small differences
  }
  const size_t any = static_cast<size_t>(between(random, 0, static_cast<int64_t>(lses.size()) - 1));
  if (n == 1) lses[any] = kNan;
  if (n == 2) lses[any] = kInfinity;
  if (n == 4) std::fill(lses.begin(), lses.end(), -kInfinity), lses[any] = -1e4F;
}

// Draws count partials. The rows of those that saw nothing hold NaN.
Merge draw_merge(Random& random, int64_t count, std::vector<Row>* rows) {
  const auto [out, lse] = draw_layout(random);
  *rows = rows_of(out, lse);
  Merge merge;
  const auto partials = static_cast<size_t>(count);
  merge.outs.assign(partials, make_image(out, std::byte{0xFF}, 4));
  merge.lses.assign(partials, make_image(lse, std::byte{0xFF}, 4));
  const int64_t width = out.shape[out.ndim - 1];
  std::vector<float> lses(partials);
  for (size_t n = 0; n < rows->size(); ++n) {
    draw_lses(random, n, lses);
    for (size_t i = 0; i < partials; ++i) {
      floats(merge.lses[i])[(*rows)[n].lse] = lses[i];
      float* const row = floats(merge.outs[i]) + (*rows)[n].out;
      for (int64_t x = 0; x < width; ++x)
        row[x] = lses[i] == -kInfinity ? kNan : static_cast<float>(uniform(random, -2, 2));
    }
  }
  attnrt_tensor result = out;
  result.dtype = kOutDtypes[between(random, 0, 2)];
  merge.out = make_image(result, std::byte{0xFF}, result.dtype.bits / 8);
  make_output(merge.out, result);
  if (!one_in(random, 4)) {
    merge.lse = make_image(lse, std::byte{0xFF}, 4);
    make_output(merge.lse, lse);
  }
  return merge;
}

// Makes out one of outs, and lse one of lses, mostly not of the same partial.
void draw_in_place(Random& random, Merge& merge) {
  const auto last = static_cast<int64_t>(merge.outs.size()) - 1;
  const auto write_over = [](Image& output, const Image& partial) {
    output = partial;
    make_output(output, output.view);  // notes which elements must be written
    output.bytes = partial.bytes;
  };
  if (core::same_dtype(merge.out.view.dtype, kFloat32)) {
    merge.out_at = static_cast<int>(between(random, 0, last));
    write_over(merge.out, merge.outs[static_cast<size_t>(merge.out_at)]);
  }
  if (merge.lse.absent()) return;
  merge.lse_at = static_cast<int>(between(random, 0, last));
  write_over(merge.lse, merge.lses[static_cast<size_t>(merge.lse_at)]);
}

Outcome merge_drawn(Subject& subject, const attnrt_merging& extension) {
  const uint64_t seed = subject.settings.seed;
  Random random(seed * 0xA24BAED4963EE407u + 3);
  for (const int64_t count : kCounts) {
    for (int layout = 0; layout < 3; ++layout) {
      std::vector<Row> rows;
      Merge merge = draw_merge(random, count, &rows);
      if (one_in(random, kInPlaceOnce)) draw_in_place(random, merge);
      std::string text = run_merge(subject, extension, merge);
      for (size_t n = 0; n < rows.size() && text.empty(); ++n)
        text = judge_row(merge, rows, rows[n], n, nullptr, 0, {});
      if (text.empty()) continue;
      const char* const where = merge.out_at >= 0 || merge.lse_at >= 0 ? ", in place" : "";
      return failed(fmt::format("{} partials{}: {}", count, where, text), seed);
    }
  }
  return passed();
}

// ---- Partials that the plugin gives for parts of the keys ----

bool can_be_split(const Case& drawn) {
  // An lse of the lowest finite number cannot say how many keys there were. NaN has its own rules.
  const bool finite = drawn.style == Style::plain || drawn.style == Style::long_rows ||
                      drawn.style == Style::empty_rows || drawn.style == Style::huge_logits;
  return finite && drawn.seq_kv > 1 && drawn.problem.kv_lengths == 0 && drawn.problem.varlen == 0;
}

// A part's results, and the exact ones.
struct PartResult {
  Part part;
  RunResult result;
  Expectation expectation;
};

// Runs the case on parts of its keys. RETURNS nothing if the plugin does not serve a part, or if a
// run fails or is wrong: other rules look at that.
std::vector<PartResult> run_parts(Subject& subject, const Case& whole, const Tensors& tensors,
                                  const std::vector<int64_t>& ends) {
  std::vector<PartResult> results;
  const auto& entry = subject.manifest().entries[static_cast<size_t>(whole.entry)];
  int64_t first = 0;
  for (const int64_t end : ends) {
    PartResult part{keys_between(whole, tensors, first, end), {}, {}};
    std::vector<std::string> reasons;
    const core::Problem& problem = part.part.drawn.problem;
    if (!fits(entry, problem, subject.device().arch) ||
        subject.supports(problem, &reasons) != ATTNRT_OK)
      return {};
    part.result = run_case(subject, part.part.drawn, part.part.tensors);
    if (!part.result.ok() || part.result.out.empty()) return {};
    const auto& [drawn, tensors_of_part] = part.part;
    part.expectation = expect(drawn, tensors_of_part, subject.life());
    if (!judge(drawn, tensors_of_part, part.expectation, part.result).empty()) return {};
    results.push_back(std::move(part));
    first = end;
  }
  return results;
}

// Returns what the errors of the parts allow the merged row to be off by.
Allowance allowance_of(const std::vector<PartResult>& parts, size_t n) {
  double out_error = 0, lse_error = 0, largest = 0;
  for (const PartResult& part : parts) {
    const Expectation& expectation = part.expectation;
    const ExpectedRow& row = expectation.rows[n];
    const core::Problem& p = part.part.drawn.problem;
    out_error = std::max(out_error, expectation.out_bound(row));
    if (std::isfinite(expectation.lse[static_cast<size_t>(row.lse_at)]))
      lse_error = std::max(lse_error, lse_bound(part.part.drawn, expectation, row));
    for (int64_t x = 0; x < p.head_dim_v; ++x)
      largest = std::max(largest, std::abs(expectation.out[static_cast<size_t>(row.out_at + x)]));
  }
  const double out =
      kernels::reference::merged_out_error(out_error, lse_error, largest + out_error);
  return {out, lse_error};
}

// Splits the sample's keys at `ends`, and compares the merged parts with the exact answer for all
// keys. tried: counts the merges.
Outcome merge_parts(Subject& subject, const attnrt_merging& extension, const Sample& sample,
                    const std::vector<int64_t>& ends, int64_t* tried) {
  Case whole = sample.drawn;
  whole.problem.lse = 1;
  whole.problem.out_dtype = kFloat32;
  if (core::same_dtype(whole.problem.dtype, kFloat32)) whole.problem.out_dtype = {};
  const Tensors tensors = make_tensors(whole);
  if (!has_key_parts(whole, tensors)) return passed();
  const auto parts = run_parts(subject, whole, tensors, ends);
  if (parts.empty()) return passed();
  ++*tried;

  Merge merge;
  for (const PartResult& part : parts) {
    merge.outs.push_back(part.part.tensors[TensorName::out]);
    merge.outs.back().bytes = part.result.out;
    merge.lses.push_back(part.part.tensors[TensorName::lse]);
    merge.lses.back().bytes = part.result.lse;
  }
  const attnrt_tensor& lse = tensors[TensorName::lse].view;
  attnrt_tensor out = tensors[TensorName::out].view;
  const auto rows_of_partials = rows_of(out, lse);
  out.dtype = whole.problem.dtype;
  merge.out = make_image(out, std::byte{0xFF}, out.dtype.bits / 8);
  make_output(merge.out, out);
  merge.lse = tensors[TensorName::lse];
  std::string text = run_merge(subject, extension, merge);
  const Expectation exact = expect(whole, tensors, subject.life());
  for (size_t n = 0; n < exact.rows.size() && text.empty(); ++n) {
    const ExpectedRow& row = exact.rows[n];
    text = judge_row(merge, rows_of_partials, rows_of_partials[n], n,
                     &exact.out[static_cast<size_t>(row.out_at)],
                     exact.lse[static_cast<size_t>(row.lse_at)], allowance_of(parts, n));
  }
  if (text.empty()) return passed();
  return failed(fmt::format("keys split before {}: {} ({})",
                            fmt::join(ends.begin(), ends.end() - 1, ", "), text, describe(whole)),
                whole.seed);
}

Outcome merge_splits(Subject& subject, const attnrt_merging& extension) {
  int64_t tried = 0;
  for (const Sample& sample : draw_samples(subject, kSplitCases, can_be_split)) {
    Random random(sample.drawn.seed);
    const int64_t keys = sample.drawn.seq_kv;
    const int64_t one = between(random, 1, keys - 1), two = between(random, one, keys);
    // The second has an empty part: its rows see nothing.
    for (const auto& ends : {std::vector{one, keys}, std::vector{one, one, two, keys}}) {
      Outcome outcome = merge_parts(subject, extension, sample, ends, &tried);
      if (outcome.state != State::passed) return outcome;
    }
  }
  return passed();
}

}  // namespace

Outcome check_merge(Subject& subject) {
  const auto* extension = static_cast<const attnrt_merging*>(subject.extension(ATTNRT_MERGE));
  if (extension == nullptr) return skipped(fmt::format("it does not offer {}", ATTNRT_MERGE));
  if (!ATTNRT_HAS(extension, attnrt_merging, merge)) {
    return failed(fmt::format("struct_size of {} is {}, too small for its calls", ATTNRT_MERGE,
                              extension->struct_size));
  }
  if (extension->merge == nullptr) return failed(fmt::format("a call of {} is NULL", ATTNRT_MERGE));
  Outcome outcome = merge_drawn(subject, *extension);
  if (outcome.state == State::passed) outcome = merge_splits(subject, *extension);
  return outcome;
}

}  // namespace attnrt::conformance
