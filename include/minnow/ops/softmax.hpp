#pragma once
/// @file
/// Softmax and its logarithm along any axis.

#include "minnow/autograd.hpp"
#include "minnow/kernels/softmax.hpp"
#include "minnow/ops/broadcast.hpp"

namespace minnow::inline MINNOW_ABI {

namespace detail {

/// x seen as [outer, size, inner] around an axis. A scalar is one row of one number.
struct AxisView {
  Index outer = 1, size = 1, inner = 1;

  AxisView(const Shape& shape, Index axis, std::string_view place) {
    if (shape.rank() == 0 && (axis == 0 || axis == -1)) return;
    axis = wrap_axis(shape, axis, place);
    outer = shape.product(0, axis);
    size = shape[axis];
    inner = shape.product(axis + 1, shape.rank());
  }
};

}  // namespace detail

/// Positive numbers that sum to 1 along `axis`, in the ratios of exp(x).
/// Errors: ShapeError if x has no such axis.
template <class T>
Variable<T> softmax(const Variable<T>& x, Index axis) {
  const detail::AxisView view(x.shape(), axis, "softmax");
  Tensor<T> y(x.shape());
  kernels::softmax_forward(y.data(), x.value().data(), view.outer, view.size, view.inner);
  return record<T>("softmax", y, {x}, [y, view](const Tensor<T>& dy) {
    Tensor<T> dx(y.shape());
    kernels::softmax_backward(dx.data(), dy.data(), y.data(), view.outer, view.size, view.inner);
    return std::vector{dx};
  });
}

/// log(softmax(x, axis)), accurate also where the softmax is tiny.
/// Errors: ShapeError if x has no such axis.
template <class T>
Variable<T> log_softmax(const Variable<T>& x, Index axis) {
  const detail::AxisView view(x.shape(), axis, "log_softmax");
  Tensor<T> y(x.shape());
  kernels::log_softmax_forward(y.data(), x.value().data(), view.outer, view.size, view.inner);
  return record<T>("log_softmax", y, {x}, [y, view](const Tensor<T>& dy) {
    Tensor<T> dx(y.shape());
    kernels::log_softmax_backward(dx.data(), dy.data(), y.data(), view.outer, view.size,
                                  view.inner);
    return std::vector{dx};
  });
}

}  // namespace minnow::inline MINNOW_ABI
