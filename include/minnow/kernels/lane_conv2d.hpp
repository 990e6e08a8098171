#pragma once
/// @file
/// Convolution of a packet of images, one image a lane: the plain convolution with packs as
/// numbers.
///
/// A packet's planes are [channel][row][col][lane]. Neighbouring columns are neighbouring packs, so
/// the tile of the matrix product serves here too, with aligned loads and no waste at a row's end.
/// A kernel of 3 x 3 is computed with half the multiplications where that pays (lane_winograd.hpp,
/// lane_winograd_weight.hpp).

#include <algorithm>

#include "minnow/core/memory.hpp"
#include "minnow/core/shape.hpp"
#include "minnow/kernels/lane_winograd.hpp"
#include "minnow/kernels/lane_winograd_weight.hpp"
#include "minnow/kernels/lanes.hpp"
#include "minnow/kernels/tile.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// The sizes of a stride-1 convolution without padding: x [c, h, w], weight [k, c, kernel],
/// y [k, oh(), ow()], of each image. Padding is a border that the layer before has left in x.
struct LaneConv2dSizes {
  Index c = 0, h = 0, w = 0, k = 0;
  Size2 kernel = 1;

  Index oh() const { return h - kernel.h + 1; }
  Index ow() const { return w - kernel.w + 1; }
  Index taps() const { return kernel.h * kernel.w; }
  Index terms() const { return c * taps(); }
  Index weights() const { return k * terms(); }
  /// Columns of dy with kernel.w - 1 zeros on each side, as the backward to x reads them.
  Index bordered_w() const { return ow() + 2 * (kernel.w - 1); }
};

