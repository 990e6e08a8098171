#pragma once
/// @file
/// Direct convolution on flattened rows.
///
/// A plane of pitch P is one long row, so that the output at flat position p is
/// sum_r w[r] * x[p + offset[r]], r running over input channels and taps: the inner loop of a
/// matrix product, with shifted views of x in place of a copied (im2col) matrix. The few columns at
/// each row's end that belong to no output are computed and thrown away.
///
/// Images are first copied ("staged") into scratch that holds the zero padding; a stride splits the
/// copy into stride_h * stride_w phases, after which every tap is a unit-stride view again. Small
/// images are staged several side by side, large ones in bands of rows.

#include <algorithm>

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/core/shape.hpp"
#include "minnow/kernels/tile.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// The sizes of a convolution: x [n, c, h, w], weight [k, c / groups, kernel], y [n, k, oh(),
/// ow()].
struct Conv2dSizes {
  Index n, c, h, w, k;
  Size2 kernel = 1, stride = 1, padding = 0, dilation = 1;
  Index groups = 1;

  Index oh() const { return (h + 2 * padding.h - dilation.h * (kernel.h - 1) - 1) / stride.h + 1; }
  Index ow() const { return (w + 2 * padding.w - dilation.w * (kernel.w - 1) - 1) / stride.w + 1; }
  Index group_c() const { return c / groups; }
  Index group_k() const { return k / groups; }
  Index taps() const { return kernel.h * kernel.w; }
  /// Terms of the sum that makes one output.
  Index terms() const { return group_c() * taps(); }
};

namespace detail {

/// Where one tap reads along one axis: phase `u % stride` at distance `u / stride`.
struct Tap {
  Index phase, distance;
};
inline Tap tap_of(Index k, Index dilation, Index stride) {
  return {k * dilation % stride, k * dilation / stride};
}
/// The largest distance of any tap: how far a band reaches beyond its own rows.
inline Index tap_reach(Index kernel, Index dilation, Index stride) {
  return (kernel - 1) * dilation / stride;
}

/// True if some tap reads this phase.
inline bool phase_is_read(Index phase, Index kernel, Index dilation, Index stride) {
  for (Index k = 0; k < kernel; ++k)
    if (tap_of(k, dilation, stride).phase == phase) return true;
  return false;
}

/// out[i, j] = x[row + i * row_step, col + j * col_step], zero outside the plane x [h, w].
template <class T>
void stage_plane(T* out, const T* x, Index h, Index w, Index row, Index row_step, Index rows,
                 Index col, Index col_step, Index cols) {
  const Index first = std::clamp<Index>(col < 0 ? (-col + col_step - 1) / col_step : 0, 0, cols);
  const Index last =
      std::clamp<Index>(col < w ? (w - col + col_step - 1) / col_step : 0, first, cols);
  for (Index i = 0; i < rows; ++i, out += cols) {
    const Index source = row + i * row_step;
    if (source < 0 || source >= h) {
      std::fill_n(out, cols, T(0));
      continue;
    }
    std::fill_n(out, first, T(0));
    const T* from = x + source * w + col + first * col_step;
    if (col_step == 1)
      std::copy_n(from, last - first, out + first);
    else
      for (Index j = first; j < last; ++j, from += col_step) out[j] = *from;
    std::fill(out + last, out + cols, T(0));
  }
}

/// Copies one channel of a piece: out [phase][image][row][col]. Phases that no tap reads are left
/// out.
template <class T>
void stage_phases(T* out, Index phase_pitch, const T* x, const Conv2dSizes& s, Index images,
                  Index row, Index rows, Index pitch) {
  for (Index a = 0; a < s.stride.h; ++a)
    for (Index b = 0; b < s.stride.w; ++b, out += phase_pitch) {
      if (!phase_is_read(a, s.kernel.h, s.dilation.h, s.stride.h)) continue;
      if (!phase_is_read(b, s.kernel.w, s.dilation.w, s.stride.w)) continue;
      for (Index i = 0; i < images; ++i)
        stage_plane(out + i * rows * pitch, x + i * s.c * s.h * s.w, s.h, s.w,
                    row * s.stride.h + a - s.padding.h, s.stride.h, rows, b - s.padding.w,
                    s.stride.w, pitch);
    }
}

/// How images are cut into pieces that are staged together: several whole images, or a band of rows
/// of one. `flat` positions of a piece lie at `pitch`, one image `plane` positions after the other.
struct Pieces {
  Index images, rows;            ///< of a full piece
  Index image_count, row_count;  ///< altogether

