#pragma once
/// @file
/// The passes over one plane (the H x W numbers of one channel of one image) that batch and group
/// normalisation are made of.

#include "minnow/core/simd.hpp"
#include "minnow/kernels/moments.hpp"
#include "minnow/kernels/streaming.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// y = (x - center) * scale + shift. The mean is taken off first: x * scale + shift' would lose the
/// digits that x and the mean have in common.
template <class T>
struct Affine {
  T center, scale, shift;
};

/// (x - mean) * rstd * gamma + beta, with the digits of the mean that `T` cannot hold in the shift.
template <class T>
Affine<T> make_affine(double mean, double rstd, double gamma, double beta) {
  const T center = static_cast<T>(mean);
  const double rest = mean - static_cast<double>(center);
  return {center, static_cast<T>(rstd * gamma), static_cast<T>(beta - rest * rstd * gamma)};
}

/// Applies `affine` to `count` numbers. y may be x.
template <class T>
MINNOW_INLINE void normalize_plane(T* y, const T* x, Index count, const Affine<T>& affine,
                                   bool past_caches) {
  using P = Pack<T>;
  const P center(affine.center), scale(affine.scale), shift(affine.shift);
  Index i = 0;
  with_store(past_caches, y, [&](const auto& store) {
    for (; i + P::width <= count; i += P::width)
      store(fma(P::load(x + i) - center, scale, shift), y + i);
  });
  if (const Index rest = count - i; rest > 0)
    fma(P::load(x + i, rest) - center, scale, shift).store(y + i, rest);
}

/// The two sums over dy that every gradient of a normalisation is made of.
struct GradientSums {
  double dy = 0, dy_xhat = 0;
};

/// sum(dy) and sum(dy * xhat), xhat = (x - mean) * rstd, over `runs` planes, `stride` apart.
template <class T>
MINNOW_INLINE GradientSums gradient_sums(const T* dy, const T* x, Index count, Index runs,
                                         Index stride, T mean, T rstd) {
  using P = Pack<T>;
  constexpr Index W = P::width;
  const P m(mean), r(rstd);
  GradientSums result;
  for_pieces(count, runs, stride, [&](Index first, Index piece_count, Index piece_runs) {
    P a0 = P::zero(), a1 = a0, b0 = a0, b1 = a0;
    const auto add = [&](P& a, P& b, P g, P value) {
      a += g;
      b = fma(g, (value - m) * r, b);
    };
    for (Index run = 0; run < piece_runs; ++run) {
      const T* dy_run = dy + first + run * stride;
      const T* x_run = x + first + run * stride;
      Index i = 0;
      for (; i + 2 * W <= piece_count; i += 2 * W) {
        add(a0, b0, P::load(dy_run + i), P::load(x_run + i));
        add(a1, b1, P::load(dy_run + i + W), P::load(x_run + i + W));
      }
      if (i + W <= piece_count) {
        add(a0, b0, P::load(dy_run + i), P::load(x_run + i));
        i += W;
      }
      if (const Index rest = piece_count - i; rest > 0)
        add(a1, b1, P::load(dy_run + i, rest), P::load(x_run + i, rest));
    }
    result.dy += static_cast<double>(sum(a0 + a1));
    result.dy_xhat += static_cast<double>(sum(b0 + b1));
  });
  return result;
}

/// What dx is made of: dx = of_dy * dy + of_xhat * xhat + of_one.
template <class T>
struct GradientWeights {
  T of_dy, of_xhat, of_one;
};

/// dx = rstd * (gamma * dy - mean_dxhat - xhat * mean_dxhat_xhat), where dxhat = gamma * dy.
template <class T>
GradientWeights<T> make_gradient_weights(double rstd, double gamma, double mean_dxhat,
                                         double mean_dxhat_xhat) {
  return {static_cast<T>(rstd * gamma), static_cast<T>(-rstd * mean_dxhat_xhat),
          static_cast<T>(-rstd * mean_dxhat)};
}

/// dx for `count` numbers. dx may be dy.
template <class T>
MINNOW_INLINE void gradient_plane(T* dx, const T* dy, const T* x, Index count, T mean, T rstd,
                                  const GradientWeights<T>& weights, bool past_caches) {
  using P = Pack<T>;
  const P m(mean), r(rstd), of_dy(weights.of_dy), of_xhat(weights.of_xhat), of_one(weights.of_one);
  // xhat first, not of_xhat * rstd: for x around 1e30 that product would vanish.
  const auto gradient = [&](P g, P value) {
    return fma(g, of_dy, fma((value - m) * r, of_xhat, of_one));
  };
  Index i = 0;
  with_store(past_caches, dx, [&](const auto& store) {
    for (; i + P::width <= count; i += P::width)
      store(gradient(P::load(dy + i), P::load(x + i)), dx + i);
  });
  if (const Index rest = count - i; rest > 0)
    gradient(P::load(dy + i, rest), P::load(x + i, rest)).store(dx + i, rest);
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
