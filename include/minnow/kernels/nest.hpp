#pragma once
/// @file
/// `Nest`: one loop over several arrays that lie in memory in different ways.

#include <algorithm>
#include <array>

#include "minnow/core/config.hpp"
#include "minnow/core/shape.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// A loop nest in which each of `arrays` arrays moves by strides of its own; a stride of 0 repeats
/// an element. Neighbouring axes along which all arrays move evenly are one axis, so that the
/// innermost loop is as long as can be.
template <std::size_t arrays>
class Nest {
 public:
  using Offsets = std::array<Index, arrays>;

  /// Appends an axis inside the present ones, with the stride of each array in elements.
  void push(Index size, const Offsets& strides) {
    size_ *= size;
    if (size == 1) return;
    Axis& last = axes_[rank_ - 1];
    bool even = true;
    for (std::size_t k = 0; k < arrays; ++k) even = even && last.strides[k] == strides[k] * size;
    if (last.size == 1)
      last = {size, strides};
    else if (even)
      last = {last.size * size, strides};
    else
      axes_[rank_++] = {size, strides};
  }

  /// How often the innermost body runs.
  Index size() const { return size_; }
  /// The strides along the innermost axis.
  const Offsets& strides() const { return axes_[rank_ - 1].strides; }

  /// Covers the positions [begin, end), counted row-major over all axes, by calls of
  /// `body(position, offsets, count)`: `count` positions that lie on one innermost row.
  template <class Body>
  void walk(Index begin, Index end, const Body& body) const {
    if (begin >= end) return;
    Offsets offsets{};
    std::array<Index, Shape::max_rank> at{};
    Index rest = begin;
    for (std::size_t axis = rank_; axis-- > 0;) {
      at[axis] = rest % axes_[axis].size;
      rest /= axes_[axis].size;
      move(offsets, axis, at[axis]);
    }
    const std::size_t inner = rank_ - 1;
    while (begin < end) {
      const Index count = std::min(end - begin, axes_[inner].size - at[inner]);
      body(begin, offsets, count);
      begin += count;
      at[inner] += count;
      move(offsets, inner, count);
      for (std::size_t axis = inner; axis > 0 && at[axis] == axes_[axis].size; --axis) {
        move(offsets, axis, -at[axis]);
        at[axis] = 0;
        move(offsets, axis - 1, 1);
        ++at[axis - 1];
      }
    }
  }

 private:
  struct Axis {
    Index size = 1;
    Offsets strides{};
  };

  void move(Offsets& offsets, std::size_t axis, Index steps) const {
    for (std::size_t k = 0; k < arrays; ++k) offsets[k] += axes_[axis].strides[k] * steps;
  }

  std::array<Axis, Shape::max_rank> axes_{};
  std::size_t rank_ = 1;
  Index size_ = 1;
};

/// The nest over `shape` in which arrays of the given shapes are repeated along axes that they
/// lack, or in which their size is 1 (aligned at the last axis, as in NumPy).
template <class... Shapes>
Nest<sizeof...(Shapes)> broadcast_nest(const Shape& shape, const Shapes&... shapes) {
  const auto stride = [&](const Shape& array, Index axis) -> Index {
    axis -= shape.rank() - array.rank();
    return axis < 0 || array[axis] == 1 ? 0 : array.product(axis + 1, array.rank());
  };
  Nest<sizeof...(Shapes)> nest;
  for (Index axis = 0; axis < shape.rank(); ++axis)
    nest.push(shape[axis], {stride(shapes, axis)...});
  return nest;
}

}  // namespace minnow::inline MINNOW_ABI::kernels