  Index per_image() const { return (row_count + rows - 1) / rows; }
  Index count() const { return (image_count + images - 1) / images * per_image(); }
  Index image(Index piece) const { return piece / per_image() * images; }
  Index row(Index piece) const { return piece % per_image() * rows; }
  Index images_of(Index piece) const { return std::min(images, image_count - image(piece)); }
  Index rows_of(Index piece) const { return std::min(rows, row_count - row(piece)); }
};

/// Pieces of about `target` positions of one channel; `reach` rows of each band are staged twice.
inline Pieces make_pieces(Index images, Index rows, Index pitch, Index reach, Index target) {
  const Index plane = (rows + reach) * pitch;
  if (plane <= target) return {std::clamp<Index>(target / plane, 1, images), rows, images, rows};
  const Index bands = std::max<Index>(1, target / pitch - reach);
  const Index band_count = (rows + bands - 1) / bands;
  return {1, (rows + band_count - 1) / band_count, images, rows};
}

/// Positions of one channel in a piece, such that `channels` staged planes fit half the
/// second-level cache and a loop over a plane is long enough to forget its start.
template <class T>
Index piece_positions(Index channels, Index least) {
  constexpr Index budget = Index{512} * 1024 / Index{sizeof(T)};
  return std::max(least, budget / std::max<Index>(1, channels));
}

/// Terms that are summed in one go: their packed weights stay in the first-level cache.
inline constexpr Index conv_depth = 512;

/// y[i, p] = sum_r a[r, i] * x[p + offset[r]] for all `rows.items` rows i and p < flat.
/// a is packed tile by tile, [r][height] each, a tile beginning at row i at a + i * terms. Without
/// terms y becomes zero.
template <class T>
void correlate(T* y, Index y_pitch, const T* a, const T* x, const Index* offset, Index terms,
               TileRows rows, Index flat) {
  Index r = 0;
  do {
    for (Index t = 0; t < rows.count; ++t)
      tile_row(y + rows.begin(t) * y_pitch, y_pitch, a + rows.begin(t) * terms + r * rows.height(t),
               x, offset + r, std::min(conv_depth, terms - r), rows.height(t), flat, r > 0);
  } while ((r += conv_depth) < terms);
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
  using detail::tap_of;
  const Index oh = s.oh(), ow = s.ow(), terms = s.terms(), channels = s.group_c();
  if (s.n * s.k * oh * ow == 0) return;
  const Index reach_h = detail::tap_reach(s.kernel.h, s.dilation.h, s.stride.h);
  const Index reach_w = detail::tap_reach(s.kernel.w, s.dilation.w, s.stride.w);
  const Index pitch = ow + reach_w, phases = s.stride.h * s.stride.w;
  const auto pieces = detail::make_pieces(
      s.n, oh, pitch, reach_h, detail::piece_positions<T>(channels * phases + s.group_k(), 1024));
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
          s.n, height, pitch, reach_h, detail::piece_positions<T>(channels + s.group_c(), 1024));
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
  using detail::tap_of;
  const Index oh = s.oh(), ow = s.ow(), terms = s.terms(), channels = s.group_c();
  const Index weights = s.k * terms;
  const Index reach_h = detail::tap_reach(s.kernel.h, s.dilation.h, s.stride.h);
  const Index reach_w = detail::tap_reach(s.kernel.w, s.dilation.w, s.stride.w);
  const Index pitch = ow + reach_w, phases = s.stride.h * s.stride.w;
  const auto pieces =
      detail::make_pieces(std::max<Index>(1, s.n), oh, pitch, reach_h,
                          detail::piece_positions<T>(channels * phases + s.group_k(), 2048));
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

  const Index most = weights > 65536 ? 8 : 16;  // each chunk holds a copy of the weights' gradient
  const Chunks chunks = make_chunks(s.n == 0 ? 0 : pieces.count(), weights * piece_flat, most);
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
          detail::stage_phases(staged + c * phases * piece_flat, piece_flat,
                               x + (image * s.c + g * channels + c) * s.h * s.w, s, images, row,
                               count + reach_h, pitch);
        for (Index k = 0; k < s.group_k(); ++k) {
          // Zero in the rows and columns that belong to no output, so that x does not count there.
          for (Index i = 0; i < images; ++i)
            detail::stage_plane(staged_dy + k * piece_flat + i * plane,
                                dy + (((image + i) * s.k + g * s.group_k() + k) * oh + row) * ow,
                                count, ow, 0, 1, count + reach_h, 0, 1, pitch);
          std::fill_n(staged_dy + k * piece_flat + flat, Pack<T>::width, T(0));
        }
        dots_block(sums + g * s.group_k() * terms, terms, staged_dy, piece_flat, staged,
                   offset.data(), s.group_k(), terms, DotsRange{.cols = flat});
      }
    }
  };
  parallel_for(chunks.count, run, workers);
  parallel_chunks(weights, chunks.count, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      double total = 0;
      for (Index chunk = 0; chunk < chunks.count; ++chunk)
        total += static_cast<double>(partial.data()[chunk * weights + i]);
      dweight[i] = static_cast<T>(total);
    }
  });
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
