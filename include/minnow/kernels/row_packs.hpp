#pragma once
/// @file
/// Rows of one to eight packs without tails: a row's last pack ends where the row ends, so it
/// overlaps the one before it. As many rows as a pack has lanes are added up across lanes together.

#include <algorithm>
#include <cstddef>

#include "minnow/kernels/tile.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// True for rows of one to eight packs.
template <class T>
constexpr bool fills_packs(Index cols) {
  constexpr Index W = Pack<T>::width;
  return W > 1 && cols >= W && cols <= 8 * W;
}

/// Calls `f` with the number of packs of a row as a constant, if there are one to eight.
template <class T, class F>
bool with_packs_of_row(Index cols, const F& f) {
  constexpr Index W = Pack<T>::width;
  if (!fills_packs<T>(cols)) return false;
  constant_height<8>((cols + W - 1) / W, f);
  return true;
}

/// A block of rows of `packs` packs, in groups of as many rows as a pack has lanes.
template <class T, int packs>
struct RowPacks {
  using V = Pack<T>;
  /// Rows in a block: the gradients' two arrays of the longest rows fit the first-level cache.
  static constexpr Index W = V::width, most_rows = 4 * W, most_gradient_rows = 2 * W;
  /// One number for each row.
  using Values = T[static_cast<std::size_t>(most_rows)];
  /// A group of rows, and the rows of a block of gradients.
  using Group = T[static_cast<std::size_t>(W * W * packs)];
  using Block = T[static_cast<std::size_t>(most_gradient_rows * W * packs)];

  Index cols;

  explicit RowPacks(Index row_size) : cols(row_size) {}

  Index at(int p) const { return p + 1 == packs ? cols - W : p * W; }

  /// Of the last pack, zeros for the lanes that the one before it holds, too.
  MINNOW_INLINE V once(V last) const { return join(V::zero(), last, packs * W - cols); }

  /// A parameter of the columns in packs; `otherwise` if it is null.
  MINNOW_INLINE void load(V (&to)[packs], const T* parameter, T otherwise) const {
    MINNOW_UNROLL
    for (int p = 0; p < packs; ++p) to[p] = parameter ? V::load(parameter + at(p)) : V(otherwise);
  }

  /// Calls f(row, count) for blocks of the rows [row, last): whole groups, `most` rows at most, and
  /// in the end what is less than a group.
  template <class F>
  static void for_blocks(Index row, Index last, Index most, const F& f) {
    for (Index count; row < last; row += count) {
      const Index left = last - row;
      count = left < W ? left : std::min(left, most) / W * W;
      f(row, count);
    }
  }

  /// sums[row] = the sum of term(row, value) over the row's numbers in packs.
  template <class F>
  MINNOW_INLINE void sum_rows(T* sums, const T* x, Index rows, const F& term) const {
    for (Index first = 0; first < rows; first += W) {
      V of_row[W];
      MINNOW_UNROLL
      for (Index r = 0; r < W; ++r) {
        const T* row = x + (first + r) * cols;
        V total = once(term(first + r, V::load(row + at(packs - 1))));
        MINNOW_UNROLL
        for (int p = 0; p + 1 < packs; ++p) total += term(first + r, V::load(row + at(p)));
        of_row[r] = total;
      }
      lane_sums<W>(of_row).store(sums + first);
    }
  }
};

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
