#pragma once
/// @file
/// Direct convolution with neighbouring positions of a plane in lanes: for images of any size and
/// any options. How it works is told in conv2d_staging.hpp.

#include <algorithm>

#include "minnow/kernels/conv2d_staging.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

template <class T>
void forward_by_planes(T* y, const T* x, const T* weight, const T* bias, const Conv2dSizes& s) {
  const Index oh = s.oh(), ow = s.ow(), terms = s.terms(), channels = s.group_c();
  if (s.n * s.k * oh * ow == 0) return;
  const Index reach_h = tap_reach(s.kernel.h, s.dilation.h, s.stride.h);
  const Index reach_w = tap_reach(s.kernel.w, s.dilation.w, s.stride.w);
  const Index pitch = ow + reach_w, phases = s.stride.h * s.stride.w;
  const auto pieces = make_pieces(s.n, oh, pitch, reach_h,
                                  piece_positions<T>(channels * phases + s.group_k(), 192));
  const Index piece_plane = (pieces.rows + reach_h) * pitch,
              piece_flat = pieces.images * piece_plane;

  Scratch<Index> offset(terms);
  term_offsets(offset.data(), s, piece_flat, pitch);
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
  const Index cost = s.group_k() * terms * piece_flat;
  const auto compute = [&](Index item, T* staged) {
    T* sums = staged + staged_size;
    const Index group = item % s.groups;
    const Piece piece = pieces.at(item / s.groups);
    const Index plane = (piece.rows + reach_h) * pitch;
    for (Index c = 0; c < channels; ++c)
      stage_phases(staged + c * phases * piece_flat, piece_flat,
                   x + (piece.image * s.c + group * channels + c) * s.h * s.w, s, piece, reach_h,
                   pitch);
    const Index flat = (piece.images - 1) * plane + (piece.rows - 1) * pitch + ow;
    Ahead ahead;
    ahead.add(x + group * channels * s.h * s.w, pieces, piece.index, s.c, channels, s.h * s.w,
              s.stride.h * s.w);
    ahead.spread(correlate_tiles<T>(terms, rows, flat));
    correlate(sums, piece_flat, packed.data() + group * s.group_k() * terms, staged, offset.data(),
              terms, rows, flat, {.bias = bias ? bias + group * s.group_k() : nullptr}, &ahead);
    for (Index i = 0; i < piece.images; ++i)
      for (Index k = 0; k < s.group_k(); ++k) {
        const Index channel = group * s.group_k() + k;
        T* to = y + (((piece.image + i) * s.k + channel) * oh + piece.row) * ow;
        const T* from = sums + k * piece_flat + i * plane;
        for (Index r = 0; r < piece.rows; ++r, to += ow, from += pitch) std::copy_n(from, ow, to);
      }
  };
  for_each_item<T>(pieces.count() * s.groups, cost, staged_size + sums_size, staged_size, compute);
}

template <class T>
void backward_data_by_planes(T* dx, const T* dy, const T* weight, const Conv2dSizes& s) {
  const Index oh = s.oh(), ow = s.ow(), channels = s.group_k();
  if (s.n * s.c * s.h * s.w == 0) return;
  const Index reach_h = tap_reach(s.kernel.h, s.dilation.h, s.stride.h);
  const Index reach_w = tap_reach(s.kernel.w, s.dilation.w, s.stride.w);
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
      const auto pieces =
          make_pieces(s.n, height, pitch, reach_h, piece_positions<T>(channels + s.group_c(), 192));
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
      const Index cost = s.group_c() * (terms + 1) * piece_flat;
      const auto compute = [&](Index item, T* staged) {
        T* sums = staged + staged_size;
        const Index group = item % s.groups;
        const Piece piece = pieces.at(item / s.groups);
        const Index plane = (piece.rows + reach_h) * pitch;
        const Index flat = (piece.images - 1) * plane + (piece.rows - 1) * pitch + width;
        if (terms > 0)
          for (Index k = 0; k < channels; ++k)
            for (Index i = 0; i < piece.images; ++i)
              stage_plane(staged + k * piece_flat + i * plane,
                          dy + ((piece.image + i) * s.k + group * channels + k) * oh * ow, oh, ow,
                          skip_h + piece.row - reach_h, 1, piece.rows + reach_h, skip_w - reach_w,
                          1, pitch);
        Ahead ahead;
        ahead.add(dy + group * channels * oh * ow, pieces, piece.index, s.k, channels, oh * ow, ow);
        ahead.spread(correlate_tiles<T>(terms, rows, flat));
        correlate(sums, piece_flat, packed.data() + group * s.group_c() * terms, staged,
                  offset.data(), terms, rows, flat, {}, &ahead);
        for (Index i = 0; i < piece.images; ++i)
          for (Index c = 0; c < s.group_c(); ++c) {
            T* plane_dx = dx + ((piece.image + i) * s.c + group * s.group_c() + c) * s.h * s.w;
            for (Index r = 0; r < piece.rows; ++r) {
              const T* from = sums + c * piece_flat + i * plane + r * pitch;
              T* line = plane_dx + (first_h + (piece.row + r) * s.stride.h) * s.w + first_w;
              if (s.stride.w == 1)
                std::copy_n(from, width, line);
              else
                for (Index j = 0; j < width; ++j) line[j * s.stride.w] = from[j];
            }
          }
      };
      for_each_item<T>(pieces.count() * s.groups, cost, staged_size + sums_size, staged_size,
                       compute);
    }
}

