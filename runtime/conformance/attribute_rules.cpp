// runtime/conformance/attribute_rules.cpp: checks that run heeds each attribute of a problem
//
// Random cases find a plugin that ignores an attribute only if one of them has it, and if it
// matters there. Here each attribute is put into cases until it matters: until the exact result
// without it, of the same tensors, differs by more than both bounds. A plugin that then gives the
// result without it ignores it.
//
//     a drawn case -> with the attribute, as far as its entry and supports allow
//     -> exact results with it and without it -> do they differ? -> run -> which of the two is it?
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <utility>

#include "conformance/judge.hpp"
#include "conformance/rule_checks.hpp"
#include "conformance/run.hpp"
#include "conformance/subject.hpp"
#include "conformance/trials.hpp"

namespace attnrt::conformance {
namespace {

using core::Problem;

struct Attribute {
  const char* name;
  void (*add)(Problem&);     // gives it to a problem
  void (*remove)(Problem&);  // takes it away again
};

// The values matter for short sequences, too. Each is one that draw_case may draw.
constexpr std::array kAttributes = {
    Attribute{"causal", [](Problem& p) { p.causal = 1; }, [](Problem& p) { p.causal = 0; }},
    Attribute{"align top_left", [](Problem& p) { p.causal = 1, p.align = ATTNRT_ALIGN_TOP_LEFT; },
              [](Problem& p) { p.align = ATTNRT_ALIGN_BOTTOM_RIGHT; }},
    Attribute{"window_left", [](Problem& p) { p.window_left = 1; },
              [](Problem& p) { p.window_left = -1; }},
    Attribute{"window_right", [](Problem& p) { p.causal = 0, p.window_right = 1; },
              [](Problem& p) { p.window_right = -1; }},
    Attribute{"mask boolean",
              [](Problem& p) {
                p.mask = ATTNRT_MASK_BOOLEAN;
                p.mask_dtype = core::default_problem().mask_dtype;
              },
              [](Problem& p) { p.mask = ATTNRT_MASK_NONE; }},
    Attribute{"mask additive",
              [](Problem& p) { p.mask = ATTNRT_MASK_ADDITIVE, p.mask_dtype = p.dtype; },
              [](Problem& p) { p.mask = ATTNRT_MASK_NONE; }},
    Attribute{"softcap", [](Problem& p) { p.softcap = 1; }, [](Problem& p) { p.softcap = 0; }},
    Attribute{"alibi", [](Problem& p) { p.alibi = 1; }, [](Problem& p) { p.alibi = 0; }},
    Attribute{"sinks", [](Problem& p) { p.sinks = 1; }, [](Problem& p) { p.sinks = 0; }},
    Attribute{"scale", [](Problem& p) { p.scale = 1; }, [](Problem& p) { p.scale = 0; }},
    Attribute{"diagonal_offset", [](Problem& p) { p.causal = 1, p.diagonal_offset = 1; },
              [](Problem& p) { p.diagonal_offset = 0; }},
};

constexpr uint64_t kMostSeeds = 400;  // seeds whose cases are looked at for one attribute
constexpr int kMostMade = 24;         // cases that are made of them
constexpr int kControls = 2;          // cases that are run, if there are so many

// A case in which an attribute matters.
struct Control {
  Case drawn;
  Tensors tensors;
  Expectation with, without;  // the exact results with the attribute and without it
};

// Whether one of the values differs by more than both results may be off.
bool differ(const Case& drawn, const Expectation& with, const Expectation& without) {
  for (size_t n = 0; n < with.rows.size(); ++n) {
    const ExpectedRow& row = with.rows[n];
    const double bounds = with.out_bound(row) + without.out_bound(without.rows[n]);
    for (int64_t x = 0; x < drawn.problem.head_dim_v; ++x) {
      const auto at = static_cast<size_t>(row.out_at + x);
      if (std::abs(with.out[at] - without.out[at]) > bounds) return true;
    }
  }
  return false;
}

// Makes the case of a seed into a control. nullopt: the attribute does not fit into it, or does not
// matter there. made: counts those that were evaluated.
std::optional<Control> make_control(Subject& subject, const Attribute& attribute, uint64_t seed,
                                    int& made) {
  std::optional<Case> drawn = draw_case(subject.manifest(), subject.device(), seed);
  if (!drawn || drawn->seq_kv == 1) return std::nullopt;
  drawn->style = Style::plain;
  const auto& entry = subject.manifest().entries[static_cast<size_t>(drawn->entry)];
  const std::string& arch = subject.device().arch;
  // With the other alignment, which is one of the attributes, a plugin that ignores that would be
  // said to ignore this one.
  Problem usual = drawn->problem;
  usual.align = ATTNRT_ALIGN_BOTTOM_RIGHT;
  if (fits(entry, usual, arch)) drawn->problem = usual;
  attribute.add(drawn->problem);
  std::vector<std::string> reasons;
  if (!fits(entry, drawn->problem, arch) || subject.supports(drawn->problem, &reasons) != ATTNRT_OK)
    return std::nullopt;
  ++made;
  Control control{*drawn, make_tensors(*drawn), {}, {}};
  control.with = expect(control.drawn, control.tensors, subject.life());
  Case other = control.drawn;
  attribute.remove(other.problem);
  control.without = expect(other, control.tensors, subject.life());
  if (!differ(control.drawn, control.with, control.without)) return std::nullopt;
  return control;
}

// Returns the first value that is not right with the attribute, if all are right without it; else
// "".
std::string ignored(const Control& control, const RunResult& result) {
  const OutputReader reader(control.drawn, control.tensors);
  std::string first;
  for (size_t n = 0; n < control.with.rows.size(); ++n) {
    const ExpectedRow &row = control.with.rows[n], &other = control.without.rows[n];
    for (int64_t x = 0; x < control.drawn.problem.head_dim_v; ++x) {
      const auto at = static_cast<size_t>(row.out_at + x);
      const double found = reader.out(result.out, row, x), exact = control.with.out[at];
      if (!(std::abs(found - control.without.out[at]) <= control.without.out_bound(other)))
        return {};
      if (!first.empty() || std::abs(found - exact) <= control.with.out_bound(row)) continue;
      first = fmt::format("out at sequence {}, query {}, head {}, {} is {:.8g}, expected {:.8g}",
                          row.b, row.i, row.head, x, found, exact);
    }
  }
  return first;
}

// Runs the control. RETURNS failed if the result is not the right one.
Outcome run_control(Subject& subject, const Attribute& attribute, const Control& control) {
  const RunResult result = run_case(subject, control.drawn, control.tensors);
  if (result.status == ATTNRT_OUT_OF_MEMORY) return passed();  // the contract allows it
  const auto fail = [&](const char* how, const std::string& text) {
    return failed(fmt::format("{} {}: {} ({})", attribute.name, how, text, describe(control.drawn)),
                  control.drawn.seed);
  };
  const auto& known = subject.trials().findings;  // mistakes that have nothing to do with it
  if (!result.ok()) return known.contains("AGR-2") ? passed() : fail("fails", result.message);
  if (result.out.empty()) return passed();  // ROB-7 says so
  if (const std::string text = ignored(control, result); !text.empty())
    return fail("has no effect", text);
  for (const Finding& finding : judge(control.drawn, control.tensors, control.with, result)) {
    if (!known.contains(finding.rule)) return fail("is wrong", finding.text);
  }
  return passed();
}

}  // namespace

Outcome check_attributes(Subject& subject) {
  if (subject.trials().ran == 0) return skipped("no case ran");
  int tried = 0;
  for (const Attribute& attribute : kAttributes) {
    int controls = 0, made = 0;
    for (uint64_t n = 0; n < kMostSeeds && controls < kControls && made < kMostMade; ++n) {
      subject.report_life();
      const auto control = make_control(subject, attribute, subject.settings.seed + n, made);
      if (!control) continue;
      ++controls, ++tried;
      Outcome outcome = run_control(subject, attribute, *control);
      if (outcome.state != State::passed) return outcome;
    }
  }
  return tried > 0 ? passed() : skipped("it serves none of the attributes");
}

}  // namespace attnrt::conformance
