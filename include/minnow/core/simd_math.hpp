#pragma once
/// @file
/// Elementary functions of a `Pack<T>`: exp, log, tanh and erf.

#include <cmath>

#include "minnow/core/simd.hpp"

namespace minnow::inline MINNOW_ABI {

namespace detail {

/// Applies a scalar function lane by lane, for what Eigen has no packet version of.
template <class T, bool vector, class F>
MINNOW_INLINE Pack<T, vector> by_lane(Pack<T, vector> a, F f) {
  T lanes[Pack<T, vector>::width];
  a.store(lanes);
  for (T& lane : lanes) lane = f(lane);
  return Pack<T, vector>::load(lanes);
}

#if defined(EIGEN_VECTORIZE_AVX512)
/// exp of numbers, and NaN, above the logarithm of the smallest normal one: 2^m exp(r) with whole m
/// and |r| <= log(2) / 2. Eigen's is infinite from 88.38 on, where 2^m alone is too large.
///
/// Polynomial: Moshier, Cephes, expf.
MINNOW_INLINE __m512 exp_of(__m512 a) {
  const auto all = [](float number) { return _mm512_set1_ps(number); };
  const __m512 x = _mm512_min_ps(all(89.0f), a);  // NaN stays
  const __m512 m = _mm512_floor_ps(_mm512_fmadd_ps(x, all(1.44269504f), all(0.5f))),
               r = _mm512_fmadd_ps(m, all(-0.693147181f), x), r2 = _mm512_mul_ps(r, r),
               r3 = _mm512_mul_ps(r2, r);
  const __m512 high = _mm512_fmadd_ps(
      _mm512_fmadd_ps(all(1.9875691500e-4f), r, all(1.3981999507e-3f)), r, all(8.3334519073e-3f));
  const __m512 low = _mm512_fmadd_ps(
      _mm512_fmadd_ps(all(4.1665795894e-2f), r, all(1.6666665459e-1f)), r, all(5.0000001201e-1f));
  const __m512 y = _mm512_fmadd_ps(_mm512_fmadd_ps(high, r3, low), r2, _mm512_add_ps(r, all(1.0f)));
  return _mm512_scalef_ps(y, m);
}
#endif

}  // namespace detail

/// Elementary functions, within a few units in the last place. Where the exponential is smaller
/// than the smallest normal number it is 0: the weight of a masked, infinitely small logit is none
/// at all. The logarithm of a smaller positive number is that of the smallest normal one.
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> exp(Pack<T, vector> a) {
  using V = Pack<T, vector>;
  const V smallest(T(sizeof(T) == 4 ? -87.33654 : -708.39641));
#if defined(EIGEN_VECTORIZE_AVX512)
  if constexpr (V::width == 16)
    return select_less(a, smallest, V::zero(), V(detail::exp_of(a.raw)));
#endif
  if constexpr (V::width > 1 && Eigen::internal::packet_traits<T>::HasExp)
    return select_less(a, smallest, V::zero(), V(Eigen::internal::pexp(a.raw)));
  else
    return detail::by_lane(a, [](T x) { return std::exp(x); });
}
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> log(Pack<T, vector> a) {
  if constexpr (Pack<T, vector>::width > 1 && Eigen::internal::packet_traits<T>::HasLog)
    return Pack<T, vector>(Eigen::internal::plog(a.raw));
  else
    return detail::by_lane(a, [](T x) { return std::log(x); });
}
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> tanh(Pack<T, vector> a) {
  if constexpr (Pack<T, vector>::width > 1 && Eigen::internal::packet_traits<T>::HasTanh)
    return Pack<T, vector>(Eigen::internal::ptanh(a.raw));
  else
    return detail::by_lane(a, [](T x) { return std::tanh(x); });
}
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> erf(Pack<T, vector> a) {
  return detail::by_lane(a, [](T x) { return std::erf(x); });
}

}  // namespace minnow::inline MINNOW_ABI
