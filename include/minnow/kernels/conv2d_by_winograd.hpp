#pragma once
/// @file
/// Convolution with half the multiplications (winograd.hpp) and, as in conv2d_by_channels.hpp,
/// output channels in lanes: for wide layers whose kernels have three columns, and stride 1.
///
/// Four neighbouring outputs of a row are a tile. The inputs of a piece of images are staged as six
/// planes of values, a value for each tile. Each of the six is convolved with one column of the
/// weights' values, tiles being the positions; six sums of a tile then make its four outputs.

#include <algorithm>

#include "minnow/core/items.hpp"
#include "minnow/kernels/conv2d_by_channels.hpp"
#include "minnow/kernels/streaming.hpp"
#include "minnow/kernels/winograd.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// True where rows can be taken by fours.
template <class T>
bool fits_winograd(const Conv2dSizes& s) {
  return Pack<T>::width >= winograd_outputs && s.kernel.w == winograd_taps &&
         s.stride == Size2(1) && s.dilation.w == 1;
}

/// How a convolution is cut into tiles.
template <class T>
struct WinogradTiles {
  static constexpr Index W = Pack<T>::width;

  Conv2dSizes sizes;
  Index cols = winograd_tiles(sizes.ow());  ///< tiles of a row
  Index reach = sizes.reach().h;
  Pieces pieces = make_pieces(sizes.n, sizes.oh(), cols, reach,
                              piece_positions<T>(winograd_values* sizes.group_c(), 64));
  Index packs = (sizes.group_k() + W - 1) / W;  ///< of output channels of a group

  /// Terms of each of the six sums.
  Index terms() const { return sizes.group_c() * sizes.kernel.h; }
  /// Values of one kind of a channel of a full piece, and of all channels.
  Index plane() const { return pieces.images * (pieces.rows + reach) * cols; }
  Index value() const { return sizes.group_c() * plane(); }
  /// Numbers of a padded row, and of the padded rows of a channel of a full piece.
  Index padded_cols() const { return winograd_outputs * (cols - 1) + winograd_inputs; }
  Index padded() const { return pieces.images * (pieces.rows + reach) * padded_cols(); }
  /// Rows whose tiles are taken together: their sums stay near, and weights are used several times.
  Index block_rows() const {
    return std::max<Index>(1, std::min(4 * tile_positions / cols, pieces.rows));
  }
  /// Values of all weights.
  Index weights() const { return sizes.groups * packs * winograd_values * terms() * W; }
};

/// Lane i of pack j is from[4 i + j].
template <class V, class T>
MINNOW_INLINE void load_by_fours(const T* from, V& first, V& second, V& third, V& fourth) {
  V a[2], b[2];
  deinterleave(V::load(from), V::load(from + V::width), a[0], a[1]);
  deinterleave(V::load(from + 2 * V::width), V::load(from + 3 * V::width), b[0], b[1]);
  deinterleave(a[0], b[0], first, third);
  deinterleave(a[1], b[1], second, fourth);
}

/// values [value][image, row, tile] of one channel x of a piece; `padded` is scratch, of which four
/// packs behind the rows are read, too.
template <class T>
void stage_values(T* values, T* padded, const T* x, const WinogradTiles<T>& tiles,
                  const Piece& piece) {
  using V = Pack<T>;
  constexpr Index W = V::width;
  const Conv2dSizes& s = tiles.sizes;
  const Index rows = piece.rows + tiles.reach, pitch = tiles.padded_cols(), cols = tiles.cols,
              value = tiles.value();
  for (Index i = 0; i < piece.images; ++i)
    stage_plane(padded + i * rows * pitch, x + i * s.c * s.h * s.w, s.h, s.w,
                piece.row - s.padding.h, 1, rows, -s.padding.w, 1, pitch);
  for (Index row = 0; row < piece.images * rows; ++row)
    for (Index t = 0; t < cols; t += W) {
      const T* from = padded + row * pitch + t * winograd_outputs;
      V d[winograd_inputs], v[winograd_values], unused[2];
      load_by_fours(from, d[0], d[1], d[2], d[3]);
      load_by_fours(from + winograd_outputs, d[4], d[5], unused[0], unused[1]);
      winograd_input(v, d);
      T* to = values + row * cols + t;
      const Index count = std::min(W, cols - t);
      for (int p = 0; p < winograd_values; ++p) v[p].store(to + p * value, count);
    }
}

