#pragma once
/// @file
/// Normalisation of many short rows at once: a lane holds rows of its own, so that no sum crosses
/// lanes and no pack has a tail.
///
/// W lanes times k rows make a block, W * k * cols contiguous numbers. Lane i holds rows i * k to
/// i * k + k - 1 of it, one after the other: as a matrix, a block is [W][pitch] with pitch = k *
/// cols in memory, and [pitch][W] in lanes. The change between the two is W x W transpositions in
/// registers; k is chosen such that few of their columns are empty.
///
/// Rows may take turns at a period with parameters of their own, as the groups of an image do: then
/// a block is whole periods, so that what a lane holds has the same parameters in all blocks.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/core/simd.hpp"
#include "minnow/kernels/lanes.hpp"
#include "minnow/kernels/reduce.hpp"
#include "minnow/kernels/row_norm.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

template <class T>
struct ShortRows {
  static constexpr Index W = Pack<T>::width;
  /// Rows of at most so many columns go into lanes; longer ones fill packs (see packed_rows.hpp).
  static constexpr Index most_cols = std::max<Index>(1, W - 1);
  /// Two blocks and the sums of their gradients fit into 32 KB of L1 cache.
  static constexpr Index most_pitch = 8 * W;

  /// A block in lanes, and one number for each of its rows.
  using Block = T[most_pitch * W];
  using RowValues = T[W * W];

  Index cols;
  Index k;      ///< rows in a lane
  Index pitch;  ///< numbers in a lane
  Index rows;   ///< rows in a block
  Index size;   ///< numbers in a block

  /// Takes the least k for which the smallest share of the transpositions' columns is empty.
  explicit ShortRows(Index row_size, Index period = 1)
      : cols(row_size), k(least_k(row_size, period)) {
    const auto columns = [&](Index count) { return (count * cols + W - 1) / W * W; };
    const Index step = whole_periods(period);
    for (Index more = k + step; more <= W && more * cols <= most_pitch; more += step)
      if (columns(more) * k < columns(k) * more) k = more;
    pitch = k * cols;
    rows = W * k;
    size = rows * cols;
  }

  static bool suits(Index row_count, Index row_size, Index period = 1) {
    if (W == 1 || row_size <= 0 || row_size > most_cols || row_count < W) return false;
    const Index least = least_k(row_size, period);
    return least <= W && least * row_size <= most_pitch;
  }

 private:
  /// The least number of rows in a lane for which a block is whole periods.
  static Index whole_periods(Index period) { return period / std::gcd(period, W); }
  /// The same, of those that fill a transposition's columns once.
  static Index least_k(Index row_size, Index period) {
    const Index step = whole_periods(period), filling = (W + row_size - 1) / row_size;
    return (filling + step - 1) / step * step;
  }
};

/// `to_lanes` for one number a row, such as its mean: memory [W][k], lanes [W][W] of which k rows
/// count.
template <class T>
void row_values_to_lanes(T* lanes, const T* from, Index k) {
  constexpr Index W = Pack<T>::width;
  if (k == W) return to_lanes(lanes, from, W, W);
  Pack<T> tile[W];
  MINNOW_UNROLL
  for (Index i = 0; i < W; ++i) tile[i] = load_lanes(from + i * k, k);
  transpose(tile);
  MINNOW_UNROLL
  for (Index j = 0; j < W; ++j) tile[j].store(lanes + j * W);
}
template <class T>
void row_values_from_lanes(T* to, const T* lanes, Index k) {
  constexpr Index W = Pack<T>::width;
  if (k == W) return from_lanes(to, lanes, W, W);
  Pack<T> tile[W];
  MINNOW_UNROLL
  for (Index j = 0; j < W; ++j) tile[j] = j < k ? Pack<T>::load(lanes + j * W) : Pack<T>::zero();
  transpose(tile);
  MINNOW_UNROLL
  for (Index i = 0; i < W; ++i) tile[i].store(to + i * k, k);
}

