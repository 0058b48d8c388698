// runtime/src/formats/elf_segments.hpp: checks what a library's program headers make the loader do
#pragma once

#include "formats/elf_image.hpp"

namespace attnrt::core {

// Checks what the program headers alone tell: sizes, places and order of the segments, how much
// memory they take, and that the stack stays without permission to execute. whole: the size of the
// file. Errors: UNSUPPORTED.
Result<void> check_segments(const std::vector<Elf64_Phdr>& segments, uint64_t whole);

// Checks the tables that program headers name and the loader reads in memory (the program headers
// themselves and the notes), and that sections lie in segments of their kind. REQUIRES:
// check_segments accepts the segments, and the table of sections lies in the bytes. Errors:
// UNSUPPORTED.
Result<void> check_segment_contents(const ElfImage& image);

}  // namespace attnrt::core
