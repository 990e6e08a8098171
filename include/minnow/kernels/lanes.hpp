#pragma once
/// @file
/// One image a lane: `width` images interleaved, so that a kernel for one image, written with packs
/// in place of numbers, computes `width` of them at once.
///
/// A tensor [N, C, H, W] becomes packets [ceil(N / width)] of [C, H, W, width]. No row has a tail,
/// no load is unaligned, no sum within an image crosses lanes. Lanes of the last packet that have
/// no image hold zeros.

#include <algorithm>

#include "minnow/core/simd.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// How many packets `images` fill.
template <class T>
constexpr Index packet_count(Index images) {
  return (images + Pack<T>::width - 1) / Pack<T>::width;
}

/// lanes[i, j] = x[j, i]: `images` <= width images of `size` numbers side by side, missing ones
/// zero.
template <class T>
void interleave(T* lanes, const T* x, Index images, Index size) {
  using V = Pack<T>;
  constexpr Index width = V::width;
  Index i = 0;
  if (images == width) {
    for (; i + width <= size; i += width) {
      V block[static_cast<std::size_t>(width)];
      for (Index j = 0; j < width; ++j) block[j] = V::load(x + j * size + i);
      transpose(block);
      for (Index j = 0; j < width; ++j) block[j].store(lanes + (i + j) * width);
    }
  }
  for (; i < size; ++i)
    for (Index j = 0; j < width; ++j) lanes[i * width + j] = j < images ? x[j * size + i] : T(0);
}

/// x[j, i] = lanes[i, j] for the `images` <= width images that are there.
template <class T>
void separate(T* x, const T* lanes, Index images, Index size) {
  using V = Pack<T>;
  constexpr Index width = V::width;
  Index i = 0;
  if (images == width) {
    for (; i + width <= size; i += width) {
      V block[static_cast<std::size_t>(width)];
      for (Index j = 0; j < width; ++j) block[j] = V::load(lanes + (i + j) * width);
      transpose(block);
      for (Index j = 0; j < width; ++j) block[j].store(x + j * size + i);
    }
  }
  for (; i < size; ++i)
    for (Index j = 0; j < images; ++j) x[j * size + i] = lanes[i * width + j];
}

}  // namespace minnow::inline MINNOW_ABI::kernels
