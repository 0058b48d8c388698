// runtime/cli/io/safetensors_header.cpp: parses and checks the JSON header of a safetensors file
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "cli/io/safetensors.hpp"

namespace attnrt::cli {
namespace {

using core::fail;
using core::Result;
using nlohmann::json;

struct NamedDtype {
  std::string_view name;
  attnrt_dtype dtype;
};

constexpr std::array named_dtypes = {
    NamedDtype{"F64", {ATTNRT_DTYPE_FLOAT, 64, 1}},
    NamedDtype{"F32", {ATTNRT_DTYPE_FLOAT, 32, 1}},
    NamedDtype{"F16", {ATTNRT_DTYPE_FLOAT, 16, 1}},
    NamedDtype{"BF16", {ATTNRT_DTYPE_BFLOAT, 16, 1}},
    NamedDtype{"BOOL", {ATTNRT_DTYPE_BOOL, 8, 1}},
    NamedDtype{"I32", {ATTNRT_DTYPE_INT, 32, 1}},
    NamedDtype{"I8", {ATTNRT_DTYPE_INT, 8, 1}},
    NamedDtype{"F8_E4M3", {ATTNRT_DTYPE_FLOAT8_E4M3FN, 8, 1}},
};

// Values in a header. A tensor has about ten: its dtype, up to four dimensions and two offsets.
constexpr int64_t max_values = 16 * max_tensors;
constexpr size_t max_nesting = 3;   // levels: the header, a tensor, its shape
constexpr size_t max_excerpt = 60;  // characters of a value that stand in a message

// Returns a value of a file as it may stand in a message.
std::string excerpt(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > max_excerpt) text = text.substr(0, max_excerpt - 3) + "...";
  return text;
}

std::string in_quotes(const std::string& name) { return excerpt(json(name)); }

// Parses JSON without building anything, and stops at what nlohmann's parser would accept but no
// header has: a key twice (the parser would take the last), deep nesting, or very many values.
// nlohmann's parser has a callback for such checks, but that compares every object with all its
// siblings and takes minutes for a header of 16 MiB.
class HeaderScan : public nlohmann::json_sax<json> {
 public:
  std::string error;  // why the scan stopped

  bool null() override { return value(); }
  bool boolean(bool) override { return value(); }
  bool number_integer(int64_t) override { return value(); }
  bool number_unsigned(uint64_t) override { return value(); }
  bool number_float(double, const std::string&) override { return value(); }
  bool string(std::string&) override { return value(); }
  bool binary(json::binary_t&) override { return value(); }
  bool start_object(size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(); }
  bool end_array() override { return close(); }
  bool key(std::string& name) override {
    return keys_.back().insert(name).second ||
           stop("the header has the key " + in_quotes(name) + " twice");
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    return stop(fmt::format("the header is not JSON from its byte {} on; is it a safetensors file?",
                            position));
  }

 private:
  bool stop(std::string text) {
    error = std::move(text);
    return false;
  }
  bool value() {
    return ++values_ <= max_values ||
           stop(fmt::format("the header has more than {} values", max_values));
  }
  bool open() {
    keys_.emplace_back();
    return keys_.size() <= max_nesting ||
           stop(fmt::format("the header is nested deeper than {} levels", max_nesting));
  }
  bool close() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> keys_;  // of each open object or array; an array has none
  int64_t values_ = 0;
};

Result<json> parse_json(std::string_view text) {
  // The parser takes a zero byte for the end of the text and ignores what follows.
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos)
    return fail(ATTNRT_INVALID_ARGUMENT,
                "the header is not JSON from its byte {} on; is it a safetensors file?", zero + 1);
  HeaderScan scan;
  if (!json::sax_parse(text.begin(), text.end(), &scan))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}", scan.error);
  return json::parse(text.begin(), text.end());
}

// Reads an array of whole numbers from 0 to the largest int64.
Result<std::vector<int64_t>> read_integers(const json& value, std::string_view what) {
  std::vector<int64_t> integers;
  if (!value.is_array())
    return fail(ATTNRT_INVALID_ARGUMENT, "{} is {}, expected a list", what, excerpt(value));
  for (const json& item : value) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > uint64_t{INT64_MAX})
      return fail(ATTNRT_INVALID_ARGUMENT, "{} {} has {}, expected whole numbers from 0 to {}",
                  what, excerpt(value), excerpt(item), INT64_MAX);
    integers.push_back(item.get<int64_t>());
  }
  return integers;
}

// Returns the bytes of a dense tensor; nothing if they do not fit int64. The other dimensions must
// fit even if one is 0.
std::optional<int64_t> dense_bytes(attnrt_dtype dtype, const std::vector<int64_t>& shape) {
  int64_t bytes = dtype.bits / 8;
  bool empty = false;
  for (const int64_t dimension : shape) {
    if (dimension == 0) empty = true;
    if (dimension != 0 && __builtin_mul_overflow(bytes, dimension, &bytes)) return std::nullopt;
  }
  return empty ? 0 : bytes;
}

