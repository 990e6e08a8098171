#pragma once
/// @file
/// Convolution of a packet of images, one image a lane: the plain convolution with packs as
/// numbers.
///
/// A packet's planes are [channel][row][col][lane]. Neighbouring columns are neighbouring packs, so
/// the tile of the matrix product serves here too, with aligned loads and no waste at a row's end.

#include <algorithm>

#include "minnow/core/shape.hpp"
#include "minnow/kernels/lanes.hpp"
#include "minnow/kernels/tile.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// The sizes of a stride-1 convolution without padding: x [c, h, w], weight [k, c, kernel],
/// y [k, oh(), ow()], of each image. Padding is a border that the layer before has left in x.
struct LaneConv2dSizes {
  Index c, h, w, k;
  Size2 kernel = 1;

  Index oh() const { return h - kernel.h + 1; }
  Index ow() const { return w - kernel.w + 1; }
  Index terms() const { return c * kernel.h * kernel.w; }
  /// Columns of dy with kernel.w - 1 zeros on each side, as the backward to x reads them.
  Index bordered_w() const { return ow() + 2 * (kernel.w - 1); }
};

/// True where one image a lane beats channels or positions in lanes: the rows of x that one row of
/// y needs, a packet wide, must stay in the first and second-level caches, and so must the weights.
template <class T>
bool lanes_pay(const LaneConv2dSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const Index row_bytes = s.kernel.h * s.c * s.w * lanes * Index{sizeof(T)};
  return row_bytes <= 256 * 1024 && s.k * s.terms() <= 65536;
}

/// Where each term (c, a, b) of the forward's sums reads in x: offset [terms], a function of the
/// sizes alone.
template <class T>
void lane_conv2d_forward_offsets(Index* offset, const LaneConv2dSizes& s) {
  for (Index c = 0; c < s.c; ++c)
    for (Index a = 0; a < s.kernel.h; ++a)
      for (Index b = 0; b < s.kernel.w; ++b) *offset++ = ((c * s.h + a) * s.w + b) * Pack<T>::width;
}

/// Where each term (a, k, b) of the sums of the backward to the input reads in the bordered dy:
/// offset [k * kernel.h * kernel.w].
template <class T>
void lane_conv2d_backward_offsets(Index* offset, const LaneConv2dSizes& s) {
  for (Index a = 0; a < s.kernel.h; ++a)
    for (Index k = 0; k < s.k; ++k)
      for (Index b = 0; b < s.kernel.w; ++b)
        *offset++ = ((k * s.oh() - a) * s.bordered_w() + s.kernel.w - 1 - b) * Pack<T>::width;
}

/// padded [planes][h + 2 border.h][w + 2 border.w][lane] = x [planes][h][w][lane] with zeros
/// around.
template <class T>
void add_border(T* padded, const T* x, Index planes, Index h, Index w, Size2 border, Index lanes) {
  const Index pitch = (w + 2 * border.w) * lanes, plane = (h + 2 * border.h) * pitch;
  std::fill_n(padded, planes * plane, T(0));
  for (Index row = 0; row < planes * h; ++row)
    std::copy_n(x + row * w * lanes, w * lanes,
                padded + row / h * plane + (row % h + border.h) * pitch + border.w * lanes);
}

/// The inverse: x without the border.
template <class T>
void cut_border(T* x, const T* padded, Index planes, Index h, Index w, Size2 border, Index lanes) {
  const Index pitch = (w + 2 * border.w) * lanes, plane = (h + 2 * border.h) * pitch;
  for (Index row = 0; row < planes * h; ++row)
    std::copy_n(padded + row / h * plane + (row % h + border.h) * pitch + border.w * lanes,
                w * lanes, x + row * w * lanes);
}

/// packed [tile of k][c, a, b][k in tile], as the forward reads the weights [k, c, a, b].
template <class T>
void lane_conv2d_pack_forward(T* packed, const T* weight, const LaneConv2dSizes& s) {
  const TileRows rows{s.k};
  for (Index t = 0; t < rows.count; ++t)
    for (Index r = 0; r < s.terms(); ++r)
      for (Index k = rows.begin(t); k < rows.begin(t + 1); ++k)
        *packed++ = weight[k * s.terms() + r];
}

