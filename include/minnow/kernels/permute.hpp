#pragma once
/// @file
/// Copies between arrays that order or space their elements differently.

#include "minnow/core/parallel.hpp"
#include "minnow/kernels/nest.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// Copies element by element over a nest: y moves by its first strides, x by its second.
///
///     y[sum of at * y_stride] = x[sum of at * x_stride]     for every index `at` of the nest
///
/// With dense y and permuted strides of x it permutes axes; with a spaced x it slices, with a
/// spaced y it undoes a slice. Writes just those elements of y, which must not overlap x; no two
/// positions of the nest may meet in y. Parallel over chunks of positions.
template <class T>
void copy(T* y, const T* x, const Nest<2>& nest) {
  const Index y_stride = nest.strides()[0], x_stride = nest.strides()[1];
  parallel_chunks(nest.size(), 1, [&](Index begin, Index end) {
    nest.walk(begin, end, [&](Index, const auto& offsets, Index count) {
      T* to = y + offsets[0];
      const T* from = x + offsets[1];
      if (y_stride == 1 && x_stride == 1) {
        std::copy_n(from, count, to);
      } else {
        MINNOW_SIMD
        for (Index i = 0; i < count; ++i) to[i * y_stride] = from[i * x_stride];
      }
    });
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
