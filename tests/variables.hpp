#pragma once
/// @file
/// Random variables and gradient checks for the tests of the operations.

#include <doctest/doctest.h>

#include <functional>
#include <vector>

#include "minnow/testing/compare.hpp"
#include "minnow/testing/gradcheck.hpp"

namespace minnow_test {

using namespace minnow;

template <class T>
using Variables = std::vector<Variable<T>>;

/// Numbers that are uniform in [low, high); another `stream` gives others.
template <class T>
Tensor<T> random_tensor(const Shape& shape, double low = -1, double high = 1,
                        std::uint32_t stream = 0) {
  return Tensor<T>::uniform(shape, static_cast<T>(low), static_cast<T>(high), {42, stream, 0});
}

/// A leaf of such numbers that requires a gradient.
template <class T>
Variable<T> random_variable(const Shape& shape, double low = -1, double high = 1,
                            std::uint32_t stream = 0) {
  return Variable<T>(random_tensor<T>(shape, low, high, stream), true);
}

using Function = std::function<Variable<double>(const Variables<double>&)>;

/// Checks f's backward for inputs that all require gradients, and then for each requiring one
/// alone.
inline void check_gradients(const Function& f, const Variables<double>& inputs,
                            const minnow::testing::GradcheckOptions& options = {}) {
  const auto all = minnow::testing::gradcheck(f, inputs, options);
  CHECK_MESSAGE(all.passed, all.message);
  for (std::size_t k = 0; inputs.size() > 1 && k < inputs.size(); ++k) {
    Variables<double> constants;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      constants.emplace_back(inputs[i].value().clone(), i == k);
    const auto alone = minnow::testing::gradcheck(f, constants, options);
    CHECK_MESSAGE(alone.passed, alone.message);
  }
}

}  // namespace minnow_test
