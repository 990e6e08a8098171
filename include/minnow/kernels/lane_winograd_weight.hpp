#pragma once
/// @file
/// The weights' gradient of a 3 x 3 convolution of a packet of images with half the multiplications
/// (winograd.hpp): dot products of the values of x and dy, for each row of the kernel and each of
/// the six.

#include <algorithm>

#include "minnow/kernels/lane_winograd.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// True where half the multiplications pay for the values of x and dy and for more sums.
inline bool winograd_dots_pay(const WinogradSizes& s) {
  return winograd_pays(s) && s.c >= 8 && s.k >= 8 && s.oh * s.tiles() >= 32;
}

namespace detail {

/// Channels of x whose values are computed together: their terms fill a tile of dot products.
inline constexpr Index winograd_channels = dots_terms / winograd_taps;

/// How a weights' gradient is cut: the values of a strip of rows stay in the second-level cache.
template <class T>
struct WinogradStrips {
  static constexpr Index bytes = 256 * 1024;

  WinogradSizes sizes;
  /// Numbers of a row of one of the six values.
  Index row = sizes.tiles() * Pack<T>::width;
  TileRows rows{sizes.oh,
                std::max<Index>(1, bytes / (row * sizes.k * Index{winograd_values * sizeof(T)}))};
  Index most_rows = (sizes.oh + rows.count - 1) / rows.count;
  /// Numbers of a channel of one of the six values, and of all channels.
  Index dy_plane = most_rows * row, x_plane = (most_rows + 2) * row;
  Index dy_size = sizes.k * dy_plane, x_size = x_plane * winograd_channels;
};

/// The values of a row of x [w, lane]: v[value * pitch], [tile, lane] each.
template <class T>
void winograd_x_row(T* v, Index pitch, const T* x, const WinogradSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const Index tiles = s.tiles();
  for (Index t = 0; t < tiles; ++t)
    winograd_load(v + t * lanes, pitch, x + s.tile_begin(t) * lanes);
}

/// The same of a row of dy [ow, lane]. What the last tile shares with the one before counts there.
template <class T>
void winograd_dy_row(T* v, Index pitch, const T* dy, const WinogradSizes& s) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  const Index tiles = s.tiles();
  for (Index t = 0; t < tiles; ++t) {
    const Index begin = s.tile_begin(t), shared = winograd_outputs * t - begin;
    V gradients[winograd_outputs], values[winograd_values];
    MINNOW_UNROLL
    for (Index j = 0; j < winograd_outputs; ++j)
      gradients[j] = j < shared ? V::zero() : V::load(dy + (begin + j) * lanes);
    winograd_weights<T>(values, gradients);
    MINNOW_UNROLL
    for (int p = 0; p < winograd_values; ++p) values[p].store(v + p * pitch + t * lanes);
  }
}

}  // namespace detail

/// Numbers of working memory that `winograd_backward_weight` takes: its sums, and the values of a
/// strip of dy and of some channels of x.
template <class T>
Index winograd_weight_memory(const WinogradSizes& s) {
  const detail::WinogradStrips<T> strips{s};
  return detail::winograd_values * (3 * s.c * s.k + strips.dy_size + strips.x_size);
}

/// dweight[k, c, a, b] = sum_{lanes, i, j} dy[k, i, j] * x[c, i + a, j + b].
///
/// x [c, h, w, lane]; dy [k, oh, ow, lane], its rows `dy_pitch` apart and its planes oh times that;
/// memory [winograd_weight_memory]. Writes every element of dweight [k, c, 3, 3]. Serial. What the
/// next values are made of is fetched during the dot products.
template <class T>
void winograd_backward_weight(T* dweight, const T* dy, Index dy_pitch, const T* x,
                              const WinogradSizes& s, T* memory) {
  using namespace detail;
  const WinogradStrips<T> strips{s};
  const Index terms = 3 * s.c, size = s.k * terms, x_row = s.w * Pack<T>::width,
              x_plane = s.h * x_row, blocks = dots_rows(s.k).count;
  T *sums = memory, *dy_values = sums + winograd_values * size,
    *x_values = dy_values + winograd_values * strips.dy_size;
  Index offset[dots_terms];
  for (Index r = 0; r < dots_terms; ++r)
    offset[r] = r / winograd_taps * strips.x_plane + r % winograd_taps * strips.row;
  std::fill_n(sums, winograd_values * size, T(0));
  for (Index strip = 0; strip < strips.rows.count; ++strip) {
    const Index first = strips.rows.begin(strip), rows = strips.rows.height(strip),
                cols = rows * strips.row;
    for (Index k = 0; k < s.k; ++k)
      for (Index i = 0; i < rows; ++i)
        winograd_dy_row(dy_values + k * strips.dy_plane + i * strips.row, strips.dy_size,
                        dy + (k * s.oh + first + i) * dy_pitch, s);
    for (Index c = 0; c < s.c; c += winograd_channels) {
      const Index channels = std::min(winograd_channels, s.c - c);
      const T* from = x + c * x_plane + first * x_row;
      for (Index j = 0; j < channels; ++j)
        for (Index i = 0; i < rows + 2; ++i)
          winograd_x_row(x_values + j * strips.x_plane + i * strips.row, strips.x_size,
                         from + j * x_plane + i * x_row, s);
      const T* next = c + channels < s.c ? from + channels * x_plane : x + (first + rows) * x_row;
      for (Index p = 0; p < winograd_values; ++p)
        dots_block(sums + p * size + 3 * c, terms, dy_values + p * strips.dy_size, strips.dy_plane,
                   x_values + p * strips.x_size, offset, s.k, 3 * channels, {.cols = cols},
                   next + p / 3 * x_plane + p % 3 * blocks * cols);
    }
  }
  for (Index i = 0; i < size; ++i) {
    T v[winograd_values], w[winograd_taps];
    for (Index p = 0; p < winograd_values; ++p) v[p] = sums[p * size + i];
    winograd_output<T>(w, v, T(0));
    std::copy_n(w, winograd_taps, dweight + i * winograd_taps);
  }
}

}  // namespace minnow::inline MINNOW_ABI::kernels
