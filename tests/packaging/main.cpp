#include <cstdio>

#include "loss.hpp"

int main() {
  minnow::manual_seed(1);
  minnow::nn::Linear<float> layer(3, 2);
  const auto x = minnow::Tensor<float>::full({4, 3}, 2);
  loss(layer, x).backward();
  // d mean / d weight = 2 * 4 / (4 * 2)
  const float gradient = layer.weight().grad()(1, 2);
  std::printf("d mean / d weight: %g\n", static_cast<double>(gradient));
  return gradient == 1 ? 0 : 1;
}