/// packed [tile of c][a, k, b][c in tile], as the backward to the input reads the weights [k, c, a,
/// b].
template <class T>
void lane_conv2d_pack_backward(T* packed, const T* weight, const LaneConv2dSizes& s) {
  const TileRows rows{s.c};
  const Index kh = s.kernel.h, kw = s.kernel.w;
  for (Index t = 0; t < rows.count; ++t)
    for (Index a = 0; a < kh; ++a)
      for (Index k = 0; k < s.k; ++k)
        for (Index b = 0; b < kw; ++b)
          for (Index c = rows.begin(t); c < rows.begin(t + 1); ++c)
            *packed++ = weight[((k * s.c + c) * kh + a) * kw + b];
}

/// Forward: y[k, i, j] = bias[k] + sum_{c, a, b} weight[k, c, a, b] * x[c, i + a, j + b], then relu
/// if asked for, in every lane.
///
/// y [k, oh, ow, lane], x [c, h, w, lane], bias [k] or null. Writes every element of y. Serial:
/// packets are what runs in parallel.
template <class T>
void lane_conv2d_forward(T* y, const T* x, const T* packed, const T* bias, bool relu,
                         const Index* offset, const LaneConv2dSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const TileRows tiles{s.k};
  const Index terms = s.terms();
  // With a 1 x 1 kernel the rows follow each other without a gap.
  const bool flat = s.kernel == Size2(1);
  const Index rows = flat ? 1 : s.oh(), cols = flat ? s.h * s.w : s.ow(),
              plane = rows * cols * lanes;
  for (Index t = 0; t < tiles.count; ++t) {
    const Index k = tiles.begin(t), height = tiles.height(t);
    for (Index i = 0; i < rows; ++i)
      tile_row(y + k * plane + i * cols * lanes, plane, packed + k * terms, x + i * s.w * lanes,
               offset, terms, height, cols * lanes,
               {.bias = bias ? bias + k : nullptr, .relu = relu});
  }
}

/// Backward to the input: dx[c, u, v] = sum_{k, a, b} weight[k, c, a, b] * dy[k, u - a, v - b].
///
/// dy [k, oh, bordered_w, lane] has kernel.w - 1 columns of zeros on each side; rows that do not
/// exist are left out of the sums. Writes every element of dx [c, h, w, lane]. Serial.
template <class T>
void lane_conv2d_backward_data(T* dx, const T* dy, const T* packed, const Index* offset,
                               const LaneConv2dSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const TileRows tiles{s.c};
  const Index tap_terms = s.k * s.kernel.w, terms = s.kernel.h * tap_terms;
  const bool flat = s.kernel == Size2(1);
  const Index rows = flat ? 1 : s.h, cols = flat ? s.h * s.w : s.w;
  for (Index t = 0; t < tiles.count; ++t) {
    const Index c = tiles.begin(t), height = tiles.height(t);
    for (Index u = 0; u < rows; ++u) {
      // Terms are ordered by a first, so the rows that exist are one stretch of them.
      const Index first = flat ? 0 : std::max<Index>(0, u - s.oh() + 1);
      const Index last = flat ? 1 : std::min(s.kernel.h, u + 1);
      tile_row(dx + (c * rows + u) * cols * lanes, rows * cols * lanes,
               packed + c * terms + first * tap_terms * height, dy + u * s.bordered_w() * lanes,
               offset + first * tap_terms, (last - first) * tap_terms, height, cols * lanes);
    }
  }
}

/// Backward to the weights: dweight[k, c, a, b] = sum_{lanes, i, j} dy[k, i, j] * x[c, i + a, j +
/// b].
///
/// dy as above. Writes every element of dweight [k, c, a, b]: the sum over this packet alone.
/// Serial.
template <class T>
void lane_conv2d_backward_weight(T* dweight, const T* dy, const T* x, const Index* offset,
                                 const LaneConv2dSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const bool flat = s.kernel == Size2(1);
  const DotsRange range{.rows = flat ? 1 : s.oh(),
                        .cols = (flat ? s.h * s.w : s.ow()) * lanes,
                        .dy_pitch = s.bordered_w() * lanes,
                        .x_pitch = s.w * lanes};
  std::fill_n(dweight, s.k * s.terms(), T(0));
  dots_block(dweight, s.terms(), dy + (s.kernel.w - 1) * lanes, s.oh() * s.bordered_w() * lanes, x,
             offset, s.k, s.terms(), range);
}

}  // namespace minnow::inline MINNOW_ABI::kernels
