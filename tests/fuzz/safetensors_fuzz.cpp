// tests/fuzz/safetensors_fuzz.cpp: reads a safetensors header, prints it and reads it again
#include <nlohmann/json.hpp>

#include "cli/io/safetensors.hpp"
#include "fuzz.hpp"

namespace {

using attnrt::cli::Header;
using attnrt::fuzz::require;

std::string printed(const Header& header) {
  nlohmann::json text = nlohmann::json::object();
  if (!header.metadata.empty()) text["__metadata__"] = header.metadata;
  for (const auto& [name, entry] : header.tensors) {
    text[name] = {{"dtype", attnrt::cli::safetensors_name(entry.dtype)},
                  {"shape", entry.shape},
                  {"data_offsets", {entry.begin, entry.end}}};
  }
  return text.dump();
}

}  // namespace

// The input: the number of data bytes in the first line, then the header.
void fuzz_safetensors(std::string_view input) {
  const size_t line = std::min(input.find('\n'), input.size());
  int64_t data_bytes = 0;
  std::from_chars(input.data(), input.data() + line, data_bytes);
  data_bytes = std::max<int64_t>(data_bytes, 0);
  input.remove_prefix(std::min(line + 1, input.size()));
  const auto header = attnrt::cli::parse_header(input, data_bytes);
  if (!header) return attnrt::fuzz::require_one_line(header.error().message);
  int64_t covered = 0;
  for (const auto& [name, entry] : header->tensors) {
    require(!entry.shape.empty() && entry.shape.size() <= 4, "a tensor has 1 to 4 dimensions");
    require(entry.begin >= 0 && entry.begin <= entry.end && entry.end <= data_bytes,
            "a tensor lies in the data");
    int64_t bytes = entry.dtype.bits / 8;
    for (const int64_t dimension : entry.shape) {
      require(dimension >= 0, "a dimension is no negative number");
      if (dimension == 0) bytes = 0;
    }
    for (const int64_t dimension : entry.shape) bytes *= bytes == 0 ? 0 : dimension;
    require(bytes == entry.end - entry.begin, "a tensor has the bytes of its shape");
    require(!attnrt::cli::safetensors_name(entry.dtype).empty(), "a dtype has a name");
    covered += bytes;
  }
  require(covered == data_bytes, "the tensors cover the data");
  const std::string text = printed(*header);
  const auto again = attnrt::cli::parse_header(text, data_bytes);
  require(again && printed(*again) == text, "a printed header is read as the same");
}
