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
#include "minnow/kernels/tile.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// `count` numbers, and zeros behind them up to `size`.
template <class T>
void pad(T* to, const T* from, Index count, Index size) {
  std::fill(std::copy_n(from, count, to), to + size, T(0));
}

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
  bool from_memory = false;  ///< what is read is not in a cache

  /// Where gamma and beta begin for the row `row` rows behind the first.
  Index at(Index row, Index cols) const { return period == 1 ? 0 : (first + row) % period * cols; }
  RowTraits from(Index row) const { return {period, first + row, past_caches, from_memory}; }
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

/// Adds the shares of R rows, each `stride` behind the one before it, to the gradients of gamma and
/// beta, and writes their dx.
///
///   dgamma += dy * xhat    dbeta += dy
///   dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
///
/// where xhat = (x - mean) * rstd and dxhat = dy * gamma. Not centered, the middle term is missing
/// and mean is not used. mean and rstd of the rows are `period` apart. dx, dgamma, dbeta and gamma
/// may be null; dx may be dy. Meanwhile what lies `ahead` behind the rows is fetched, x in
/// the first pass and dy in the second.
template <bool centered, int R, class T>
void gradient_rows_together(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                            const T* rstd, Index period, const T* gamma, Index stride, Index cols,
                            Index ahead, bool past_caches) {
  using P = Pack<T>;
  constexpr Index W = P::width;
  P m[R], scale[R], of_xhat[R], of_one[R];
  MINNOW_UNROLL
  for (int r = 0; r < R; ++r) {
    m[r] = P(centered ? mean[r * period] : T(0));
    scale[r] = P(rstd[r * period]);
    of_xhat[r] = of_one[r] = P::zero();
  }
  const auto xhat_of = [&](int r, P value) { return (centered ? value - m[r] : value) * scale[r]; };
  const P one(T(1));
  if (dx) {
    double sum_dxhat[R] = {}, sum_dxhat_xhat[R] = {};
    for_pieces(cols, 1, 0, [&](Index first, Index count, Index) {
      P a[R], b[R];
      MINNOW_UNROLL
      for (int r = 0; r < R; ++r) a[r] = b[r] = P::zero();
      const auto add = [&](Index i, const auto& load) {
        const P g = gamma ? load(gamma + i) : one;
        MINNOW_UNROLL
        for (int r = 0; r < R; ++r) {
          const P dxhat = load(dy + r * stride + i) * g;
          if constexpr (centered) a[r] += dxhat;
          b[r] = fma(dxhat, xhat_of(r, load(x + r * stride + i)), b[r]);
        }
      };
      Index i = first;
      for (; i + W <= first + count; i += W) {
        MINNOW_UNROLL
        for (int r = 0; r < R; ++r) __builtin_prefetch(x + r * stride + i + ahead, 0, 2);
        add(i, [](const T* from) { return P::load(from); });
      }
      if (const Index rest = first + count - i; rest > 0)
        add(i, [rest](const T* from) { return P::load(from, rest); });
      MINNOW_UNROLL
      for (int r = 0; r < R; ++r) {
        sum_dxhat[r] += static_cast<double>(sum(a[r]));
        sum_dxhat_xhat[r] += static_cast<double>(sum(b[r]));
      }
    });
    MINNOW_UNROLL
    for (int r = 0; r < R; ++r) {
      const double share = -static_cast<double>(rstd[r * period]) / static_cast<double>(cols);
      of_xhat[r] = P(static_cast<T>(share * sum_dxhat_xhat[r]));
      of_one[r] = P(static_cast<T>(share * sum_dxhat[r]));
    }
  }
  const auto finish = [&](Index i, const auto& load, const auto& store, const auto& write) {
    const P factor = gamma ? load(gamma + i) : one;
    P of_gamma = P::zero(), of_beta = P::zero();
    MINNOW_UNROLL
    for (int r = 0; r < R; ++r) {
      const Index at = r * stride + i;
      const P g = load(dy + at), xhat = xhat_of(r, load(x + at));
      of_gamma = fma(g, xhat, of_gamma);
      of_beta += g;
      if (dx) write(fma(g * factor, scale[r], fma(xhat, of_xhat[r], of_one[r])), dx + at);
    }
    if (dgamma) store(load(dgamma + i) + of_gamma, dgamma + i);
    if (dbeta) store(load(dbeta + i) + of_beta, dbeta + i);
  };
  Index i = 0;
  const auto store = [](P value, T* to) { value.store(to); };
  with_store(past_caches && dx, dx, [&](const auto& write) {
    for (; i + W <= cols; i += W) {
      MINNOW_UNROLL
      for (int r = 0; r < R; ++r) __builtin_prefetch(dy + r * stride + i + ahead, 0, 2);
      finish(
          i, [](const T* from) { return P::load(from); }, store, write);
    }
  });
  if (const Index rest = cols - i; rest > 0) {
    const auto store_rest = [rest](P value, T* to) { value.store(to, rest); };
    finish(
        i, [rest](const T* from) { return P::load(from, rest); }, store_rest, store_rest);
  }
}

/// The same for any number of rows: those that share gamma and beta go side by side.
template <bool centered, class T>
void gradient_block_by_block(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, const T* mean,
                             const T* rstd, const T* gamma, Index rows, Index cols,
                             const RowTraits& traits = {}) {
  constexpr Index most = 4;
  // As many as stay in the first-level cache; from memory one, which is fastest read on and on.
  const Index together =
      traits.from_memory ? 1 : std::clamp<Index>(2048 / std::max<Index>(1, cols), 1, most);
  const Index period = traits.period, stride = period * cols;
  for (Index block = 0; block < rows; block += together * period)
    for (Index row = block; row < std::min(rows, block + period); ++row) {
      const Index at = row * cols, of_col = traits.at(row, cols),
                  count = std::min(together, (rows - row + period - 1) / period);
      constant_height<most>(count, [&](auto constant) {
        constexpr int R = constant;
        gradient_rows_together<centered, R>(
            dx ? dx + at : nullptr, dgamma ? dgamma + of_col : nullptr,
            dbeta ? dbeta + of_col : nullptr, dy + at, x + at, centered ? mean + row : nullptr,
            rstd + row, period, gamma ? gamma + of_col : nullptr, stride, cols, R * stride,
            traits.past_caches);
      });
    }
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