Result<TensorEntry> read_entry(const json& value) {
  if (!value.is_object())
    return fail(ATTNRT_INVALID_ARGUMENT, "is {}, expected {{dtype, shape, data_offsets}}",
                excerpt(value));
  for (const auto& [key, unused] : value.items())
    if (key != "dtype" && key != "shape" && key != "data_offsets")
      return fail(ATTNRT_INVALID_ARGUMENT, "has a key {}, expected dtype, shape and data_offsets",
                  in_quotes(key));
  for (const char* key : {"dtype", "shape", "data_offsets"})
    if (!value.contains(key)) return fail(ATTNRT_INVALID_ARGUMENT, "has no {}", key);

  TensorEntry entry;
  const json& dtype = value["dtype"];
  const auto named =
      std::find_if(named_dtypes.begin(), named_dtypes.end(),
                   [&](const NamedDtype& one) { return dtype.is_string() && dtype == one.name; });
  if (named == named_dtypes.end())
    return fail(ATTNRT_INVALID_ARGUMENT,
                "dtype is {}, expected F64, F32, F16, BF16, BOOL, I32, I8 or F8_E4M3",
                excerpt(dtype));
  entry.dtype = named->dtype;

  auto shape = read_integers(value["shape"], "shape");
  if (!shape) return tl::unexpected(shape.error());
  if (shape->empty() || static_cast<int64_t>(shape->size()) > max_dimensions)
    return fail(ATTNRT_INVALID_ARGUMENT, "shape {} has {} dimensions, expected 1 to {}",
                excerpt(value["shape"]), shape->size(), max_dimensions);
  entry.shape = std::move(*shape);

  const auto offsets = read_integers(value["data_offsets"], "data_offsets");
  if (!offsets) return tl::unexpected(offsets.error());
  if (offsets->size() != 2 || (*offsets)[0] > (*offsets)[1])
    return fail(ATTNRT_INVALID_ARGUMENT, "data_offsets is {}, expected [begin, end]",
                excerpt(value["data_offsets"]));
  entry.begin = (*offsets)[0];
  entry.end = (*offsets)[1];

  const auto bytes = dense_bytes(entry.dtype, entry.shape);
  if (!bytes)
    return fail(ATTNRT_INVALID_ARGUMENT, "shape {} has too many elements", shape_text(entry.shape));
  if (*bytes != entry.end - entry.begin)
    return fail(ATTNRT_INVALID_ARGUMENT,
                "data_offsets [{}, {}] span {} bytes, but {} of shape {} takes {}", entry.begin,
                entry.end, entry.end - entry.begin, named->name, shape_text(entry.shape), *bytes);
  return entry;
}

// Checks that the entries cover the data exactly: no overlap, no hole.
Result<void> check_coverage(const Header& header, int64_t data_bytes) {
  std::vector<const std::pair<const std::string, TensorEntry>*> order;
  for (const auto& entry : header.tensors) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  int64_t covered = 0;
  const std::string* last = nullptr;
  for (const auto* named : order) {
    const auto& [name, entry] = *named;
    if (entry.end > data_bytes)
      return fail(ATTNRT_INVALID_ARGUMENT,
                  "tensor {}: data_offsets [{}, {}] reach past the file's {} bytes of data; is the "
                  "file truncated?",
                  in_quotes(name), entry.begin, entry.end, data_bytes);
    if (entry.begin < covered)
      return fail(ATTNRT_INVALID_ARGUMENT,
                  "tensor {}: data_offsets [{}, {}] overlap tensor {}, which ends at {}",
                  in_quotes(name), entry.begin, entry.end, in_quotes(*last), covered);
    if (entry.begin > covered)
      return fail(ATTNRT_INVALID_ARGUMENT, "bytes {} to {} of the data belong to no tensor",
                  covered, entry.begin);
    covered = entry.end;
    last = &name;
  }
  if (covered != data_bytes)
    return fail(ATTNRT_INVALID_ARGUMENT, "bytes {} to {} of the data belong to no tensor", covered,
                data_bytes);
  return {};
}

}  // namespace

Result<Header> parse_header(std::string_view text, int64_t data_bytes) {
  if (text.empty() || text.front() != '{')
    return fail(ATTNRT_INVALID_ARGUMENT,
                "the header does not begin with {{; is it a safetensors file?");
  const auto parsed = parse_json(text);
  if (!parsed) return tl::unexpected(parsed.error());

  Header header;
  for (const auto& [name, value] : parsed->items()) {
    if (name == "__metadata__") {
      if (!value.is_object())
        return fail(ATTNRT_INVALID_ARGUMENT, "__metadata__ is {}, expected a map of strings",
                    excerpt(value));
      for (const auto& [key, item] : value.items()) {
        if (!item.is_string())
          return fail(ATTNRT_INVALID_ARGUMENT, "__metadata__ {} is {}, expected a string",
                      in_quotes(key), excerpt(item));
        header.metadata.emplace(key, item.get<std::string>());
      }
      continue;
    }
    if (static_cast<int64_t>(header.tensors.size()) == max_tensors)
      return fail(ATTNRT_INVALID_ARGUMENT, "the header has more than {} tensors", max_tensors);
    auto entry = read_entry(value);
    if (!entry)
      return fail(ATTNRT_INVALID_ARGUMENT, "tensor {}: {}", in_quotes(name), entry.error().message);
    header.tensors.emplace(name, std::move(*entry));
  }
  const auto covered = check_coverage(header, data_bytes);
  if (!covered) return tl::unexpected(covered.error());
  return header;
}

std::string_view safetensors_name(attnrt_dtype dtype) {
  for (const NamedDtype& named : named_dtypes)
    if (named.dtype.code == dtype.code && named.dtype.bits == dtype.bits && dtype.lanes == 1)
      return named.name;
  return "";
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace attnrt::cli