/// Replaces `sets` sets of W rows, each [cols][W], by y, and writes their mean and rstd [sets][W].
/// Returns zeros, but NaN in a lane whose squares have overflown.
///
/// Two sets at once hide each other's latency: a set's sums depend on each other.
template <bool centered, int sets, class T>
Pack<T> normalize_lanes(T* x, T* mean, T* rstd, const T* gamma, const T* beta, Index cols, T eps) {
  using P = Pack<T>;
  constexpr Index W = P::width;
  const P per_col(T(1) / static_cast<T>(cols));
  const auto at = [&](int set, Index i) { return P::load(x + (set * cols + i) * W); };
  // The sum over i of term(set, i), in two interleaved sums.
  const auto sum_terms = [&](P(&sums)[sets], const auto& term) {
    P odd[sets];
    MINNOW_UNROLL
    for (int set = 0; set < sets; ++set) sums[set] = odd[set] = P::zero();
    Index i = 0;
    for (; i + 2 <= cols; i += 2) {
      MINNOW_UNROLL
      for (int set = 0; set < sets; ++set) {
        sums[set] = term(sums[set], set, i);
        odd[set] = term(odd[set], set, i + 1);
      }
    }
    MINNOW_UNROLL
    for (int set = 0; set < sets; ++set) {
      if (i < cols) sums[set] = term(sums[set], set, i);
      sums[set] += odd[set];
    }
  };

  P center[sets], rest[sets];  // of the mean: what T can hold, and the digits beyond
  if constexpr (centered) {
    P pivot[sets], shift[sets];
    MINNOW_UNROLL
    for (int set = 0; set < sets; ++set) pivot[set] = at(set, 0);
    sum_terms(shift, [&](P sum, int set, Index i) { return sum + (at(set, i) - pivot[set]); });
    MINNOW_UNROLL
    for (int set = 0; set < sets; ++set) {
      shift[set] *= per_col;
      center[set] = pivot[set] + shift[set];
      rest[set] = shift[set] - (center[set] - pivot[set]);
      center[set].store(mean + set * W);
    }
  } else {
    MINNOW_UNROLL
    for (int set = 0; set < sets; ++set) center[set] = rest[set] = P::zero();
  }
  P squares[sets], scale[sets], shift[sets], overflow = P::zero();
  sum_terms(squares, [&](P sum, int set, Index i) {
    const P d = centered ? at(set, i) - center[set] : at(set, i);
    return fma(d, d, sum);
  });
  MINNOW_UNROLL
  for (int set = 0; set < sets; ++set) {
    const P variance = max(squares[set] * per_col - rest[set] * rest[set], P::zero());
    scale[set] = P(T(1)) / sqrt(variance + P(eps));
    shift[set] = -(rest[set] * scale[set]);
    scale[set].store(rstd + set * W);
    overflow += squares[set] - squares[set];
  }
  for (Index i = 0; i < cols; ++i) {
    const P g(gamma[i]), b(beta[i]);
    MINNOW_UNROLL
    for (int set = 0; set < sets; ++set) {
      const P xhat = centered ? fma(at(set, i) - center[set], scale[set], shift[set])
                              : at(set, i) * scale[set];
      fma(xhat, g, b).store(x + (set * cols + i) * W);
    }
  }
  return overflow;
}

/// Replaces `sets` sets of W rows dy, each [cols][W], by dx, and adds their shares to dgamma and
/// dbeta [cols][W]. Overwrites x by xhat. gamma is [cols]; or each row has its own, and gamma,
/// dgamma and dbeta are laid out as the rows.
template <bool centered, bool own, int sets, class T>
void gradient_lanes(T* dy, T* dgamma, T* dbeta, T* x, const T* mean, const T* rstd, const T* gamma,
                    Index cols) {
  using P = Pack<T>;
  constexpr Index W = P::width;
  P m[sets], r[sets], a[sets], b[sets];
  MINNOW_UNROLL
  for (int set = 0; set < sets; ++set) {
    m[set] = centered ? P::load(mean + set * W) : P::zero();
    r[set] = P::load(rstd + set * W);
    a[set] = b[set] = P::zero();
  }
  const auto scale_of = [&](Index i, Index at) { return own ? P::load(gamma + at) : P(gamma[i]); };
  for (Index i = 0; i < cols; ++i) {
    P dgamma_i = P::zero(), dbeta_i = P::zero();
    MINNOW_UNROLL
    for (int set = 0; set < sets; ++set) {
      const Index at = (set * cols + i) * W, sums_at = own ? at : i * W;
      if (own || set == 0) {
        dgamma_i = P::load(dgamma + sums_at);
        dbeta_i = P::load(dbeta + sums_at);
      }
      const P g = P::load(dy + at), value = P::load(x + at);
      const P xhat = centered ? (value - m[set]) * r[set] : value * r[set];
      xhat.store(x + at);
      dgamma_i = fma(g, xhat, dgamma_i);
      dbeta_i += g;
      const P dxhat = g * scale_of(i, at);
      if constexpr (centered) a[set] += dxhat;
      b[set] = fma(dxhat, xhat, b[set]);
      if (own || set + 1 == sets) {
        dgamma_i.store(dgamma + sums_at);
        dbeta_i.store(dbeta + sums_at);
      }
    }
  }
  MINNOW_UNROLL
  for (int set = 0; set < sets; ++set) {
    const P share = r[set] * P(T(-1) / static_cast<T>(cols));
    a[set] *= share;
    b[set] *= share;
  }
  for (Index i = 0; i < cols; ++i) {
    MINNOW_UNROLL
    for (int set = 0; set < sets; ++set) {
      const Index at = (set * cols + i) * W;
      fma(P::load(dy + at) * scale_of(i, at), r[set], fma(P::load(x + at), b[set], a[set]))
          .store(dy + at);
    }
  }
}

