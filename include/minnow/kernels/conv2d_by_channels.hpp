#pragma once
/// @file
/// Direct convolution with channels in lanes: for wide layers, with stride 1 or without.
///
/// A tile is two packs of output channels for 14 (6) neighbouring positions: weights are loaded,
/// one aligned pack for each term, and every position of x is broadcast. Against positions in
/// lanes, no row has gaps and no load straddles cache lines; in exchange, channels fill whole
/// packs, and results are turned once before they are stored.

#include <algorithm>

#include "minnow/core/items.hpp"
#include "minnow/core/simd_lanes.hpp"
#include "minnow/kernels/conv2d_staging.hpp"
#include "minnow/kernels/lanes.hpp"
#include "minnow/kernels/streaming.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// Positions of a tile, whose sums fill the registers beside two packs of weights and a position.
inline constexpr int tile_positions = vector_registers == 32 ? 14 : 6;

/// sums[j][k] += sum_r w[r, k] * x[offset[r] + j] for P packs of channels k and M positions j.
///
/// w is [P at pack_pitch][terms][W].
template <class T, std::size_t M, std::size_t P>
MINNOW_INLINE void add_channel_sums(Pack<T> (&sums)[M][P], const T* x, const Index* offset,
                                    const T* w, Index pack_pitch, Index terms) {
  using V = Pack<T>;
  for (Index r = 0; r < terms; ++r, w += V::width) {
    const T* from = x + offset[r];
    V weights[P];
    MINNOW_UNROLL
    for (std::size_t p = 0; p < P; ++p)
      weights[p] = V::load(w + static_cast<Index>(p) * pack_pitch);
    MINNOW_UNROLL
    for (std::size_t i = 0; i < M; ++i) {
      const V position(from[i]);
      MINNOW_UNROLL
      for (std::size_t p = 0; p < P; ++p) sums[i][p] = fma(position, weights[p], sums[i][p]);
    }
  }
}

/// y[k, j] = shift[k] + sum_r w[r, k] * x[offset[r] + j] for `channels` <= P * W and j < M.
///
/// w is [P][terms][W]; a plane of y is `plane` long.
template <class T, int M, int P>
void channel_tile(T* y, Index plane, Index channels, const T* x, const Index* offset, const T* w,
                  Index terms, const T* shift) {
  using V = Pack<T>;
  constexpr Index W = V::width;
  // Lines of y are far apart, so no hardware sees them coming: they are asked for while sums run.
  for (Index lane = 0; lane < std::min(P * W, channels); ++lane)
    prefetch_to_write(y + lane * plane, M);
  V sums[M][P];
  MINNOW_UNROLL
  for (int p = 0; p < P; ++p) {
    const V start = V::load(shift + p * W);
    MINNOW_UNROLL
    for (int i = 0; i < M; ++i) sums[i][p] = start;
  }
  add_channel_sums(sums, x, offset, w, terms * W, terms);
  MINNOW_UNROLL
  for (int p = 0; p < P; ++p) {
    MINNOW_UNROLL
    for (int first = 0; first < M; first += int{W}) {
      V block[W];
      MINNOW_UNROLL
      for (int i = 0; i < int{W}; ++i)
        block[i] = first + i < M ? sums[std::min(first + i, M - 1)][p] : V::zero();
      transpose(block);
      const Index count = std::min<Index>(W, M - first);
      T* to = y + p * W * plane + first;
      for (Index lane = 0; lane < std::min(W, channels - p * W); ++lane)
        block[lane].store(to + lane * plane, count);
    }
  }
}

/// Calls f(size as a constant, first position) for the tiles of a row of `cols` positions.
template <class F>
void for_position_tiles(Index cols, const F& f) {
  constexpr Index most = tile_positions, half = most / 2;
  Index col = 0;
  // The last tile of a row overlaps the one before it.
  for (; cols >= most && cols - col > half; col += most)
    f(std::integral_constant<int, int{most}>{}, std::min(col, cols - most));
  for (; cols >= half && col < cols; col += half)
    f(std::integral_constant<int, int{half}>{}, std::min(col, cols - half));
  for (; col < cols; ++col) f(std::integral_constant<int, 1>{}, col);
}

/// Rows of positions that are computed together.
struct PositionRows {
  Index images = 1, rows = 1, cols = 1;
  Index x_image = 0, x_row = 0;             ///< distances in x
  Index y_image = 0, y_row = 0, plane = 0;  ///< and in y
};

