// tests/fuzz/record_fuzz.cpp: reads a record of the registry, and asks what it says about a plugin
#include "fuzz.hpp"
#include "record.hpp"

void fuzz_record(std::string_view input) {
  using namespace attnrt::core;
  using attnrt::fuzz::require;
  const auto record = parse_record(input);
  if (!record) return;
  const std::string written = text_of(*record);
  require(written == input || written == std::string(input) + "\n",
          "only what was written whole is a record");
  require(record->level != AdmissionLevel::off, "a record has a level that probes");
  require(record->at_seconds >= 0, "a record is not from before 1970: its age can be computed");
  require(record->attempts >= 1 && record->attempts < INT64_MAX, "attempts can be counted on");
  require(record->reason.empty() || attnrt::fuzz::is_one_line(record->reason),
          "a reason is one printable line");
  for (const AdmissionLevel wanted : {AdmissionLevel::loads, AdmissionLevel::conforms}) {
    using State = Admission::State;
    for (const std::string& boot : {std::string(), record->boot, record->boot + "x"}) {
      const Admission admission = admit(wanted, record, boot);
      require(admission.state != State::off && admission.state != State::waiting,
              "a record says admitted or refused, or nothing");
      require(admission.state != State::admitted ||
                  (record->state == AdmissionRecord::State::admitted && record->level >= wanted),
              "only what passed this level or a higher one is admitted");
      // But a plugin that was being probed when the machine went down is refused at every level.
      require(admission.state != State::refused || record->level <= wanted ||
                  record->state == AdmissionRecord::State::probing,
              "what failed a higher level may pass this one");
    }
  }
}