/// For few channels: products of planes of dy and shifted planes of x, summed along the rows.
template <class T>
void backward_weight_by_planes(T* dweight, const T* dy, const T* x, const Conv2dSizes& s) {
  const Index oh = s.oh(), ow = s.ow(), terms = s.terms(), channels = s.group_c();
  const Index weights = s.k * terms;
  const Index reach_h = tap_reach(s.kernel.h, s.dilation.h, s.stride.h);
  const Index reach_w = tap_reach(s.kernel.w, s.dilation.w, s.stride.w);
  const Index pitch = ow + reach_w, phases = s.stride.h * s.stride.w;
  const auto pieces = make_pieces(std::max<Index>(1, s.n), oh, pitch, reach_h,
                                  piece_positions<T>(channels * phases + s.group_k(), 2048));
  const Index piece_flat = pieces.images * (pieces.rows + reach_h) * pitch + Pack<T>::width;

  Scratch<Index> offset(terms);
  term_offsets(offset.data(), s, piece_flat, pitch);

  const Chunks chunks =
      make_chunks(s.n == 0 ? 0 : pieces.count(), weights * piece_flat, most_partials(weights));
  const Index staged_size = (channels * phases + s.group_k()) * piece_flat + 2 * Pack<T>::width;
  const Scratch<T> partial(std::max<Index>(1, chunks.count) * weights);
  const Index workers = worker_count(chunks.count);
  const Scratch<T> scratch(workers * staged_size);
  const auto run = [&](Index chunk, Index worker) {
    T* staged = scratch.data() + worker * staged_size;
    T* staged_dy = staged + channels * phases * piece_flat + Pack<T>::width;
    T* sums = partial.data() + chunk * weights;
    std::fill_n(sums, weights, T(0));
    std::fill_n(staged, staged_size, T(0));
    for (Index index = chunks.begin(chunk); index < chunks.end(chunk); ++index) {
      const Piece piece = pieces.at(index);
      const Index plane = (piece.rows + reach_h) * pitch, flat = piece.images * plane;
      for (Index g = 0; g < s.groups; ++g) {
        for (Index c = 0; c < channels; ++c)
          stage_phases(staged + c * phases * piece_flat, piece_flat,
                       x + (piece.image * s.c + g * channels + c) * s.h * s.w, s, piece, reach_h,
                       pitch);
        for (Index k = 0; k < s.group_k(); ++k) {
          // Zero in the rows and columns that belong to no output, so that x does not count there.
          for (Index i = 0; i < piece.images; ++i)
            stage_plane(
                staged_dy + k * piece_flat + i * plane,
                dy + (((piece.image + i) * s.k + g * s.group_k() + k) * oh + piece.row) * ow,
                piece.rows, ow, 0, 1, piece.rows + reach_h, 0, 1, pitch);
          std::fill_n(staged_dy + k * piece_flat + flat, Pack<T>::width, T(0));
        }
        dots_block(sums + g * s.group_k() * terms, terms, staged_dy, piece_flat, staged,
                   offset.data(), s.group_k(), terms, DotsRange{.cols = flat});
      }
    }
  };
  parallel_for(chunks.count, run, workers);
  merge_partials(dweight, partial.data(), chunks.count, s.k, terms);
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
