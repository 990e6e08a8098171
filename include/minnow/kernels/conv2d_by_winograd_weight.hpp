#pragma once
/// @file
/// The weights' gradient with half the multiplications (winograd.hpp) and channels in lanes: as in
/// conv2d_by_channels_weight.hpp a matrix product of dy with x turned so that channels are its
/// columns, but of their values, one for each row of the kernel and each of the six.

#include <algorithm>

#include "minnow/kernels/conv2d_by_channels_weight.hpp"
#include "minnow/kernels/conv2d_by_winograd.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// True where rows can be taken by fours, and input channels fill their packs.
template <class T>
bool fits_winograd_weight(const Conv2dSizes& s) {
  return fits_winograd<T>(s) && s.group_c() > 0 && s.group_c() % Pack<T>::width == 0;
}

/// How the weights' gradient is cut.
template <class T>
struct WinogradWeightTiles {
  static constexpr Index W = Pack<T>::width;

  Conv2dSizes sizes;
  Index cols = winograd_tiles(sizes.ow());  ///< tiles of a row
  Index reach = sizes.reach().h;
  /// Numbers of the sums of a group.
  Index sums = winograd_values * sizes.kernel.h * sizes.group_k() * sizes.group_c();
  /// Sums that are too many for the second-level cache are fetched for many terms at a time.
  Index least_positions = sums * Index{sizeof(T)} > 2 * 1024 * 1024 ? 256 : 64;
  Pieces pieces = make_pieces(
      std::max<Index>(1, sizes.n), sizes.oh(), cols, reach,
      piece_positions<T>(winograd_values*(sizes.group_c() + sizes.group_k()), least_positions));
  TileRows rows{sizes.group_k()};

  /// Terms of the matrix products of a full piece: its tiles.
  Index terms() const { return pieces.images * pieces.rows * cols; }
  /// Numbers of each of the six planes of values of a full piece, of x and of dy.
  Index x_pitch() const {
    return pieces.images * (pieces.rows + reach) * cols * sizes.group_c() + tile_cols<T>;
  }
  Index dy_pitch() const { return terms() * sizes.group_k() + W; }
  /// Numbers of a padded row of x, and of one of dy, for whole packs.
  Index x_line() const { return std::max(W, winograd_outputs * (cols - 1) + winograd_inputs); }
  Index dy_line() const { return (winograd_outputs * cols + W - 1) / W * W; }
  Index line() const { return std::max(x_line(), dy_line()); }
};

/// values [value at x_pitch][image, row, tile][channel] of a group of a piece of x; `lines` is
/// scratch for two packs of rows.
template <class T>
void stage_x_values(T* values, T* lines, const T* x, const WinogradWeightTiles<T>& tiles,
                    const Piece& piece) {
  using V = Pack<T>;
  constexpr Index W = V::width;
  const Conv2dSizes& s = tiles.sizes;
  const Index channels = s.group_c(), line = tiles.x_line(), pitch = tiles.x_pitch(),
              cols = tiles.cols;
  T* turned = lines + W * line;
  for (Index i = 0; i < piece.images; ++i)
    for (Index row = 0; row < piece.rows + tiles.reach; ++row, values += cols * channels)
      for (Index c = 0; c < channels; c += W) {
        for (Index j = 0; j < W; ++j)
          stage_plane(lines + j * line, x + (i * s.c + c + j) * s.h * s.w, s.h, s.w,
                      piece.row + row - s.padding.h, 1, 1, -s.padding.w, 1, line);
        interleave(turned, lines, W, line);
        for (Index t = 0; t < cols; ++t) {
          V d[winograd_inputs], v[winograd_values];
          for (int j = 0; j < winograd_inputs; ++j)
            d[j] = V::load(turned + (t * winograd_outputs + j) * W);
          winograd_input(v, d);
          for (int p = 0; p < winograd_values; ++p)
            v[p].store(values + p * pitch + t * channels + c);
        }
      }
}

