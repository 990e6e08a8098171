#pragma once
/// @file
/// Direct convolution with neighbouring positions of a plane in lanes: for images of any size and
/// any options. How it works is told in conv2d_staging.hpp.

#include <algorithm>

#include "minnow/core/items.hpp"
#include "minnow/kernels/conv2d_staging.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

template <class T>
void forward_by_planes(T* y, const T* x, const T* weight, const T* bias, const Conv2dSizes& s) {
  const Index oh = s.oh(), ow = s.ow(), terms = s.terms(), channels = s.group_c();
  if (s.n * s.k * oh * ow == 0) return;
  const Size2 reach = s.reach();
  const Index pitch = ow + reach.w, phases = s.phases();
  const auto pieces = make_pieces(s.n, oh, pitch, reach.h,
                                  piece_positions<T>(channels * phases + s.group_k(), 192));
  const Index piece_plane = (pieces.rows + reach.h) * pitch,
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
    const Index plane = (piece.rows + reach.h) * pitch;
    for (Index c = 0; c < channels; ++c)
      stage_phases(staged + c * phases * piece_flat, piece_flat,
                   x + (piece.image * s.c + group * channels + c) * s.h * s.w, s, piece, reach.h,
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

/// The inputs u = first + stride * i of one axis, i < count: those whose padded place has one
/// remainder by the stride, `phase`. Their sums read dy from place i + skip - distance on.
struct InputPhase {
  Index skip, first, count;

  InputPhase(Index phase, Index size, Index stride, Index padding)
      : skip(std::max<Index>(0, (padding - phase + stride - 1) / stride)),
        first(skip * stride + phase - padding),
        count(std::max<Index>(0, (size - first + stride - 1) / stride)) {}
};

/// line[first + stride * j] = the number j of a row of each phase.
template <class T>
void merge_phases(T* line, Index size, const T* rows, Index pitch, Index stride, Index padding) {
  using V = Pack<T>;
  constexpr Index W = V::width;
  if (stride == 2 && W > 1) {
    const Index even = padding % 2;  // the phase that begins with the first column
    const T *evens = rows + even * pitch, *odds = rows + (1 - even) * pitch;
    for (Index j = 0; j < size; j += 2 * W, evens += W, odds += W) {
      V a, b;
      interleave(V::load(evens), V::load(odds), a, b);
      a.store(line + j, std::min(W, size - j));
      if (size - j > W) b.store(line + j + W, std::min(W, size - j - W));
    }
    return;
  }
  for (Index of = 0; of < stride; ++of) {
    const InputPhase phase(of, size, stride, padding);
    const T* from = rows + of * pitch;
    if (stride == 1)
      std::copy_n(from, size, line);
    else
      for (Index j = 0; j < phase.count; ++j) line[phase.first + j * stride] = from[j];
  }
}

template <class T>
void backward_data_by_planes(T* dx, const T* dy, const T* weight, const Conv2dSizes& s) {
  const Index oh = s.oh(), ow = s.ow(), channels = s.group_k();
  if (s.n * s.c * s.h * s.w == 0) return;
  const Size2 reach = s.reach();
  const TileRows rows{s.group_c()};
  Scratch<Index> offset(channels * s.taps());
  Scratch<T> packed(s.groups * s.group_c() * channels * s.taps());
  // Columns of all phases are summed from the same staged rows.
  const Index first_col = s.padding.w / s.stride.w - reach.w;
  const Index width = (s.w - 1) / s.stride.w + 1, pitch = width + reach.w + 1;

  for (Index of_h = 0; of_h < s.stride.h; ++of_h) {
    const InputPhase phase_h(of_h, s.h, s.stride.h, s.padding.h);
    if (phase_h.count == 0) continue;
    const auto pieces = make_pieces(s.n, phase_h.count, pitch, reach.h,
                                    piece_positions<T>(channels + s.stride.w * s.group_c(), 192));
    const Index piece_flat = pieces.images * (pieces.rows + reach.h) * pitch;

    // The terms of each phase of the columns, one after the other.
    Scratch<Index> begin(s.stride.w + 1);
    begin.data()[0] = 0;
    T* to = packed.data();
    for (Index of_w = 0; of_w < s.stride.w; ++of_w) {
      const InputPhase phase_w(of_w, s.w, s.stride.w, s.padding.w);
      Index terms = begin.data()[of_w];
      const auto for_taps = [&](const auto& f) {
        for (Index tap = 0; tap < s.taps(); ++tap) {
          const Tap th = tap_of(tap / s.kernel.w, s.dilation.h, s.stride.h),
                    tw = tap_of(tap % s.kernel.w, s.dilation.w, s.stride.w);
          if (th.phase == of_h && tw.phase == of_w) f(tap, th.distance, tw.distance);
        }
      };
      for (Index k = 0; k < channels; ++k)
        for_taps([&](Index, Index down, Index right) {
          offset.data()[terms++] =
              k * piece_flat + (reach.h - down) * pitch + phase_w.skip - first_col - right;
        });
      begin.data()[of_w + 1] = terms;
      for (Index g = 0; g < s.groups; ++g)
        for (Index t = 0; t < rows.count; ++t)
          for (Index k = g * channels; k < (g + 1) * channels; ++k)
            for_taps([&](Index tap, Index, Index) {
              for (Index i = rows.begin(t); i < rows.begin(t + 1); ++i)
                *to++ = weight[(k * s.group_c() + i) * s.taps() + tap];
            });
    }

    const Index slack = tile_cols<T>;  // a tile reads whole packs
    const Index all_terms = begin.data()[s.stride.w];
    const Index staged_size = channels * piece_flat + slack, sums_phase = s.group_c() * piece_flat,
                sums_size = s.stride.w * sums_phase + slack;
    const Index cost = s.group_c() * (all_terms + s.stride.w) * piece_flat;
    const auto compute = [&](Index item, T* staged) {
      T* sums = staged + staged_size;
      const Index group = item % s.groups;
      const Piece piece = pieces.at(item / s.groups);
      const Index plane = (piece.rows + reach.h) * pitch;
      const Index flat = (piece.images - 1) * plane + (piece.rows - 1) * pitch + width;
      if (all_terms > 0)
        for (Index k = 0; k < channels; ++k)
          for (Index i = 0; i < piece.images; ++i)
            stage_plane(staged + k * piece_flat + i * plane,
                        dy + ((piece.image + i) * s.k + group * channels + k) * oh * ow, oh, ow,
                        phase_h.skip + piece.row - reach.h, 1, piece.rows + reach.h, first_col, 1,
                        pitch);
      Ahead ahead;
      ahead.add(dy + group * channels * oh * ow, pieces, piece.index, s.k, channels, oh * ow, ow);
      ahead.spread(s.stride.w * correlate_tiles<T>(all_terms, rows, flat));
      for (Index of_w = 0; of_w < s.stride.w && all_terms > 0; ++of_w) {
        const Index first = begin.data()[of_w], terms = begin.data()[of_w + 1] - first;
        correlate(sums + of_w * sums_phase, piece_flat,
                  packed.data() + (s.groups * first + group * terms) * s.group_c(), staged,
                  offset.data() + first, terms, rows, flat, {}, &ahead);
      }
      for (Index i = 0; i < piece.images; ++i)
        for (Index c = 0; c < s.group_c(); ++c) {
          T* plane_dx = dx + ((piece.image + i) * s.c + group * s.group_c() + c) * s.h * s.w;
          for (Index r = 0; r < piece.rows; ++r) {
            T* line = plane_dx + (phase_h.first + (piece.row + r) * s.stride.h) * s.w;
            if (all_terms > 0)
              merge_phases(line, s.w, sums + c * piece_flat + i * plane + r * pitch, sums_phase,
                           s.stride.w, s.padding.w);
            else
              std::fill_n(line, s.w, T(0));
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
  const Size2 reach = s.reach();
  const Index pitch = ow + reach.w, phases = s.phases();
  const auto pieces = make_pieces(std::max<Index>(1, s.n), oh, pitch, reach.h,
                                  piece_positions<T>(channels * phases + s.group_k(), 2048));
  const Index piece_flat = pieces.images * (pieces.rows + reach.h) * pitch + Pack<T>::width;

  Scratch<Index> offset(terms);
  term_offsets(offset.data(), s, piece_flat, pitch);

  const Chunks chunks =
      make_chunks(s.n == 0 ? 0 : pieces.count(), weights * piece_flat, most_partials(weights));
  const Index staged_size = (channels * phases + s.group_k()) * piece_flat + 2 * Pack<T>::width;
  const Scratch<T> partial(std::max<Index>(1, chunks.count) * weights);
  const Index workers = worker_count(chunks);
  const Scratch<T> scratch(workers * staged_size);
  const auto run = [&](Index chunk, Index worker) {
    T* staged = scratch.data() + worker * staged_size;
    T* staged_dy = staged + channels * phases * piece_flat + Pack<T>::width;
    T* sums = partial.data() + chunk * weights;
    std::fill_n(sums, weights, T(0));
    std::fill_n(staged, staged_size, T(0));
    for (Index index = chunks.begin(chunk); index < chunks.end(chunk); ++index) {
      const Piece piece = pieces.at(index);
      const Index plane = (piece.rows + reach.h) * pitch, flat = piece.images * plane;
      for (Index g = 0; g < s.groups; ++g) {
        for (Index c = 0; c < channels; ++c)
          stage_phases(staged + c * phases * piece_flat, piece_flat,
                       x + (piece.image * s.c + g * channels + c) * s.h * s.w, s, piece, reach.h,
                       pitch);
        for (Index k = 0; k < s.group_k(); ++k) {
          // Zero in the rows and columns that belong to no output, so that x does not count there.
          for (Index i = 0; i < piece.images; ++i)
            stage_plane(
                staged_dy + k * piece_flat + i * plane,
                dy + (((piece.image + i) * s.k + g * s.group_k() + k) * oh + piece.row) * ow,
                piece.rows, ow, 0, 1, piece.rows + reach.h, 0, 1, pitch);
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
