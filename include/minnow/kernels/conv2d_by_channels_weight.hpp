#pragma once
/// @file
/// The weights' gradient of a convolution with channels in lanes.

#include <algorithm>

#include "minnow/kernels/conv2d_staging.hpp"
#include "minnow/kernels/lanes.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// out[p, c] = x[c, p] for p < flat and c < channels; a plane of x is `plane` long.
template <class T>
void turn(T* out, const T* x, Index channels, Index flat, Index plane) {
  constexpr Index W = Pack<T>::width;
  const Index whole = channels / W * W;
  Index p = 0;
  for (; p + W <= flat; p += W)
    for (Index c = 0; c < whole; c += W) {
      Pack<T> block[W];
      MINNOW_UNROLL
      for (Index j = 0; j < W; ++j) block[j] = Pack<T>::load(x + (c + j) * plane + p);
      transpose(block);
      MINNOW_UNROLL
      for (Index j = 0; j < W; ++j) block[j].store(out + (p + j) * channels + c);
    }
  for (Index c = 0; c < channels; ++c)
    for (Index rest = c < whole ? p : 0; rest < flat; ++rest)
      out[rest * channels + c] = x[c * plane + rest];
}

/// The same for a tile's few channels.
template <class T>
void turn_few(T* out, const T* x, Index channels, Index flat, Index plane) {
  constexpr Index W = Pack<T>::width;
  Index p = 0;
  for (; channels <= W && p + W <= flat; p += W) {
    Pack<T> block[W];
    MINNOW_UNROLL
    for (Index j = 0; j < W; ++j)
      block[j] = j < channels ? Pack<T>::load(x + j * plane + p) : Pack<T>::zero();
    transpose(block);
    MINNOW_UNROLL
    for (Index j = 0; j < W; ++j) block[j].store(out + (p + j) * channels, channels);
  }
  for (; p < flat; ++p)
    for (Index j = 0; j < channels; ++j) out[p * channels + j] = x[j * plane + p];
}

/// For many channels: a matrix product of dy with x turned so that channels are its columns, one
/// for each tap. No row has gaps here: the terms are the positions of the outputs, wherever they
/// lie.
template <class T>
void backward_weight_by_channels(T* dweight, const T* dy, const T* x, const Conv2dSizes& s) {
  const Index oh = s.oh(), ow = s.ow(), channels = s.group_c(), taps = s.taps();
  const Index weights = s.k * channels * taps;
  const Size2 reach = s.reach();
  const Index pitch = ow + reach.w, phases = s.phases();
  const auto pieces = make_pieces(std::max<Index>(1, s.n), oh, pitch, reach.h,
                                  piece_positions<T>(2 * channels * phases + s.group_k(), 256));
  const Index piece_flat = pieces.images * (pieces.rows + reach.h) * pitch;
  const Index piece_terms = pieces.images * pieces.rows * ow;
  const TileRows rows{s.group_k()};
  const bool in_place = is_flat(s);

  const Chunks chunks =
      make_chunks(s.n == 0 ? 0 : pieces.count(), weights * piece_terms, most_partials(weights));
  const Scratch<T> partial(std::max<Index>(1, chunks.count) * weights);
  const Index workers = worker_count(chunks);
  const Index planes_size = in_place ? 0 : channels * piece_flat;
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
    for (Index index = chunks.begin(chunk); index < chunks.end(chunk); ++index) {
      const Piece piece = pieces.at(index);
      const Index plane = (piece.rows + reach.h) * pitch, terms = piece.images * piece.rows * ow;
      for (Index i = 0, r = 0; i < piece.images; ++i)
        for (Index line = 0; line < piece.rows; ++line)
          for (Index j = 0; j < ow; ++j, ++r) offset[r] = (i * plane + line * pitch + j) * channels;
      for (Index g = 0; g < s.groups; ++g) {
        const T* from = x + (piece.image * s.c + g * channels) * s.h * s.w;
        for (Index i = 0; i < piece.images && in_place; ++i)
          turn(turned + i * plane * channels, from + (i * s.c * s.h + piece.row) * s.w, channels,
               plane, s.h * s.w);
        for (Index c = 0; c < channels && !in_place; ++c)
          stage_phases(planes + c * piece_flat, planes_size, from + c * s.h * s.w, s, piece,
                       reach.h, pitch);
        for (Index phase = 0; phase < phases && !in_place; ++phase)
          turn(turned + phase * piece_flat * channels, planes + phase * planes_size, channels,
               piece.images * plane, piece_flat);
        for (Index t = 0; t < rows.count; ++t)
          for (Index i = 0; i < piece.images; ++i)
            turn_few(packed + rows.begin(t) * terms + i * piece.rows * ow * rows.height(t),
                     dy + (((piece.image + i) * s.k + g * s.group_k() + rows.begin(t)) * oh +
                           piece.row) *
                              ow,
                     rows.height(t), piece.rows * ow, oh * ow);
        Ahead ahead;
        ahead.add(x + g * channels * s.h * s.w, pieces, index, s.c, channels, s.h * s.w,
                  s.stride.h * s.w);
        ahead.add(dy + g * s.group_k() * oh * ow, pieces, index, s.k, s.group_k(), oh * ow, ow);
        ahead.spread(taps * correlate_tiles<T>(terms, rows, channels));
        for (Index tap = 0; tap < taps; ++tap) {
          const auto th = tap_of(tap / s.kernel.w, s.dilation.h, s.stride.h);
          const auto tw = tap_of(tap % s.kernel.w, s.dilation.w, s.stride.w);
          const Index shift =
              (th.phase * s.stride.w + tw.phase) * piece_flat + th.distance * pitch + tw.distance;
          correlate(sums + (g * taps + tap) * s.group_k() * channels, channels, packed,
                    turned + shift * channels, offset, terms, rows, channels, {.accumulate = true},
                    &ahead);
        }
      }
    }
  };
  parallel_for(chunks.count, run, workers);
  // The sums lie [group][tap][k][c], the weights [group][k][c][tap].
  merge_partials(
      partial.data(), chunks.count, s.k * taps, channels,
      [&](Index row) {
        const Index k = row / taps, tap = row % taps;
        return (k / s.group_k() * taps + tap) * s.group_k() + k % s.group_k();
      },
      [&](Index row, const double* totals) {
        T* to = dweight + row / taps * channels * taps + row % taps;
        for (Index c = 0; c < channels; ++c) to[c * taps] = static_cast<T>(totals[c]);
      });
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
