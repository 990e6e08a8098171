#pragma once
/// @file
/// The passes over planes (the H x W numbers of one channel of one image) that batch and group
/// normalisation are made of.

#include <algorithm>
#include <array>
#include <cstdint>
#include <tuple>

#include "minnow/core/simd.hpp"
#include "minnow/kernels/moments.hpp"
#include "minnow/kernels/streaming.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// y = (x - center) * scale + shift. The mean is taken off first: x * scale + shift' would lose the
/// digits that x and the mean have in common.
template <class T>
struct Affine {
  T center, scale, shift;

  std::array<T, 3> numbers() const { return {center, scale, shift}; }

  /// y from i on, with these numbers in packs.
  struct Map {
    const T* x;

    Map from(Index i) const { return {x + i}; }
    template <class Load>
    MINNOW_INLINE Pack<T> operator()(const Pack<T> (&of)[3], const Load& load, Index i) const {
      return fma(load(x + i) - of[0], of[1], of[2]);
    }
  };
};

/// (x - mean) * rstd * gamma + beta, with the digits of the mean that `T` cannot hold in the shift.
template <class T>
Affine<T> make_affine(double mean, double rstd, double gamma, double beta) {
  const T center = static_cast<T>(mean);
  const double rest = mean - static_cast<double>(center);
  return {center, static_cast<T>(rstd * gamma), static_cast<T>(beta - rest * rstd * gamma)};
}

/// dx = of_dy * dy + of_xhat * xhat + of_one, xhat = (x - mean) * rstd.
template <class T>
struct GradientWeights {
  T mean, rstd, of_dy, of_xhat, of_one;

  std::array<T, 5> numbers() const { return {mean, rstd, of_dy, of_xhat, of_one}; }

  /// dx from i on, with these numbers in packs.
  struct Map {
    const T *dy, *x;

    Map from(Index i) const { return {dy + i, x + i}; }
    template <class Load>
    MINNOW_INLINE Pack<T> operator()(const Pack<T> (&of)[5], const Load& load, Index i) const {
      // xhat first, not of_xhat * rstd: for x around 1e30 that product would vanish.
      return fma(load(dy + i), of[2], fma((load(x + i) - of[0]) * of[1], of[3], of[4]));
    }
  };
};

/// dx = rstd * (gamma * dy - mean_dxhat - xhat * mean_dxhat_xhat), where dxhat = gamma * dy.
template <class T>
GradientWeights<T> make_gradient_weights(T mean, T rstd, double gamma, double mean_dxhat,
                                         double mean_dxhat_xhat) {
  const double r = static_cast<double>(rstd);
  return {mean, rstd, static_cast<T>(r * gamma), static_cast<T>(-r * mean_dxhat_xhat),
          static_cast<T>(-r * mean_dxhat)};
}

/// y = map of neighbouring planes [planes, hw], hw >= a pack, by what of_plane(plane) says of each:
/// an Affine or GradientWeights. y may be what is mapped.
///
/// Planes are one run of memory: all packs are stored at addresses aligned to packs, so that none
/// crosses a line, and one that straddles two planes has the numbers of both.
template <class T, class OfPlane, class Map>
MINNOW_INLINE void map_planes(T* y, Index planes, Index hw, bool past_caches,
                              const OfPlane& of_plane, const Map map) {
  using P = Pack<T>;
  constexpr Index W = P::width;
  constexpr std::size_t N = std::tuple_size_v<decltype(of_plane(0).numbers())>;
  struct Packs {
    P of[N];
  };
  const auto packs_of = [&](Index plane) {
    const std::array<T, N> numbers = of_plane(plane).numbers();
    Packs packs;
    MINNOW_UNROLL
    for (std::size_t k = 0; k < N; ++k) packs.of[k] = P(numbers[k]);
    return packs;
  };
  const auto load = [](const T* from) { return P::load(from); };
  const auto load_part = [](Index count) {
    return [count](const T* from) { return P::load(from, count); };
  };
  if (planes == 0) return;
  Packs packs = packs_of(0);
  const auto address = static_cast<Index>(reinterpret_cast<std::uintptr_t>(y) / sizeof(T));
  Index i = (W - address % W) % W;
  if (i > 0) map(packs.of, load_part(i), 0).store(y, i);
  with_run_store(past_caches, y + i, planes * hw - i, [&](const auto& store) {
    for (Index plane = 0;;) {
      const Index end = (plane + 1) * hw;
      for (; i + W <= end; i += W) store(map(packs.of, load, i), y + i);
      if (++plane == planes) break;
      const Packs next = packs_of(plane);
      if (const Index rest = end - i; rest > 0) {
        Packs both;
        MINNOW_UNROLL
        for (std::size_t k = 0; k < N; ++k) both.of[k] = join(packs.of[k], next.of[k], rest);
        store(map(both.of, load, i), y + i);
        i += W;
      }
      packs = next;
    }
  });
  if (const Index rest = planes * hw - i; rest > 0)
    map(packs.of, load_part(rest), i).store(y + i, rest);
}

/// y = map of a matrix [rows, cols] by the columns' numbers [N, cols]. y may be what is mapped.
template <std::size_t N, class T, class Map>
void map_rows(T* y, Index rows, Index cols, const T* numbers, const Map map) {
  using P = Pack<T>;
  constexpr Index W = P::width;
  const auto put = [=](Index row, Index col, const auto& load, const auto& store) {
    P of[N];
    MINNOW_UNROLL
    for (std::size_t k = 0; k < N; ++k) of[k] = load(numbers + static_cast<Index>(k) * cols + col);
    store(map(of, load, row * cols + col), y + row * cols + col);
  };
  const Index rest = cols % W;
  for (Index row = 0; row < rows; ++row) {
    Index col = 0;
    for (; col + W <= cols; col += W)
      put(
          row, col, [](const T* from) { return P::load(from); },
          [](P value, T* to) { value.store(to); });
    if (rest > 0)
      put(
          row, col, [rest](const T* from) { return P::load(from, rest); },
          [rest](P value, T* to) { value.store(to, rest); });
  }
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

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