/// sums [tile][P packs of channels] of M tiles; w as in add_channel_sums.
template <class T, int M, int P>
void winograd_tile(T* sums, const T* values, const Index* offset, const T* w, Index pack_pitch,
                   Index terms) {
  using V = Pack<T>;
  V tile[M][P];
  MINNOW_UNROLL
  for (int i = 0; i < M; ++i) {
    MINNOW_UNROLL
    for (int p = 0; p < P; ++p) tile[i][p] = V::zero();
  }
  add_channel_sums(tile, values, offset, w, pack_pitch, terms);
  MINNOW_UNROLL
  for (int i = 0; i < M; ++i) {
    MINNOW_UNROLL
    for (int p = 0; p < P; ++p) tile[i][p].store(sums + (i * P + p) * V::width);
  }
}

/// The outputs y [channels <= W at plane][cols <= W] of W / 4 neighbouring tiles of a row from
/// their sums [value at pitch][tile at step].
template <class T>
void store_tiles(T* y, Index plane, Index channels, Index cols, const T* sums, Index pitch,
                 Index step, const T* shift) {
  using V = Pack<T>;
  constexpr Index W = V::width;
  const V bias = V::load(shift);
  V block[W];
  MINNOW_UNROLL
  for (Index t = 0; t < W / winograd_outputs; ++t) {
    V v[winograd_values], outputs[winograd_outputs];
    MINNOW_UNROLL
    for (int p = 0; p < winograd_values; ++p) v[p] = V::load(sums + p * pitch + t * step);
    winograd_output<T>(outputs, v, bias);
    MINNOW_UNROLL
    for (int j = 0; j < winograd_outputs; ++j) block[t * winograd_outputs + j] = outputs[j];
  }
  transpose(block);
  for (Index lane = 0; lane < channels; ++lane) block[lane].store(y + lane * plane, cols);
}

/// y [channels at plane][rows][ow] of P packs of channels: `sums` is scratch, w as in
/// add_channel_sums for each value. While the sums are computed, y is fetched, and what is ahead.
template <class T, int P>
void winograd_block(T* y, Index channels, Index rows, const T* values, const Index* offset,
                    const T* w, const T* shift, T* sums, const WinogradTiles<T>& tiles,
                    Ahead& ahead) {
  constexpr Index W = Pack<T>::width, step = W / winograd_outputs;
  const Conv2dSizes& s = tiles.sizes;
  const Index ow = s.ow(), plane = s.oh() * ow, terms = tiles.terms(),
              pitch = tiles.block_rows() * tiles.cols * P * W;
  for (Index p = 0; p < winograd_values; ++p) {
    for (Index k = p; k < channels; k += winograd_values)
      prefetch_to_write(y + k * plane, rows * ow);
    for_position_tiles(rows * tiles.cols, [&](auto size, Index at) {
      ahead.fetch();
      winograd_tile<T, size, P>(sums + p * pitch + at * P * W, values + p * tiles.value() + at,
                                offset, w + p * terms * W, winograd_values * terms * W, terms);
    });
  }
  for (Index row = 0; row < rows; ++row)
    for (Index t = 0; t < tiles.cols; t += step)
      for (Index pack = 0; pack < P; ++pack) {
        const Index col = t * winograd_outputs;
        store_tiles(y + pack * W * plane + row * ow + col, plane, std::min(W, channels - pack * W),
                    std::min(W, ow - col), sums + ((row * tiles.cols + t) * P + pack) * W, pitch,
                    P * W, shift + pack * W);
      }
}

/// packed [group][pack of channels][value][terms][W] = the values of the weights, zeros for
/// channels that do not exist. They lie as [k, c, taps], or those of which this is the reverse as
/// [c, k, taps], the last tap first.
template <class T>
void pack_values(T* packed, const T* weight, const WinogradTiles<T>& tiles, bool reverse) {
  using V = Pack<T>;
  constexpr Index W = V::width;
  const Conv2dSizes& s = tiles.sizes;
  const Index terms = tiles.terms(), size = terms * winograd_taps, items = s.groups * tiles.packs;
  const Index workers = worker_count(items);
  const Scratch<T> scratch(workers * size * W);
  const auto pack = [&](Index item, Index worker) {
    const Index group = item / tiles.packs, first = item % tiles.packs * W,
                count = std::min(W, s.group_k() - first);
    const T* from = weight + group * s.group_k() * size;
    T* taps = scratch.data() + worker * size * W;  // [c, taps, lane]
    if (reverse)
      for (Index c = 0; c < s.group_c(); ++c)
        interleave(taps + c * s.taps() * W, from + (c * s.group_k() + first) * s.taps(), count,
                   s.taps());
    else
      interleave(taps, from + first * size, count, size);
    for (Index r = 0; r < terms; ++r) {
      const Index row = r % s.kernel.h, channel = (r - row) * winograd_taps;
      V w[winograd_taps], u[winograd_values];
      for (int b = 0; b < winograd_taps; ++b) {
        const Index tap = row * winograd_taps + b;
        w[b] = V::load(taps + (channel + (reverse ? s.taps() - 1 - tap : tap)) * W);
      }
      winograd_weights<T>(u, w);
      for (int p = 0; p < winograd_values; ++p)
        u[p].store(packed + ((item * winograd_values + p) * terms + r) * W);
    }
  };
  parallel_for(items, pack, workers);
}

