#pragma once
/// @file
/// The running statistics of instance normalisation. The normalisation itself is group
/// normalisation with one channel a group (group_norm.hpp), with running statistics batch
/// normalisation's (batch_norm.hpp).

#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/kernels/moments.hpp"
#include "minnow/kernels/reduce.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// Moves running statistics towards those of a batch by `momentum`, the weight of the new value.
///
///   running_mean = (1 - momentum) * running_mean + momentum * mean over n of mean[n, c]
///   running_var = (1 - momentum) * running_var + momentum * mean over n of m2[n, c] / (hw - 1)
///
/// x [n, c, hw], hw at least 2; running_mean, running_var [c], either may be null. Parallel over
/// images and channels; the means over n are taken in order, in double.
template <class T>
void instance_norm_running(T* running_mean, T* running_var, const T* x, Index n, Index c, Index hw,
                           double momentum) {
  if (n == 0) return;
  const Scratch<double> scratch((n + 1) * 2 * c);
  double *statistics = scratch.data(),
         *sums = statistics + n * 2 * c;  // of an image: means, variances
  parallel_chunks(n * c, hw, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Moments plane = moments(x + i * hw, hw);
      double* image = statistics + i / c * 2 * c;
      image[i % c] = plane.mean;
      image[c + i % c] = plane.m2 / (plane.count - 1);
    }
  });
  sum_columns(sums, statistics, n, 2 * c, 2 * c);
  for (Index ch = 0; ch < c; ++ch) {
    const double images = static_cast<double>(n);
    if (running_mean) move_running(running_mean[ch], sums[ch] / images, momentum);
    if (running_var) move_running(running_var[ch], sums[c + ch] / images, momentum);
  }
}

}  // namespace minnow::inline MINNOW_ABI::kernels