/// Calls `f(j, sets)` for the sets j to j + sets - 1 of `count`, where sets is a constant: 2, or 1
/// at the end.
template <class F>
MINNOW_INLINE void for_sets(Index count, const F& f) {
  Index j = 0;
  for (; j + 2 <= count; j += 2) f(j, std::integral_constant<int, 2>());
  if (j < count) f(j, std::integral_constant<int, 1>());
}

/// Writes a block from its lanes; staged, through a block of its own and past the caches.
template <class T>
void write_block(T* y, const T* lanes, const ShortRows<T>& shape, bool staged) {
  if (!staged) return from_lanes(y, lanes, shape.pitch, shape.pitch);
  alignas(memory_alignment) typename ShortRows<T>::Block results;
  from_lanes(results, lanes, shape.pitch, shape.pitch);
  stream_packs(y, results, shape.size);
}

/// normalize_row_by_row for one full block; y may be written staged (see write_block).
template <bool centered, class T>
void normalize_block(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                     const ShortRows<T>& shape, double eps, bool staged = false) {
  constexpr Index W = Pack<T>::width;
  alignas(memory_alignment) typename ShortRows<T>::Block lanes;
  alignas(memory_alignment) typename ShortRows<T>::RowValues means, rstds;
  to_lanes<true>(lanes, x, shape.pitch, shape.pitch);
  Pack<T> overflow = Pack<T>::zero();
  for_sets(shape.k, [&](Index j, auto sets) {
    overflow +=
        normalize_lanes<centered, sets()>(lanes + j * shape.cols * W, means + j * W, rstds + j * W,
                                          gamma, beta, shape.cols, static_cast<T>(eps));
  });
  if (!(sum(overflow) == 0)) [[unlikely]]
    return normalize_row_by_row<centered>(y, mean, rstd, x, gamma, beta, shape.rows, shape.cols,
                                          eps);
  write_block(y, lanes, shape, staged);
  if constexpr (centered) row_values_from_lanes(mean, means, shape.k);
  row_values_from_lanes(rstd, rstds, shape.k);
}

/// gradient_block_by_block for one full block; dgamma and dbeta are [cols][W], or if rows have
/// their `own` gamma, that and these are [pitch][W]. dx may be null, or written staged.
template <bool centered, bool own, class T>
void gradient_block(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                    const T* rstd, const T* gamma, const ShortRows<T>& shape, bool staged = false) {
  constexpr Index W = Pack<T>::width;
  alignas(memory_alignment) typename ShortRows<T>::Block dy_lanes, x_lanes;
  alignas(memory_alignment) typename ShortRows<T>::RowValues means, rstds;
  to_lanes<true>(dy_lanes, dy, shape.pitch, shape.pitch);
  to_lanes<true>(x_lanes, x, shape.pitch, shape.pitch);
  if constexpr (centered) row_values_to_lanes(means, mean, shape.k);
  row_values_to_lanes(rstds, rstd, shape.k);
  for_sets(shape.k, [&](Index j, auto sets) {
    const Index at = j * shape.cols * W, own_at = own ? at : 0;
    gradient_lanes<centered, own, sets()>(dy_lanes + at, dgamma + own_at, dbeta + own_at,
                                          x_lanes + at, means + j * W, rstds + j * W,
                                          gamma + own_at, shape.cols);
  });
  if (dx) write_block(dx, dy_lanes, shape, staged);
}

