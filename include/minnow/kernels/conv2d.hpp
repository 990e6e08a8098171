#pragma once
/// @file
/// Direct convolution on flattened rows: forward, and backward to the input and the bias. How it
/// works is told in conv2d_staging.hpp; the backward to the weights is in conv2d_weight.hpp.

#include <algorithm>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/kernels/conv2d_staging.hpp"
#include "minnow/kernels/conv2d_weight.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

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
  using detail::tap_of;
  const Index oh = s.oh(), ow = s.ow(), terms = s.terms(), channels = s.group_c();
  if (s.n * s.k * oh * ow == 0) return;
  const Index reach_h = detail::tap_reach(s.kernel.h, s.dilation.h, s.stride.h);
  const Index reach_w = detail::tap_reach(s.kernel.w, s.dilation.w, s.stride.w);
  const Index pitch = ow + reach_w, phases = s.stride.h * s.stride.w;
  const auto pieces = detail::make_pieces(
      s.n, oh, pitch, reach_h, detail::piece_positions<T>(channels * phases + s.group_k(), 192));
  const Index piece_plane = (pieces.rows + reach_h) * pitch,
              piece_flat = pieces.images * piece_plane;

  // The staged copy lies [channel][phase][image][row][col]; a term reads at a fixed distance.
  Scratch<Index> offset(terms);
  for (Index c = 0, r = 0; c < channels; ++c)
    for (Index a = 0; a < s.kernel.h; ++a)
      for (Index b = 0; b < s.kernel.w; ++b, ++r) {
        const auto th = tap_of(a, s.dilation.h, s.stride.h),
                   tw = tap_of(b, s.dilation.w, s.stride.w);
        offset.data()[r] = (c * phases + th.phase * s.stride.w + tw.phase) * piece_flat +
                           th.distance * pitch + tw.distance;
      }
  const TileRows rows{s.group_k()};
  Scratch<T> packed(s.k * terms);
  for (Index g = 0; g < s.groups; ++g)
    for (Index t = 0; t < rows.count; ++t)
      for (Index i = 0; i < rows.height(t); ++i)
        for (Index r = 0; r < terms; ++r)
          packed.data()[(g * s.group_k() + rows.begin(t)) * terms + r * rows.height(t) + i] =
              weight[(g * s.group_k() + rows.begin(t) + i) * terms + r];

  const Index slack = tile_cols<T>;  // a tile reads whole packs
  const Index staged_size = channels * phases * piece_flat + slack,
              sums_size = s.group_k() * piece_flat;
  const Chunks chunks = make_chunks(pieces.count() * s.groups, s.group_k() * terms * piece_flat);
  const Index workers = worker_count(chunks.count);
  const Scratch<T> scratch(workers * (staged_size + sums_size));
  const auto run = [&](Index chunk, Index worker) {
    T* staged = scratch.data() + worker * (staged_size + sums_size);
    T* sums = staged + staged_size;
    std::fill_n(staged, staged_size, T(0));
    for (Index item = chunks.begin(chunk); item < chunks.end(chunk); ++item) {
      const Index piece = item / s.groups, group = item % s.groups;
      const Index image = pieces.image(piece), images = pieces.images_of(piece);
      const Index row = pieces.row(piece), count = pieces.rows_of(piece);
      const Index plane = (count + reach_h) * pitch;
      for (Index c = 0; c < channels; ++c)
        detail::stage_phases(staged + c * phases * piece_flat, piece_flat,
                             x + (image * s.c + group * channels + c) * s.h * s.w, s, images, row,
                             count + reach_h, pitch);
      const Index flat = (images - 1) * plane + (count - 1) * pitch + ow;
      detail::correlate(sums, piece_flat, packed.data() + group * s.group_k() * terms, staged,
                        offset.data(), terms, rows, flat);
      for (Index i = 0; i < images; ++i)
        for (Index k = 0; k < s.group_k(); ++k) {
          const Index channel = group * s.group_k() + k;
          const T shift = bias ? bias[channel] : T(0);
          T* to = y + (((image + i) * s.k + channel) * oh + row) * ow;
          const T* from = sums + k * piece_flat + i * plane;
          for (Index r = 0; r < count; ++r, to += ow, from += pitch) {
            MINNOW_SIMD
            for (Index j = 0; j < ow; ++j) to[j] = from[j] + shift;
          }
        }
    }
  };
  parallel_for(chunks.count, run, workers);
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
  using detail::tap_of;
  const Index oh = s.oh(), ow = s.ow(), channels = s.group_k();
  if (s.n * s.c * s.h * s.w == 0) return;
  const Index reach_h = detail::tap_reach(s.kernel.h, s.dilation.h, s.stride.h);
  const Index reach_w = detail::tap_reach(s.kernel.w, s.dilation.w, s.stride.w);
  const TileRows rows{s.group_c()};
  Scratch<Index> offset(channels * s.taps());
  Scratch<T> packed(s.groups * s.group_c() * channels * s.taps());

  for (Index phase_h = 0; phase_h < s.stride.h; ++phase_h)
    for (Index phase_w = 0; phase_w < s.stride.w; ++phase_w) {
      // This phase holds the input rows u = first_h + stride * i, padded row number skip_h + i.
      const Index skip_h =
          std::max<Index>(0, (s.padding.h - phase_h + s.stride.h - 1) / s.stride.h);
      const Index skip_w =
          std::max<Index>(0, (s.padding.w - phase_w + s.stride.w - 1) / s.stride.w);
      const Index first_h = skip_h * s.stride.h + phase_h - s.padding.h;
      const Index first_w = skip_w * s.stride.w + phase_w - s.padding.w;
      if (first_h >= s.h || first_w >= s.w) continue;
      const Index height = (s.h - first_h + s.stride.h - 1) / s.stride.h;
      const Index width = (s.w - first_w + s.stride.w - 1) / s.stride.w;

      const Index pitch = width + reach_w;
      const auto pieces = detail::make_pieces(
          s.n, height, pitch, reach_h, detail::piece_positions<T>(channels + s.group_c(), 192));
      const Index piece_flat = pieces.images * (pieces.rows + reach_h) * pitch;

      Index terms = 0;
      for (Index k = 0; k < channels; ++k)
        for (Index a = 0; a < s.kernel.h; ++a)
          for (Index b = 0; b < s.kernel.w; ++b) {
            const auto th = tap_of(a, s.dilation.h, s.stride.h),
                       tw = tap_of(b, s.dilation.w, s.stride.w);
            if (th.phase != phase_h || tw.phase != phase_w) continue;
            offset.data()[terms++] =
                k * piece_flat + (reach_h - th.distance) * pitch + reach_w - tw.distance;
          }
      T* to = packed.data();
      for (Index g = 0; g < s.groups; ++g)
        for (Index t = 0; t < rows.count; ++t)
          for (Index k = 0; k < channels; ++k)
            for (Index a = 0; a < s.kernel.h; ++a)
              for (Index b = 0; b < s.kernel.w; ++b) {
                if (tap_of(a, s.dilation.h, s.stride.h).phase != phase_h) continue;
                if (tap_of(b, s.dilation.w, s.stride.w).phase != phase_w) continue;
                for (Index i = rows.begin(t); i < rows.begin(t + 1); ++i)
                  *to++ = weight[(((g * channels + k) * s.group_c() + i) * s.kernel.h + a) *
                                     s.kernel.w +
                                 b];
              }

      const Index slack = tile_cols<T>;
      const Index staged_size = channels * piece_flat + slack, sums_size = s.group_c() * piece_flat;
      const Chunks chunks =
          make_chunks(pieces.count() * s.groups, s.group_c() * (terms + 1) * piece_flat);
      const Index workers = worker_count(chunks.count);
      const Scratch<T> scratch(workers * (staged_size + sums_size));
      const auto run = [&](Index chunk, Index worker) {
        T* staged = scratch.data() + worker * (staged_size + sums_size);
        T* sums = staged + staged_size;
        std::fill_n(staged, staged_size, T(0));
        for (Index item = chunks.begin(chunk); item < chunks.end(chunk); ++item) {
          const Index piece = item / s.groups, group = item % s.groups;
          const Index image = pieces.image(piece), images = pieces.images_of(piece);
          const Index row = pieces.row(piece), count = pieces.rows_of(piece);
          const Index plane = (count + reach_h) * pitch;
          const Index flat = (images - 1) * plane + (count - 1) * pitch + width;
          if (terms > 0)
            for (Index k = 0; k < channels; ++k)
              for (Index i = 0; i < images; ++i)
                detail::stage_plane(staged + k * piece_flat + i * plane,
                                    dy + ((image + i) * s.k + group * channels + k) * oh * ow, oh,
                                    ow, skip_h + row - reach_h, 1, count + reach_h,
                                    skip_w - reach_w, 1, pitch);
          detail::correlate(sums, piece_flat, packed.data() + group * s.group_c() * terms, staged,
                            offset.data(), terms, rows, flat);
          for (Index i = 0; i < images; ++i)
            for (Index c = 0; c < s.group_c(); ++c) {
              T* plane_dx = dx + ((image + i) * s.c + group * s.group_c() + c) * s.h * s.w;
              for (Index r = 0; r < count; ++r) {
                const T* from = sums + c * piece_flat + i * plane + r * pitch;
                T* line = plane_dx + (first_h + (row + r) * s.stride.h) * s.w + first_w;
                if (s.stride.w == 1)
                  std::copy_n(from, width, line);
                else
                  for (Index j = 0; j < width; ++j) line[j * s.stride.w] = from[j];
              }
            }
        }
      };
      parallel_for(chunks.count, run, workers);
    }
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