/// values [value at dy_pitch][tile of channels][image, row, tile][channel in tile] of a group of a
/// piece of dy; `lines` is scratch for two packs of rows.
template <class T>
void stage_dy_values(T* values, T* lines, const T* dy, const WinogradWeightTiles<T>& tiles,
                     const Piece& piece) {
  using V = Pack<T>;
  const Conv2dSizes& s = tiles.sizes;
  const Index oh = s.oh(), ow = s.ow(), line = tiles.dy_line(), pitch = tiles.dy_pitch();
  T* turned = lines + tile_rows * line;
  for (Index k = 0; k < tiles.rows.count; ++k) {
    const Index first = tiles.rows.begin(k), height = tiles.rows.height(k);
    for (Index i = 0; i < piece.images; ++i)
      for (Index row = 0; row < piece.rows; ++row) {
        for (Index j = 0; j < height; ++j)
          stage_plane(lines + j * line, dy + (i * s.k + first + j) * oh * ow, oh, ow,
                      piece.row + row, 1, 1, 0, 1, line);
        turn_few(turned, lines, height, line, line);
        for (Index t = 0; t < tiles.cols; ++t, values += height) {
          V g[winograd_outputs], v[winograd_values];
          for (int j = 0; j < winograd_outputs; ++j)
            g[j] = V::load(turned + (t * winograd_outputs + j) * height);
          winograd_weights<T>(v, g);
          for (int p = 0; p < winograd_values; ++p) v[p].store(values + p * pitch, height);
        }
      }
  }
}

template <class T>
void backward_weight_by_winograd(T* dweight, const T* dy, const T* x, const Conv2dSizes& s) {
  const WinogradWeightTiles<T> tiles{s};
  const Index channels = s.group_c(), height = s.kernel.h, cols = tiles.cols;
  // The sums lie [group][row of the kernel][k][value][c].
  const Index size = winograd_values * channels, sums_size = s.groups * tiles.sums;
  const Pieces& pieces = tiles.pieces;
  const Chunks chunks = make_chunks(s.n == 0 ? 0 : pieces.count(), sums_size * tiles.terms(),
                                    most_partials(sums_size));
  const Scratch<T> partial(std::max<Index>(1, chunks.count) * sums_size);
  const Index workers = worker_count(chunks);
  const Index x_size = winograd_values * tiles.x_pitch(),
              dy_size = winograd_values * tiles.dy_pitch(),
              lines_size = 2 * std::max(tile_rows, Pack<T>::width) * tiles.line() + Pack<T>::width;
  const Scratch<T> scratch(workers * (x_size + dy_size + lines_size));
  const Scratch<Index> offsets(workers * tiles.terms());
  const auto run = [&](Index chunk, Index worker) {
    T* x_values = scratch.data() + worker * (x_size + dy_size + lines_size);
    T *dy_values = x_values + x_size, *lines = dy_values + dy_size;
    Index* offset = offsets.data() + worker * tiles.terms();
    T* sums = partial.data() + chunk * sums_size;
    std::fill_n(sums, sums_size, T(0));
    for (Index index = chunks.begin(chunk); index < chunks.end(chunk); ++index) {
      const Piece piece = pieces.at(index);
      const Index terms = piece.images * piece.rows * cols;
      for (Index r = 0; r < terms; ++r)
        offset[r] = (r + r / (piece.rows * cols) * tiles.reach * cols) * channels;
      for (Index g = 0; g < s.groups; ++g) {
        stage_x_values(x_values, lines, x + (piece.image * s.c + g * channels) * s.h * s.w, tiles,
                       piece);
        stage_dy_values(dy_values, lines,
                        dy + (piece.image * s.k + g * s.group_k()) * s.oh() * s.ow(), tiles, piece);
        Ahead ahead;
        ahead.add(x + g * channels * s.h * s.w, pieces, index, s.c, channels, s.h * s.w, s.w);
        ahead.add(dy + g * s.group_k() * s.oh() * s.ow(), pieces, index, s.k, s.group_k(),
                  s.oh() * s.ow(), s.ow());
        ahead.spread(winograd_values * height * correlate_tiles<T>(terms, tiles.rows, channels));
        for (Index p = 0; p < winograd_values; ++p)
          for (Index a = 0; a < height; ++a)
            correlate(sums + (g * height + a) * s.group_k() * size + p * channels, size,
                      dy_values + p * tiles.dy_pitch(),
                      x_values + p * tiles.x_pitch() + a * s.dilation.h * cols * channels, offset,
                      terms, tiles.rows, channels, {.accumulate = true}, &ahead);
      }
    }
  };
  parallel_for(chunks.count, run, workers);
  merge_partials(
      partial.data(), chunks.count, height * s.k, size, [](Index row) { return row; },
      [&](Index row, const double* totals) {
        const Index group = row / (height * s.group_k()), a = row / s.group_k() % height,
                    k = group * s.group_k() + row % s.group_k();
        for (Index c = 0; c < channels; ++c) {
          double v[winograd_values], w[winograd_taps];
          for (int p = 0; p < winograd_values; ++p) v[p] = totals[p * channels + c];
          winograd_output<double>(w, v, 0.0);
          for (int b = 0; b < winograd_taps; ++b)
            dweight[((k * channels + c) * height + a) * winograd_taps + b] = static_cast<T>(w[b]);
        }
      });
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
