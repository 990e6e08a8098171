#include "minnow/kernels/tile.hpp"

#include <doctest/doctest.h>

#include "exact.hpp"

using namespace minnow;
using exact::integers;
using exact::Numbers;

namespace {

// y = (y before, or nothing) + bias + a x, cut off below zero or not, in a block of `height` rows
// whose pitch is longer than a row.
template <class T>
void check_tile_row(Index height, Index rows, Index cols, bool accumulate, bool biased, bool relu) {
  CAPTURE(height);
  CAPTURE(rows);
  CAPTURE(cols);
  CAPTURE(accumulate);
  CAPTURE(biased);
  CAPTURE(relu);
  constexpr Index width = Pack<T>::width;
  const Index pitch = cols + 3;
  const auto a = integers<T>(rows * height, 1);
  Numbers<Index> offset(rows, exact::Place::exact, 0);
  Index last = 0;
  for (Index r = 0; r < rows; ++r) {
    offset[r] = r * 7 % 5 * 3;
    last = std::max(last, offset[r]);
  }
  // Readable to the end of the last pack, and not one number more.
  const auto x = integers<T>(last + (cols + width - 1) / width * width, 2);
  const auto bias = integers<T>(height, 4);
  auto y = accumulate ? integers<T>(height * pitch, 3) : Numbers<T>(height * pitch);
  const Numbers<T> before = y;
  kernels::tile_row(y.data(), pitch, a.data(), x.data(), offset.data(), rows, height, cols,
                    {accumulate, biased ? bias.data() : nullptr, relu});
  for (Index i = 0; i < height; ++i)
    for (Index j = 0; j < pitch; ++j) {
      CAPTURE(i);
      CAPTURE(j);
      const T old = before[i * pitch + j], got = y[i * pitch + j];
      if (j >= cols) {
        const bool untouched = got == old || (got != got && old != old);
        REQUIRE(untouched);
        continue;
      }
      T sum = (accumulate ? old : T(0)) + (biased ? bias[i] : T(0));
      for (Index r = 0; r < rows; ++r) sum += a[r * height + i] * x[offset[r] + j];
      REQUIRE(got == (relu ? std::max(sum, T(0)) : sum));
    }
}

}  // namespace

TEST_CASE_TEMPLATE("a row of tiles is a product for every height and width", T, float, double) {
  constexpr Index width = Pack<T>::width;
  for (Index height = 1; height <= kernels::tile_rows; ++height)
    for (Index cols : {Index{0}, Index{1}, Index{2}, width - 1, width, width + 1, 2 * width,
                       3 * width - 1, 3 * width, 3 * width + 1, 5 * width, 6 * width - 1, 6 * width,
                       6 * width + 1, 9 * width + 2, 13 * width + 1})
      for (Index rows : {0, 1, 2, 5})
        for (int ends = 0; ends < 8; ++ends)
          check_tile_row<T>(height, rows, cols, ends & 1, ends & 2, ends & 4);
}

TEST_CASE("rows are cut into tiles as evenly as can be") {
  const kernels::TileRows seven{26, 8};
  CHECK(seven.count == 4);
  CHECK(seven.height(0) == 6);
  CHECK(seven.height(1) == 7);
  for (Index most : {1, 3, 4, 8})
    for (Index items = 0; items < 40; ++items) {
      const kernels::TileRows rows{items, most};
      Index covered = 0, least = items, largest = 0;
      for (Index tile = 0; tile < rows.count; ++tile) {
        CHECK(rows.begin(tile) == covered);
        covered += rows.height(tile);
        least = std::min(least, rows.height(tile));
        largest = std::max(largest, rows.height(tile));
      }
      CHECK(covered == items);
      CHECK(largest <= most);
      CHECK(largest - least <= (items > 0 ? 1 : 0));
      CHECK(rows.count == (items + most - 1) / most);
    }
}
