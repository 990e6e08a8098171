#pragma once
/// @file
/// What the operations share: lists of axes, shapes that are repeated to fit each other, and sums
/// that undo the repetition.

#include <algorithm>
#include <array>
#include <initializer_list>
#include <span>
#include <string_view>

#include "minnow/kernels/elementwise.hpp"
#include "minnow/kernels/reduce.hpp"
#include "minnow/tensor.hpp"

namespace minnow::inline MINNOW_ABI {

namespace detail {

/// Elementary functions cost about this many additions.
inline constexpr Index function_cost = 8;

/// Which axes of a shape are chosen.
using AxisSet = std::array<bool, Shape::max_rank>;

/// The axis as a number in [0, rank); the error's text starts with `place`.
inline Index wrap_axis(const Shape& shape, Index axis, std::string_view place) {
  check<ShapeError>(-shape.rank() <= axis && axis < shape.rank(), place, ": there is no axis ",
                    axis, " in shape ", shape, " of rank ", shape.rank());
  return shape.wrap(axis);
}

}  // namespace detail

/// One axis, or several in braces, negative ones counted from the back: `sum(x, 1)`,
/// `mean(x, {0, -1})`. No axis at all stands for every axis.
class Axes {
 public:
  Axes() = default;
  Axes(Index axis) : Axes({axis}) {}  // NOLINT: sum(x, 1) is meant to work
  Axes(std::initializer_list<Index> axes) : Axes(std::span(axes.begin(), axes.size())) {}
  explicit Axes(std::span<const Index> axes) : size_(axes.size()) {
    check<ShapeError>(axes.size() <= axes_.size(), "Axes: ", axes.size(), " axes, at most ",
                      axes_.size(), " are supported");
    std::ranges::copy(axes, axes_.begin());
  }

  Index size() const { return static_cast<Index>(size_); }
  const Index* begin() const { return axes_.data(); }
  const Index* end() const { return axes_.data() + size_; }

  /// Which axes of `shape` are meant.
  ///
  /// Errors: ShapeError for an axis that `shape` does not have, or one that is named
  /// twice; the text starts with `place`.
  detail::AxisSet of(const Shape& shape, std::string_view place) const {
    detail::AxisSet chosen{};
    for (const Index axis : *this) {
      bool& is_chosen = chosen[static_cast<std::size_t>(detail::wrap_axis(shape, axis, place))];
      check<ShapeError>(!is_chosen, place, ": axis ", axis, " of shape ", shape,
                        " is named more than once");
      is_chosen = true;
    }
    if (size_ == 0) std::fill_n(chosen.begin(), shape.rank(), true);
    return chosen;
  }

