#pragma once
/// @file
/// A 3 x 3 convolution of a packet of images with half the multiplications (winograd.hpp).

#include <algorithm>

#include "minnow/kernels/streaming.hpp"
#include "minnow/kernels/tile.hpp"
#include "minnow/kernels/winograd.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// A correlation with a 3 x 3 kernel, one image a lane: y[k, i, j] = sum_{c, a, b} weight[k, c, a,
/// b] * x[c, first + i + a, j + b], of the rows of x that exist: x [c, h, w], y [k, oh, ow].
struct WinogradSizes {
  Index c, h, w, k, oh, ow, first = 0;

  /// Four outputs of a row are a tile.
  Index tiles() const { return detail::winograd_tiles(ow); }
  Index tile_begin(Index tile) const { return detail::winograd_tile_begin(tile, ow); }
  /// Tiles are taken together as packs of columns are in a matrix product.
  TileRows groups() const { return {tiles(), tile_packs}; }
  Index weights() const { return detail::winograd_values * detail::winograd_taps * k * c; }
};

/// What becomes of the sums of a convolution of packets.
template <class T>
struct LaneEnds {
  const T* bias = nullptr;  ///< bias[k] is added to channel k, nothing if null
  bool relu = false;        ///< what is written is cut off below zero
  bool far = false;         ///< the result's memory is not in the second-level cache
};

/// True where half the multiplications pay for the way there and back.
inline bool winograd_pays(const WinogradSizes& s) {
  return s.c >= 4 && s.k >= 4 && detail::winograd_rows_pay(s.ow);
}

namespace detail {

/// Numbers of the values of a group of tiles, and of the sums of a tile of rows.
template <class T>
inline constexpr Index winograd_group = winograd_values* tile_cols<T>;
template <class T>
inline constexpr Index winograd_sums = tile_rows* winograd_group<T>;

/// The values of six neighbouring packs of x: v[p * pitch].
template <class T>
MINNOW_INLINE void winograd_load(T* v, Index pitch, const T* x) {
  using V = Pack<T>;
  V inputs[winograd_inputs], values[winograd_values];
  MINNOW_UNROLL
  for (int j = 0; j < winograd_inputs; ++j) inputs[j] = V::load(x + j * V::width);
  winograd_input(values, inputs);
  MINNOW_UNROLL
  for (int p = 0; p < winograd_values; ++p) values[p].store(v + p * pitch);
}

/// Four neighbouring packs of y of the sums m[p * pitch], then relu if asked for.
template <class T>
MINNOW_INLINE void winograd_store(T* y, const T* m, Index pitch, Pack<T> bias, bool relu) {
  using V = Pack<T>;
  V sums[winograd_values], outputs[winograd_outputs];
  MINNOW_UNROLL
  for (int p = 0; p < winograd_values; ++p) sums[p] = V::load(m + p * pitch);
  winograd_output<T>(outputs, sums, bias);
  MINNOW_UNROLL
  for (int j = 0; j < winograd_outputs; ++j)
    (relu ? max(outputs[j], V::zero()) : outputs[j]).store(y + j * V::width);
}

/// The values of row `row` of x, of all channels: v [c, group, value, tile in group, lane].
template <class T>
void winograd_input_row(T* v, const T* x, Index row, const WinogradSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const TileRows groups = s.groups();
  const Index channel = groups.count * winograd_group<T>;
  for (Index g = 0; g < groups.count; ++g, v += winograd_group<T>) {
    const Index first = groups.begin(g), tiles = groups.height(g);
    for (Index c = 0; c < s.c; ++c) {
      const T* from = x + (c * s.h + row) * s.w * lanes;
      for (Index t = 0; t < tiles; ++t)
        winograd_load(v + c * channel + t * lanes, tile_cols<T>,
                      from + s.tile_begin(first + t) * lanes);
    }
  }
}

}  // namespace detail

/// Numbers of working memory that `winograd_correlate` takes: sums of a tile, and the values of
/// three rows of x.
template <class T>
Index winograd_memory(const WinogradSizes& s) {
  return detail::winograd_sums<T> + 3 * s.c * s.groups().count * detail::winograd_group<T>;
}

