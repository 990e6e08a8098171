#pragma once
/// @file
/// Direct convolution on flattened rows: backward to the weights.

#include <algorithm>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/kernels/conv2d_staging.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

/// How many partial gradients may exist at a time: each is as large as the weights.
inline Index most_partials(Index weights) {
  return weights > 262144 ? 4 : weights > 65536 ? 8 : 16;
}

/// dweight[i] = the sum over the chunks of partial[chunk, place(i)], in order and in double.
template <class T, class Place>
void merge_partials(T* dweight, const T* partial, Index chunks, Index weights, const Place& place) {
  parallel_chunks(weights, chunks, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      double total = 0;
      const Index at = place(i);
      for (Index chunk = 0; chunk < chunks; ++chunk)
        total += static_cast<double>(partial[chunk * weights + at]);
      dweight[i] = static_cast<T>(total);
    }
  });
}

/// out[p, c] = x[c, p] for p < flat and c < channels; a plane of x is `plane` long.
template <class T>
void turn(T* out, const T* x, Index channels, Index flat, Index plane) {
  constexpr Index width = Pack<T>::width;
  Index c = 0;
  for (; c + width <= channels; c += width) {
    Index p = 0;
    for (; p + width <= flat; p += width) {
      Pack<T> block[static_cast<std::size_t>(width)];
      for (Index j = 0; j < width; ++j) block[j] = Pack<T>::load(x + (c + j) * plane + p);
      transpose(block);
      for (Index j = 0; j < width; ++j) block[j].store(out + (p + j) * channels + c);
    }
    for (; p < flat; ++p)
      for (Index j = c; j < c + width; ++j) out[p * channels + j] = x[j * plane + p];
  }
  for (; c < channels; ++c)
    for (Index p = 0; p < flat; ++p) out[p * channels + c] = x[c * plane + p];
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
  for (Index c = 0, r = 0; c < channels; ++c)
    for (Index a = 0; a < s.kernel.h; ++a)
      for (Index b = 0; b < s.kernel.w; ++b, ++r) {
        const auto th = tap_of(a, s.dilation.h, s.stride.h),
                   tw = tap_of(b, s.dilation.w, s.stride.w);
        offset.data()[r] = (c * phases + th.phase * s.stride.w + tw.phase) * piece_flat +
                           th.distance * pitch + tw.distance;
      }

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
    for (Index piece = chunks.begin(chunk); piece < chunks.end(chunk); ++piece) {
      const Index image = pieces.image(piece), images = pieces.images_of(piece);
      const Index row = pieces.row(piece), count = pieces.rows_of(piece);
      const Index plane = (count + reach_h) * pitch, flat = images * plane;
      for (Index g = 0; g < s.groups; ++g) {
        for (Index c = 0; c < channels; ++c)
          stage_phases(staged + c * phases * piece_flat, piece_flat,
                       x + (image * s.c + g * channels + c) * s.h * s.w, s, images, row,
                       count + reach_h, pitch);
        for (Index k = 0; k < s.group_k(); ++k) {
          // Zero in the rows and columns that belong to no output, so that x does not count there.
          for (Index i = 0; i < images; ++i)
            stage_plane(staged_dy + k * piece_flat + i * plane,
                        dy + (((image + i) * s.k + g * s.group_k() + k) * oh + row) * ow, count, ow,
                        0, 1, count + reach_h, 0, 1, pitch);
          std::fill_n(staged_dy + k * piece_flat + flat, Pack<T>::width, T(0));
        }
        dots_block(sums + g * s.group_k() * terms, terms, staged_dy, piece_flat, staged,
                   offset.data(), s.group_k(), terms, DotsRange{.cols = flat});
      }
    }
  };
  parallel_for(chunks.count, run, workers);
  merge_partials(dweight, partial.data(), chunks.count, weights, [](Index i) { return i; });
}

