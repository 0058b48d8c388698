// runtime/src/base/whole_file.hpp: writes a file so that it is there as a whole or not at all
#pragma once

#include <filesystem>
#include <string_view>

#include "base/result.hpp"

namespace attnrt::core {

// Writes the bytes to a new file in the same directory, which only its owner may read and write
// (0600), then renames that file to `path`. Until then, and if anything fails, `path` is what it
// was before. Only a regular file is replaced: no link, no device, no pipe.
// Errors name no file: "cannot be written: No space left on device". Their code is as that of
// system_error (file.hpp).
Result<void> write_whole(const std::filesystem::path& path, std::string_view bytes);

}  // namespace attnrt::core
