#pragma once
/// @file
/// Sums and maxima along the middle axis of [outer, reduced, inner]; sums of partial results.

#include <algorithm>
#include <limits>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/core/simd.hpp"

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

/// The sum of n numbers in a row: packs over blocks, which are added in double.
template <class T>
double sum_of_row(const T* x, Index n) {
  using V = Pack<T>;
  constexpr Index block = 32 * V::width;
  double total = 0;
  for (Index begin = 0; begin < n; begin += block) {
    const Index end = std::min(n, begin + block);
    V partial = V::zero();
    Index i = begin;
    for (; i + V::width <= end; i += V::width) partial += V::load(x + i);
    if (i < end) partial += V::load(x + i, end - i);
    total += static_cast<double>(sum(partial));
  }
  return total;
}

/// totals[c] = the fold of x[r * pitch + c] over r, for c in [0, columns).
template <class Fold, class T>
void fold_columns_of(typename Fold::Wide* totals, const T* x, Index rows, Index columns,
                     Index pitch) {
  using Wide = typename Fold::Wide;
  std::fill_n(totals, columns, Fold::start);
  for (Index r = 0; r < rows; ++r, x += pitch) {
    MINNOW_SIMD
    for (Index c = 0; c < columns; ++c) totals[c] = Fold::join(totals[c], static_cast<Wide>(x[c]));
  }
}

/// Where folds go. Called through a pointer, so that a fold is compiled once for all types of
/// results.
template <class Wide>
struct FoldResults {
  void* y;
  void (*write)(void* y, Index at, const Wide* totals, Index count, double divisor);
  double divisor = 1;

  /// y[at], ... = totals / divisor
  template <class Out>
  static FoldResults divided(Out* y, double divisor) {
    const auto write = [](void* to, Index at, const Wide* totals, Index count, double by) {
      for (Index i = 0; i < count; ++i)
        static_cast<Out*>(to)[at + i] = static_cast<Out>(totals[i] / by);
    };
    return {y, write, divisor};
  }
  /// y[at], ... = totals
  static FoldResults plain(Wide* y) {
    const auto write = [](void* to, Index at, const Wide* totals, Index count, double) {
      std::copy_n(totals, count, static_cast<Wide*>(to) + at);
    };
    return {y, write};
  }
};

/// The folds of x [outer, pieces.items, inner] over each piece, as [outer, pieces.count, inner].
template <class Fold, class T>
void fold_pieces(const FoldResults<typename Fold::Wide>& results, const T* x, Index outer,
                 Index inner, const Chunks& pieces) {
  const Index blocks = (inner + fold_columns - 1) / fold_columns;
  const Index columns = std::min(inner, fold_columns), each = pieces.count * blocks;
  const auto begin_of = [&](Index o, Index piece) {
    return x + (o * pieces.items + pieces.begin(piece)) * inner;
  };
  const auto size_of = [&](Index piece) { return pieces.end(piece) - pieces.begin(piece); };
  parallel_chunks(outer * each, pieces.size * columns, [&](Index first, Index last) {
    typename Fold::Wide totals[fold_columns];
    for (Index item = first; item < last;) {
      Index at = item, count = std::min(fold_columns, last - item);
      if (inner == 1) {
        for (Index i = 0; i < count; ++i, ++item) {
          const Index piece = item % each;
          totals[i] = fold_row<Fold>(begin_of(item / each, piece), size_of(piece));
        }
      } else {
        const Index o = item / each, piece = item % each / blocks, column = item % blocks * columns;
        at = (o * pieces.count + piece) * inner + column;
        count = std::min(columns, inner - column);
        fold_columns_of<Fold>(totals, begin_of(o, piece) + column, size_of(piece), count, inner);
        ++item;
      }
      results.write(results.y, at, totals, count, results.divisor);
    }
  });
}

/// The folds of x [outer, reduced, inner] over its middle axis. A long one is cut into pieces that
/// are folded in parallel, so that few but long sums keep all threads busy too.
template <class Fold, class T>
void fold(const FoldResults<typename Fold::Wide>& results, const T* x, Index outer, Index reduced,
          Index inner) {
  using Wide = typename Fold::Wide;
  const Index blocks = (inner + fold_columns - 1) / fold_columns;
  const Index most = std::max<Index>(1, 64 / std::max<Index>(1, outer * blocks));
  const Chunks pieces = make_chunks(reduced, std::min(inner, fold_columns), most);
  if (pieces.count <= 1) return fold_pieces<Fold>(results, x, outer, inner, {reduced, reduced, 1});
  const Scratch<Wide> partial(outer * pieces.count * inner);
  fold_pieces<Fold>(FoldResults<Wide>::plain(partial.data()), x, outer, inner, pieces);
  fold_pieces<Fold, Wide>(results, partial.data(), outer, inner, {pieces.count, pieces.count, 1});
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
  detail::fold<detail::SumFold>(detail::FoldResults<double>::divided(y, divisor), x, outer, reduced,
                                inner);
}

/// The largest along the middle axis; NaN if there is one among them.
///
///     y[o, c] = max(x[o, 0, c], ..., x[o, reduced - 1, c])
///
/// x is [outer, reduced, inner], y [outer, inner]; writes y. Exact. Parallel as `sum`.
template <class T>
void max(T* y, const T* x, Index outer, Index reduced, Index inner) {
  detail::fold<detail::MaxFold<T>>(detail::FoldResults<T>::plain(y), x, outer, reduced, inner);
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
