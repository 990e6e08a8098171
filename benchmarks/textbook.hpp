#pragma once
/// @file
/// Each layer once more as its formula reads: one loop after the other over the whole array, on one
/// thread, sums in one float. With numbers for `V` (`Lane<float>`, and a compiler that may not
/// vectorise) this is the naive way; with packs, where a loop runs along neighbouring numbers, the
/// vectorised one. What the library's kernels add to that is blocking for the caches, wide sums,
/// rows across lanes, and threads.

#include "minnow/core/simd_math.hpp"
#include "minnow/kernels/conv2d.hpp"
#include "minnow/kernels/dropout.hpp"

namespace bench {

using namespace minnow;

template <class V>
struct Textbook {
  // x, y, dx, dy [n, c, hw]; gamma, beta, dgamma, dbeta [c]; statistics [n, groups], or [groups] of
  // c channels where the batch is normalised as a whole.
  static void batch_norm_forward(float* y, float* mean, float* rstd, const float* x,
                                 const float* gamma, const float* beta, Index n, Index c, Index hw,
                                 float eps);
  static void batch_norm_backward(float* dx, float* dgamma, float* dbeta, const float* dy,
                                  const float* x, const float* mean, const float* rstd,
                                  const float* gamma, Index n, Index c, Index hw);
  static void group_norm_forward(float* y, float* mean, float* rstd, const float* x,
                                 const float* gamma, const float* beta, Index n, Index c, Index hw,
                                 Index groups, float eps);
  static void group_norm_backward(float* dx, float* dgamma, float* dbeta, const float* dy,
                                  const float* x, const float* mean, const float* rstd,
                                  const float* gamma, Index n, Index c, Index hw, Index groups);
  // x, y, dx, dy [rows, cols]; gamma, beta, dgamma, dbeta [cols]; statistics [rows]. RMS norm: mean
  // and beta are null.
  static void layer_norm_forward(float* y, float* mean, float* rstd, const float* x,
                                 const float* gamma, const float* beta, Index rows, Index cols,
                                 float eps);
  static void layer_norm_backward(float* dx, float* dgamma, float* dbeta, const float* dy,
                                  const float* x, const float* mean, const float* rstd,
                                  const float* gamma, Index rows, Index cols);

  // Stride 1, one group.
  static void conv2d_forward(float* y, const float* x, const float* weight,
                             const kernels::Conv2dSizes& s);
  static void conv2d_backward_data(float* dx, const float* dy, const float* weight,
                                   const kernels::Conv2dSizes& s);
  static void conv2d_backward_weight(float* dweight, const float* dy, const float* x,
                                     const kernels::Conv2dSizes& s);
  static void linear_forward(float* y, const float* x, const float* weight, const float* bias,
                             Index n, Index in, Index out);
  static void linear_backward(float* dx, float* dweight, float* dbias, const float* dy,
                              const float* x, const float* weight, Index n, Index in, Index out);

  // Windows side by side: x [planes, h, w].
  static void max_pool2d_forward(float* y, const float* x, Index planes, Index h, Index w,
                                 Index kernel);
  static void max_pool2d_backward(float* dx, const float* dy, const float* x, Index planes, Index h,
                                  Index w, Index kernel);
  static void avg_pool2d_forward(float* y, const float* x, Index planes, Index h, Index w,
                                 Index kernel);
  static void avg_pool2d_backward(float* dx, const float* dy, Index planes, Index h, Index w,
                                  Index kernel);

  static void relu_forward(float* y, const float* x, Index size);
  static void relu_backward(float* dx, const float* dy, const float* y, Index size);
  /// A generator call an element.
  static void dropout(float* y, const float* x, Index samples, Index size,
                      const kernels::DropoutRule& rule);
  static void softmax_forward(float* y, const float* x, Index rows, Index cols);
  static void softmax_backward(float* dx, const float* dy, const float* y, Index rows, Index cols);

  static void sgd_step(float* p, float* v, const float* dp, Index size, float lr, float momentum);
  static void adam_step(float* p, float* m, float* s, const float* dp, Index size, float step_size,
                        float root_scale, float beta1, float beta2, float eps);
};

using Naive = Textbook<Lane<float>>;
using Vectorised = Textbook<Pack<float>>;

}  // namespace bench
