#pragma once
/// @file
/// Small integers for tests of sums of products: every sum is exact in float and double, whatever
/// its order, so that a fast kernel must agree with a plain loop bit by bit. And memory in which a
/// step beyond the ends shows.

#include <cmath>
#include <limits>
#include <vector>

#include "minnow/core/memory.hpp"
#include "minnow/core/random.hpp"
#include "minnow/tensor.hpp"
#include "threads.hpp"

namespace exact {

using minnow::Index;

/// `exact`: a heap block of exactly this size, so that a sanitizer sees a step beyond its end.
/// `unaligned`: between two guards, which begins one number after an aligned address.
enum class Place { exact, unaligned };

/// `size` numbers of plain heap memory; NaN unless told otherwise, as outputs should be at first.
template <class T>
class Numbers {
 public:
  explicit Numbers(Index size, Place place = Place::exact,
                   T value = std::numeric_limits<T>::quiet_NaN())
      : size_(size),
        front_(place == Place::unaligned ? 1 : 0),
        memory_(static_cast<std::size_t>(size + 2 * front_), guard) {
    std::fill_n(data(), size, value);
  }

  T* data() { return memory_.data() + front_; }
  const T* data() const { return memory_.data() + front_; }
  Index size() const { return size_; }
  T& operator[](Index i) { return data()[i]; }
  T operator[](Index i) const { return data()[i]; }

  /// True if the guards, where there are any, are untouched.
  bool intact() const {
    return front_ == 0 || (memory_.front() == guard && memory_.back() == guard);
  }

 private:
  static constexpr T guard = T(12345.5);

  Index size_, front_;
  std::vector<T> memory_;
};

/// Integers between -3 and 3, by Knuth's linear congruence.
template <class T>
Numbers<T> integers(Index size, std::uint64_t seed, Place place = Place::exact) {
  Numbers<T> result(size, place);
  std::uint64_t state = seed * 0x9E3779B97F4A7C15u;
  for (Index i = 0; i < size; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    result[i] = static_cast<T>(static_cast<int>((state >> 33) % 7) - 3);
  }
  return result;
}

/// N(0, 1).
template <class T>
Numbers<T> normals(Index size, std::uint64_t seed) {
  Numbers<T> result(size);
  for (Index i = 0; i < size; ++i)
    result[i] = static_cast<T>(minnow::random_normal({seed, 0, 0}, static_cast<std::uint64_t>(i)));
  return result;
}

/// The root of the mean squared distance of two runs of numbers.
template <class T>
double root_mean_square_distance(const Numbers<T>& actual, const Numbers<double>& expected) {
  double squares = 0;
  for (Index i = 0; i < expected.size(); ++i) {
    const double distance = static_cast<double>(actual[i]) - expected[i];
    squares += distance * distance;
  }
  return std::sqrt(squares / static_cast<double>(expected.size()));
}

/// The first position at which two runs of numbers differ by more than `bound`, or -1. NaN differs
/// from all.
template <class T, class U>
Index first_difference(const Numbers<T>& actual, const Numbers<U>& expected, T bound = 0) {
  for (Index i = 0; i < expected.size(); ++i)
    if (!(std::abs(actual[i] - static_cast<T>(expected[i])) <= bound)) return i;
  return -1;
}

/// Fills the memory that the pool hands out next, up to half a megabyte a block, with NaN: a kernel
/// that reads scratch before it writes shows.
inline void poison_scratch() {
  std::vector<minnow::Buffer<double>> blocks;
  for (Index size = 1; size < 65536; size += std::max<Index>(1, size / 5))
    std::fill_n(blocks.emplace_back(size).data(), size, std::numeric_limits<double>::quiet_NaN());
}

using minnow_test::Threads;

}  // namespace exact
