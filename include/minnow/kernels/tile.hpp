#pragma once
/// @file
/// The inner loop of every matrix product and convolution: a block of sums that stays in registers.

#include <algorithm>
#include <utility>

#include "minnow/core/simd.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// At most this many rows of y are computed together. With three packs of columns they are the 24
/// (12) accumulators that 32 (16) registers hold beside the operands.
inline constexpr Index tile_rows = vector_registers == 32 ? 8 : 4;
/// Packs of columns that are computed together.
inline constexpr Index tile_packs = 3;
/// The same where few rows leave registers free.
inline constexpr Index wide_tile_packs = 6;
template <class T>
inline constexpr Index tile_cols = tile_packs* Pack<T>::width;

namespace detail {

/// y[i, j] (+)= sum_r a[r, i] * x[offset[r] + j] for i < M, j < cols <= P * W.
///
/// a is packed [rows][M]. Reads x up to column P * W whatever `cols` is. The sums over r run in
/// order.
template <class T, int M, int P>
void tile(T* y, Index y_pitch, const T* a, const T* x, const Index* offset, Index rows, Index cols,
          bool accumulate) {
  using V = Pack<T>;
  V sum[M][P];
  MINNOW_UNROLL
  for (int i = 0; i < M; ++i) {
    MINNOW_UNROLL
    for (int p = 0; p < P; ++p) sum[i][p] = V::zero();
  }
  for (Index r = 0; r < rows; ++r, a += M) {
    const T* from = x + offset[r];
    V xs[P];
    MINNOW_UNROLL
    for (int p = 0; p < P; ++p) xs[p] = V::load(from + p * V::width);
    MINNOW_UNROLL
    for (int i = 0; i < M; ++i) {
      const V factor(a[i]);
      MINNOW_UNROLL
      for (int p = 0; p < P; ++p) sum[i][p] = fma(factor, xs[p], sum[i][p]);
    }
  }
  MINNOW_UNROLL
  for (int i = 0; i < M; ++i) {
    MINNOW_UNROLL
    for (int p = 0; p < P; ++p) {
      T* to = y + i * y_pitch + p * V::width;
      const Index left = cols - p * V::width;
      if (left >= V::width) {
        (accumulate ? V::load(to) + sum[i][p] : sum[i][p]).store(to);
      } else if (left > 0) {
        (accumulate ? V::load(to, left) + sum[i][p] : sum[i][p]).store(to, left);
      }
    }
  }
}

template <class T, int P>
void tile_of_height(Index height, T* y, Index y_pitch, const T* a, const T* x, const Index* offset,
                    Index rows, Index cols, bool accumulate) {
  // Heights whose accumulators would not fit the registers are never asked for.
  constexpr int most = P > tile_packs ? tile_rows * tile_packs / P : tile_rows;
  [&]<int... H>(std::integer_sequence<int, H...>) {
    (void)((height == H + 1 &&
            (tile<T, H + 1, P>(y, y_pitch, a, x, offset, rows, cols, accumulate), true)) ||
           ...);
  }
  (std::make_integer_sequence<int, most>{});
}

}  // namespace detail

/// `items` rows cut into tiles of at most `tile_rows`, as evenly as can be: 26 = 7 + 7 + 6 + 6.
struct TileRows {
  Index items;
  Index count = (items + tile_rows - 1) / tile_rows;

  Index begin(Index tile) const { return tile * items / count; }
  Index height(Index tile) const { return begin(tile + 1) - begin(tile); }
};

/// y[i, j] (+)= sum_r a[r, i] * x[offset[r] + j] for i < height <= tile_rows and j < cols, any
/// number.
///
/// a is packed [rows][height]. x must be readable for one pack after the last column.
template <class T>
void tile_row(T* y, Index y_pitch, const T* a, const T* x, const Index* offset, Index rows,
              Index height, Index cols, bool accumulate) {
  constexpr Index width = Pack<T>::width;
  Index j = 0;
  if (height * wide_tile_packs <= tile_rows * tile_packs) {
    constexpr Index step = wide_tile_packs * width;
    for (; cols - j >= step; j += step)
      detail::tile_of_height<T, static_cast<int>(wide_tile_packs)>(height, y + j, y_pitch, a, x + j,
                                                                   offset, rows, step, accumulate);
  }
  for (; cols - j >= tile_cols<T>; j += tile_cols<T>)
    detail::tile_of_height<T, static_cast<int>(tile_packs)>(height, y + j, y_pitch, a, x + j,
                                                            offset, rows, tile_cols<T>, accumulate);
  for (; j < cols; j += width)
    detail::tile_of_height<T, 1>(height, y + j, y_pitch, a, x + j, offset, rows,
                                 std::min(width, cols - j), accumulate);
}

}  // namespace minnow::inline MINNOW_ABI::kernels
