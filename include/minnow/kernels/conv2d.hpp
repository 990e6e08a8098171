#pragma once
/// @file
/// Direct convolution, forward and backward. What lies in the lanes of a pack, positions of a plane
/// or channels, is chosen by the sizes, here.

#include <algorithm>

#include "minnow/core/parallel.hpp"
#include "minnow/kernels/conv2d_by_channels.hpp"
#include "minnow/kernels/conv2d_by_planes.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

/// True where `channels` outputs of rows of `cols` are computed faster with channels in lanes than
/// with positions: they fill their packs, and the rows their tiles.
template <class T>
bool channels_pay(Index channels, Index cols) {
  constexpr Index W = Pack<T>::width;
  return W > 1 && channels >= 2 * W && cols >= tile_positions / 2;
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
  if (detail::channels_pay<T>(s.group_k(), detail::is_flat(s) ? s.h * s.w : s.ow()))
    detail::forward_by_channels(y, x, weight, bias, s);
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
  if (s.stride == Size2(1) &&
      detail::channels_pay<T>(s.group_c(), detail::is_flat(s) ? s.h * s.w : s.w))
    detail::backward_data_by_channels(dx, dy, weight, s);
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
  if (s.group_c() >= Pack<T>::width)
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
