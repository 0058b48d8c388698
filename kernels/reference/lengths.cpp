// kernels/reference/lengths.cpp: draws the lengths of a batch's sequences, and the pages of their
// keys
#include "kernels/reference/lengths.hpp"

#include <algorithm>
#include <numeric>

#include "kernels/common/shuffle.hpp"

namespace kernels::reference {
namespace {

// Keys of the tiles, blocks and vectors of kernels. A multiple of one of them ends a step of a
// loop.
constexpr int64_t kTileKeys[] = {8, 16, 32, 64, 128};

// Draws a length at which a kernel's loop may end in another way than one key before or after.
int64_t draw_edge(Random& random, const LengthRange& range) {
  switch (between(random, 0, 5)) {
    case 0: return 0;
    case 1: return std::min<int64_t>(1, range.most);
    case 2: return range.most;
    default: break;
  }
  const bool of_page = range.page > 0 && !one_in(random, 3);
  const int64_t step = of_page ? range.page : kTileKeys[between(random, 0, 4)];
  const int64_t end = step * between(random, 1, std::max<int64_t>(1, range.most / step));
  return std::clamp<int64_t>(end + between(random, -1, 1), 0, range.most);
}

}  // namespace

std::vector<int64_t> draw_lengths(Random& random, Lengths lengths, int64_t count,
                                  const LengthRange& range) {
  std::vector<int64_t> drawn(static_cast<size_t>(count), range.most);
  if (lengths == Lengths::full || count == 0) return drawn;
  for (int64_t& length : drawn) {
    length = lengths == Lengths::one_long ? range.least
             : lengths == Lengths::ragged ? between(random, range.least, range.most)
                                          : draw_edge(random, range);
  }
  if (lengths != Lengths::edges)
    drawn[static_cast<size_t>(between(random, 0, count - 1))] = range.most;
  return drawn;
}

std::vector<int32_t> draw_page_table(Random& random, const std::vector<int64_t>& lengths,
                                     int64_t page_size, int64_t columns, int64_t pages) {
  std::vector<int32_t> free(static_cast<size_t>(pages));
  std::iota(free.begin(), free.end(), 0);
  shuffle(free, random);
  std::vector<int32_t> table(lengths.size() * static_cast<size_t>(columns));
  for (size_t b = 0; b < lengths.size(); ++b) {
    const auto row = table.begin() + static_cast<int64_t>(b) * columns;
    const int64_t used = pages_for(lengths[b], page_size);
    std::generate_n(row, used, [&free] {
      const int32_t page = free.back();
      free.pop_back();
      return page;
    });
  }
  return table;
}

}  // namespace kernels::reference
