// runtime/src/base/whole_file.hpp: writes a file so that it is there as a whole or not at all
//
// The bytes go to a new file in the same directory, which is then renamed. Until then, and if
// anything fails, the name means what it meant before. The result is durable: both the file and its
// new name, where the file system can do that.
//
// The temporary name of NAME is .NAME.attnrt-PID. Its writer holds a lock on the file, which ends
// with the process however it ends. So a file of such a name that nobody has locked was left by a
// process that was killed, and the next writer in that directory removes it.
//
// Errors name no file: "cannot be written: No space left on device". Their code is as that of
// system_error (file.hpp).
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"

namespace attnrt::core {

// Opens a directory to write in. Where this user may not read it, killed writers' files stay there.
// The descriptor is -1, with the reason in errno, if it cannot be opened.
Descriptor open_directory(const std::string& path);

// Writes the pieces, one after another, to a file of an open directory. mode: of the new file, less
// the umask.
Result<void> write_whole(const Descriptor& directory, const std::string& name,
                         const std::vector<std::string_view>& pieces, mode_t mode);

// Writes the bytes to a file that only its owner may read and write (0600). Only a regular file is
// replaced: no link, no device, no pipe.
Result<void> write_whole(const std::filesystem::path& path, std::string_view bytes);

}  // namespace attnrt::core
