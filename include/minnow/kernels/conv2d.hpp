#pragma once
/// @file
/// Convolution, forward and backward. What lies in the lanes of a pack, positions of a plane,
/// channels or images, is chosen by the sizes, here.

#include <algorithm>

#include "minnow/core/parallel.hpp"
#include "minnow/kernels/conv2d_by_channels.hpp"
#include "minnow/kernels/conv2d_by_channels_weight.hpp"
#include "minnow/kernels/conv2d_by_images.hpp"
#include "minnow/kernels/conv2d_by_planes.hpp"
#include "minnow/kernels/conv2d_by_winograd.hpp"
#include "minnow/kernels/conv2d_by_winograd_weight.hpp"
#include "minnow/kernels/conv2d_depthwise.hpp"
#include "minnow/kernels/reduce.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

inline double share(Index part, Index whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

/// What share of a row of tiles of positions counts, and of packs of channels. Measured.
inline double tiles_share(Index positions) {
  constexpr Index most = tile_positions, half = most / 2;
  const Index rest = positions % most;
  return share(positions, positions / most * most + (rest > half ? most
                                                     : rest > 0  ? most * 2 / 3
                                                                 : 0));
}
template <class T>
double packs_share(Index channels) {
  constexpr Index W = Pack<T>::width;
  return share(channels, (channels + W - 1) / W * W);
}

/// True where channels in lanes are faster than positions: they fill their packs, rows their tiles,
/// and the terms outweigh what a tile costs besides.
template <class T>
bool channels_pay(const Conv2dSizes& s) {
  constexpr Index W = Pack<T>::width;
  const Index cols = is_flat(s) ? s.h * s.w : s.ow(), channels = s.group_k(), terms = s.terms();
  return W > 1 && channels >= 2 * W && cols >= tile_positions / 2 &&
         packs_share<T>(channels) * tiles_share(cols) * share(terms, terms + 10) > 0.85;
}

/// True where channels in lanes with half the multiplications are faster than with all of them, or
/// than positions.
template <class T>
bool winograd_channels_pay(const Conv2dSizes& s) {
  if (!fits_winograd<T>(s) || !winograd_rows_pay(s.ow())) return false;
  const WinogradTiles<T> tiles{s};
  const Index positions = tiles.block_rows() * tiles.cols;
  return s.group_c() >= 3 && s.group_k() >= Pack<T>::width && positions >= tile_positions / 2 &&
         packs_share<T>(s.group_k()) * tiles_share(positions) *
                 share(s.ow(), winograd_outputs * tiles.cols) >
             0.55;
}

/// True where images can lie in lanes: they are small, and fill their packets.
template <class T>
bool images_fill(const Conv2dSizes& s) {
  constexpr Index W = Pack<T>::width;
  return W > 1 && fits_lanes(s) && s.h * s.w <= 900 && 4 * s.n >= 3 * W * packet_count<T>(s.n);
}

/// True where they do so with half the multiplications, and the caches hold a packet, and the
/// weights.
template <class T>
bool winograd_images_pay(const Conv2dSizes& s) {
  constexpr Index bytes = sizeof(T);
  return images_fill<T>(s) && s.kernel == Size2(3) &&
         winograd_pays({s.c, s.h, s.w, s.k, s.oh(), s.ow()}) &&
         s.c * s.h * s.w * Pack<T>::width * bytes <= 1792 * 1024 &&
         s.k * s.terms() * bytes <= 2560 * 1024;
}

/// True where the weights' gradient with half the multiplications is faster than with all of them:
/// its sums, twice the weights, must stay in the caches.
template <class T>
bool winograd_weight_pays(const Conv2dSizes& s) {
  constexpr Index bytes = sizeof(T);
  return fits_winograd_weight<T>(s) && winograd_rows_pay(s.ow()) &&
         winograd_values * s.kernel.h * s.k * s.group_c() * bytes <= 8 * 1024 * 1024;
}

/// What lies in the lanes of a pack.
enum class Conv2dWay { planes, channels, images, winograd };

/// The fastest way to a forward convolution. The backward to the input of one with stride 1 is that
/// of `reversed`.
template <class T>
Conv2dWay choose_way(const Conv2dSizes& s) {
  if (winograd_images_pay<T>(s)) return Conv2dWay::images;
  if (winograd_channels_pay<T>(s)) return Conv2dWay::winograd;
  if (channels_pay<T>(s)) return Conv2dWay::channels;
  if (images_fill<T>(s) && lanes_pay<T>(ImageSizes(s).lane)) return Conv2dWay::images;
  return Conv2dWay::planes;
}

/// The fastest way to the weights' gradient. Images in lanes read x from the caches; with half the
/// multiplications it is fetched in time, so a packet may be larger. Where sums are many, channels
/// in lanes need less for each.
template <class T>
Conv2dWay choose_weight_way(const Conv2dSizes& s) {
  constexpr Index W = Pack<T>::width, bytes = sizeof(T);
  const Index c = s.group_c(), packet = s.c * s.h * s.w * W * bytes;
  const bool images = images_fill<T>(s) && lanes_pay<T>(ImageSizes(s).lane),
             half = winograd_weight_pays<T>(s);
  if (images && !(half && s.c * s.k >= 4096)) {
    const bool half_dots =
        s.kernel == Size2(3) && winograd_dots_pay({s.c, s.h, s.w, s.k, s.oh(), s.ow()});
    if (packet <= (half_dots ? 1536 : 512) * 1024) return Conv2dWay::images;
  }
  if (half) return Conv2dWay::winograd;
  if (c >= 2 * W && c % W == 0) return Conv2dWay::channels;
  if (images) return Conv2dWay::images;
  return c >= W ? Conv2dWay::channels : Conv2dWay::planes;
}

}  // namespace detail

