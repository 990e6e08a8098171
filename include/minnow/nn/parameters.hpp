#pragma once
/// @file
/// Parameters that a function can do without, and gradients that nobody wants.

#include "minnow/autograd.hpp"

namespace minnow::inline MINNOW_ABI::nn::detail {

/// Throws ShapeError unless bias, where defined, has the shape [out].
template <class T>
void check_bias(std::string_view place, const Variable<T>& bias, Index out) {
  if (!bias.defined()) return;
  check<ShapeError>(bias.shape() == Shape{out}, place, ": bias has shape ", bias.shape(),
                    ", expected ", Shape{out});
}

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

}  // namespace minnow::inline MINNOW_ABI::nn::detail
