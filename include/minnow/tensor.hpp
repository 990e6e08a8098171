#pragma once
/// @file
/// `Tensor<T>`: numbers in a row-major, contiguous block of shared memory.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <initializer_list>
#include <span>
#include <string>
#include <utility>

#include "minnow/core/config.hpp"
#include "minnow/core/error.hpp"
#include "minnow/core/memory.hpp"
#include "minnow/core/random.hpp"
#include "minnow/core/shape.hpp"

namespace minnow::inline MINNOW_ABI {

/// A handle to an n-dimensional array. Copying a tensor copies the handle: both see the same
/// numbers. `clone` copies the numbers. `reshape` and `slice` (along the first axis) share memory
/// with their source and cost nothing. Images are [N, C, H, W].
///
/// `T` is any plain number: float and double for values, std::int64_t for labels, std::uint8_t for
/// raw images. A default-constructed tensor is undefined: it has no shape and no memory.
template <class T>
class Tensor {
 public:
  using value_type = T;

  Tensor() = default;

  /// Uninitialised numbers. Errors: ShapeError for more than any memory holds; std::bad_alloc.
  explicit Tensor(const Shape& shape)
      : buffer_(checked_size(shape)), data_(buffer_.data()), shape_(shape) {}

  /// The given numbers, row by row. Errors: ShapeError unless there are exactly shape.size() of
  /// them.
  Tensor(const Shape& shape, std::span<const T> values) : Tensor(shape) {
    check<ShapeError>(std::ssize(values) == size(), "Tensor: ", values.size(), " values for shape ",
                      shape, ", which has ", size(), " elements");
    std::ranges::copy(values, data_);
  }
  Tensor(const Shape& shape, std::initializer_list<T> values)
      : Tensor(shape, std::span(values.begin(), values.size())) {}

  static Tensor full(const Shape& shape, T value) {
    Tensor result(shape);
    result.fill(value);
    return result;
  }
  static Tensor zeros(const Shape& shape) { return full(shape, T(0)); }
  static Tensor ones(const Shape& shape) { return full(shape, T(1)); }
  static Tensor scalar(T value) { return full(Shape{}, value); }

  /// 0, 1, ..., count - 1.
  static Tensor arange(Index count) {
    Tensor result(Shape{count});
    for (Index i = 0; i < count; ++i) result.data_[i] = static_cast<T>(i);
    return result;
  }

  /// Independent numbers, uniform in [low, high). Errors: Error where low > high.
  static Tensor uniform(
      const Shape& shape, T low = 0, T high = 1,
      const RandomKey& key = default_generator().next()) requires std::floating_point<T> {
    Tensor result(shape);
    fill_uniform(result.data_, result.size(), low, high, key);
    return result;
  }

  /// Independent numbers, normal with the given mean and standard deviation. Errors: Error for a
  /// negative deviation.
  static Tensor normal(
      const Shape& shape, T mean = 0, T deviation = 1,
      const RandomKey& key = default_generator().next()) requires std::floating_point<T> {
    Tensor result(shape);
    fill_normal(result.data_, result.size(), mean, deviation, key);
    return result;
  }

  bool defined() const { return static_cast<bool>(buffer_); }
  const Shape& shape() const { return shape_; }
  Index rank() const { return shape_.rank(); }
  Index size() const { return defined() ? shape_.size() : 0; }
  /// The size of one axis; negative axes count from the back.
  Index size(Index axis) const { return shape_[axis]; }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::span<T> values() { return {data_, static_cast<std::size_t>(size())}; }
  std::span<const T> values() const { return {data_, static_cast<std::size_t>(size())}; }

  /// The element at flat position `i`. Unchecked.
  T& operator[](Index i) { return data_[i]; }
  const T& operator[](Index i) const { return data_[i]; }

  /// The element at an index per axis, e.g. `x(n, c, h, w)`. Errors: ShapeError on a wrong number
  /// of indices or one out of range.
  template <std::integral... I>
  T& operator()(I... indices) {
    return data_[offset({static_cast<Index>(indices)...})];
  }
  template <std::integral... I>
  const T& operator()(I... indices) const {
    return data_[offset({static_cast<Index>(indices)...})];
  }

