#pragma once
/// @file
/// Normalisation of one row with a scale and shift of its own for each column: what layer, RMS and,
/// for tiny planes, group normalisation are made of. `centered` tells whether the mean is taken
/// off; without it, this is RMS normalisation.

#include <cmath>

#include "minnow/core/simd.hpp"
#include "minnow/kernels/moments.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// y = (x - mean) * rstd * gamma + beta along one row of `cols` > 0 numbers; writes mean and rstd,
/// too. gamma, beta may be null; y may be x. Not centered, mean is neither used nor written.
template <bool centered, class T>
void normalize_row(T* y, T* mean, T* rstd, const T* x, const T* gamma, const T* beta, Index cols,
                   double eps) {
  using P = Pack<T>;
  double center = 0, variance = 0;
  if constexpr (centered) {
    const Moments row = moments(x, cols);
    center = row.mean;
    variance = row.variance();
    *mean = static_cast<T>(center);
  } else {
    variance = sum_squares(x, cols) / static_cast<double>(cols);
  }
  const double r = 1 / std::sqrt(variance + eps);
  *rstd = static_cast<T>(r);

  // The digits of the mean that T cannot hold go into the shift.
  const T head = static_cast<T>(center);
  const P m(head), scale(static_cast<T>(r));
  const P shift(static_cast<T>((static_cast<double>(head) - center) * r)), one(T(1)),
      zero = P::zero();
  const auto xhat = [&](P value) {
    if constexpr (centered)
      return fma(value - m, scale, shift);
    else
      return value * scale;
  };
  Index i = 0;
  for (; i + P::width <= cols; i += P::width)
    fma(xhat(P::load(x + i)), gamma ? P::load(gamma + i) : one, beta ? P::load(beta + i) : zero)
        .store(y + i);
  if (const Index rest = cols - i; rest > 0)
    fma(xhat(P::load(x + i, rest)), gamma ? P::load(gamma + i, rest) : one,
        beta ? P::load(beta + i, rest) : zero)
        .store(y + i, rest);
}

/// Adds one row's share to the gradients of gamma and beta, and writes its dx.
///
///   dgamma += dy * xhat    dbeta += dy    dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat *
///   xhat))
///
/// where xhat = (x - mean) * rstd and dxhat = dy * gamma. Not centered, the middle term is missing.
/// dx, dgamma, dbeta and gamma may be null; dx may be dy.
template <bool centered, class T>
void gradient_row(T* dx, T* dgamma, T* dbeta, const T* dy, const T* x, T mean, T rstd,
                  const T* gamma, Index cols) {
  using P = Pack<T>;
  const P m(mean), r(rstd), one(T(1));
  const auto xhat_of = [&](P value) {
    if constexpr (centered)
      return (value - m) * r;
    else
      return value * r;
  };
  P of_xhat = P::zero(), of_one = P::zero();
  if (dx) {
    double sum_dxhat = 0, sum_dxhat_xhat = 0;
    for_pieces(cols, 1, 0, [&](Index first, Index count, Index) {
      P a = P::zero(), b = P::zero();
      const auto add = [&](P g, P value) {
        if constexpr (centered) a += g;
        b = fma(g, xhat_of(value), b);
      };
      Index i = first;
      for (; i + P::width <= first + count; i += P::width)
        add(P::load(dy + i) * (gamma ? P::load(gamma + i) : one), P::load(x + i));
      if (const Index rest = first + count - i; rest > 0)
        add(P::load(dy + i, rest) * (gamma ? P::load(gamma + i, rest) : one), P::load(x + i, rest));
      sum_dxhat += static_cast<double>(sum(a));
      sum_dxhat_xhat += static_cast<double>(sum(b));
    });
    const double scale = -static_cast<double>(rstd) / static_cast<double>(cols);
    of_xhat = P(static_cast<T>(scale * sum_dxhat_xhat));
    of_one = P(static_cast<T>(scale * sum_dxhat));
  }
  const auto finish = [&](Index i, const auto& load, const auto& store) {
    const P g = load(dy + i), xhat = xhat_of(load(x + i));
    if (dgamma) store(dgamma + i, fma(g, xhat, load(dgamma + i)));
    if (dbeta) store(dbeta + i, load(dbeta + i) + g);
    if (dx) store(dx + i, fma(g * (gamma ? load(gamma + i) : one), r, fma(xhat, of_xhat, of_one)));
  };
  Index i = 0;
  for (; i + P::width <= cols; i += P::width)
    finish(
        i, [](const T* from) { return P::load(from); }, [](T* to, P value) { value.store(to); });
  if (const Index rest = cols - i; rest > 0)
    finish(
        i, [rest](const T* from) { return P::load(from, rest); },
        [rest](T* to, P value) { value.store(to, rest); });
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
