#pragma once
/// @file
/// Differentiable changes of shape and order: reshape, permute, slice, pad, concat, ...
///
/// Axes and positions count from the back where they are negative.

#include <limits>

#include "minnow/autograd.hpp"
#include "minnow/kernels/permute.hpp"
#include "minnow/ops/broadcast.hpp"

namespace minnow::inline MINNOW_ABI {

namespace detail {

/// x with its axes in another order: axis i of the result is axis order[i] of x.
template <class T>
Tensor<T> permuted(const Tensor<T>& x, std::span<const Index> order) {
  Shape shape;
  for (const Index axis : order) shape.push_back(x.size(axis));
  kernels::Nest<2> nest;
  for (Index i = 0; i < x.rank(); ++i) {
    const Index axis = order[static_cast<std::size_t>(i)];
    nest.push(shape[i], {shape.product(i + 1, x.rank()), x.shape().product(axis + 1, x.rank())});
  }
  Tensor<T> y(shape);
  kernels::copy(y.data(), x.data(), nest);
  return y;
}

/// Entries begin, begin + step, ... of an axis.
struct Range {
  Index begin = 0, step = 1;
};

/// Copies `count` entries along `axis`: from those of x in `x_range` to those of y in `y_range`.
template <class T>
void copy_along(Tensor<T>& y, Range y_range, const Tensor<T>& x, Range x_range, Index axis,
                Index count) {
  const Index outer = x.shape().product(0, axis), inner = x.shape().product(axis + 1, x.rank());
  kernels::Nest<2> nest;
  nest.push(outer, {y.size(axis) * inner, x.size(axis) * inner});
  nest.push(count, {y_range.step * inner, x_range.step * inner});
  nest.push(inner, {1, 1});
  if (nest.size() > 0)
    kernels::copy(y.data() + y_range.begin * inner, x.data() + x_range.begin * inner, nest);
}

inline Shape with_size(Shape shape, Index axis, Index size) {
  shape.set(axis, size);
  return shape;
}

}  // namespace detail

/// The same numbers under another shape. Shares memory.
///
/// Errors: ShapeError where the number of elements differs.
template <class T>
Variable<T> reshape(const Variable<T>& x, const Shape& shape) {
  return record<T>(
      "reshape", x.value().reshape(shape), {x},
      [before = x.shape()](const Tensor<T>& dy) { return std::vector{dy.reshape(before)}; });
}
/// The same; one size may be -1 and is then computed.
template <class T>
Variable<T> reshape(const Variable<T>& x, std::initializer_list<Index> sizes) {
  return reshape(x, x.value().reshape(sizes).shape());
}

/// Joins the axes from `start` to `end`, both included, into one.
template <class T>
Variable<T> flatten(const Variable<T>& x, Index start = 0, Index end = -1) {
  const Shape& before = x.shape();
  if (before.rank() == 0) return reshape(x, Shape{1});
  const Index first = detail::wrap_axis(before, start, "flatten");
  const Index last = detail::wrap_axis(before, end, "flatten");
  check<ShapeError>(first <= last, "flatten: axis ", start, " of shape ", before,
                    " comes after axis ", end);
  Shape shape = before.slice(0, first);
  shape.push_back(before.product(first, last + 1));
  for (const Index size : before.slice(last + 1)) shape.push_back(size);
  return reshape(x, shape);
}

/// Inserts an axis of size 1, which will be number `axis` of the result.
template <class T>
Variable<T> unsqueeze(const Variable<T>& x, Index axis) {
  const Index rank = x.rank() + 1;
  check<ShapeError>(-rank <= axis && axis < rank, "unsqueeze: no axis ", axis,
                    " can be inserted into shape ", x.shape(), "; ", -rank, " to ", rank - 1,
                    " can");
  const Index at = axis < 0 ? axis + rank : axis;
  Shape shape = x.shape().slice(0, at);
  shape.push_back(1);
  for (const Index size : x.shape().slice(at)) shape.push_back(size);
  return reshape(x, shape);
}

/// Removes an axis of size 1.
///
/// Errors: ShapeError where it is of another size.
template <class T>
Variable<T> squeeze(const Variable<T>& x, Index axis) {
  const Index at = detail::wrap_axis(x.shape(), axis, "squeeze");
  check<ShapeError>(x.size(at) == 1, "squeeze: axis ", axis, " of shape ", x.shape(), " has size ",
                    x.size(at), ", only an axis of size 1 can be removed");
  Shape shape = x.shape().slice(0, at);
  for (const Index size : x.shape().slice(at + 1)) shape.push_back(size);
  return reshape(x, shape);
}

/// The axes in another order: axis i of the result is axis `order[i]` of x.
///
/// Errors: ShapeError unless `order` names every axis of x once.
template <class T>
Variable<T> permute(const Variable<T>& x, const Axes& order) {
  check<ShapeError>(order.size() == x.rank(), "permute: ", order.size(), " axes for shape ",
                    x.shape(), " of rank ", x.rank(), "; each axis must be named once");
  order.of(x.shape(), "permute");
  std::vector<Index> there, back(static_cast<std::size_t>(x.rank()));
  for (const Index axis : order) {
    back[static_cast<std::size_t>(x.shape().wrap(axis))] = std::ssize(there);
    there.push_back(x.shape().wrap(axis));
  }
  return record<T>("permute", detail::permuted(x.value(), there), {x},
                   [back](const Tensor<T>& dy) { return std::vector{detail::permuted(dy, back)}; });
}

/// Exchanges two axes.
template <class T>
Variable<T> transpose(const Variable<T>& x, Index axis_a, Index axis_b) {
  const Index a = detail::wrap_axis(x.shape(), axis_a, "transpose");
  const Index b = detail::wrap_axis(x.shape(), axis_b, "transpose");
  std::vector<Index> order;
  for (Index axis = 0; axis < x.rank(); ++axis)
    order.push_back(axis == a ? b : axis == b ? a : axis);
  return permute(x, Axes(order));
}

/// Repeats x to fit `shape`: axes are aligned at the last one, and an axis that is missing or of
/// size 1 is repeated.
///
/// Errors: ShapeError where a size is neither 1 nor the wanted one.
template <class T>
Variable<T> broadcast_to(const Variable<T>& x, const Shape& shape) {
  const Shape before = x.shape();
  check<ShapeError>(detail::broadcast_shape(before, shape, "broadcast_to") == shape,
                    "broadcast_to: shape ", before, " cannot be repeated to ", shape);
  return record<T>(
      "broadcast_to",
      detail::map_to(
          shape, 1, [](Pack<T> a) { return a; }, x.value()),
      {x}, [before](const Tensor<T>& dy) { return std::vector{detail::sum_to(dy, before)}; });
}

/// Entries begin, begin + step, ... before `end` along an axis.
///
/// Errors: ShapeError unless 0 <= begin <= end <= size (after counting negative ones from the back)
/// and step >= 1.
template <class T>
Variable<T> slice(const Variable<T>& x, Index axis, Index begin, Index end, Index step = 1) {
  const Shape before = x.shape();
  const Index at = detail::wrap_axis(before, axis, "slice"), size = before[at];
  const Index first = begin < 0 ? begin + size : begin, last = end < 0 ? end + size : end;
  check<ShapeError>(0 <= first && first <= last && last <= size, "slice: [", begin, ", ", end,
                    ") is not within axis ", axis, " of shape ", before, ", which has size ", size);
  check<ShapeError>(step >= 1, "slice: step ", step, " is not positive");
  const Index count = (last - first) / step + ((last - first) % step != 0);
  Tensor<T> y(detail::with_size(before, at, count));
  detail::copy_along(y, {}, x.value(), {first, step}, at, count);
  return record<T>("slice", y, {x}, [=](const Tensor<T>& dy) {
    auto dx = Tensor<T>::zeros(before);
    detail::copy_along(dx, {first, step}, dy, {}, at, count);
    return std::vector{dx};
  });
}

/// Entry `index` of an axis, which vanishes.
template <class T>
Variable<T> select(const Variable<T>& x, Index axis, Index index) {
  const Index at = detail::wrap_axis(x.shape(), axis, "select"), size = x.size(at);
  check<ShapeError>(-size <= index && index < size, "select: there is no entry ", index,
                    " on axis ", axis, " of shape ", x.shape(), ", which has size ", size);
  const Index entry = index < 0 ? index + size : index;
  return squeeze(slice(x, at, entry, entry + 1), at);
}

/// Adds entries of `value` before and after those of an axis.
///
/// Errors: ShapeError for negative numbers.
template <class T>
Variable<T> pad(const Variable<T>& x, Index axis, Index before, Index after,
                std::type_identity_t<T> value = 0) {
  const Shape shape = x.shape();
  const Index at = detail::wrap_axis(shape, axis, "pad"), size = shape[at];
  check<ShapeError>(before >= 0 && after >= 0, "pad: ", before, " before and ", after,
                    " after axis ", axis, " of shape ", shape,
                    ": neither may be negative; slice() removes entries");
  constexpr Index most = std::numeric_limits<Index>::max() / 4;
  check<ShapeError>(before <= most && after <= most, "pad: ", before, " before and ", after,
                    " after are more than any memory holds");
  auto y = Tensor<T>::full(detail::with_size(shape, at, before + size + after), value);
  detail::copy_along(y, {before}, x.value(), {}, at, size);
  return record<T>("pad", y, {x}, [=](const Tensor<T>& dy) {
    Tensor<T> dx(shape);
    detail::copy_along(dx, {}, dy, {before}, at, size);
    return std::vector{dx};
  });
}

/// Joins variables one after the other along an axis.
///
/// Errors: ShapeError for an empty list, or where sizes along the other axes differ.
template <class T>
Variable<T> concat(const std::vector<Variable<T>>& parts, Index axis) {
  check<ShapeError>(!parts.empty(), "concat: the list is empty");
  const Shape first = parts.front().shape();
  const Index at = detail::wrap_axis(first, axis, "concat");
  std::vector<Shape> shapes;
  Index total = 0;
  for (const auto& part : parts) {
    const Shape& shape = part.shape();
    check<ShapeError>(
        shape.rank() == first.rank() && detail::with_size(shape, at, first[at]) == first,
        "concat: entry ", shapes.size(), " has shape ", shape, ", the first ", first,
        "; they may differ on axis ", axis, " only");
    shapes.push_back(shape);
    total += shape[at];
  }
  Tensor<T> y(detail::with_size(first, at, total));
  Index begin = 0;
  for (const auto& part : parts) {
    detail::copy_along(y, {begin}, part.value(), {}, at, part.size(at));
    begin += part.size(at);
  }
  return record<T>("concat", y, parts, [=](const Tensor<T>& dy) {
    std::vector<Tensor<T>> gradients;
    Index from = 0;
    for (const Shape& shape : shapes) {
      Tensor<T>& dx = gradients.emplace_back(shape);
      detail::copy_along(dx, {}, dy, {from}, at, shape[at]);
      from += shape[at];
    }
    return gradients;
  });
}
template <class T>
Variable<T> concat(std::initializer_list<Variable<T>> parts, Index axis) {
  return concat(std::vector(parts), axis);
}

/// Joins variables of one shape along a new axis.
///
/// Errors: as `concat`.
template <class T>
Variable<T> stack(const std::vector<Variable<T>>& parts, Index axis) {
  std::vector<Variable<T>> unsqueezed;
  for (const auto& part : parts) {
    check<ShapeError>(part.shape() == parts.front().shape(), "stack: entry ", unsqueezed.size(),
                      " has shape ", part.shape(), ", the first ", parts.front().shape(),
                      "; all must be the same");
    unsqueezed.push_back(unsqueeze(part, axis));
  }
  return concat(unsqueezed, axis);
}
template <class T>
Variable<T> stack(std::initializer_list<Variable<T>> parts, Index axis) {
  return stack(std::vector(parts), axis);
}

}  // namespace minnow::inline MINNOW_ABI