/// Convolution, forward (a cross-correlation, as everywhere in this field).
///
///   y[n, k, i, j] = bias[k] + sum_{c, a, b} weight[k, c, a, b]
///                   * x[n, c, i * stride_h + a * dilation_h - padding_h,
///                       j * stride_w + b * dilation_w - padding_w],  zero outside x
///
/// Shapes    see Conv2dSizes; with groups, c runs over the channels of k's group; bias [k] or null
/// Writes    every element of y; must not overlap x or weight
/// Numerics  sums in T; rows of three taps may take half the multiplications (winograd.hpp), so
///           that the rounding error is up to twice that of a plain sum, and an infinite input
///           spoils up to three more outputs of its row
/// Parallel  over pieces of images and groups; the same bits for any number of threads
template <class T>
void conv2d_forward(T* y, const T* x, const T* weight, const T* bias, const Conv2dSizes& s) {
  using enum detail::Conv2dWay;
  if (detail::is_depthwise<T>(s)) return detail::forward_depthwise(y, x, weight, bias, s);
  switch (detail::choose_way<T>(s)) {
    case planes:
      return detail::forward_by_planes(y, x, weight, bias, s);
    case channels:
      return detail::forward_by_channels(y, x, weight, bias, s);
    case images:
      return detail::forward_by_images(y, x, weight, bias, s);
    case winograd:
      return detail::forward_by_winograd(y, x, weight, bias, s);
  }
}

/// Convolution, backward to the input.
///
///   dx[n, c, u, v] = sum_{k, a, b} weight[k, c, a, b] * dy[n, k, i, j]
///                    over all i * stride_h + a * dilation_h - padding_h = u, the same for j, v
///
/// Shapes    as in the forward; Writes every element of dx
/// Gradient  of L = sum(dy * y): x[u] occurs in y[i] with factor weight[a] where the forward's
///           index equation holds. Solved for i it is a correlation of dy with the reversed taps;
///           with a stride, each phase of u sees only the taps of its own remainder.
/// Numerics  as in the forward
/// Parallel  over pieces of images and groups; the same bits for any number of threads
template <class T>
void conv2d_backward_data(T* dx, const T* dy, const T* weight, const Conv2dSizes& s) {
  using enum detail::Conv2dWay;
  if (detail::is_depthwise<T>(s)) return detail::backward_data_depthwise(dx, dy, weight, s);
  // With a stride, positions alone serve.
  switch (s.stride == Size2(1) ? detail::choose_way<T>(detail::reversed(s)) : planes) {
    case planes:
      return detail::backward_data_by_planes(dx, dy, weight, s);
    case channels:
      return detail::backward_data_by_channels(dx, dy, weight, s);
    case images:
      return detail::backward_data_by_images(dx, dy, weight, s);
    case winograd:
      return detail::backward_data_by_winograd(dx, dy, weight, s);
  }
}

/// Convolution, backward to the weights.
///
///   dweight[k, c, a, b] = sum_{n, i, j} dy[n, k, i, j] * x[n, c, i * stride_h + a * dilation_h
///                         - padding_h, j * stride_w + b * dilation_w - padding_w]
///
/// Shapes    as in the forward; Writes every element of dweight
/// Gradient  of L = sum(dy * y): the forward is linear in weight[a, b] with these factors
/// Numerics  partial sums over a piece, added up over the pieces of a chunk in T, over the chunks
///           in double; rows of three taps may take half the multiplications, as in the forward
/// Parallel  over chunks of pieces, added up in order: the same bits for any number of threads
template <class T>
void conv2d_backward_weight(T* dweight, const T* dy, const T* x, const Conv2dSizes& s) {
  using enum detail::Conv2dWay;
  if (detail::is_depthwise<T>(s)) return detail::backward_weight_depthwise(dweight, dy, x, s);
  switch (detail::choose_weight_way<T>(s)) {
    case planes:
      return detail::backward_weight_by_planes(dweight, dy, x, s);
    case channels:
      return detail::backward_weight_by_channels(dweight, dy, x, s);
    case images:
      return detail::backward_weight_by_images(dweight, dy, x, s);
    case winograd:
      return detail::backward_weight_by_winograd(dweight, dy, x, s);
  }
}

/// Convolution, backward to the bias: dbias[k] = sum_{n, i, j} dy[n, k, i, j], added up in double.
/// dy [n, k, plane]; every element of dbias [k] is assigned. Parallel over k.
template <class T>
void conv2d_backward_bias(T* dbias, const T* dy, Index n, Index k, Index plane) {
  parallel_chunks(k, n * plane, [&](Index begin, Index end) {
    for (Index channel = begin; channel < end; ++channel) {
      double total = 0;
      for (Index i = 0; i < n; ++i)
        total += detail::sum_of_row(dy + (i * k + channel) * plane, plane);
      dbias[channel] = static_cast<T>(total);
    }
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