/// y[i, k, row, col] = shift[k] + sum_r w[k, r] * x[i, offset[r] + row, col] for k < channels, by
/// tiles. w is packed [pack of k][terms][W], shift [packs * W].
template <class T>
void correlate_channels(T* y, Index channels, const T* x, const Index* offset, const T* w,
                        Index terms, const T* shift, const PositionRows& at, Ahead ahead) {
  constexpr Index W = Pack<T>::width;
  const Index tiles =
      (channels + 2 * W - 1) / (2 * W) * at.images * at.rows * (at.cols / tile_positions + 1);
  ahead.spread(tiles);
  // Two packs of weights at a time stay in the second-level cache through all positions.
  for (Index k = 0; k < channels; k += 2 * W) {
    const Index left = channels - k;
    for (Index i = 0; i < at.images; ++i)
      for (Index row = 0; row < at.rows; ++row) {
        const T* from = x + i * at.x_image + row * at.x_row;
        T* to = y + i * at.y_image + k * at.plane + row * at.y_row;
        const auto tile = [&](auto size, Index col) {
          ahead.fetch();
          const auto run = [&](auto packs) {
            channel_tile<T, size, packs>(to + col, at.plane, left, from + col, offset,
                                         w + k * terms, terms, shift + k);
          };
          left > W ? run(std::integral_constant<int, 2>{}) : run(std::integral_constant<int, 1>{});
        };
        for_position_tiles(at.cols, tile);
      }
  }
}

/// How sums over staged planes are cut for threads: a piece of images and a group at a time, and
/// for few images also the packs of output channels.
struct ChannelItems {
  Index pieces, groups, channels, width, packs, parts;

  /// `channels` are those of one group, `width` of them a pack.
  ChannelItems(Index piece_count, Index group_count, Index group_channels, Index pack_width)
      : pieces(piece_count),
        groups(group_count),
        channels(group_channels),
        width(pack_width),
        packs((channels + width - 1) / width) {
    constexpr Index enough = 8;
    const Index pairs = (packs + 1) / 2, items = std::max<Index>(1, pieces * groups);
    parts = std::clamp<Index>((enough + items - 1) / items, 1, std::max<Index>(1, pairs));
  }
  Index count() const { return pieces * groups * parts; }
  /// Channels [first, last) of a group, of a piece.
  struct Item {
    Index piece, group, first, last;
  };
  Item at(Index item) const {
    const Index part = item % parts;
    return {item / (parts * groups), item / parts % groups, first_channel(part),
            first_channel(part + 1)};
  }

 private:
  /// Parts consist of whole pairs of packs.
  Index first_channel(Index part) const {
    return std::min(channels, (packs + 1) / 2 * part / parts * 2 * width);
  }
};

/// Packs weights [channels][terms] as [group][pack of channels][terms][W], with zeros for channels
/// that do not exist.
template <class T>
void pack_channels(T* packed, const T* weight, Index groups, Index channels, Index terms) {
  constexpr Index W = Pack<T>::width;
  const Index packs = (channels + W - 1) / W;
  parallel_chunks(groups * packs, W * terms, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Index channel = i % packs * W;
      interleave(packed + i * W * terms, weight + (i / packs * channels + channel) * terms,
                 std::min(W, channels - channel), terms);
    }
  });
}

/// The bias in the same order, or zeros for null.
template <class T>
void pack_bias(T* packed, const T* bias, Index groups, Index channels, Index packs) {
  constexpr Index W = Pack<T>::width;
  std::fill_n(packed, groups * packs * W, T(0));
  if (!bias) return;
  for (Index g = 0; g < groups; ++g)
    std::copy_n(bias + g * channels, channels, packed + g * packs * W);
}

/// The same sizes, but small planes of a kernel of one tap as one row each: longer rows fill their
/// tiles better.
template <class T>
Conv2dSizes with_long_rows(Conv2dSizes s) {
  if (!is_flat(s) || s.h * s.w > piece_positions<T>(s.group_c(), 192)) return s;
  s.w *= s.h;
  s.h = 1;
  return s;
}

template <class T>
void forward_by_channels(T* y, const T* x, const T* weight, const T* bias,
                         const Conv2dSizes& sizes) {
  constexpr Index W = Pack<T>::width;
  const Conv2dSizes s = with_long_rows<T>(sizes);
  const Index oh = s.oh(), ow = s.ow(), terms = s.terms(), channels = s.group_c();
  if (s.n * s.k * oh * ow == 0) return;
  const Size2 reach = s.reach();
  const Index pitch = ow + reach.w, phases = s.phases();
  const Pieces pieces =
      make_pieces(s.n, oh, pitch, reach.h, piece_positions<T>(channels * phases, 192));
  // A kernel of one tap reads x where it is, others a staged copy.
  const bool in_place = is_flat(s);
  const Index piece_flat = in_place ? s.h * s.w : pieces.images * (pieces.rows + reach.h) * pitch;

  const ChannelItems items(pieces.count(), s.groups, s.group_k(), W);
  const Scratch<Index> offset(terms);
  term_offsets(offset.data(), s, piece_flat, pitch);
  const Scratch<T> packed(s.groups * items.packs * W * terms), shift(s.groups * items.packs * W);
  pack_channels(packed.data(), weight, s.groups, s.group_k(), terms);
  pack_bias(shift.data(), bias, s.groups, s.group_k(), items.packs);

  const Index staged_size = in_place ? 0 : channels * phases * piece_flat;
  const Index cost = s.group_k() * terms * piece_flat;
  for_each_item<T>(items.count(), cost, staged_size, 0, [&](Index item, T* staged) {
    const auto [index, group, first, last] = items.at(item);
    const Piece piece = pieces.at(index);
    const T* from = x + (piece.image * s.c + group * channels) * s.h * s.w;
    for (Index c = 0; c < channels && !in_place; ++c)
      stage_phases(staged + c * phases * piece_flat, piece_flat, from + c * s.h * s.w, s, piece,
                   reach.h, pitch);
    const PositionRows at{.images = piece.images,
                          .rows = piece.rows,
                          .cols = ow,
                          .x_image = in_place ? s.c * piece_flat : (piece.rows + reach.h) * pitch,
                          .x_row = pitch,
                          .y_image = s.k * oh * ow,
                          .y_row = ow,
                          .plane = oh * ow};
    Ahead ahead;
    ahead.add(x + group * channels * s.h * s.w, pieces, index, s.c, channels, s.h * s.w,
              s.stride.h * s.w);
    const Index at_pack = group * items.packs * W + first;
    correlate_channels(
        y + ((piece.image * s.k + group * s.group_k() + first) * oh + piece.row) * ow, last - first,
        in_place ? from + piece.row * ow : staged, offset.data(), packed.data() + at_pack * terms,
        terms, shift.data() + at_pack, at, ahead);
  });
}

