#pragma once
/// @file
/// Normalisation of one row with a scale and shift of its own for each column: what layer, RMS and,
/// for tiny planes, group normalisation are made of. `centered` tells whether the mean is taken
/// off; without it, this is RMS normalisation.

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "minnow/core/memory.hpp"
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

/// What rows have in common besides their length. gamma and beta are `period` rows [period, cols]
/// that serve in turn: one for all rows in layer normalisation, one for each group in group
/// normalisation, where the first row is group `first`.
struct RowTraits {
  Index period = 1, first = 0;
  bool past_caches = false;  ///< how results are written
  bool from_memory = false;  ///< what is read is not in a cache

  /// Where gamma and beta begin for the row `row` rows behind the first.
  Index at(Index row, Index cols) const { return period == 1 ? 0 : (first + row) % period * cols; }
};

/// The sums that a row's statistics are made of: not centered, those around 0.
template <bool centered, class T>
using RowSums = std::conditional_t<centered, DistanceSums<T>, SquareSums<T>>;

/// A number to take distances from: in the midst of the first few, since memory is read fastest in
/// order.
template <bool centered, class T>
MINNOW_INLINE T row_pivot(const T* x, Index cols) {
  return centered ? find_pivot(x, std::min<Index>(cols, 16), 1, 0) : T(0);
}

/// The moments of the row x from the sums over its distances from `pivot`.
template <bool centered, class T>
MINNOW_INLINE PieceMoments<T> row_moments(const RowSums<centered, T>& sums, T pivot, const T* x,
                                          Index cols) {
  if constexpr (centered) {
    return finish_moments(sums, pivot, x, cols, 1, 0);
  } else {
    const double squares = static_cast<double>(sum(sums.squares));
    return {T(0), 0, std::isfinite(squares) ? squares : sum_squares(x, cols)};
  }
}
/// Those of a row of any length, by itself.
template <bool centered, class T>
MINNOW_INLINE PieceMoments<T> row_moments(const T* x, Index cols) {
  if (cols > moment_piece) {
    if constexpr (centered) return PieceMoments<T>(moments(x, cols));
    return {T(0), 0, sum_squares(x, cols)};
  }
  const T pivot = row_pivot<centered>(x, cols);
  return row_moments<centered>(sum_distances<RowSums<centered, T>>(x, cols, 1, 0, pivot), pivot, x,
                               cols);
}

/// gamma or, for null, ones; beta or, for null, zeros: so that no loop has to ask.
template <class T>
class ColumnParameters {
 public:
  ColumnParameters(const T* parameter, T otherwise, Index cols)
      : own_(parameter ? 0 : cols), numbers_(parameter ? parameter : own_.data()) {
    if (!parameter) std::fill_n(own_.data(), cols, otherwise);
  }
  const T* numbers() const { return numbers_; }

 private:
  Scratch<T> own_;
  const T* numbers_;
};

/// y of one row: x normalised, then gamma and beta of each column.
template <bool centered, class T>
struct RowMap {
  using P = Pack<T>;
  const T *x, *gamma, *beta;
  P center, scale, shift;

  RowMap(const T* x_, const T* gamma_, const T* beta_, const PieceMoments<T>& of, double deviation)
      : x(x_),
        gamma(gamma_),
        beta(beta_),
        center(of.center),
        scale(static_cast<T>(deviation)),
        shift(static_cast<T>(-of.rest * deviation)) {}

  template <class Load>
  MINNOW_INLINE P operator()(const Load& load, Index i) const {
    const P value = load(x + i),
            xhat = centered ? fma(value - center, scale, shift) : value * scale;
    return fma(xhat, load(gamma + i), load(beta + i));
  }
};

/// The longest rows of which two, the written and the next, stay in the first-level cache.
inline constexpr Index most_ahead = moment_piece / 2;

/// For a loop that has nothing to add up.
template <class T>
struct NoSums {
  MINNOW_INLINE void add_four(const T*, Pack<T>) {}
};

/// Writes a row and, in the same loop, adds the distances from `center` of the numbers from `next`
/// on to `sums`, but for what is less than four packs in the end.
template <class Sums, class T, class Map>
MINNOW_INLINE void write_row(T* y, Index cols, const Map& map, bool past_caches, const T* next,
                             Pack<T> center, Sums& sums) {
  using P = Pack<T>;
  constexpr Index W = P::width;
  Index written = 0;
  with_store(past_caches, y, [&](const auto& store) {
    // Copies, which stay in registers.
    const auto load = [](const T* from) { return P::load(from); };
    const Map of = map;
    Sums own = sums;
    Index i = 0;
    for (; i + 4 * W <= cols; i += 4 * W) {
      own.add_four(next + i, center);
      MINNOW_UNROLL
      for (Index k = 0; k < 4; ++k) store(of(load, i + k * W), y + i + k * W);
    }
    for (; i + W <= cols; i += W) store(of(load, i), y + i);
    sums = own;
    written = i;
  });
  if (const Index rest = cols - written; rest > 0)
    map([rest](const T* from) { return P::load(from, rest); }, written).store(y + written, rest);
}

/// y = (x - mean) * rstd * gamma + beta along `rows` rows of `cols` > 0 numbers; writes mean and
/// rstd [rows], too. gamma, beta [period, cols] may be null; y may be x. Not centered, mean is
/// neither used nor written.
///
/// While a row is written, the next one is added up: one loop that reads and writes on and on,
/// where two loops would take turns at waiting for memory, and a row's last sums, its division and
/// its root have a whole row's time.
template <bool centered, class T>
void normalize_row_by_row(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta,
                          Index rows, Index cols, double eps, const RowTraits& traits = {}) {
  using P = Pack<T>;
  if (rows == 0) return;
  const ColumnParameters<T> gammas(gamma, T(1), cols), betas(beta, T(0), cols);
  const double per_col = 1 / static_cast<double>(cols);
  PieceMoments<T> of_row = row_moments<centered>(x, cols);
  for (Index row = 0; row < rows; ++row) {
    const double deviation = 1 / std::sqrt(of_row.m2 * per_col + eps);
    rstd[row] = static_cast<T>(deviation);
    if constexpr (centered) mean[row] = static_cast<T>(of_row.mean());
    const Index at = traits.at(row, cols);
    const T *from = x + row * cols, *next = from + cols;
    T* to = y + row * cols;
    const RowMap<centered, T> map(from, gammas.numbers() + (gamma ? at : 0),
                                  betas.numbers() + (beta ? at : 0), of_row, deviation);
    if (row + 1 == rows || cols > most_ahead) {
      NoSums<T> none;
      write_row(to, cols, map, traits.past_caches, next, P::zero(), none);
      if (row + 1 < rows) of_row = row_moments<centered>(next, cols);
      continue;
    }
    const T pivot = row_pivot<centered>(next, cols);
    const P center(pivot);
    FourSums<RowSums<centered, T>, T> sums;
    write_row(to, cols, map, traits.past_caches, next, center, sums);
    const Index rest = cols % (4 * P::width);
    sums.add_rest(next + cols - rest, rest, center);
    of_row = row_moments<centered>(sums.total(), pivot, next, cols);
  }
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
        for (int r = 0; r < R; ++r) {
          __builtin_prefetch(x + r * stride + i + ahead, 0, 2);
          if (!past_caches) __builtin_prefetch(dx + r * stride + i, 1);
        }
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