/// For many channels: a matrix product of dy with x turned so that channels are its columns, one
/// for each tap. No row has gaps here: the terms are the positions of the outputs, wherever they
/// lie.
template <class T>
void backward_weight_by_channels(T* dweight, const T* dy, const T* x, const Conv2dSizes& s) {
  const Index oh = s.oh(), ow = s.ow(), channels = s.group_c(), taps = s.taps();
  const Index weights = s.k * channels * taps;
  const Index reach_h = tap_reach(s.kernel.h, s.dilation.h, s.stride.h);
  const Index reach_w = tap_reach(s.kernel.w, s.dilation.w, s.stride.w);
  const Index pitch = ow + reach_w, phases = s.stride.h * s.stride.w;
  const auto pieces = make_pieces(std::max<Index>(1, s.n), oh, pitch, reach_h,
                                  piece_positions<T>(2 * channels * phases + s.group_k(), 256));
  const Index piece_flat = pieces.images * (pieces.rows + reach_h) * pitch;
  const Index piece_terms = pieces.images * pieces.rows * ow;
  const TileRows rows{s.group_k()};

  const Chunks chunks =
      make_chunks(s.n == 0 ? 0 : pieces.count(), weights * piece_terms, most_partials(weights));
  const Scratch<T> partial(std::max<Index>(1, chunks.count) * weights);
  const Index workers = worker_count(chunks.count);
  const Index planes_size = channels * piece_flat;
  const Index turned_size = phases * piece_flat * channels + tile_cols<T>;
  const Index packed_size = s.group_k() * piece_terms;
  const Scratch<T> scratch(workers * (phases * planes_size + turned_size + packed_size));
  const Scratch<Index> offsets(workers * piece_terms);
  const auto run = [&](Index chunk, Index worker) {
    T* planes = scratch.data() + worker * (phases * planes_size + turned_size + packed_size);
    T *turned = planes + phases * planes_size, *packed = turned + turned_size;
    Index* offset = offsets.data() + worker * piece_terms;
    T* sums = partial.data() + chunk * weights;
    std::fill_n(sums, weights, T(0));
    std::fill_n(turned + turned_size - tile_cols<T>, tile_cols<T>, T(0));
    for (Index piece = chunks.begin(chunk); piece < chunks.end(chunk); ++piece) {
      const Index image = pieces.image(piece), images = pieces.images_of(piece);
      const Index row = pieces.row(piece), count = pieces.rows_of(piece);
      const Index plane = (count + reach_h) * pitch, terms = images * count * ow;
      for (Index i = 0, r = 0; i < images; ++i)
        for (Index line = 0; line < count; ++line)
          for (Index j = 0; j < ow; ++j, ++r) offset[r] = (i * plane + line * pitch + j) * channels;
      for (Index g = 0; g < s.groups; ++g) {
        for (Index c = 0; c < channels; ++c)
          stage_phases(planes + c * piece_flat, planes_size,
                       x + (image * s.c + g * channels + c) * s.h * s.w, s, images, row,
                       count + reach_h, pitch);
        for (Index phase = 0; phase < phases; ++phase)
          turn(turned + phase * piece_flat * channels, planes + phase * planes_size, channels,
               images * plane, piece_flat);
        for (Index t = 0; t < rows.count; ++t)
          for (Index i = 0; i < images; ++i)
            for (Index k = rows.begin(t); k < rows.begin(t + 1); ++k) {
              const T* from = dy + (((image + i) * s.k + g * s.group_k() + k) * oh + row) * ow;
              T* to = packed + rows.begin(t) * terms + i * count * ow * rows.height(t) + k -
                      rows.begin(t);
              for (Index p = 0; p < count * ow; ++p) to[p * rows.height(t)] = from[p];
            }
        for (Index tap = 0; tap < taps; ++tap) {
          const auto th = tap_of(tap / s.kernel.w, s.dilation.h, s.stride.h);
          const auto tw = tap_of(tap % s.kernel.w, s.dilation.w, s.stride.w);
          const Index shift =
              (th.phase * s.stride.w + tw.phase) * piece_flat + th.distance * pitch + tw.distance;
          correlate(sums + (g * taps + tap) * s.group_k() * channels, channels, packed,
                    turned + shift * channels, offset, terms, rows, channels, true);
        }
      }
    }
  };
  parallel_for(chunks.count, run, workers);
  // The sums lie [group][tap][k][c], the weights [group][k][c][tap].
  merge_partials(dweight, partial.data(), chunks.count, weights, [&](Index i) {
    const Index tap = i % taps, c = i / taps % channels, k = i / (taps * channels);
    return ((k / s.group_k() * taps + tap) * s.group_k() + k % s.group_k()) * channels + c;
  });
}

}  // namespace detail

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

}  // namespace minnow::inline MINNOW_ABI::kernels
