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

  void add(const GradientSums& other) {
    dy += other.dy;
    dy_xhat += other.dy_xhat;
  }
};

/// The same, lane by lane.
template <class T>
struct GradientLanes {
  Pack<T> dy = Pack<T>::zero(), dy_xhat = dy;

  /// Adds `count` numbers, with xhat = (x - mean) * rstd.
  MINNOW_INLINE void add(const T* dy_from, const T* x, Index count, T mean, T rstd) {
    using P = Pack<T>;
    constexpr Index W = P::width;
    const P m(mean), r(rstd);
    P a0 = dy, a1 = P::zero(), b0 = dy_xhat, b1 = a1;
    const auto add = [&](P& a, P& b, P g, P value) {
      a += g;
      b = fma(g, (value - m) * r, b);
    };
    Index i = 0;
    for (; i + 2 * W <= count; i += 2 * W) {
      add(a0, b0, P::load(dy_from + i), P::load(x + i));
      add(a1, b1, P::load(dy_from + i + W), P::load(x + i + W));
    }
    if (i + W <= count) {
      add(a0, b0, P::load(dy_from + i), P::load(x + i));
      i += W;
    }
    if (const Index rest = count - i; rest > 0)
      add(a1, b1, P::load(dy_from + i, rest), P::load(x + i, rest));
    dy = a0 + a1;
    dy_xhat = b0 + b1;
  }
};

/// sum(dy) and sum(dy * xhat), xhat = (x - mean) * rstd, over a plane.
template <class T>
MINNOW_INLINE GradientSums gradient_sums(const T* dy, const T* x, Index count, T mean, T rstd) {
  GradientSums result;
  for_pieces(count, 1, 0, [&](Index first, Index piece_count, Index) {
    GradientLanes<T> piece;
    piece.add(dy + first, x + first, piece_count, mean, rstd);
    result.add({static_cast<double>(sum(piece.dy)), static_cast<double>(sum(piece.dy_xhat))});
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