  /// The one number of a tensor of one element. Errors: ShapeError for any other size.
  T item() const {
    check<ShapeError>(size() == 1, "item(): tensor of shape ", shape_, " has ", size(),
                      " elements, only a tensor of one element has an item", note());
    return data_[0];
  }

  /// The same numbers under another shape; one size may be -1 and is then computed.
  /// Errors: ShapeError where the number of elements differs.
  Tensor reshape(std::initializer_list<Index> sizes) const {
    return reshape(std::span(sizes.begin(), sizes.size()));
  }
  Tensor reshape(std::span<const Index> sizes) const { return reshape(resolve(sizes)); }
  Tensor reshape(const Shape& shape) const {
    check<ShapeError>(checked_size(shape) == size(), "reshape: ", shape_, " with ", size(),
                      " elements cannot become ", shape, " with ", shape.size());
    Tensor result = *this;
    result.shape_ = shape;
    return result;
  }

  /// Entries [begin, end) along the first axis. Shares memory.
  Tensor slice(Index begin, Index end) const {
    check<ShapeError>(rank() > 0, "slice: a scalar has no axis to slice");
    check<ShapeError>(0 <= begin && begin <= end && end <= shape_[0], "slice: [", begin, ", ", end,
                      ") is not within the first axis of ", shape_);
    Tensor result = *this;
    result.shape_.set(0, end - begin);
    result.data_ += begin * shape_.product(1, rank());
    return result;
  }

  /// A copy with memory of its own.
  Tensor clone() const {
    if (!defined()) return {};
    Tensor result(shape_);
    std::copy_n(data_, size(), result.data_);
    return result;
  }

  /// The numbers as another type, each converted by static_cast.
  template <class U>
  Tensor<U> to() const {
    if (!defined()) return {};
    Tensor<U> result(shape_);
    std::transform(data_, data_ + size(), result.data(),
                   [](T value) { return static_cast<U>(value); });
    return result;
  }

  void fill(T value) { std::fill_n(data_, size(), value); }

  /// Overwrites the numbers by those of `source`. Errors: ShapeError where shapes differ.
  void copy_from(const Tensor& source) {
    check<ShapeError>(source.shape_ == shape_ && source.defined() == defined(),
                      "copy_from: source has shape ", source.shape_, ", expected ", shape_,
                      source.note());
    std::copy_n(source.data_, size(), data_);
  }

  /// True if both handles see the same memory.
  bool shares_memory_with(const Tensor& other) const {
    return defined() && buffer_ == other.buffer_;
  }
  /// True if no other handle sees this memory.
  bool unique() const { return buffer_.unique(); }

 private:
  static Index checked_size(const Shape& shape) {
    check<ShapeError>(addressable(shape, sizeof(T)), "Tensor: shape ", shape,
                      " has more elements than fit into memory");
    return shape.size();
  }
  /// For messages: what a gradient before backward() runs into.
  std::string_view note() const {
    return defined() ? "" : "; it is undefined, as a gradient is before backward()";
  }
  Index offset(std::initializer_list<Index> indices) const {
    check<ShapeError>(std::ssize(indices) == rank() && defined(), indices.size(),
                      " indices into a tensor of shape ", shape_, note());
    Index position = 0, axis = 0;
    for (const Index index : indices) {
      check<ShapeError>(index >= 0 && index < shape_[axis], "index ", index, " on axis ", axis,
                        " of a tensor of shape ", shape_);
      position = position * shape_[axis++] + index;
    }
    return position;
  }

  Shape resolve(std::span<const Index> sizes) const {
    Shape shape;
    Index known = 1, unknown = -1;
    for (const Index size : sizes) {
      if (size == -1) {
        check<ShapeError>(unknown < 0, "reshape: more than one size is -1");
        unknown = shape.rank();
      } else {
        check<ShapeError>(!__builtin_mul_overflow(known, size, &known), "reshape: size ", size,
                          " and those before it are more than fit into memory");
      }
      shape.push_back(size == -1 ? 1 : size);
    }
    if (unknown >= 0) {
      check<ShapeError>(known > 0 && size() % known == 0, "reshape: ", shape_, " with ", size(),
                        " elements cannot be divided by the known sizes, which hold ", known);
      shape.set(unknown, size() / known);
    }
    return shape;
  }

  Buffer<T> buffer_;
  T* data_ = nullptr;
  Shape shape_;
};

}  // namespace minnow::inline MINNOW_ABI
