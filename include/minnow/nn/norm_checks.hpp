#pragma once
/// @file
/// The checks of shapes that the normalisations' functions share.

#include <string_view>

#include "minnow/autograd.hpp"

namespace minnow::inline MINNOW_ABI::nn::detail {

/// Throws ShapeError unless gamma and beta, where defined, have the shape that x asks for.
template <class T>
void check_affine(std::string_view place, const Variable<T>& x, const Variable<T>& gamma,
                  const Variable<T>& beta, const Shape& expected) {
  for (const auto* parameter : {&gamma, &beta}) {
    if (!parameter->defined()) continue;
    check<ShapeError>(parameter->shape() == expected, place, ": ",
                      parameter == &gamma ? "gamma" : "beta", " has shape ", parameter->shape(),
                      ", x of shape ", x.shape(), " needs ", expected);
  }
}

/// The same for running statistics of x [N, C, ...], which need the shape [C].
template <class T>
void check_running(std::string_view place, const Variable<T>& x, const Tensor<T>& running_mean,
                   const Tensor<T>& running_var) {
  const Shape expected{x.size(1)};
  for (const auto* running : {&running_mean, &running_var})
    check<ShapeError>(!running->defined() || running->shape() == expected, place, ": ",
                      running == &running_mean ? "running_mean" : "running_var", " has shape ",
                      running->shape(), ", x of shape ", x.shape(), " needs ", expected);
}

/// Throws ShapeError unless x ends in the shape `normalized`, which must not be empty. Returns the
/// number of rows of that shape in x.
inline Index count_rows(std::string_view place, const Shape& x, const Shape& normalized) {
  check<ShapeError>(!normalized.empty(), place,
                    ": the normalized shape is empty; name at least the last axis, e.g. {26}");
  const Index leading = x.rank() - normalized.rank();
  if (leading < 0 || x.slice(leading) != normalized)
    throw ShapeError(text(
        place, ": x has shape ", x, ", which does not end in the normalized shape ", normalized,
        x.rank() > 1 ? text("; it takes the last sizes of x, such as ", x.slice(x.rank() - 1))
                     : ""));
  return x.product(0, leading);
}

}  // namespace minnow::inline MINNOW_ABI::nn::detail
