// runtime/src/base/utc.cpp: a moment as text
#include "base/utc.hpp"

#include <fmt/format.h>

#include <ctime>

namespace attnrt::core {

std::string utc_text(std::chrono::system_clock::time_point moment) {
  using std::chrono::milliseconds;
  const auto since_epoch = std::chrono::floor<milliseconds>(moment.time_since_epoch()).count();
  const auto part = ((since_epoch % 1000) + 1000) % 1000;
  const auto seconds = static_cast<std::time_t>((since_epoch - part) / 1000);
  std::tm date{};
  gmtime_r(&seconds, &date);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", date.tm_year + 1900,
                     date.tm_mon + 1, date.tm_mday, date.tm_hour, date.tm_min, date.tm_sec, part);
}

}  // namespace attnrt::core