/// gradient_block for the rows [first, last) of all; the last block need not be full.
template <bool centered, bool own, class T>
void gradient_blocks(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                     const T* rstd, const T* gamma, const ShortRows<T>& shape, Index first,
                     Index last, bool staged) {
  const Index cols = shape.cols;
  for (Index row = first; row < last; row += shape.rows) {
    const Index count = std::min(shape.rows, last - row), numbers = count * cols;
    T* dx_row = dx ? dx + row * cols : nullptr;
    const T* means = centered ? mean + row : nullptr;
    if (count == shape.rows) {
      gradient_block<centered, own>(dx_row, dgamma, dbeta, dy + row * cols, x + row * cols, means,
                                    rstd + row, gamma, shape, staged);
      continue;
    }
    typename ShortRows<T>::Block padded_dy, padded_x;
    typename ShortRows<T>::RowValues padded_mean = {}, padded_rstd = {};
    pad(padded_dy, dy + row * cols, numbers, shape.size);
    pad(padded_x, x + row * cols, numbers, shape.size);
    if constexpr (centered) std::copy_n(means, count, padded_mean);
    std::copy_n(rstd + row, count, padded_rstd);
    gradient_block<centered, own>(padded_dy, dgamma, dbeta, padded_dy, padded_x, padded_mean,
                                  padded_rstd, gamma, shape);
    if (dx) std::copy_n(padded_dy, numbers, dx_row);
  }
}

/// normalize_row_by_row for all rows of x [rows, cols]. Not centered, mean is null.
template <bool centered, class T>
void normalize_short_rows(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                          Index rows, Index cols, double eps) {
  const ShortRows<T> shape(cols);
  const ColumnParameters<T> gammas(gamma, T(1), cols), betas(beta, T(0), cols);
  const bool through_block = goes_through_block(y, rows * cols, cols);
  const auto block = [&](T* y_block, T* means, T* rstds, const T* x_block, bool staged) {
    normalize_block<centered>(y_block, means, rstds, x_block, gammas.numbers(), betas.numbers(),
                              shape, eps, staged);
  };
  parallel_chunks((rows + shape.rows - 1) / shape.rows, shape.size, [&](Index begin, Index end) {
    for (Index row = begin * shape.rows; row < std::min(rows, end * shape.rows);
         row += shape.rows) {
      const Index count = std::min(shape.rows, rows - row);
      T *y_row = y + row * cols, *means = centered ? mean + row : nullptr;
      if (count == shape.rows) {
        block(y_row, means, rstd + row, x + row * cols, through_block);
        continue;
      }
      typename ShortRows<T>::Block padded;
      typename ShortRows<T>::RowValues padded_mean, padded_rstd;
      pad(padded, x + row * cols, count * cols, shape.size);
      block(padded, padded_mean, padded_rstd, padded, false);
      std::copy_n(padded, count * cols, y_row);
      if constexpr (centered) std::copy_n(padded_mean, count, means);
      std::copy_n(padded_rstd, count, rstd + row);
    }
  });
}

/// gradient_block_by_block for all rows. Not centered, mean is null. dx, dgamma, dbeta and gamma
/// may be null.
template <bool centered, class T>
void gradient_short_rows(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                         const T* rstd, const T* gamma, Index rows, Index cols) {
  constexpr Index W = Pack<T>::width;
  const ShortRows<T> shape(cols);
  const ColumnParameters<T> gammas(gamma, T(1), cols);
  const Chunks chunks = make_chunks((rows + shape.rows - 1) / shape.rows, 2 * shape.size);
  const Scratch<T> partial(chunks.count * 2 * cols);
  const bool through_block = goes_through_block(dx, rows * cols, cols);
  parallel_for(chunks, [&](Index chunk) {
    // Lane sums of this chunk: of dy * xhat for each column, then of dy.
    alignas(memory_alignment) T sums[2 * ShortRows<T>::most_cols * W];
    std::fill_n(sums, 2 * cols * W, T(0));
    gradient_blocks<centered, false>(dx, sums, sums + cols * W, dy, x, mean, rstd, gammas.numbers(),
                                     shape, chunks.begin(chunk) * shape.rows,
                                     std::min(rows, chunks.end(chunk) * shape.rows), through_block);
    for (Index i = 0; i < 2 * cols; ++i)
      partial.data()[chunk * 2 * cols + i] = sum(Pack<T>::load(sums + i * W));
  });
  if (dgamma) sum_columns(dgamma, partial.data(), chunks.count, cols, 2 * cols);
  if (dbeta) sum_columns(dbeta, partial.data() + cols, chunks.count, cols, 2 * cols);
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
