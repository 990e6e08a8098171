#pragma once
/// @file
/// Sums and maxima along the middle axis of [outer, reduced, inner]; sums of partial results.

#include <algorithm>
#include <limits>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

struct SumFold {
  using Wide = double;
  static constexpr Wide start = 0;
  static Wide join(Wide a, Wide b) { return a + b; }
};

template <class T>
struct MaxFold {
  using Wide = T;
  static constexpr Wide start = -std::numeric_limits<T>::infinity();
  /// A NaN, once met, stays.
  static Wide join(Wide a, Wide b) { return ((b > a) | (b != b)) ? b : a; }
};

inline constexpr Index fold_lanes = 32, fold_columns = 128;

/// The fold of n numbers in a row, by lanes which are folded pairwise.
template <class Fold, class T>
typename Fold::Wide fold_row(const T* x, Index n) {
  using Wide = typename Fold::Wide;
  if (n < fold_lanes) {
    Wide total = Fold::start;
    for (Index i = 0; i < n; ++i) total = Fold::join(total, static_cast<Wide>(x[i]));
    return total;
  }
  Wide lanes[fold_lanes];
  std::fill_n(lanes, fold_lanes, Fold::start);
  Index i = 0;
  for (; i + fold_lanes <= n; i += fold_lanes) {
    MINNOW_SIMD
    for (Index j = 0; j < fold_lanes; ++j)
      lanes[j] = Fold::join(lanes[j], static_cast<Wide>(x[i + j]));
  }
  for (Index j = 0; i + j < n; ++j) lanes[j] = Fold::join(lanes[j], static_cast<Wide>(x[i + j]));
  for (Index half = fold_lanes / 2; half > 0; half /= 2)
    for (Index j = 0; j < half; ++j) lanes[j] = Fold::join(lanes[j], lanes[j + half]);
  return lanes[0];
}

/// y[c] = finish(fold of x[r * pitch + c] over r) for c in [0, columns), columns <= fold_columns.
template <class Fold, class Out, class T, class Finish>
void fold_block(Out* y, const T* x, Index rows, Index columns, Index pitch, const Finish& finish) {
  using Wide = typename Fold::Wide;
  if (pitch == 1) {
    *y = static_cast<Out>(finish(fold_row<Fold>(x, rows)));
    return;
  }
  Wide totals[fold_columns];
  std::fill_n(totals, columns, Fold::start);
  for (Index r = 0; r < rows; ++r, x += pitch) {
    MINNOW_SIMD
    for (Index c = 0; c < columns; ++c) totals[c] = Fold::join(totals[c], static_cast<Wide>(x[c]));
  }
  for (Index c = 0; c < columns; ++c) y[c] = static_cast<Out>(finish(totals[c]));
}

/// y[o, c] = finish(fold of x[o, r, c] over r). A long `reduced` is cut into pieces that are folded
/// in parallel, so that few but long sums keep all threads busy too.
template <class Fold, class Out, class T, class Finish>
void fold(Out* y, const T* x, Index outer, Index reduced, Index inner, const Finish& finish) {
  using Wide = typename Fold::Wide;
  const Index blocks = (inner + fold_columns - 1) / fold_columns;
  const Index columns = std::min(inner, fold_columns);
  const auto run = [&](auto* to, const auto* from, Chunks pieces, const auto& end) {
    const Index each = pieces.count * blocks;
    parallel_chunks(outer * each, pieces.size * columns, [&](Index first, Index last) {
      for (Index item = first; item < last; ++item) {
        const Index o = item / each, piece = item % each / blocks, column = item % blocks * columns;
        fold_block<Fold>(to + (o * pieces.count + piece) * inner + column,
                         from + (o * pieces.items + pieces.begin(piece)) * inner + column,
                         pieces.end(piece) - pieces.begin(piece), std::min(columns, inner - column),
                         inner, end);
      }
    });
  };
  const Index most = std::max<Index>(1, 64 / std::max<Index>(1, outer * blocks));
  const Chunks pieces = make_chunks(reduced, columns, most);
  if (pieces.count <= 1) return run(y, x, {reduced, reduced, 1}, finish);
  const Scratch<Wide> partial(outer * pieces.count * inner);
  run(partial.data(), x, pieces, [](Wide value) { return value; });
  run(y, static_cast<const Wide*>(partial.data()), {pieces.count, pieces.count, 1}, finish);
}

}  // namespace detail

/// Sums along the middle axis, divided by a number.
///
///     y[o, c] = (x[o, 0, c] + ... + x[o, reduced - 1, c]) / divisor
///
/// x is [outer, reduced, inner], y [outer, inner]; writes y, which must not overlap x. Adds in
/// double whatever the type, along a row in 32 lanes and then pairwise: before the rounding to T
/// the error is at most reduced * 2^-53 * sum |x|. Parallel over outer, over blocks of columns and
/// over pieces of a long sum.
template <class Out, class T>
void sum(Out* y, const T* x, Index outer, Index reduced, Index inner, double divisor = 1) {
  detail::fold<detail::SumFold>(y, x, outer, reduced, inner,
                                [=](double total) { return total / divisor; });
}

/// The largest along the middle axis; NaN if there is one among them.
///
///     y[o, c] = max(x[o, 0, c], ..., x[o, reduced - 1, c])
///
/// x is [outer, reduced, inner], y [outer, inner]; writes y. Exact. Parallel as `sum`.
template <class T>
void max(T* y, const T* x, Index outer, Index reduced, Index inner) {
  detail::fold<detail::MaxFold<T>>(y, x, outer, reduced, inner, [](T value) { return value; });
}

/// Where the largest along the middle axis is: its first position, or that of the first NaN.
///
/// x is [outer, reduced, inner], y [outer, inner]; reduced >= 1. Parallel over outer.
template <class T>
void argmax(std::int64_t* y, const T* x, Index outer, Index reduced, Index inner) {
  parallel_chunks(outer, reduced * inner, [&](Index begin, Index end) {
    for (Index o = begin; o < end; ++o)
      for (Index c = 0; c < inner; ++c) {
        const T* row = x + o * reduced * inner + c;
        Index best = 0;
        for (Index r = 1; r < reduced; ++r) {
          const T value = row[r * inner], largest = row[best * inner];
          if (value > largest || (value != value && largest == largest)) best = r;
        }
        y[o * inner + c] = best;
      }
  });
}

/// y[j] = sum over b of partial[b * pitch + j] for j < cols, in the order of b, in double. Serial.
template <class T, class U>
void sum_columns(T* y, const U* partial, Index blocks, Index cols, Index pitch) {
  constexpr Index tile = 16;
  for (Index first = 0; first < cols; first += tile) {
    const Index width = std::min(tile, cols - first);
    double sums[tile] = {};
    for (Index b = 0; b < blocks; ++b) {
      MINNOW_SIMD
      for (Index j = 0; j < width; ++j)
        sums[j] += static_cast<double>(partial[b * pitch + first + j]);
    }
    for (Index j = 0; j < width; ++j) y[first + j] = static_cast<T>(sums[j]);
  }
}

}  // namespace minnow::inline MINNOW_ABI::kernels
