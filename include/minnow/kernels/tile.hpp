#pragma once
/// @file
/// The inner loops of every matrix product and convolution: blocks of sums that stay in registers.

#include <algorithm>
#include <bit>
#include <type_traits>
#include <utility>

#include "minnow/core/simd_lanes.hpp"

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

/// How a tile's sums begin and end.
template <class T>
struct TileEnds {
  bool accumulate = false;  ///< they are added to y, which is assigned otherwise
  const T* bias = nullptr;  ///< what row i's sums begin with: bias[i], zero if null
  bool relu = false;        ///< what is written is cut off below zero
};

namespace detail {

/// y[i, j] (+)= bias[i] + sum_r a[r, i] * x[offset[r] + j] for i < M, j < cols <= P * W.
///
/// a is packed [rows][M]. Reads x up to column P * W whatever `cols` is. The sums over r run in
/// order.
template <class T, int M, int P>
void tile(T* y, Index y_pitch, const T* a, const T* x, const Index* offset, Index rows, Index cols,
          const TileEnds<T>& ends) {
  using V = Pack<T>;
  V sum[M][P];
  MINNOW_UNROLL
  for (int i = 0; i < M; ++i) {
    const V start(ends.bias ? ends.bias[i] : T(0));
    MINNOW_UNROLL
    for (int p = 0; p < P; ++p) sum[i][p] = start;
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
  const bool accumulate = ends.accumulate, relu = ends.relu;
  MINNOW_UNROLL
  for (int i = 0; i < M; ++i) {
    MINNOW_UNROLL
    for (int p = 0; p < P; ++p) {
      T* to = y + i * y_pitch + p * V::width;
      const Index left = cols - p * V::width;
      V value = sum[i][p];
      if (left >= V::width) {
        if (accumulate) value += V::load(to);
        if (relu) value = max(value, V::zero());
        value.store(to);
      } else if (left > 0) {
        if (accumulate) value += V::load(to, left);
        if (relu) value = max(value, V::zero());
        value.store(to, left);
      }
    }
  }
}

/// Calls `f` with `height` as a compile-time constant, for heights of 1 to `most`.
template <Index most, class F>
void constant_height(Index height, const F& f) {
  [&]<Index... H>(std::integer_sequence<Index, H...>) {
    (void)((height == H + 1 && (f(std::integral_constant<int, int{H + 1}>{}), true)) || ...);
  }
  (std::make_integer_sequence<Index, most>{});
}

}  // namespace detail

/// `items` rows cut into tiles of at most `most`, as evenly as can be: 26 = 7 + 7 + 6 + 6.
struct TileRows {
  Index items, most = tile_rows;
  Index count = (items + most - 1) / most;

