#pragma once
/// @file
/// One image a lane: `width` images interleaved, so that a kernel for one image, written with packs
/// in place of numbers, computes `width` of them at once.
///
/// A tensor [N, C, H, W] becomes packets [ceil(N / width)] of [C, H, W, width]. No row has a tail,
/// no load is unaligned, no sum within an image crosses lanes. Lanes of the last packet that have
/// no image hold zeros.

#include <algorithm>

#include "minnow/core/simd_lanes.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// How many packets `images` fill.
template <class T>
constexpr Index packet_count(Index images) {
  return (images + Pack<T>::width - 1) / Pack<T>::width;
}

namespace detail {

/// lanes[j][i] = from[i][j] for j < size, from [W] rows at a pitch, size >= W.
///
/// With `prefetch`, what follows in memory is asked for in order: the hardware does not see through
/// W rows read at a time.
template <bool prefetch = false, class T>
void to_lanes(T* lanes, const T* from, Index size, Index pitch) {
  constexpr Index W = Pack<T>::width;
  for (Index j = 0; j < size; j += W) {
    const Index first = std::min(j, size - W);  // the last tile overlaps the one before it
    Pack<T> tile[W];
    MINNOW_UNROLL
    for (Index i = 0; i < W; ++i) tile[i] = Pack<T>::load(from + i * pitch + first);
    if constexpr (prefetch) {
      MINNOW_UNROLL
      for (Index i = 0; i < W; ++i) __builtin_prefetch(from + W * pitch + (j + i) * W);
    }
    transpose(tile);
    MINNOW_UNROLL
    for (Index i = 0; i < W; ++i) tile[i].store(lanes + (first + i) * W);
  }
}

/// The inverse: to[i][j] = lanes[j][i].
template <class T>
void from_lanes(T* to, const T* lanes, Index size, Index pitch) {
  constexpr Index W = Pack<T>::width;
  for (Index j = 0; j < size; j += W) {
    const Index first = std::min(j, size - W);
    Pack<T> tile[W];
    MINNOW_UNROLL
    for (Index i = 0; i < W; ++i) tile[i] = Pack<T>::load(lanes + (first + i) * W);
    transpose(tile);
    MINNOW_UNROLL
    for (Index i = 0; i < W; ++i) tile[i].store(to + i * pitch + first);
  }
}

}  // namespace detail

/// lanes[i, j] = x[j, i] for i < size: `images` <= width images at a pitch side by side, missing
/// ones zero.
template <class T>
void interleave(T* lanes, const T* x, Index images, Index size, Index pitch) {
  constexpr Index width = Pack<T>::width;
  if (images == width && size >= width) return detail::to_lanes(lanes, x, size, pitch);
  for (Index i = 0; i < size; ++i)
    for (Index j = 0; j < width; ++j) lanes[i * width + j] = j < images ? x[j * pitch + i] : T(0);
}
/// The same for whole images.
template <class T>
void interleave(T* lanes, const T* x, Index images, Index size) {
  interleave(lanes, x, images, size, size);
}

/// x[j, i] = lanes[i, j] for the `images` <= width images that are there.
template <class T>
void separate(T* x, const T* lanes, Index images, Index size, Index pitch) {
  if (images == Pack<T>::width && size >= images) return detail::from_lanes(x, lanes, size, pitch);
  for (Index i = 0; i < size; ++i)
    for (Index j = 0; j < images; ++j) x[j * pitch + i] = lanes[i * Pack<T>::width + j];
}
template <class T>
void separate(T* x, const T* lanes, Index images, Index size) {
  separate(x, lanes, images, size, size);
}

}  // namespace minnow::inline MINNOW_ABI::kernels
