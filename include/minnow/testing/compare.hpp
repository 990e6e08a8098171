#pragma once
/// @file
/// How far two tensors are apart.

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "minnow/tensor.hpp"

namespace minnow::inline MINNOW_ABI::testing {

/// The outcome of a comparison. Converts to bool: true if everything is within the tolerances.
struct Comparison {
  bool close = true;
  double worst = 0;     ///< the largest |actual - expected| / (absolute + relative * |expected|)
  std::string message;  ///< where and how, if not close

  explicit operator bool() const { return close; }
  const std::string& str() const { return message; }
};

/// Compares element by element: |actual - expected| <= absolute + relative * |expected|. NaN is
/// close to nothing but NaN, infinity only to the same infinity. A difference in shape is not
/// close, and an undefined tensor is close to none.
template <class T, class U>
Comparison compare(const Tensor<T>& actual, const Tensor<U>& expected, double relative,
                   double absolute) {
  if (!actual.defined() || !expected.defined())
    return {false, std::numeric_limits<double>::infinity(),
            actual.defined() ? "the expected tensor is undefined" : "the tensor is undefined"};
  if (actual.shape() != expected.shape())
    return {false, std::numeric_limits<double>::infinity(),
            text("shape ", actual.shape(), ", expected ", expected.shape())};
  Comparison result;
  Index far = 0;
  for (Index i = 0; i < expected.size(); ++i) {
    const double a = static_cast<double>(actual[i]), e = static_cast<double>(expected[i]);
    if (a == e || (std::isnan(a) && std::isnan(e))) continue;
    const double distance = std::abs(a - e) / (absolute + relative * std::abs(e));
    if (!(distance <= 1)) ++far;
    if (!(distance <= result.worst)) {
      result.worst = distance;
      if (!(distance <= 1))
        result.message = text("element ", i, " of shape ", expected.shape(), " is ", a,
                              ", expected ", e, " (difference ", a - e, ")");
    }
  }
  result.close = far == 0;
  if (far > 1) result.message += text("; ", far, " of ", expected.size(), " elements are too far");
  return result;
}

/// True if every bit is equal; false for undefined tensors.
template <class T>
bool same_bits(const Tensor<T>& a, const Tensor<T>& b) {
  return a.defined() && b.defined() && a.shape() == b.shape() &&
         std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(T)) == 0;
}

}  // namespace minnow::inline MINNOW_ABI::testing