/// Where each term of the sums reads the values of three rows, which are kept in turn: offset [row
/// % 3, a, c].
template <class T>
void winograd_offsets(Index* offset, const WinogradSizes& s) {
  const Index channel = s.groups().count * detail::winograd_group<T>;
  for (Index row = 0; row < 3; ++row)
    for (Index a = 0; a < 3; ++a)
      for (Index c = 0; c < s.c; ++c) *offset++ = ((row + a) % 3 * s.c + c) * channel;
}

/// packed [tile of k][value][a, c][k in tile] = the values of the weights, whose taps lie at
/// weight[k * k_stride + c * c_stride] and the eight places behind it, from the last to the first
/// if `reversed`.
template <class T>
void winograd_pack(T* packed, const T* weight, const WinogradSizes& s, Index k_stride,
                   Index c_stride, bool reversed) {
  const TileRows rows{s.k};
  for (Index t = 0; t < rows.count; ++t) {
    const Index height = rows.height(t), pitch = 3 * s.c * height;
    for (Index a = 0; a < 3; ++a)
      for (Index c = 0; c < s.c; ++c)
        for (Index k = rows.begin(t); k < rows.begin(t + 1); ++k) {
          const T* taps = weight + k * k_stride + c * c_stride;
          double w[detail::winograd_taps], u[detail::winograd_values];
          for (int b = 0; b < detail::winograd_taps; ++b)
            w[b] = static_cast<double>(taps[reversed ? 8 - 3 * a - b : 3 * a + b]);
          detail::winograd_weights<double>(u, w);
          for (int p = 0; p < detail::winograd_values; ++p)
            packed[p * pitch] = static_cast<T>(u[p]);
          ++packed;
        }
    packed += (detail::winograd_values - 1) * pitch;
  }
}

/// The correlation of `WinogradSizes` in every lane.
///
/// packed by winograd_pack, offset by winograd_offsets, memory [winograd_memory]. Writes every
/// element of y [k, oh, ow, lane], in bursts: where y is far, it is fetched while the sums are
/// computed. Serial.
template <class T>
void winograd_correlate(T* y, const T* x, const T* packed, const LaneEnds<T>& ends,
                        const Index* offset, const WinogradSizes& s, T* memory) {
  using namespace detail;
  using V = Pack<T>;
  constexpr Index lanes = V::width, pitch = tile_rows * tile_cols<T>;
  const TileRows rows{s.k}, groups = s.groups();
  T *sums = memory, *values = memory + winograd_sums<T>;
  const Index row_values = s.c * groups.count * winograd_group<T>;
  Index known = 0;  // rows of x whose values have been computed
  for (Index i = 0; i < s.oh; ++i) {
    const Index row = s.first + i, begin = std::max<Index>(0, -row),
                end = std::min<Index>(3, s.h - row), terms = (end - begin) * s.c;
    for (; known < row + end; ++known)
      winograd_input_row(values + known % 3 * row_values, x, known, s);
    const Index* places = offset + ((row + 3) % 3 * 3 + begin) * s.c;
    for (Index t = 0; t < rows.count; ++t) {
      const Index k = rows.begin(t), height = rows.height(t), plane = s.oh * s.ow * lanes;
      const T* weights = packed + (winograd_values * 3 * k + begin * height) * s.c;
      for (Index g = 0; g < groups.count; ++g) {
        const Index first_tile = groups.begin(g), tiles = groups.height(g);
        const T* from = values + g * winograd_group<T>;
        T* to = y + k * plane + i * s.ow * lanes;
        constant_height<tile_rows>(height, [&](auto rows_constant) {
          constant_height<tile_packs>(tiles, [&](auto packs_constant) {
            constexpr int M = rows_constant, P = packs_constant;
            for (Index p = 0; p < winograd_values; ++p) {
              for (Index r = p; ends.far && r < M; r += winograd_values)
                prefetch_to_write(to + r * plane + s.tile_begin(first_tile) * lanes, 4 * P * lanes);
              tile<T, M, P>(sums + p * pitch, tile_cols<T>, weights + p * 3 * s.c * M,
                            from + p * tile_cols<T>, places, terms, P * lanes, {});
            }
          });
        });
        for (Index r = 0; r < height; ++r, to += plane) {
          const V shift(ends.bias ? ends.bias[k + r] : T(0));
          for (Index j = 0; j < tiles; ++j)
            winograd_store(to + s.tile_begin(first_tile + j) * lanes,
                           sums + r * tile_cols<T> + j * lanes, pitch, shift, ends.relu);
        }
      }
    }
  }
}

}  // namespace minnow::inline MINNOW_ABI::kernels