/// Stride 1 only: with another, the rows of dx that a phase of taps makes are not neighbours.
template <class T>
void backward_data_by_channels(T* dx, const T* dy, const T* weight, const Conv2dSizes& sizes) {
  constexpr Index W = Pack<T>::width;
  const Conv2dSizes s = with_long_rows<T>(sizes);
  const Index oh = s.oh(), ow = s.ow(), channels = s.group_k(), taps = s.taps();
  if (s.n * s.c * s.h * s.w == 0) return;
  const Size2 reach = s.reach();
  const Index pitch = s.w + reach.w, terms = channels * taps;
  const Pieces pieces = make_pieces(s.n, s.h, pitch, reach.h, piece_positions<T>(channels, 192));
  const bool in_place = is_flat(s);
  const Index piece_flat = in_place ? s.h * s.w : pieces.images * (pieces.rows + reach.h) * pitch;

  const ChannelItems items(pieces.count(), s.groups, s.group_c(), W);
  const Scratch<Index> offset(terms);
  for (Index k = 0, r = 0; k < channels; ++k)
    for (Index a = 0; a < s.kernel.h; ++a)
      for (Index b = 0; b < s.kernel.w; ++b, ++r)
        offset.data()[r] =
            k * piece_flat + (reach.h - a * s.dilation.h) * pitch + reach.w - b * s.dilation.w;
  const Scratch<T> packed(s.groups * items.packs * W * terms), shift(items.packs * W);
  std::fill_n(shift.data(), items.packs * W, T(0));
  parallel_chunks(s.groups * channels, items.packs * W * taps, [&](Index begin, Index end) {
    for (Index k = begin; k < end; ++k)
      for (Index pack = 0; pack < items.packs; ++pack)
        interleave(
            packed.data() + ((k / channels * items.packs + pack) * terms + k % channels * taps) * W,
            weight + (k * s.group_c() + pack * W) * taps, std::min(W, s.group_c() - pack * W),
            taps);
  });

  const Index staged_size = in_place ? 0 : channels * piece_flat;
  const Index cost = s.group_c() * (terms + 1) * piece_flat;
  for_each_item<T>(items.count(), cost, staged_size, 0, [&](Index item, T* staged) {
    const auto [index, group, first, last] = items.at(item);
    const Piece piece = pieces.at(index);
    const Index plane = (piece.rows + reach.h) * pitch;
    const T* from = dy + (piece.image * s.k + group * channels) * oh * ow;
    for (Index k = 0; k < channels && !in_place; ++k)
      for (Index i = 0; i < piece.images; ++i)
        stage_plane(staged + k * piece_flat + i * plane, from + (i * s.k + k) * oh * ow, oh, ow,
                    s.padding.h + piece.row - reach.h, 1, piece.rows + reach.h,
                    s.padding.w - reach.w, 1, pitch);
    const PositionRows at{.images = piece.images,
                          .rows = piece.rows,
                          .cols = s.w,
                          .x_image = in_place ? s.k * piece_flat : plane,
                          .x_row = pitch,
                          .y_image = s.c * s.h * s.w,
                          .y_row = s.w,
                          .plane = s.h * s.w};
    Ahead ahead;
    ahead.add(dy + group * channels * oh * ow, pieces, index, s.k, channels, oh * ow, ow);
    correlate_channels(
        dx + ((piece.image * s.c + group * s.group_c() + first) * s.h + piece.row) * s.w,
        last - first, in_place ? from + piece.row * ow : staged, offset.data(),
        packed.data() + (group * items.packs * W + first) * terms, terms, shift.data(), at, ahead);
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
