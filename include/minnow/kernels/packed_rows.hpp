#pragma once
/// @file
/// Normalisation of rows of one to eight packs, a block of them at a time: as many rows as a pack
/// has lanes are added up across lanes together (lane_sums), and have their roots taken together.
///
/// A row's last pack ends where the row ends, so it overlaps the one before it: nothing is loaded
/// or stored with a count. Numbers that it shares with that pack count once.

#include <algorithm>
#include <cstddef>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/kernels/row_norm.hpp"
#include "minnow/kernels/tile.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// Calls `f` with the number of packs of a row as a constant, if there are one to eight.
template <class T, class F>
bool with_packs_of_row(Index cols, const F& f) {
  constexpr Index W = Pack<T>::width;
  if (W == 1 || cols < W || cols > 8 * W) return false;
  constant_height<8>((cols + W - 1) / W, f);
  return true;
}

/// A block of rows of `packs` packs, in groups of as many rows as a pack has lanes.
template <class T, int packs>
struct PackedRows {
  using V = Pack<T>;
  static constexpr Index W = V::width, most_rows = 4 * W;
  /// One number for each row.
  using Values = T[static_cast<std::size_t>(most_rows)];
  /// A group of rows.
  using Group = T[static_cast<std::size_t>(W * W * packs)];

  Index cols;
  V once;  ///< 1 in the lanes of the last pack that the one before it does not hold, else 0

  explicit PackedRows(Index row_size) : cols(row_size) {
    T lanes[W];
    for (Index i = 0; i < W; ++i) lanes[i] = T(i < packs * W - cols ? 0 : 1);
    once = V::load(lanes);
  }

  Index at(int p) const { return p + 1 == packs ? cols - W : p * W; }

  /// sums[row] = the sum of term(row, value) over the row's numbers in packs.
  template <class F>
  MINNOW_INLINE void sum_rows(T* sums, const T* x, Index rows, const F& term) const {
    for (Index first = 0; first < rows; first += W) {
      V of_row[W];
      MINNOW_UNROLL
      for (Index r = 0; r < W; ++r) {
        const T* row = x + (first + r) * cols;
        V total = term(first + r, V::load(row + at(packs - 1))) * once;
        MINNOW_UNROLL
        for (int p = 0; p + 1 < packs; ++p) total += term(first + r, V::load(row + at(p)));
        of_row[r] = total;
      }
      lane_sums<W>(of_row).store(sums + first);
    }
  }
};

/// normalize_row_block for whole groups of rows, PackedRows::most_rows at most; false, with nothing
/// written, where a square has overflown. Each step is taken for all rows before the next: it waits
/// for the one before it.
template <bool centered, int packs, class T>
bool normalize_packed_rows(T* y, T* mean, T* rstd, const T* x, const Pack<T> (&gamma)[packs],
                           const Pack<T> (&beta)[packs], const PackedRows<T, packs>& shape,
                           Index rows, T eps) {
  using V = Pack<T>;
  using Rows = PackedRows<T, packs>;
  constexpr Index W = V::width;
  const Index cols = shape.cols;
  const V per_col(T(1) / static_cast<T>(cols));
  // The means are center + rest: the digits that T cannot hold.
  typename Rows::Values center, rest, squares, scale, shift;
  if constexpr (centered) {
    typename Rows::Values pivot, sum;
    for (Index r = 0; r < rows; ++r) pivot[r] = x[r * cols];
    shape.sum_rows(sum, x, rows, [&](Index r, V value) { return value - V(x[r * cols]); });
    for (Index r = 0; r < rows; r += W) {
      const V p = V::load(pivot + r), mean_distance = V::load(sum + r) * per_col,
              c = p + mean_distance;
      c.store(center + r);
      (mean_distance - (c - p)).store(rest + r);
    }
  }
  shape.sum_rows(squares, x, rows, [&](Index r, V value) {
    const V d = centered ? value - V(center[r]) : value;
    return d * d;
  });
  V overflow = V::zero();
  for (Index r = 0; r < rows; r += W) {
    const V sum = V::load(squares + r), digits = centered ? V::load(rest + r) : V::zero();
    const V deviation = V(T(1)) / sqrt(max(sum * per_col - digits * digits, V::zero()) + V(eps));
    deviation.store(scale + r);
    (-(digits * deviation)).store(shift + r);
    overflow += sum - sum;
  }
  if (!(sum(overflow) == 0)) [[unlikely]]
    return false;
  for (Index r = 0; r < rows; ++r) {
    const V c(centered ? center[r] : T(0)), a(scale[r]), b(centered ? shift[r] : T(0));
    V v[packs];
    MINNOW_UNROLL
    for (int p = 0; p < packs; ++p) {
      v[p] = V::load(x + r * cols + shape.at(p));
      __builtin_prefetch(x + (rows + r) * cols + shape.at(p), 0, 2);  // of the next block
    }
    MINNOW_UNROLL
    for (int p = 0; p < packs; ++p)
      fma(centered ? fma(v[p] - c, a, b) : v[p] * a, gamma[p], beta[p])
          .store(y + r * cols + shape.at(p));
  }
  if constexpr (centered) std::copy_n(center, rows, mean);
  std::copy_n(scale, rows, rstd);
  return true;
}

