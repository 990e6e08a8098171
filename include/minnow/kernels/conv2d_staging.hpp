#pragma once
/// @file
/// Direct convolution on flattened rows: what its forward and backwards share.
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
#include "minnow/kernels/reduce.hpp"
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
  /// Rows and columns that lie a multiple of the stride apart are a phase.
  Index phases() const { return stride.h * stride.w; }
  /// The largest distance of any tap within its phase: how far a band reaches beyond its own rows.
  Size2 reach() const {
    return {(kernel.h - 1) * dilation.h / stride.h, (kernel.w - 1) * dilation.w / stride.w};
  }
};

namespace detail {

/// True for a kernel of one tap that reads its input where it is: all positions are one row.
inline bool is_flat(const Conv2dSizes& s) {
  return s.taps() == 1 && s.stride == Size2(1) && s.padding == Size2(0);
}

/// The convolution of dy with the taps reversed that is the backward to the input of one with
/// stride 1. Its padding may be negative: what is cut off.
inline Conv2dSizes reversed(const Conv2dSizes& s) {
  return {.n = s.n,
          .c = s.k,
          .h = s.oh(),
          .w = s.ow(),
          .k = s.c,
          .kernel = s.kernel,
          .padding = {s.dilation.h * (s.kernel.h - 1) - s.padding.h,
                      s.dilation.w * (s.kernel.w - 1) - s.padding.w},
          .dilation = s.dilation,
          .groups = s.groups};
}

/// Where one tap reads along one axis: phase `u % stride` at distance `u / stride`.
struct Tap {
  Index phase, distance;
};
inline Tap tap_of(Index k, Index dilation, Index stride) {
  return {k * dilation % stride, k * dilation / stride};
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

/// Images that are staged together: several whole ones, or a band of rows of one.
struct Piece {
  Index index, image, images, row, rows;
};

/// How images are cut into pieces.
struct Pieces {
  Index images, rows;            ///< of a full piece
  Index image_count, row_count;  ///< altogether

  Index per_image() const { return (row_count + rows - 1) / rows; }
  Index count() const { return (image_count + images - 1) / images * per_image(); }
  Piece at(Index index) const {
    const Index image = index / per_image() * images, row = index % per_image() * rows;
    return {index, image, std::min(images, image_count - image), row,
            std::min(rows, row_count - row)};
  }
};

/// Pieces of about `target` positions of one channel; `reach` rows of each band are staged twice.
inline Pieces make_pieces(Index images, Index rows, Index pitch, Index reach, Index target) {
  const Index plane = (rows + reach) * pitch;
  if (plane <= target)
    return {std::max<Index>(1, std::min(target / plane, images)), rows, images, rows};
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

/// Copies one channel of a piece, with `reach` rows more than its own: out
/// [phase][image][row][col]. Phases that no tap reads are left out.
template <class T>
void stage_phases(T* out, Index phase_pitch, const T* x, const Conv2dSizes& s, const Piece& piece,
                  Index reach, Index pitch) {
  const Index rows = piece.rows + reach;
  for (Index a = 0; a < s.stride.h; ++a)
    for (Index b = 0; b < s.stride.w; ++b, out += phase_pitch) {
      if (!phase_is_read(a, s.kernel.h, s.dilation.h, s.stride.h)) continue;
      if (!phase_is_read(b, s.kernel.w, s.dilation.w, s.stride.w)) continue;
      for (Index i = 0; i < piece.images; ++i)
        stage_plane(out + i * rows * pitch, x + i * s.c * s.h * s.w, s.h, s.w,
                    piece.row * s.stride.h + a - s.padding.h, s.stride.h, rows, b - s.padding.w,
                    s.stride.w, pitch);
    }
}

/// Where each term (c, a, b) of an output reads in a staged copy [channel][phase][image][row][col]
/// of rows of `pitch` and `piece_flat` positions a phase.
inline void term_offsets(Index* offset, const Conv2dSizes& s, Index piece_flat, Index pitch) {
  for (Index c = 0; c < s.group_c(); ++c)
    for (Index a = 0; a < s.kernel.h; ++a)
      for (Index b = 0; b < s.kernel.w; ++b) {
        const Tap th = tap_of(a, s.dilation.h, s.stride.h),
                  tw = tap_of(b, s.dilation.w, s.stride.w);
        const Index phase = (c * s.stride.h + th.phase) * s.stride.w + tw.phase;
        *offset++ = phase * piece_flat + th.distance * pitch + tw.distance;
      }
}

/// What the next piece will read: asked for little by little while this one is computed, so that
/// its staging finds it in the second-level cache.
class Ahead {
 public:
  /// Adds what the piece after `index` stages of an input [images][all_channels][plane]:
  /// `channels` channels, and of a band of rows as many, beginning at `cols` times their number.
  template <class T>
  void add(const T* x, const Pieces& pieces, Index index, Index all_channels, Index channels,
           Index plane, Index cols) {
    if (index + 1 >= pieces.count()) return;
    const Piece next = pieces.at(index + 1);
    const T* from = x + next.image * all_channels * plane;
    const bool whole = pieces.per_image() == 1;
    const Index first = whole ? 0 : std::min(plane, next.row * cols);
    const Index size = whole ? channels * plane : std::min(pieces.rows * cols, plane - first);
    constexpr Index bytes = sizeof(T);
    streams_[count_++] = {reinterpret_cast<const char*>(from + first),
                          whole ? next.images : channels, size * bytes,
                          (whole ? all_channels : 1) * plane * bytes};
  }

  /// Says how many calls of `fetch` there will be.
  void spread(Index calls) {
    Index lines = 0;
    for (const Stream& stream : streams_)
      lines += stream.segments * ((stream.size + line - 1) / line);
    share_ = (lines + calls - 1) / std::max<Index>(1, calls);
  }
  void fetch() {
    for (Index i = 0; i < share_; ++i) {
      Stream& stream = streams_[streams_[0].segments > 0 ? 0 : 1];
      if (stream.segments == 0) return;
      __builtin_prefetch(stream.from + at_, 0, 2);
      if ((at_ += line) < stream.size) continue;
      at_ = 0;
      stream.from += stream.pitch;
      --stream.segments;
    }
  }

 private:
  static constexpr Index line = 64;
  /// `segments` stretches of `size` bytes, `pitch` bytes apart.
  struct Stream {
    const char* from = nullptr;
    Index segments = 0, size = 0, pitch = 0;
  };
  Stream streams_[2];
  Index count_ = 0, at_ = 0, share_ = 0;
};

/// Terms that are summed in one go: their packed weights stay in the first-level cache.
inline constexpr Index conv_depth = 512;

template <class T>
inline constexpr Index correlate_block = 2 * tile_cols<T>;
template <class T>
Index correlate_tiles(Index terms, const TileRows& rows, Index flat) {
  constexpr Index block = correlate_block<T>;
  return (terms + conv_depth - 1) / conv_depth * ((flat + block - 1) / block) * rows.count;
}

/// y[i, p] (+)= bias[i] + sum_r a[r, i] * x[p + offset[r]] for all `rows.items` rows i and p <
/// flat. a is packed tile by tile, [r][height] each, a tile beginning at row i at a + i * terms.
/// Without terms, what is there ends as it began. Fetches ahead `correlate_tiles` times.
template <class T>
void correlate(T* y, Index y_pitch, const T* a, const T* x, const Index* offset, Index terms,
               TileRows rows, Index flat, const TileEnds<T>& ends = {}, Ahead* ahead = nullptr) {
  // All rows of a pass over a few columns of x while these are in the first-level cache.
  constexpr Index block = correlate_block<T>;
  Index r = 0;
  do {
    const Index depth = std::min(conv_depth, terms - r);
    for (Index p = 0; p < flat; p += block)
      for (Index t = 0; t < rows.count; ++t) {
        if (ahead) ahead->fetch();
        tile_row(y + rows.begin(t) * y_pitch + p, y_pitch,
                 a + rows.begin(t) * terms + r * rows.height(t), x + p, offset + r, depth,
                 rows.height(t), std::min(block, flat - p),
                 {.accumulate = ends.accumulate || r > 0,
                  .bias = ends.bias && r == 0 ? ends.bias + rows.begin(t) : nullptr,
                  .relu = ends.relu && r + depth == terms});
      }
    r += depth;
  } while (r < terms);
}

/// How many partial gradients may exist at a time: each is as large as the weights.
inline Index most_partials(Index weights) {
  return weights > 262144 ? 4 : weights > 32768 ? 8 : 16;
}

/// Calls write(row, totals) for every row of `size` sums: their totals over the chunks of
/// partial [chunk][rows at place(row)][size], in order and in double.
template <class T, class Place, class Write>
void merge_partials(const T* partial, Index chunks, Index rows, Index size, const Place& place,
                    const Write& write) {
  const Index workers = worker_count(rows);
  const Scratch<double> totals(workers * size);
  parallel_for(
      rows,
      [&](Index row, Index worker) {
        double* total = totals.data() + worker * size;
        std::fill_n(total, size, 0.0);
        for (Index chunk = 0; chunk < chunks; ++chunk) {
          const T* from = partial + (chunk * rows + place(row)) * size;
          MINNOW_SIMD
          for (Index i = 0; i < size; ++i) total[i] += static_cast<double>(from[i]);
        }
        write(row, total);
      },
      workers);
}

/// The same where the sums lie as the weights do, dweight [rows][size].
template <class T>
void merge_partials(T* dweight, const T* partial, Index chunks, Index rows, Index size) {
  const Index weights = rows * size;
  parallel_chunks(weights, chunks, [&](Index begin, Index end) {
    sum_columns(dweight + begin, partial + begin, chunks, end - begin, weights);
  });
}

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI::kernels
