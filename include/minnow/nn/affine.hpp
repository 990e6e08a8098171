#pragma once
/// @file
/// The optional scale and shift of the normalisations.

#include <string_view>

#include "minnow/autograd.hpp"

namespace minnow::inline MINNOW_ABI::nn::detail {

/// The numbers of an optional parameter; null if it is undefined.
template <class T>
const T* data_or_null(const Variable<T>& parameter) {
  return parameter.defined() ? parameter.value().data() : nullptr;
}

/// Memory for a gradient of that shape, undefined (with null data) where none is wanted.
template <class T>
Tensor<T> gradient_if(bool wanted, const Shape& shape) {
  return wanted ? Tensor<T>(shape) : Tensor<T>();
}

/// Throws ShapeError unless gamma and beta, where defined, have the shape that x asks for.
template <class T>
void check_affine(std::string_view function, const Variable<T>& x, const Variable<T>& gamma,
                  const Variable<T>& beta, const Shape& expected) {
  for (const auto* parameter : {&gamma, &beta})
    check<ShapeError>(!parameter->defined() || parameter->shape() == expected, function, ": ",
                      parameter == &gamma ? "gamma" : "beta", " has shape ",
                      parameter->defined() ? parameter->shape() : Shape{}, ", x of shape ",
                      x.shape(), " needs ", expected);
}

}  // namespace minnow::inline MINNOW_ABI::nn::detail
