// runtime/src/record.hpp: the text of an admission record, as a file of the registry holds it
//
//     attnrt admission 1
//     state refused             admitted, refused, probing
//     level conforms            loads, conforms
//     at 1796101385             seconds since 1970
//     boot 77ed96da             the kernel's boot id; "-": not known
//     attempts 1
//     reason ACC-1: ...         "-": none
//     end
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "admit.hpp"

namespace attnrt::core {

// Control characters of the reason are written as escapes.
std::string text_of(const AdmissionRecord& record);

// Reads what text_of wrote; the last newline may be missing. nullopt: the text is anything else. A
// date before 1970 and a number of attempts that nobody counts are nothing that was written.
std::optional<AdmissionRecord> parse_record(std::string_view text);

}  // namespace attnrt::core