 private:
  std::array<Index, Shape::max_rank> axes_{};
  std::size_t size_ = 0;
};

namespace detail {

/// `shape` without the chosen axes, or with size 1 there.
inline Shape reduced_shape(const Shape& shape, AxisSet axes, bool keepdim) {
  Shape result;
  for (Index axis = 0; axis < shape.rank(); ++axis) {
    const bool chosen = axes[static_cast<std::size_t>(axis)];
    if (!chosen)
      result.push_back(shape[axis]);
    else if (keepdim)
      result.push_back(1);
  }
  return result;
}

/// The shape to which both are repeated: aligned at the last axis, sizes must agree or be 1. The
/// last `apart` axes are left out of it.
inline Shape broadcast_shape(const Shape& a, const Shape& b, std::string_view place,
                             Index apart = 0) {
  Shape result;
  for (Index axis = -std::max(a.rank(), b.rank()); axis < -apart; ++axis) {
    const Index in_a = axis < -a.rank() ? 1 : a[axis], in_b = axis < -b.rank() ? 1 : b[axis];
    check<ShapeError>(in_a == in_b || in_a == 1 || in_b == 1, place, ": shapes ", a, " and ", b,
                      " do not fit together: on axis ", axis, " they have ", in_a, " and ", in_b,
                      ", which must be equal or one of them 1");
    result.push_back(in_a == 1 ? in_b : in_a);
  }
  return result;
}

/// Applies `reduce(outer, reduced, inner, is_first, is_last)` to each run of neighbouring chosen
/// axes, the last run first, so that most of the numbers are dealt with in one pass along memory.
template <class Reduce>
void for_each_run(const Shape& shape, AxisSet axes, const Reduce& reduce) {
  struct Run {
    Index outer, reduced, inner;
  };
  std::array<Run, Shape::max_rank> runs;
  std::size_t count = 0;
  Index inner = 1;
  for (Index end = shape.rank(); end > 0;) {
    if (!axes[static_cast<std::size_t>(end - 1)]) {
      inner *= shape[--end];
      continue;
    }
    Index begin = end;
    // An axis of size 1 joins any run.
    while (begin > 0 && (axes[static_cast<std::size_t>(begin - 1)] || shape[begin - 1] == 1))
      --begin;
    runs[count++] = {shape.product(0, begin), shape.product(begin, end), inner};
    end = begin;
  }
  if (count == 0) runs[count++] = {1, 1, shape.size()};
  for (std::size_t i = 0; i < count; ++i)
    reduce(runs[i].outer, runs[i].reduced, runs[i].inner, i == 0, i + 1 == count);
}

/// Sums over the chosen axes, divided by a number. Between several runs of axes the sums stay
/// double.
template <class T>
Tensor<T> sum_axes(const Tensor<T>& x, AxisSet axes, bool keepdim, double divisor = 1) {
  Tensor<T> y(reduced_shape(x.shape(), axes, keepdim));
  Tensor<double> before;
  for_each_run(x.shape(), axes,
               [&](Index outer, Index reduced, Index inner, bool is_first, bool is_last) {
                 Tensor<double> wide;
                 if (!is_last) wide = Tensor<double>(Shape{outer, inner});
                 const Tensor<double>& in = before;
                 if (is_first && is_last)
                   kernels::sum(y.data(), x.data(), outer, reduced, inner, divisor);
                 else if (is_first)
                   kernels::sum(wide.data(), x.data(), outer, reduced, inner);
                 else if (is_last)
                   kernels::sum(y.data(), in.data(), outer, reduced, inner, divisor);
                 else
                   kernels::sum(wide.data(), in.data(), outer, reduced, inner);
                 before = wide;
               });
  return y;
}

/// Undoes the repetition of an array of `shape`: sums dy over the axes along which it was repeated.
template <class T>
Tensor<T> sum_to(const Tensor<T>& dy, const Shape& shape) {
  if (dy.shape() == shape) return dy;
  AxisSet repeated{};
  const Index missing = dy.rank() - shape.rank();
  for (Index axis = 0; axis < dy.rank(); ++axis)
    if (axis < missing || shape[axis - missing] != dy.size(axis))
      repeated[static_cast<std::size_t>(axis)] = true;
  return sum_axes(dy, repeated, false).reshape(shape);
}

/// f(x...), element by element, into a new tensor of the shape that all x have.
template <class T, class F, class... X>
Tensor<T> map(Index cost, const F& f, const Tensor<T>& x, const X&... more) {
  Tensor<T> y(x.shape());
  kernels::map(f, y.data(), y.size(), cost, x.data(), more.data()...);
  return y;
}

/// The same with every x repeated to `shape`.
template <class T, class F, class... X>
Tensor<T> map_to(const Shape& shape, Index cost, const F& f, const Tensor<T>& x, const X&... more) {
  if (x.shape() == shape && ((more.shape() == shape) && ...)) return map(cost, f, x, more...);
  Tensor<T> y(shape);
  kernels::map(f, y.data(), kernels::broadcast_nest(shape, x.shape(), more.shape()...), cost,
               x.data(), more.data()...);
  return y;
}

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI
