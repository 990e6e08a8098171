#pragma once
/// @file
/// Normalisation of one row with a scale and shift of its own for each column: what layer, RMS and,
/// for tiny planes, group normalisation are made of. `centered` tells whether the mean is taken
/// off; without it, this is RMS normalisation.

#include <algorithm>
#include <cmath>
#include <limits>

#include "minnow/core/simd.hpp"
#include "minnow/kernels/moments.hpp"
#include "minnow/kernels/streaming.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// y = x * scale + shift, then gamma and beta of each column, along one row, where x is taken as
/// its distance from `center` (if `centered`). gamma, beta may be null; y may be x.
template <bool centered, class T>
MINNOW_INLINE void scale_row(T* y, const T* x, T center, T scale, T shift, const T* gamma,
                             const T* beta, Index cols, bool past_caches) {
  using P = Pack<T>;
  const P c(center), a(scale), b(shift), one(T(1)), zero = P::zero();
  const auto xhat = [&](P value) {
    if constexpr (centered)
      return fma(value - c, a, b);
    else
      return value * a;
  };
  Index i = 0;
  with_store(past_caches, y, [&](const auto& store) {
    for (; i + P::width <= cols; i += P::width)
      store(fma(xhat(P::load(x + i)), gamma ? P::load(gamma + i) : one,
                beta ? P::load(beta + i) : zero),
            y + i);
  });
  if (const Index rest = cols - i; rest > 0)
    fma(xhat(P::load(x + i, rest)), gamma ? P::load(gamma + i, rest) : one,
        beta ? P::load(beta + i, rest) : zero)
        .store(y + i, rest);
}

/// What rows have in common besides their length. gamma and beta are `period` rows [period, cols]
/// that serve in turn: one for all rows in layer normalisation, one for each group in group
/// normalisation, where the first row is group `first`.
struct RowTraits {
  Index period = 1, first = 0;
  bool past_caches = false;  ///< how results are written

  /// Where gamma and beta begin for the row `row` rows behind the first.
  Index at(Index row, Index cols) const { return period == 1 ? 0 : (first + row) % period * cols; }
  RowTraits from(Index row) const { return {period, first + row, past_caches}; }
};

/// How many rows are normalised side by side: each step of one depends on the one before it, and
/// only other rows can fill the time between.
inline constexpr Index row_block = 16;
inline Index rows_of_block(Index cols) {
  return std::clamp<Index>(moment_piece / std::max<Index>(1, cols), 1, row_block);
}

/// The moments of one row; not centered, those around 0.
template <bool centered, class T>
MINNOW_INLINE PieceMoments<T> row_moments(const T* row, Index cols, Index ahead) {
  if constexpr (centered) {
    if (cols <= moment_piece) return piece_moments(row, cols, 1, 0, ahead);
    return PieceMoments<T>(moments(row, cols));
  } else {
    double squares = cols <= moment_piece ? piece_squares(row, cols, ahead)
                                          : std::numeric_limits<double>::infinity();
    if (!std::isfinite(squares)) [[unlikely]]
      squares = sum_squares(row, cols);
    return {T(0), 0, squares};
  }
}

/// y = (x - mean) * rstd * gamma + beta along `rows` <= rows_of_block(cols) rows of `cols` > 0
/// numbers; writes mean and rstd [rows], too. gamma, beta [period, cols] may be null; y may be x.
/// Not centered, mean is neither used nor written.
template <bool centered, class T>
void normalize_row_block(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                         Index rows, Index cols, double eps, const RowTraits& traits = {}) {
  const double n = static_cast<double>(cols);
  PieceMoments<T> of_row[row_block];
  for (Index r = 0; r < rows; ++r)
    of_row[r] = row_moments<centered>(x + r * cols, cols, rows * cols);
  T scale[row_block], shift[row_block];
  for (Index r = 0; r < rows; ++r) {
    const double deviation = 1 / std::sqrt(of_row[r].m2 / n + eps);
    scale[r] = static_cast<T>(deviation);
    shift[r] = static_cast<T>(-of_row[r].rest * deviation);
  }
  std::copy_n(scale, rows, rstd);
  if constexpr (centered)
    for (Index r = 0; r < rows; ++r) mean[r] = static_cast<T>(of_row[r].mean());
  for (Index r = 0; r < rows; ++r) {
    const Index at = traits.at(r, cols);
    scale_row<centered>(y + r * cols, x + r * cols, of_row[r].center, scale[r], shift[r],
                        gamma ? gamma + at : nullptr, beta ? beta + at : nullptr, cols,
                        traits.past_caches);
  }
}

/// The same for any number of rows.
template <bool centered, class T>
void normalize_block_by_block(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                              Index rows, Index cols, double eps, const RowTraits& traits = {}) {
  const Index block = rows_of_block(cols);
  for (Index row = 0; row < rows; row += block)
    normalize_row_block<centered>(y + row * cols, centered ? mean + row : nullptr, rstd + row,
                                  x + row * cols, gamma, beta, std::min(block, rows - row), cols,
                                  eps, traits.from(row));
}

