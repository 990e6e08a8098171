#pragma once
/// @file
/// Direct convolution, forward and backward. What lies in the lanes of a pack, positions of a plane
/// or channels, is chosen by the sizes, here.

#include <algorithm>

#include "minnow/core/parallel.hpp"
#include "minnow/kernels/conv2d_by_channels.hpp"
#include "minnow/kernels/conv2d_by_channels_weight.hpp"
#include "minnow/kernels/conv2d_by_images.hpp"
#include "minnow/kernels/conv2d_by_planes.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

/// True where channels in lanes are the fastest: `channels` results fill their packs, rows of
/// `cols` their tiles, and `terms` outweigh what a tile costs besides. The numbers are measured.
template <class T>
bool channels_pay(Index channels, Index cols, Index terms) {
  constexpr Index W = Pack<T>::width, most = tile_positions, half = most / 2;
  if (W == 1 || channels < 2 * W || cols < half) return false;
  const Index rest = cols % most;
  const Index cost = cols / most * most + (rest > half ? most : rest > 0 ? most * 2 / 3 : 0);
  const auto share = [](Index part, Index whole) {
    return static_cast<double>(part) / static_cast<double>(whole);
  };
  return share(channels, (channels + W - 1) / W * W) * share(cols, cost) *
             share(terms, terms + 10) >
         0.85;
}

/// True where images in lanes are faster than positions: they are small, and fill their packets.
template <class T>
bool images_pay(const Conv2dSizes& s) {
  constexpr Index W = Pack<T>::width;
  return W > 1 && fits_lanes(s) && s.h * s.w <= 900 && 4 * s.n >= 3 * W * packet_count<T>(s.n) &&
         lanes_pay<T>(lane_sizes(s));
}

}  // namespace detail

/// Convolution, forward (a cross-correlation, as everywhere in this field).
///
///   y[n, k, i, j] = bias[k] + sum_{c, a, b} weight[k, c, a, b] * x[n, c, i * stride_h + a *
///   dilation_h
///                   - padding_h, j * stride_w + b * dilation_w - padding_w],  zero outside x
///
/// Shapes    see Conv2dSizes; with groups, c runs over the channels of k's group; bias [k] or null
/// Writes    every element of y; must not overlap x or weight
/// Numerics  sums run in order over c, a, b, in T
/// Parallel  over pieces of images and groups; the same bits for any number of threads
template <class T>
void conv2d_forward(T* y, const T* x, const T* weight, const T* bias, const Conv2dSizes& s) {
  const Index cols = detail::is_flat(s) ? s.h * s.w : s.ow();
  if (detail::channels_pay<T>(s.group_k(), cols, s.terms()))
    detail::forward_by_channels(y, x, weight, bias, s);
  else if (detail::images_pay<T>(s))
    detail::forward_by_images(y, x, weight, bias, s);
  else
    detail::forward_by_planes(y, x, weight, bias, s);
}

/// Convolution, backward to the input.
///
///   dx[n, c, u, v] = sum_{k, a, b} weight[k, c, a, b] * dy[n, k, i, j]
///                    over all i * stride_h + a * dilation_h - padding_h = u, and the same for j
///                    and v
///
/// Shapes    as in the forward; Writes every element of dx
/// Gradient  of L = sum(dy * y): x[u] occurs in y[i] with factor weight[a] where the forward's
/// index
///           equation holds. Solved for i it is a correlation of dy with the reversed taps; with a
///           stride, each phase of u sees only the taps of its own remainder.
/// Parallel  over pieces of images and groups; the same bits for any number of threads
template <class T>
void conv2d_backward_data(T* dx, const T* dy, const T* weight, const Conv2dSizes& s) {
  const Index cols = detail::is_flat(s) ? s.h * s.w : s.w;
  if (s.stride == Size2(1) && detail::channels_pay<T>(s.group_c(), cols, s.group_k() * s.taps()))
    detail::backward_data_by_channels(dx, dy, weight, s);
  else if (detail::images_pay<T>(s))
    detail::backward_data_by_images(dx, dy, weight, s);
  else
    detail::backward_data_by_planes(dx, dy, weight, s);
}

/// Convolution, backward to the weights.
///
///   dweight[k, c, a, b] = sum_{n, i, j} dy[n, k, i, j] * x[n, c, i * stride_h + a * dilation_h
///                         - padding_h, j * stride_w + b * dilation_w - padding_w]
///
/// Shapes    as in the forward; Writes every element of dweight
/// Gradient  of L = sum(dy * y): the forward is linear in weight[a, b] with these factors
/// Numerics  lane-wise partial sums over a piece, added up over the pieces of a chunk in T, over
/// the
///           chunks in double
/// Parallel  over chunks of pieces, added up in order: the same bits for any number of threads
template <class T>
void conv2d_backward_weight(T* dweight, const T* dy, const T* x, const Conv2dSizes& s) {
  constexpr Index W = Pack<T>::width;
  const Index c = s.group_c();
  if (c >= 2 * W && c % W == 0)
    detail::backward_weight_by_channels(dweight, dy, x, s);
  else if (detail::images_pay<T>(s))
    detail::backward_weight_by_images(dweight, dy, x, s);
  else if (c >= W)
    detail::backward_weight_by_channels(dweight, dy, x, s);
  else
    detail::backward_weight_by_planes(dweight, dy, x, s);
}

/// Convolution, backward to the bias: dbias[k] = sum_{n, i, j} dy[n, k, i, j], summed in double.
/// dy [n, k, plane]; every element of dbias [k] is assigned. Parallel over k.
template <class T>
void conv2d_backward_bias(T* dbias, const T* dy, Index n, Index k, Index plane) {
  parallel_chunks(k, n * plane, [&](Index begin, Index end) {
    for (Index channel = begin; channel < end; ++channel) {
      double total = 0;
      for (Index i = 0; i < n; ++i) {
        const T* from = dy + (i * k + channel) * plane;
        Pack<T> sums = Pack<T>::zero();
        Index p = 0;
        for (; p + Pack<T>::width <= plane; p += Pack<T>::width) sums += Pack<T>::load(from + p);
        if (p < plane) sums += Pack<T>::load(from + p, plane - p);
        total += static_cast<double>(sum(sums));
      }
      dbias[channel] = static_cast<T>(total);
    }
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