/// True where one image a lane beats channels or positions in lanes: the rows of x that one row of
/// y needs, a packet wide, must stay in the first and second-level caches, and so must the weights.
template <class T>
bool lanes_pay(const LaneConv2dSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const Index row_bytes = s.kernel.h * s.c * s.w * lanes * Index{sizeof(T)};
  return row_bytes <= 256 * 1024 && s.weights() <= 65536;
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

/// Where each term (c, a, b) of a sum reads in x, whose positions hold `lanes` numbers: offset
/// [terms].
inline void lane_conv2d_terms(Index* offset, const LaneConv2dSizes& s, Index lanes) {
  for (Index c = 0; c < s.c; ++c)
    for (Index a = 0; a < s.kernel.h; ++a)
      for (Index b = 0; b < s.kernel.w; ++b) *offset++ = ((c * s.h + a) * s.w + b) * lanes;
}

/// packed [tile of k][c, a, b][k in tile] = the weights [k, c, a, b] as sums over those terms read
/// them.
template <class T>
void lane_conv2d_pack(T* packed, const T* weight, const LaneConv2dSizes& s) {
  const TileRows rows{s.k};
  for (Index t = 0; t < rows.count; ++t)
    for (Index r = 0; r < s.terms(); ++r)
      for (Index k = rows.begin(t); k < rows.begin(t + 1); ++k)
        *packed++ = weight[k * s.terms() + r];
}

/// A convolution that is computed many times: forward, and backward to the input and to the
/// weights, each in the way that its sizes decide. Packets are what runs in parallel: all of it is
/// serial, and const.
template <class T>
class LaneConv2d {
 public:
  LaneConv2d() = default;
  explicit LaneConv2d(const LaneConv2dSizes& sizes)
      : sizes_(sizes),
        winograd_forward_(by_winograd(forward_sizes())),
        winograd_backward_(by_winograd(backward_sizes())),
        winograd_weight_(winograd_forward_ && winograd_dots_pay(forward_sizes())),
        offsets_(2 * sizes.terms() + sizes.k * sizes.taps()) {
    lane_conv2d_terms(term_offsets(), sizes, lanes);
    if (winograd_forward_) winograd_offsets<T>(forward_offsets(), forward_sizes());
    if (winograd_backward_)
      winograd_offsets<T>(backward_offsets(), backward_sizes());
    else
      make_backward_terms(backward_offsets());
  }

  const LaneConv2dSizes& sizes() const { return sizes_; }
  /// Numbers that the packed weights of the forward and of the backward take.
  Index forward_weights() const {
    return winograd_forward_ ? forward_sizes().weights() : sizes_.weights();
  }
  Index backward_weights() const {
    return winograd_backward_ ? backward_sizes().weights() : sizes_.weights();
  }
  /// Numbers of working memory that each direction takes.
  Index memory() const {
    return std::max({winograd_forward_ ? winograd_memory<T>(forward_sizes()) : 0,
                     winograd_weight_ ? winograd_weight_memory<T>(forward_sizes()) : 0,
                     winograd_backward_ ? winograd_memory<T>(backward_sizes()) : 0});
  }

  /// The weights [k, c, a, b] in the order in which the forward reads them: packed
  /// [forward_weights()].
  void pack_forward(T* packed, const T* weight) const {
    if (winograd_forward_)
      return winograd_pack(packed, weight, forward_sizes(), sizes_.terms(), sizes_.taps(), false);
    lane_conv2d_pack(packed, weight, sizes_);
  }

  /// The same for the backward to the input: packed [backward_weights()].
  void pack_backward(T* packed, const T* weight) const {
    if (winograd_backward_)
      return winograd_pack(packed, weight, backward_sizes(), sizes_.taps(), sizes_.terms(), true);
    const TileRows rows{sizes_.c};
    const Index kh = sizes_.kernel.h, kw = sizes_.kernel.w;
    for (Index t = 0; t < rows.count; ++t)
      for (Index a = 0; a < kh; ++a)
        for (Index k = 0; k < sizes_.k; ++k)
          for (Index b = 0; b < kw; ++b)
            for (Index c = rows.begin(t); c < rows.begin(t + 1); ++c)
              *packed++ = weight[((k * sizes_.c + c) * kh + a) * kw + b];
  }

  /// y[k, i, j] = sum_{c, a, b} weight[k, c, a, b] * x[c, i + a, j + b] in every lane, and what
  /// `ends` makes of it.
  ///
  /// y [k, oh, ow, lane], x [c, h, w, lane], memory [memory()]. Writes every element of y.
  void forward(T* y, const T* x, const T* packed, const LaneEnds<T>& ends, T* memory) const {
    if (winograd_forward_)
      return winograd_correlate(y, x, packed, ends, forward_offsets(), forward_sizes(), memory);
    const TileRows tiles{sizes_.k};
    const Index rows = flat() ? 1 : sizes_.oh(), cols = flat() ? sizes_.h * sizes_.w : sizes_.ow(),
                plane = rows * cols * lanes;
    for (Index t = 0; t < tiles.count; ++t) {
      const Index k = tiles.begin(t);
      for (Index i = 0; i < rows; ++i)
        tile_row(y + k * plane + i * cols * lanes, plane, packed + k * sizes_.terms(),
                 x + i * sizes_.w * lanes, term_offsets(), sizes_.terms(), tiles.height(t),
                 cols * lanes, {.bias = ends.bias ? ends.bias + k : nullptr, .relu = ends.relu});
    }
  }

  /// dx[c, u, v] = sum_{k, a, b} weight[k, c, a, b] * dy[k, u - a, v - b].
  ///
  /// dy [k, oh, bordered_w, lane] has kernel.w - 1 columns of zeros on each side; rows that do not
  /// exist are left out of the sums. Writes every element of dx [c, h, w, lane], which is
  /// `far` as in LaneEnds.
  void backward_data(T* dx, const T* dy, const T* packed, bool far, T* memory) const {
    if (winograd_backward_)
      return winograd_correlate<T>(dx, dy, packed, {.far = far}, backward_offsets(),
                                   backward_sizes(), memory);
    const TileRows tiles{sizes_.c};
    const Index tap_terms = sizes_.k * sizes_.kernel.w, all_terms = sizes_.k * sizes_.taps();
    const Index rows = flat() ? 1 : sizes_.h, cols = flat() ? sizes_.h * sizes_.w : sizes_.w;
    for (Index t = 0; t < tiles.count; ++t) {
      const Index c = tiles.begin(t), height = tiles.height(t);
      for (Index u = 0; u < rows; ++u) {
        // Terms are ordered by a first, so the rows that exist are one stretch of them.
        const Index first = flat() ? 0 : std::max<Index>(0, u - sizes_.oh() + 1);
        const Index last = flat() ? 1 : std::min(sizes_.kernel.h, u + 1);
        tile_row(dx + (c * rows + u) * cols * lanes, rows * cols * lanes,
                 packed + c * all_terms + first * tap_terms * height,
                 dy + u * sizes_.bordered_w() * lanes, backward_offsets() + first * tap_terms,
                 (last - first) * tap_terms, height, cols * lanes);
      }
    }
  }

  /// dweight[k, c, a, b] = sum_{lanes, i, j} dy[k, i, j] * x[c, i + a, j + b].
  ///
  /// dy as above, memory [memory()]. Writes every element of dweight [k, c, a, b]: the sum over
  /// this packet alone.
  void backward_weight(T* dweight, const T* dy, const T* x, T* memory) const {
    if (winograd_weight_)
      return winograd_backward_weight(dweight, dy + (sizes_.kernel.w - 1) * lanes,
                                      sizes_.bordered_w() * lanes, x, forward_sizes(), memory);
    const DotsRange range{.rows = flat() ? 1 : sizes_.oh(),
                          .cols = (flat() ? sizes_.h * sizes_.w : sizes_.ow()) * lanes,
                          .dy_pitch = sizes_.bordered_w() * lanes,
                          .x_pitch = sizes_.w * lanes};
    std::fill_n(dweight, sizes_.weights(), T(0));
    dots_block(dweight, sizes_.terms(), dy + (sizes_.kernel.w - 1) * lanes,
               sizes_.oh() * sizes_.bordered_w() * lanes, x, term_offsets(), sizes_.k,
               sizes_.terms(), range);
  }

 private:
  static constexpr Index lanes = Pack<T>::width;

  bool by_winograd(const WinogradSizes& s) const {
    return sizes_.kernel == Size2(3) && winograd_pays(s);
  }
  WinogradSizes forward_sizes() const {
    return {sizes_.c, sizes_.h, sizes_.w, sizes_.k, sizes_.oh(), sizes_.ow()};
  }
  /// Rows of the bordered dy from two above the first, of which there are none.
  WinogradSizes backward_sizes() const {
    return {sizes_.k, sizes_.oh(), sizes_.bordered_w(), sizes_.c, sizes_.h, sizes_.w, -2};
  }
  /// With a 1 x 1 kernel the rows follow each other without a gap.
  bool flat() const { return sizes_.kernel == Size2(1); }

  /// Where each term (c, a, b) reads in x.
  Index* term_offsets() const { return offsets_.data(); }
  Index* forward_offsets() const {
    return term_offsets() + (winograd_forward_ ? sizes_.terms() : 0);
  }
  Index* backward_offsets() const { return term_offsets() + 2 * sizes_.terms(); }

  /// Where each term (a, k, b) reads in the bordered dy.
  void make_backward_terms(Index* offset) const {
    for (Index a = 0; a < sizes_.kernel.h; ++a)
      for (Index k = 0; k < sizes_.k; ++k)
        for (Index b = 0; b < sizes_.kernel.w; ++b)
          *offset++ =
              ((k * sizes_.oh() - a) * sizes_.bordered_w() + sizes_.kernel.w - 1 - b) * lanes;
  }

  LaneConv2dSizes sizes_;
  bool winograd_forward_ = false, winograd_backward_ = false, winograd_weight_ = false;
  Buffer<Index> offsets_;
};

}  // namespace minnow::inline MINNOW_ABI::kernels
