#pragma once
/// @file
/// Differentiable sums, means, maxima and variances over axes, and argmax.

#include <algorithm>

#include "minnow/ops/elementwise.hpp"

namespace minnow::inline MINNOW_ABI {

namespace detail {

/// The sum over the axes, divided by `divisor`; the gradient is repeated along them.
template <class T>
Variable<T> scaled_sum(std::string_view name, const Variable<T>& x, AxisSet axes, bool keepdim,
                       double divisor) {
  const Shape shape = x.shape(), kept = reduced_shape(shape, axes, true);
  return record<T>(name, sum_axes(x.value(), axes, keepdim, divisor), {x},
                   [=](const Tensor<T>& dy) {
                     const auto spread = [=](Pack<T> d) { return d / Pack<T>(T(divisor)); };
                     return std::vector{map_to(shape, 1, spread, dy.reshape(kept))};
                   });
}

/// How many elements of `shape` each reduced one stands for.
inline Index reduced_count(const Shape& shape, AxisSet axes) {
  Index count = 1;
  for (Index axis = 0; axis < shape.rank(); ++axis)
    if (axes[static_cast<std::size_t>(axis)]) count *= shape[axis];
  return count;
}

}  // namespace detail

/// The sum over `axes` (all by default), which vanish or stay with size 1 (`keepdim`). Added in
/// double.
template <class T>
Variable<T> sum(const Variable<T>& x, const Axes& axes = {}, bool keepdim = false) {
  return detail::scaled_sum("sum", x, axes.of(x.shape(), "sum"), keepdim, 1);
}

/// The mean over `axes`; NaN for a mean of nothing.
template <class T>
Variable<T> mean(const Variable<T>& x, const Axes& axes = {}, bool keepdim = false) {
  const auto chosen = axes.of(x.shape(), "mean");
  const auto count = static_cast<double>(detail::reduced_count(x.shape(), chosen));
  return detail::scaled_sum("mean", x, chosen, keepdim, count);
}

/// The largest over `axes`; NaN if there is one. Elements that share the largest value share the
/// gradient evenly.
///
/// Errors: ShapeError where there is no element to choose.
template <class T>
Variable<T> max(const Variable<T>& x, const Axes& axes = {}, bool keepdim = false) {
  const Tensor<T> in = x.value();
  const auto chosen = axes.of(in.shape(), "max");
  check<ShapeError>(detail::reduced_count(in.shape(), chosen) > 0, "max: shape ", in.shape(),
                    " has no elements along the axes, so there is no largest");
  Tensor<T> largest = in;
  detail::for_each_run(in.shape(), chosen,
                       [&](Index outer, Index reduced, Index inner, bool, bool) {
                         Tensor<T> next(Shape{outer, inner});
                         kernels::max(next.data(), largest.data(), outer, reduced, inner);
                         largest = next;
                       });
  largest = largest.reshape(detail::reduced_shape(in.shape(), chosen, true));
  return record<T>("max", largest.reshape(detail::reduced_shape(in.shape(), chosen, keepdim)), {x},
                   [=](const Tensor<T>& dy) {
                     const auto is_largest = [](Pack<T> a, Pack<T> top) {
                       const Pack<T> one(T(1)), zero = Pack<T>::zero();
                       return select_equal(a, top, one, select_equal(a, a, zero, one));
                     };
                     const auto divide = [](Pack<T> a, Pack<T> b) { return a / b; };
                     const auto multiply = [](Pack<T> a, Pack<T> b) { return a * b; };
                     const Shape& kept = largest.shape();
                     const auto mask = detail::map_to(in.shape(), 1, is_largest, in, largest);
                     const auto ties = detail::sum_axes(mask, chosen, true);
                     const auto share = detail::map(1, divide, dy.reshape(kept), ties);
                     return std::vector{detail::map_to(in.shape(), 1, multiply, mask, share)};
                   });
}

/// The variance over `axes`: the sum of squared distances from the mean, divided by the count less
/// `correction` (1: unbiased, as torch.var; 0: biased, as the norm layers use it), at least by 0.
template <class T>
Variable<T> variance(const Variable<T>& x, const Axes& axes = {}, bool keepdim = false,
                     double correction = 1) {
  const auto chosen = axes.of(x.shape(), "variance");
  const auto count = static_cast<double>(detail::reduced_count(x.shape(), chosen));
  const Variable<T> squares = pow(x - mean(x, axes, true), 2);
  return detail::scaled_sum("variance", squares, chosen, keepdim,
                            std::max(0.0, count - correction));
}

/// The position of the largest element along `axis`, of the first if there are several. Not
/// differentiable.
///
/// Errors: ShapeError where the axis is missing or empty.
template <class T>
Tensor<std::int64_t> argmax(const Tensor<T>& x, Index axis = -1) {
  const Shape& shape = x.shape();
  const auto chosen = Axes(axis).of(shape, "argmax");
  const Index wrapped = shape.wrap(axis);
  check<ShapeError>(shape[wrapped] > 0, "argmax: axis ", axis, " of shape ", shape, " is empty");
  Tensor<std::int64_t> y(detail::reduced_shape(shape, chosen, false));
  kernels::argmax(y.data(), x.data(), shape.product(0, wrapped), shape[wrapped],
                  shape.product(wrapped + 1, shape.rank()));
  return y;
}

}  // namespace minnow::inline MINNOW_ABI