/// y = bias + the convolution of x; weights as in pack_values.
template <class T>
void correlate_by_winograd(T* y, const T* x, const T* weight, const T* bias, const Conv2dSizes& s,
                           bool reverse) {
  if (s.n * s.k * s.oh() * s.ow() == 0) return;
  constexpr Index W = Pack<T>::width;
  const WinogradTiles<T> tiles{s};
  const Index terms = tiles.terms(), channels = s.group_c(), block_rows = tiles.block_rows();
  const ChannelItems items(tiles.pieces.count(), s.groups, s.group_k(), W);
  const Scratch<T> packed(tiles.weights()), shift(s.groups * tiles.packs * W);
  pack_values(packed.data(), weight, tiles, reverse);
  pack_bias(shift.data(), bias, s.groups, s.group_k(), tiles.packs);
  const Scratch<Index> offset(terms);
  for (Index r = 0; r < terms; ++r)
    offset.data()[r] = r / s.kernel.h * tiles.plane() + r % s.kernel.h * s.dilation.h * tiles.cols;

  const Index values_size = winograd_values * tiles.value(), padded_size = tiles.padded() + 4 * W,
              sums_size = winograd_values * (block_rows * tiles.cols + W) * 2 * W;
  const Index cost = s.group_k() * winograd_values * terms * tiles.plane();
  const auto compute = [&](Index index, T* values) {
    const ChannelItems::Item item = items.at(index);
    const Piece piece = tiles.pieces.at(item.piece);
    T *padded = values + values_size, *sums = padded + padded_size;
    for (Index c = 0; c < channels; ++c)
      stage_values(values + c * tiles.plane(), padded,
                   x + (piece.image * s.c + item.group * channels + c) * s.h * s.w, tiles, piece);
    Ahead ahead;
    ahead.add(x + item.group * channels * s.h * s.w, tiles.pieces, item.piece, s.c, channels,
              s.h * s.w, s.w);
    ahead.spread((item.last - item.first + 2 * W - 1) / (2 * W) * piece.images * winograd_values *
                 (piece.rows * tiles.cols / tile_positions + 1));
    for (Index k = item.first; k < item.last; k += 2 * W) {
      const Index left = item.last - k, at_pack = item.group * tiles.packs * W + k;
      T* to =
          y + ((piece.image * s.k + item.group * s.group_k() + k) * s.oh() + piece.row) * s.ow();
      for (Index i = 0; i < piece.images; ++i)
        for (Index row = 0; row < piece.rows; row += block_rows) {
          const auto run = [&](auto packs) {
            winograd_block<T, packs>(
                to + (i * s.k * s.oh() + row) * s.ow(), std::min(packs * W, left),
                std::min(block_rows, piece.rows - row),
                values + (i * (piece.rows + tiles.reach) + row) * tiles.cols, offset.data(),
                packed.data() + at_pack * winograd_values * terms, shift.data() + at_pack, sums,
                tiles, ahead);
          };
          left > W ? run(std::integral_constant<int, 2>{}) : run(std::integral_constant<int, 1>{});
        }
    }
  };
  for_each_item<T>(items.count(), cost, values_size + padded_size + sums_size, 0, compute);
}

template <class T>
void forward_by_winograd(T* y, const T* x, const T* weight, const T* bias, const Conv2dSizes& s) {
  if constexpr (Pack<T>::width >= winograd_outputs)
    correlate_by_winograd(y, x, weight, bias, s, false);
}
template <class T>
void backward_data_by_winograd(T* dx, const T* dy, const T* weight, const Conv2dSizes& s) {
  const T* const no_bias = nullptr;
  if constexpr (Pack<T>::width >= winograd_outputs)
    correlate_by_winograd(dx, dy, weight, no_bias, reversed(s), true);
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
