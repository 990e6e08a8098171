#pragma once
/// @file
/// Differentiable matrix products.

#include "minnow/autograd.hpp"
#include "minnow/kernels/gemm.hpp"
#include "minnow/ops/broadcast.hpp"

namespace minnow::inline MINNOW_ABI {

namespace detail {

/// op(a) * op(b) for the matrices in the last two axes; the axes before them are repeated to fit.
template <class T>
Tensor<T> product(const Tensor<T>& a, const Tensor<T>& b, bool transpose_a, bool transpose_b) {
  const Index m = a.size(transpose_a ? -1 : -2), n = b.size(transpose_b ? -2 : -1);
  const Index k = a.size(transpose_a ? -2 : -1);
  const Shape a_batch = a.shape().slice(0, a.rank() - 2);
  const Shape b_batch = b.shape().slice(0, b.rank() - 2);
  const Shape batch = broadcast_shape(a.shape(), b.shape(), "matmul", 2);
  Shape shape = batch;
  shape.push_back(m);
  shape.push_back(n);
  Tensor<T> c(shape);
  const auto nest = kernels::broadcast_nest(batch, a_batch, b_batch);
  const auto multiply = [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i)
      nest.walk(i, i + 1, [&](Index, const auto& at, Index) {
        kernels::gemm(c.data() + i * m * n, a.data() + at[0] * m * k, b.data() + at[1] * k * n, m,
                      n, k, transpose_a, transpose_b);
      });
  };
  // Small matrices are dealt out to the threads; a large one keeps all of them busy by itself.
  constexpr Index large = 64 * 64 * 64;
  if (m * n * k < large)
    parallel_chunks(batch.size(), m * n * k, multiply);
  else
    multiply(0, batch.size());
  return c;
}

}  // namespace detail

/// The matrix product, with the rules of torch.matmul.
///
/// Two matrices [m, k] and [k, n] give [m, n]. A vector [k] is a row on the left, a column on the
/// right, and its axis of size 1 vanishes from the result; two vectors give their dot product. Axes
/// in front of the last two number independent products and are repeated to fit each other.
///
/// Errors: ShapeError for a scalar, where the inner sizes differ, or where the front axes do not
/// fit.
template <class T>
Variable<T> matmul(const Variable<T>& x, const Variable<T>& y) {
  const Shape x_shape = x.shape(), y_shape = y.shape();
  check<ShapeError>(x.rank() > 0 && y.rank() > 0, "matmul: shapes ", x_shape, " and ", y_shape,
                    ": a scalar is no matrix; multiply by it with *");
  const Index k = x_shape.back(), inner = y_shape[y.rank() == 1 ? 0 : -2];
  check<ShapeError>(k == inner, "matmul: shapes ", x_shape, " and ", y_shape,
                    " do not fit together: the last axis of the first is ", k, ", the ",
                    y.rank() == 1 ? "only axis" : "last axis but one", " of the second is ", inner,
                    "; they must be equal");
  Tensor<T> a = x.rank() == 1 ? x.value().reshape(Shape{1, k}) : x.value();
  const Tensor<T> b = y.rank() == 1 ? y.value().reshape(Shape{k, 1}) : y.value();
  Shape shape = detail::broadcast_shape(a.shape(), b.shape(), "matmul", 2);
  if (x.rank() > 1) shape.push_back(a.size(-2));
  if (y.rank() > 1) shape.push_back(b.size(-1));
  // One matrix on the right of many is one product with many rows.
  if (b.rank() == 2) a = a.reshape(Shape{a.shape().product(0, a.rank() - 1), k});

  const Tensor<T> c = detail::product(a, b, false, false);
  const bool need_x = x.requires_grad(), need_y = y.requires_grad();
  return record<T>(
      "matmul", c.reshape(shape), {x, y}, [=, c_shape = c.shape()](const Tensor<T>& dy) {
        const Tensor<T> dc = dy.reshape(c_shape);
        std::vector<Tensor<T>> gradients(2);
        if (need_x)
          gradients[0] =
              detail::sum_to(detail::product(dc, b, false, true), a.shape()).reshape(x_shape);
        if (need_y)
          gradients[1] =
              detail::sum_to(detail::product(a, dc, true, false), b.shape()).reshape(y_shape);
        return gradients;
      });
}

}  // namespace minnow::inline MINNOW_ABI