  Index begin(Index tile) const { return tile * items / count; }
  Index height(Index tile) const { return begin(tile + 1) - begin(tile); }
};

/// y[i, j] (+)= bias[i] + sum_r a[r, i] * x[offset[r] + j] for i < height <= tile_rows and j <
/// cols, any number.
///
/// a is packed [rows][height]. x must be readable for one pack after the last column.
template <class T>
void tile_row(T* y, Index y_pitch, const T* a, const T* x, const Index* offset, Index rows,
              Index height, Index cols, const TileEnds<T>& ends = {}) {
  constexpr Index width = Pack<T>::width, wide = wide_tile_packs * width, normal = tile_cols<T>;
  detail::constant_height<tile_rows>(height, [&](auto constant) {
    constexpr int M = constant;
    Index j = 0;
    if constexpr (M * wide_tile_packs <= tile_rows * tile_packs)
      for (; cols - j >= wide; j += wide)
        detail::tile<T, M, int{wide_tile_packs}>(y + j, y_pitch, a, x + j, offset, rows, wide,
                                                 ends);
    // The last four packs are two pairs: one pack alone leaves too few sums to hide their latency.
    for (; cols - j >= normal && cols - j != 4 * width; j += normal)
      detail::tile<T, M, int{tile_packs}>(y + j, y_pitch, a, x + j, offset, rows, normal, ends);
    for (; cols - j >= 2 * width; j += 2 * width)
      detail::tile<T, M, 2>(y + j, y_pitch, a, x + j, offset, rows, 2 * width, ends);
    for (; j < cols; j += width)
      detail::tile<T, M, 1>(y + j, y_pitch, a, x + j, offset, rows, std::min(width, cols - j),
                            ends);
  });
}

/// The positions that a sum of products runs over: `rows` rows of `cols` numbers at two pitches.
struct DotsRange {
  Index rows = 1, cols = 0, dy_pitch = 0, x_pitch = 0;
};

namespace detail {

/// At most this many planes of dy, and this many terms, are taken together: the sums of their
/// products are the accumulators.
inline constexpr Index dots_planes = vector_registers / 8, dots_terms = 6;
inline TileRows dots_rows(Index planes) { return {planes, dots_planes}; }

/// The sums of N packs' lanes, one a lane from the first: neighbouring lanes are added until each
/// pack has come down to one. Half the work of N single sums, and no waiting. N is a power of two,
/// at most the width; `lanes` is what is left to add up.
template <Index lanes, int N, class V>
MINNOW_INLINE V lane_sums(const V (&a)[N]) {
  if constexpr (lanes == 1) {
    return a[0];
  } else {
    constexpr int half = N > 1 ? N / 2 : 1, second = N > 1 ? 1 : 0;
    V sums[half];
    MINNOW_UNROLL
    for (int i = 0; i < half; ++i) {
      V even, odd;
      deinterleave(a[2 * i], a[2 * i + second], even, odd);
      sums[i] = even + odd;
    }
    return lane_sums<lanes / 2>(sums);
  }
}

/// dw[i * pitch + r] += sum_p dy[i * plane + p] * x[p + offset[r]] for i < M, r < R, p in the
/// range.
///
/// ahead[p] is asked for on the way: what will soon be read, which the hardware sees coming too
/// late.
template <class T, int M, int R>
void dots(T* dw, Index pitch, const T* dy, Index plane, const T* x, const Index* offset,
          const T* ahead, const DotsRange& range) {
  using V = Pack<T>;
  constexpr int count = M * R, group = std::min<int>(std::bit_ceil(unsigned{count}), V::width);
  V sums[M][R];
  const T* from[R];
  MINNOW_UNROLL
  for (int r = 0; r < R; ++r) {
    from[r] = x + offset[r];
    MINNOW_UNROLL
    for (int i = 0; i < M; ++i) sums[i][r] = V::zero();
  }
  for (Index row = 0; row < range.rows; ++row) {
    const T* gradient = dy + row * range.dy_pitch;
    const Index shift = row * range.x_pitch;
    for (Index p = 0; p < range.cols; p += V::width) {
      V g[M];
      MINNOW_UNROLL
      for (int i = 0; i < M; ++i) g[i] = V::load(gradient + i * plane + p);
      __builtin_prefetch(ahead + shift + p, 0, 2);
      MINNOW_UNROLL
      for (int r = 0; r < R; ++r) {
        V v = V::load(from[r] + shift + p);
        hold(v);
        MINNOW_UNROLL
        for (int i = 0; i < M; ++i) sums[i][r] = fma(g[i], v, sums[i][r]);
      }
    }
  }
  MINNOW_UNROLL
  for (int begin = 0; begin < count; begin += group) {
    V some[group];
    MINNOW_UNROLL
    for (int j = 0; j < group; ++j)
      some[j] = begin + j < count ? sums[(begin + j) / R][(begin + j) % R] : V::zero();
    T totals[V::width];
    lane_sums<V::width>(some).store(totals);
    for (int j = 0; j < group && begin + j < count; ++j)
      dw[(begin + j) / R * pitch + (begin + j) % R] += totals[j];
  }
}

}  // namespace detail

/// dw[i * pitch + r] += sum_p dy[i * plane + p] * x[p + offset[r]] for i < planes, r < terms, any
/// number, and p in the range: a weight gradient.
///
/// Rows of the range are taken in whole packs: both operands are readable, and dy zero, up to the
/// next. What the next terms read is asked for meanwhile or, where given, `ahead`: a range of it
/// for each tile of planes.
template <class T>
void dots_block(T* dw, Index pitch, const T* dy, Index plane, const T* x, const Index* offset,
                Index planes, Index terms, const DotsRange& range, const T* ahead = nullptr) {
  using namespace detail;
  const TileRows rows = dots_rows(planes);
  for (Index t = 0; t < rows.count; ++t) {
    T* to = dw + rows.begin(t) * pitch;
    const T* from = dy + rows.begin(t) * plane;
    constant_height<dots_planes>(rows.height(t), [&](auto height) {
      constexpr int M = height;
      Index r = 0;
      const auto take = [&](auto count) {
        constexpr int R = count;
        for (; r + R <= terms; r += R)
          dots<T, M, R>(to + r, pitch, from, plane, x, offset + r,
                        ahead ? ahead + t * range.cols : x + offset[std::min(r + 2 * R, terms) - 1],
                        range);
      };
      take(std::integral_constant<int, int{dots_terms}>{});
      take(std::integral_constant<int, 3>{});
      take(std::integral_constant<int, 1>{});
    });
  }
}

}  // namespace minnow::inline MINNOW_ABI::kernels
