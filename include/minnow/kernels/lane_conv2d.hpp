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

/// What the kernels need of the weights, packed once per step and shared by all packets.
template <class T>
struct LaneConv2dWeights {
  LaneConv2dSizes sizes;
  TileRows out_rows, in_rows;
  T* forward = nullptr;             ///< [tile of k][c, a, b][k in tile]
  T* backward = nullptr;            ///< [tile of c][a, k, b][c in tile], null where no dx is wanted
  Index* forward_offset = nullptr;  ///< where the term (c, a, b) reads in x
  Index* backward_offset = nullptr;  ///< where the term (a, k, b) reads in the bordered dy

  /// Numbers and offsets that `pack` writes.
  static Index weights_size(const LaneConv2dSizes& s, bool with_backward) {
    return s.k * s.terms() * (with_backward ? 2 : 1);
  }
  static Index offsets_size(const LaneConv2dSizes& s) {
    return s.terms() + s.k * s.kernel.h * s.kernel.w;
  }
};

/// Packs weight [k, c, a, b] into `weights` and `offsets`, memory of the sizes told above.
template <class T>
LaneConv2dWeights<T> pack_lane_conv2d(T* weights, Index* offsets, const T* weight,
                                      const LaneConv2dSizes& s, bool with_backward) {
  constexpr Index lanes = Pack<T>::width;
  LaneConv2dWeights<T> packed{.sizes = s, .out_rows = {s.k}, .in_rows = {s.c}};
  const Index kh = s.kernel.h, kw = s.kernel.w, terms = s.terms();
  packed.forward = weights;
  packed.forward_offset = offsets;
  packed.backward_offset = offsets + terms;
  for (Index t = 0; t < packed.out_rows.count; ++t)
    for (Index r = 0; r < terms; ++r)
      for (Index k = packed.out_rows.begin(t); k < packed.out_rows.begin(t + 1); ++k)
        *weights++ = weight[k * terms + r];
  for (Index c = 0; c < s.c; ++c)
    for (Index a = 0; a < kh; ++a)
      for (Index b = 0; b < kw; ++b) *offsets++ = ((c * s.h + a) * s.w + b) * lanes;
  if (!with_backward) return packed;
  packed.backward = weights;
  for (Index t = 0; t < packed.in_rows.count; ++t)
    for (Index a = 0; a < kh; ++a)
      for (Index k = 0; k < s.k; ++k)
        for (Index b = 0; b < kw; ++b)
          for (Index c = packed.in_rows.begin(t); c < packed.in_rows.begin(t + 1); ++c)
            *weights++ = weight[((k * s.c + c) * kh + a) * kw + b];
  for (Index a = 0; a < kh; ++a)
    for (Index k = 0; k < s.k; ++k)
      for (Index b = 0; b < kw; ++b)
        *offsets++ = ((k * s.oh() - a) * s.bordered_w() + kw - 1 - b) * lanes;
  return packed;
}

/// Forward: y[k, i, j] = bias[k] + sum_{c, a, b} weight[k, c, a, b] * x[c, i + a, j + b], in every
/// lane.
///
/// y [k, oh, ow, lane], x [c, h, w, lane], bias [k] or null. Writes every element of y. Serial:
/// packets are what runs in parallel.
template <class T>
void lane_conv2d_forward(T* y, const T* x, const T* bias, const LaneConv2dWeights<T>& weights) {
  constexpr Index lanes = Pack<T>::width;
  const auto& s = weights.sizes;
  const Index terms = s.terms();
  // With a 1 x 1 kernel the rows follow each other without a gap.
  const bool flat = s.kernel == Size2(1);
  const Index rows = flat ? 1 : s.oh(), cols = flat ? s.h * s.w : s.ow(),
              plane = rows * cols * lanes;
  for (Index t = 0; t < weights.out_rows.count; ++t) {
    const Index k = weights.out_rows.begin(t), height = weights.out_rows.height(t);
    for (Index i = 0; i < rows; ++i)
      tile_row(y + k * plane + i * cols * lanes, plane, weights.forward + k * terms,
               x + i * s.w * lanes, weights.forward_offset, terms, height, cols * lanes, false);
  }
  if (!bias) return;
  for (Index k = 0; k < s.k; ++k) {
    const Pack<T> shift(bias[k]);
    for (T* to = y + k * plane; to < y + (k + 1) * plane; to += lanes)
      (Pack<T>::load(to) + shift).store(to);
  }
}

/// Backward to the input: dx[c, u, v] = sum_{k, a, b} weight[k, c, a, b] * dy[k, u - a, v - b].
///
/// dy [k, oh, bordered_w, lane] has kernel.w - 1 columns of zeros on each side; rows that do not
/// exist are left out of the sums. Writes every element of dx [c, h, w, lane]. Serial.
template <class T>
void lane_conv2d_backward_data(T* dx, const T* dy, const LaneConv2dWeights<T>& weights) {
  constexpr Index lanes = Pack<T>::width;
  const auto& s = weights.sizes;
  const Index tap_terms = s.k * s.kernel.w, terms = s.kernel.h * tap_terms;
  const bool flat = s.kernel == Size2(1);
  const Index rows = flat ? 1 : s.h, cols = flat ? s.h * s.w : s.w;
  for (Index t = 0; t < weights.in_rows.count; ++t) {
    const Index c = weights.in_rows.begin(t), height = weights.in_rows.height(t);
    for (Index u = 0; u < rows; ++u) {
      // Terms are ordered by a first, so the rows that exist are one stretch of them.
      const Index first = flat ? 0 : std::max<Index>(0, u - s.oh() + 1);
      const Index last = flat ? 1 : std::min(s.kernel.h, u + 1);
      tile_row(dx + (c * rows + u) * cols * lanes, rows * cols * lanes,
               weights.backward + c * terms + first * tap_terms * height,
               dy + u * s.bordered_w() * lanes, weights.backward_offset + first * tap_terms,
               (last - first) * tap_terms, height, cols * lanes, false);
    }
  }
}

/// Backward to the weights: dweight[k, c, a, b] = sum_{lanes, i, j} dy[k, i, j] * x[c, i + a, j +
/// b].
///
/// dy as above. Writes every element of dweight [k, c, a, b]: the sum over this packet alone.
/// Serial.
template <class T>
void lane_conv2d_backward_weight(T* dweight, const T* dy, const T* x,
                                 const LaneConv2dWeights<T>& weights) {
  constexpr Index lanes = Pack<T>::width;
  const auto& s = weights.sizes;
  const bool flat = s.kernel == Size2(1);
  const DotsRange range{.rows = flat ? 1 : s.oh(),
                        .cols = (flat ? s.h * s.w : s.ow()) * lanes,
                        .dy_pitch = s.bordered_w() * lanes,
                        .x_pitch = s.w * lanes};
  std::fill_n(dweight, s.k * s.terms(), T(0));
  dots_block(dweight, s.terms(), dy + (s.kernel.w - 1) * lanes, s.oh() * s.bordered_w() * lanes, x,
             weights.forward_offset, s.k, s.terms(), range);
}

}  // namespace minnow::inline MINNOW_ABI::kernels
