#pragma once
/// @file
/// The fully connected layer: three matrix products and a sum of rows.

#include "minnow/kernels/gemm.hpp"
#include "minnow/kernels/reduce.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// Fully connected layer, forward.
///
///   y[n, o] = bias[o] + sum_i x[n, i] * weight[o, i]
///
/// Shapes    x [n, in], weight [out, in], bias [out] or null, y [n, out]
/// Writes    every element of y; must not overlap the inputs
/// Parallel  over blocks of y; the same bits for any number of threads
template <class T>
void linear_forward(T* y, const T* x, const T* weight, const T* bias, Index n, Index in,
                    Index out) {
  gemm(y, x, weight, n, out, in, false, true);
  if (!bias) return;
  parallel_chunks(n, out, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      MINNOW_SIMD
      for (Index o = 0; o < out; ++o) y[i * out + o] += bias[o];
    }
  });
}

/// Backward to the input: dx = dy weight, since y is linear in x with these factors. Assigns dx [n,
/// in].
template <class T>
void linear_backward_data(T* dx, const T* dy, const T* weight, Index n, Index in, Index out) {
  gemm(dx, dy, weight, n, in, out);
}

/// Backward to the weights: dweight = dy^T x. Assigns dweight [out, in].
template <class T>
void linear_backward_weight(T* dweight, const T* dy, const T* x, Index n, Index in, Index out) {
  gemm(dweight, dy, x, out, in, n, true, false);
}

/// Backward to the bias: dbias[o] = sum_n dy[n, o], summed in double. Assigns dbias [out].
/// Parallel over columns.
template <class T>
void linear_backward_bias(T* dbias, const T* dy, Index n, Index out) {
  parallel_chunks(out, n, [&](Index begin, Index end) {
    sum_columns(dbias + begin, dy + begin, n, end - begin, out);
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
