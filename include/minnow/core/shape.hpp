#pragma once
/// @file
/// The sizes of a tensor, outermost first.

#include <algorithm>
#include <array>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "minnow/core/config.hpp"
#include "minnow/core/error.hpp"

namespace minnow::inline MINNOW_ABI {

/// A height and a width: of a kernel, a stride, a padding. One number stands for both.
struct Size2 {
  Index h, w;

  constexpr Size2(Index both) : h(both), w(both) {}  // NOLINT: Conv2d(1, 8, 3) is meant to work
  constexpr Size2(Index height, Index width) : h(height), w(width) {}

  friend bool operator==(const Size2&, const Size2&) = default;
  /// "3" for a square, "(3, 5)" otherwise.
  std::string str() const { return h == w ? text(h) : text('(', h, ", ", w, ')'); }
};

/// Throws "Conv2d: stride 0, expected 1 to 1073741824" unless both sides lie in that range: no
/// image is larger, and sums and products of two such sides cannot overflow.
inline void check_sides(std::string_view place, std::string_view name, Size2 size, Index least) {
  constexpr Index most = Index{1} << 30;
  check<ShapeError>(std::min(size.h, size.w) >= least && std::max(size.h, size.w) <= most, place,
                    ": ", name, ' ', size, ", expected ", least, " to ", most);
}

/// Up to eight sizes, stored in place. Rank 0 is a scalar of one element.
///
/// Errors: a negative size, or more than `max_rank` of them, throw ShapeError.
class Shape {
 public:
  static constexpr Index max_rank = 8;

  Shape() = default;
  Shape(std::initializer_list<Index> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const Index> sizes) {
    check<ShapeError>(std::ssize(sizes) <= max_rank, "Shape: ", std::ssize(sizes),
                      " dimensions, at most ", max_rank, " are supported");
    for (const Index size : sizes) push_back(size);
  }

  Index rank() const { return rank_; }
  bool empty() const { return rank_ == 0; }

  /// The size at `axis`; negative axes count from the back.
  Index operator[](Index axis) const { return sizes_[static_cast<std::size_t>(wrap(axis))]; }
  void set(Index axis, Index size) { sizes_[static_cast<std::size_t>(wrap(axis))] = checked(size); }
  Index back() const { return (*this)[-1]; }

  const Index* begin() const { return sizes_.data(); }
  const Index* end() const { return sizes_.data() + rank_; }

  /// The number of elements.
  Index size() const { return product(0, rank_); }

  /// The product of the sizes at axes [first, last).
  Index product(Index first, Index last) const {
    Index result = 1;
    for (Index axis = first; axis < last; ++axis) result *= sizes_[static_cast<std::size_t>(axis)];
    return result;
  }

  void push_back(Index size) {
    check<ShapeError>(rank_ < max_rank, "Shape: more than ", max_rank, " dimensions");
    sizes_[static_cast<std::size_t>(rank_++)] = checked(size);
  }

  /// Axes [first, last) as a shape of their own.
  Shape slice(Index first, Index last) const {
    return Shape(std::span(begin() + first, begin() + last));
  }
  Shape slice(Index first) const { return slice(first, rank_); }

  /// `axis` as a number in [0, rank); throws ShapeError where there is no such axis.
  Index wrap(Index axis) const {
    const Index wrapped = axis < 0 ? axis + rank_ : axis;
    check<ShapeError>(wrapped >= 0 && wrapped < rank_, "axis ", axis, " of shape ", *this,
                      ": a shape of rank ", rank_, " has axes ", -rank_, " to ", rank_ - 1);
    return wrapped;
  }

  friend bool operator==(const Shape& a, const Shape& b) { return std::ranges::equal(a, b); }

  /// "[128, 8, 26, 26]"
  std::string str() const {
    std::string out = "[";
    for (Index axis = 0; axis < rank_; ++axis) {
      if (axis > 0) out += ", ";
      out += std::to_string(sizes_[static_cast<std::size_t>(axis)]);
    }
    return out + "]";
  }

 private:
  static Index checked(Index size) {
    check<ShapeError>(size >= 0, "Shape: size ", size, " is negative");
    return size;
  }

  std::array<Index, max_rank> sizes_{};
  Index rank_ = 0;
};

/// True where a tensor of this shape, of elements of so many bytes, can exist. A size of 0 counts
/// as 1: kernels multiply the sizes beside it, too.
inline bool addressable(const Shape& shape, Index element_size) {
  Index bytes = 4 * element_size;  // the pool rounds up, to at most twice the size
  for (const Index size : shape)
    if (__builtin_mul_overflow(bytes, std::max<Index>(size, 1), &bytes)) return false;
  return true;
}

}  // namespace minnow::inline MINNOW_ABI