/// The same for fewer rows than a group: filled up to one, so that a row's bits do not depend on
/// the others.
template <bool centered, int packs, class T>
bool normalize_last_rows(T* y, T* mean, T* rstd, const T* x, const Pack<T> (&gamma)[packs],
                         const Pack<T> (&beta)[packs], const PackedRows<T, packs>& shape,
                         Index rows, T eps) {
  using Rows = PackedRows<T, packs>;
  alignas(memory_alignment) typename Rows::Group padded;
  typename Rows::Values padded_mean, padded_rstd;
  const Index count = rows * shape.cols;
  std::fill(std::copy_n(x, count, padded), padded + Rows::W * shape.cols, T(0));
  if (!normalize_packed_rows<centered, packs, T>(padded, padded_mean, padded_rstd, padded, gamma,
                                                 beta, shape, Rows::W, eps))
    return false;
  std::copy_n(padded, count, y);
  if constexpr (centered) std::copy_n(padded_mean, rows, mean);
  std::copy_n(padded_rstd, rows, rstd);
  return true;
}

/// normalize_row_block for all rows of x [rows, cols], if they are of one to eight packs; false,
/// with nothing done, otherwise. Not centered, mean is null.
template <bool centered, class T>
bool normalize_rows_in_packs(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                             Index rows, Index cols, double eps) {
  return with_packs_of_row<T>(cols, [&](auto packs_constant) {
    constexpr int packs = packs_constant;
    using Rows = PackedRows<T, packs>;
    constexpr Index group = Rows::W;
    const Rows shape(cols);
    Pack<T> gammas[packs], betas[packs];
    for (int p = 0; p < packs; ++p) {
      gammas[p] = gamma ? Pack<T>::load(gamma + shape.at(p)) : Pack<T>(T(1));
      betas[p] = beta ? Pack<T>::load(beta + shape.at(p)) : Pack<T>::zero();
    }
    parallel_chunks((rows + group - 1) / group, group * cols, [&](Index begin, Index end) {
      const Index last = std::min(rows, end * group);
      for (Index row = begin * group, count; row < last; row += count) {
        count = std::min(last - row, Rows::most_rows);
        if (count > group) count -= count % group;
        T *to = y + row * cols, *means = centered ? mean + row : nullptr;
        const T* from = x + row * cols;
        const bool done =
            count < group
                ? normalize_last_rows<centered, packs>(to, means, rstd + row, from, gammas, betas,
                                                       shape, count, static_cast<T>(eps))
                : normalize_packed_rows<centered, packs>(to, means, rstd + row, from, gammas, betas,
                                                         shape, count, static_cast<T>(eps));
        if (!done)
          normalize_block_by_block<centered>(to, means, rstd + row, from, gamma, beta, count, cols,
                                             eps);
      }
    });
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
