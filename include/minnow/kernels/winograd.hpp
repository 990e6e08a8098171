#pragma once
/// @file
/// Winograd's minimal filtering F(4, 3): four outputs of a row from six inputs and three weights
/// with six products.
///
/// Four neighbouring outputs take twelve products. They are also the coefficients of a product of
/// polynomials, which six of its values determine, each a single product:
///
///     y = At ((G w) * (Bt x))
///
/// with Bt x the six values of the inputs, G w those of the weights and At the way back. Sums over
/// channels and rows of the kernel are taken between, so At is applied once to each output.
///
/// The values are taken at 0, +-5/8, +-3/2 and infinity. The usual 0, +-1, +-2 and infinity make
/// rounding errors 2.2 times (root mean square) those of the direct sum; these 1.5 times. One
/// output depends on six inputs of each row, so an infinite one spoils its three neighbours, too.
///
/// With the places of weights and outputs exchanged it is F(3, 4): the three gradients of the
/// weights from four gradients of outputs, At and G having four columns and rows in turn.
///
/// Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, Fast Algorithms for
/// Convolutional Neural Networks, 2016, section 4.1.

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "minnow/core/simd.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// Where the values are taken, besides 0 and infinity: inner, -inner, outer, -outer.
inline constexpr double winograd_inner = 0.625, winograd_outer = 1.5;
inline constexpr int winograd_taps = 3, winograd_outputs = 4, winograd_inputs = 6,
                     winograd_values = 6;

/// Tiles of four that hold so many outputs.
inline Index winograd_tiles(Index outputs) {
  return (outputs + winograd_outputs - 1) / winograd_outputs;
}
/// The first output of a tile; the last one overlaps the one before it.
inline Index winograd_tile_begin(Index tile, Index outputs) {
  return std::min(winograd_outputs * tile, outputs - winograd_outputs);
}
/// True where little of a row's last tile is wasted.
inline bool winograd_rows_pay(Index outputs) {
  return outputs >= winograd_outputs && 3 * winograd_tiles(outputs) <= outputs;
}

/// v = Bt d, in every lane.
template <class V>
MINNOW_INLINE void winograd_input(V (&v)[winograd_values], const V (&d)[winograd_inputs]) {
  using T = typename V::value_type;
  constexpr double a = winograd_inner, b = winograd_outer;
  const V of_a{T(a)}, of_b{T(b)}, a2{T(-a * a)}, b2{T(-b * b)}, low{T(a * a * b * b)},
      middle{T(-a * a - b * b)};
  const V even_a = fma(b2, d[2], d[4]), odd_a = of_a * fma(b2, d[1], d[3]),
          even_b = fma(a2, d[2], d[4]), odd_b = of_b * fma(a2, d[1], d[3]);
  v[0] = fma(low, d[0], fma(middle, d[2], d[4]));
  v[1] = even_a + odd_a;
  v[2] = even_a - odd_a;
  v[3] = even_b + odd_b;
  v[4] = even_b - odd_b;
  v[5] = fma(low, d[1], fma(middle, d[3], d[5]));
}

/// u = G w for three taps w, in every lane, or the values of four; V is made of numbers T.
template <class T, class V, std::size_t taps>
MINNOW_INLINE void winograd_weights(V (&u)[winograd_values], const V (&w)[taps]) {
  constexpr double a = winograd_inner, b = winograd_outer, difference = a * a - b * b;
  const auto put_pair = [&](int p, double point, double scale) {
    const V square = V(T(point * point));
    V even = w[0] + square * w[2], odd = w[1];
    if constexpr (taps == 4) odd = odd + square * w[3];
    even = even * V(T(scale));
    odd = V(T(point)) * odd * V(T(scale));
    u[p] = even + odd;
    u[p + 1] = even - odd;
  };
  u[0] = w[0] * V(T(1 / (a * a * b * b)));
  put_pair(1, a, 1 / (2 * a * a * difference));
  put_pair(3, b, -1 / (2 * b * b * difference));
  u[5] = w[taps - 1];
}

/// y = bias + At v for four outputs, in every lane, or for three; V is made of numbers T.
template <class T, class V, std::size_t outputs>
MINNOW_INLINE void winograd_output(V (&y)[outputs], const V (&v)[winograd_values], V bias) {
  constexpr double a = winograd_inner, b = winograd_outer;
  const V even_a = v[1] + v[2], odd_a = v[1] - v[2], even_b = v[3] + v[4], odd_b = v[3] - v[4];
  const auto power = [](double point) { return V(T(point)); };
  const auto add = [](V scale, V number, V sum) {
    if constexpr (std::is_floating_point_v<V>)
      return sum + scale * number;
    else
      return fma(scale, number, sum);
  };
  const auto last = [&](std::size_t j) { return j + 1 == outputs ? bias + v[5] : bias; };
  y[0] = bias + (v[0] + even_a + even_b);
  y[1] = add(power(b), odd_b, add(power(a), odd_a, last(1)));
  y[2] = add(power(b * b), even_b, add(power(a * a), even_a, last(2)));
  if constexpr (outputs == 4)
    y[3] = add(power(b * b * b), odd_b, add(power(a * a * a), odd_a, last(3)));
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