/// Adds the shares of `rows` <= rows_of_block(2 * cols) rows to the gradients of gamma and beta,
/// and writes their dx.
///
///   dgamma += dy * xhat    dbeta += dy
///   dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
///
/// where xhat = (x - mean) * rstd and dxhat = dy * gamma. Not centered, the middle term is missing
/// and mean is not used. dx, dgamma, dbeta and gamma may be null; dx may be dy.
template <bool centered, class T>
void gradient_row_block(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                        const T* rstd, const T* gamma, Index rows, Index cols,
                        const RowTraits& traits = {}) {
  using P = Pack<T>;
  const P one(T(1));
  const auto mean_of = [&](Index r) { return P(centered ? mean[r] : T(0)); };
  const auto xhat_of = [](P value, P m, P r) {
    if constexpr (centered)
      return (value - m) * r;
    else
      return value * r;
  };
  T of_xhat[row_block] = {}, of_one[row_block] = {};
  if (dx) {
    double sum_dxhat[row_block] = {}, sum_dxhat_xhat[row_block] = {};
    for (Index row = 0; row < rows; ++row) {
      const T *dy_row = dy + row * cols, *x_row = x + row * cols;
      const T* scale = gamma ? gamma + traits.at(row, cols) : nullptr;
      const P m = mean_of(row), r(rstd[row]);
      for_pieces(cols, 1, 0, [&](Index first, Index count, Index) {
        P a = P::zero(), b = P::zero();
        const auto add = [&](P g, P value) {
          if constexpr (centered) a += g;
          b = fma(g, xhat_of(value, m, r), b);
        };
        Index i = first;
        for (; i + P::width <= first + count; i += P::width)
          add(P::load(dy_row + i) * (scale ? P::load(scale + i) : one), P::load(x_row + i));
        if (const Index rest = first + count - i; rest > 0)
          add(P::load(dy_row + i, rest) * (scale ? P::load(scale + i, rest) : one),
              P::load(x_row + i, rest));
        sum_dxhat[row] += static_cast<double>(sum(a));
        sum_dxhat_xhat[row] += static_cast<double>(sum(b));
      });
    }
    for (Index row = 0; row < rows; ++row) {
      const double scale = -static_cast<double>(rstd[row]) / static_cast<double>(cols);
      of_xhat[row] = static_cast<T>(scale * sum_dxhat_xhat[row]);
      of_one[row] = static_cast<T>(scale * sum_dxhat[row]);
    }
  }
  for (Index row = 0; row < rows; ++row) {
    const Index at = traits.at(row, cols);
    const P m = mean_of(row), r(rstd[row]), a(of_xhat[row]), b(of_one[row]);
    const auto finish = [&](Index i, const auto& load, const auto& store, const auto& write) {
      const P g = load(dy + row * cols + i), xhat = xhat_of(load(x + row * cols + i), m, r);
      if (dgamma) store(fma(g, xhat, load(dgamma + at + i)), dgamma + at + i);
      if (dbeta) store(load(dbeta + at + i) + g, dbeta + at + i);
      if (dx)
        write(fma(g * (gamma ? load(gamma + at + i) : one), r, fma(xhat, a, b)),
              dx + row * cols + i);
    };
    Index i = 0;
    const auto load = [](const T* from) { return P::load(from); };
    const auto store = [](P value, T* to) { value.store(to); };
    // Here, too, both operands are near, and the next block is fetched.
    const T *next_dy = dy + (row + rows) * cols, *next_x = x + (row + rows) * cols;
    with_store(traits.past_caches && dx, dx + row * cols, [&](const auto& write) {
      for (; i + P::width <= cols; i += P::width) {
        __builtin_prefetch(next_dy + i, 0, 2);
        __builtin_prefetch(next_x + i, 0, 2);
        finish(i, load, store, write);
      }
    });
    if (const Index rest = cols - i; rest > 0) {
      const auto store_rest = [rest](P value, T* to) { value.store(to, rest); };
      finish(
          i, [rest](const T* from) { return P::load(from, rest); }, store_rest, store_rest);
    }
  }
}

/// The same for any number of rows.
template <bool centered, class T>
void gradient_block_by_block(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                             const T* rstd, const T* gamma, Index rows, Index cols,
                             const RowTraits& traits = {}) {
  const Index block = rows_of_block(2 * cols);
  for (Index row = 0; row < rows; row += block)
    gradient_row_block<centered>(dx ? dx + row * cols : nullptr, dgamma, dbeta, dy + row * cols,
                                 x + row * cols, centered ? mean + row : nullptr, rstd + row, gamma,
                                 std::min(block, rows - row), cols, traits.from(row));
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
