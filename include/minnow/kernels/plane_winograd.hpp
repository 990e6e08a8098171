#pragma once
/// @file
/// A 3 x 3 convolution of one image with half the multiplications (winograd.hpp): neighbouring
/// positions of a row lie in lanes, so four rows at a time are the outputs of a tile.

#include <limits>
#include <vector>

#include "minnow/kernels/conv2d_staging.hpp"
#include "minnow/kernels/lane_conv2d.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// The convolution of `LaneConv2dSizes` of a single image, x [c, h, w] -> y [k, oh, ow].
template <class T>
class PlaneWinograd {
 public:
  explicit PlaneWinograd(const LaneConv2dSizes& sizes) : sizes_(sizes) {
    for (Index c = 0; c < sizes.c; ++c)
      for (Index b = 0; b < sizes.kernel.w; ++b) offset_.push_back(c * tiles() * sizes.w + b);
  }

  /// True where it is faster than sums over flattened rows, in instructions: of the sums, one for a
  /// pack, a weight and an input and a hundred around each tile; 26 on the way to the values of a
  /// pack and back.
  static bool pays(const LaneConv2dSizes& s) {
    if (W == 1 || s.kernel != Size2(3) || s.oh() < detail::winograd_outputs) return false;
    const auto sums = [&](Index positions, Index terms) {
      return packs(positions) * terms * s.k +
             100 * TileRows{s.k}.count * TileRows{packs(positions), tile_packs}.count;
    };
    const PlaneWinograd winograd(s);
    const Index ways = 26 * winograd.tiles() * (s.c * packs(s.w) + s.k * packs(s.ow()));
    return detail::winograd_values * sums(winograd.flat(), winograd.terms()) + ways <
           sums((s.oh() - 1) * s.w + s.ow(), s.terms());
  }

  /// Numbers that the packed weights take, and the working memory of a call.
  Index weights() const { return detail::winograd_values * terms() * sizes_.k; }
  Index memory() const { return detail::winograd_values * (value_pitch() + sum_pitch()); }

  /// packed [value][tile of k][c, column][k in tile] = the values of the weights [k, c, 3, 3].
  void pack(T* packed, const T* weight) const {
    const TileRows rows{sizes_.k};
    const Index pitch = terms() * sizes_.k;
    for (Index t = 0; t < rows.count; ++t)
      for (Index r = 0; r < terms(); ++r)
        for (Index k = rows.begin(t); k < rows.begin(t + 1); ++k, ++packed) {
          const T* taps = weight + k * sizes_.terms() + r / 3 * 9 + r % 3;
          double w[detail::winograd_taps], u[detail::winograd_values];
          for (int a = 0; a < detail::winograd_taps; ++a) w[a] = static_cast<double>(taps[3 * a]);
          detail::winograd_weights<double>(u, w);
          for (int p = 0; p < detail::winograd_values; ++p)
            packed[p * pitch] = static_cast<T>(u[p]);
        }
  }

  /// Writes every element of y. A pack behind x is read; the memory may hold anything.
  void forward(T* y, const T* x, const T* packed, const LaneEnds<T>& ends, T* memory) const {
    T *values = memory, *sums = values + detail::winograd_values * value_pitch();
    load_values(values, x);
    for (int p = 0; p < detail::winograd_values; ++p)
      detail::correlate(sums + p * sum_pitch(), tiles() * sizes_.w, packed + p * terms() * sizes_.k,
                        values + p * value_pitch(), offset_.data(), terms(), TileRows{sizes_.k},
                        flat());
    store_outputs(y, sums, ends);
  }

 private:
  using V = Pack<T>;
  static constexpr Index W = V::width;

  static Index packs(Index positions) { return (positions + W - 1) / W; }
  /// Tiles above each other.
  Index tiles() const { return detail::winograd_tiles(sizes_.oh()); }
  Index tile_begin(Index tile) const { return detail::winograd_tile_begin(tile, sizes_.oh()); }
  Index terms() const { return sizes_.c * sizes_.kernel.w; }
  /// Positions of all tiles, whose rows are as long as those of x.
  Index flat() const { return (tiles() - 1) * sizes_.w + sizes_.ow(); }
  Index value_pitch() const { return sizes_.c * tiles() * sizes_.w + W; }
  Index sum_pitch() const { return sizes_.k * tiles() * sizes_.w + W; }

  /// values [value][c, tile, column].
  void load_values(T* values, const T* x) const {
    const Index pitch = value_pitch();
    for (Index c = 0; c < sizes_.c; ++c)
      for (Index t = 0; t < tiles(); ++t, values += sizes_.w) {
        const T* from = x + (c * sizes_.h + tile_begin(t)) * sizes_.w;
        // What is written behind the end of a row is written again by the next.
        for (Index j = 0; j < sizes_.w; j += W) {
          V d[detail::winograd_inputs], v[detail::winograd_values];
          MINNOW_UNROLL
          for (int i = 0; i < detail::winograd_inputs; ++i) d[i] = V::load(from + i * sizes_.w + j);
          detail::winograd_input(v, d);
          MINNOW_UNROLL
          for (int p = 0; p < detail::winograd_values; ++p) v[p].store(values + p * pitch + j);
        }
      }
  }

  /// y of the sums [value][k, tile, column].
  void store_outputs(T* y, const T* sums, const LaneEnds<T>& ends) const {
    const Index ow = sizes_.ow(), pitch = sum_pitch();
    const V least(ends.relu ? T(0) : -std::numeric_limits<T>::infinity());
    for (Index k = 0; k < sizes_.k; ++k) {
      const V bias(ends.bias ? ends.bias[k] : T(0));
      for (Index t = 0; t < tiles(); ++t, sums += sizes_.w) {
        T* to = y + (k * sizes_.oh() + tile_begin(t)) * ow;
        for (Index j = 0; j < ow; j += W) {
          V v[detail::winograd_values], outputs[detail::winograd_outputs];
          MINNOW_UNROLL
          for (int p = 0; p < detail::winograd_values; ++p) v[p] = V::load(sums + p * pitch + j);
          detail::winograd_output<T>(outputs, v, bias);
          MINNOW_UNROLL
          for (int i = 0; i < detail::winograd_outputs; ++i)
            max(outputs[i], least).store(to + i * ow + j, std::min(W, ow - j));
        }
      }
    }
  }

  LaneConv2dSizes sizes_;
  std::vector<Index> offset_;
};

}  // namespace minnow::inline MINNOW_ABI::kernels
