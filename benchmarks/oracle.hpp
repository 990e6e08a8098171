#pragma once
/// @file
/// What a layer should compute: the same from plain operations, in double.

#include "harness.hpp"
#include "minnow/testing/composed.hpp"

namespace bench {

namespace composed = minnow::testing::composed;

struct Oracle {
  Tensor<double> y;
  std::vector<Tensor<double>> gradients;  ///< of sum(dy * y), one for each input
};

/// f of the inputs, and its gradients. Undefined inputs stay undefined.
template <class F>
Oracle oracle(const F& f, const std::vector<Tensor<float>>& inputs, const Tensor<float>& dy) {
  std::vector<Variable<double>> leaves;
  for (const auto& input : inputs)
    leaves.push_back(input.defined() ? Variable<double>(input.to<double>(), true)
                                     : Variable<double>());
  const Variable<double> y = f(leaves);
  y.backward(dy.to<double>().reshape(y.shape()));
  Oracle result{y.value(), {}};
  for (const auto& leaf : leaves)
    result.gradients.push_back(leaf.defined() ? leaf.grad() : Tensor<double>());
  return result;
}

}  // namespace bench
