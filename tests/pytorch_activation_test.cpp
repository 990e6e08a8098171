// Activations against PyTorch's numbers.

#include <doctest/doctest.h>

#include "minnow/nn/activations.hpp"
#include "minnow/ops/softmax.hpp"
#include "reference.hpp"

using namespace minnow;
using namespace minnow_test;

TEST_CASE_TEMPLATE("activations give PyTorch's values and gradients", T, float, double) {
  const Reference r("activations");
  const auto check_activation = [&](const std::string& name, nn::Module<T>&& module) {
    check_function<T>(r, name, [&](const auto& inputs) { return module(inputs[0]); },
                      {.float_error = 5e-7});
  };
  check_activation("relu", nn::ReLU<T>());
  check_activation("leaky_relu", nn::LeakyReLU<T>());
  check_activation("leaky_relu_slope", nn::LeakyReLU<T>(0.2));
  check_activation("elu", nn::ELU<T>());
  check_activation("elu_alpha", nn::ELU<T>(0.5));
  check_activation("gelu", nn::GELU<T>());
  check_activation("gelu_tanh", nn::GELU<T>(GeluApproximation::tanh));
  check_activation("silu", nn::SiLU<T>());
  check_activation("sigmoid", nn::Sigmoid<T>());
  check_activation("tanh", nn::Tanh<T>());
  for (const Index axis : {0, 1, -1}) {
    const std::string place = text("/", axis);
    check_function<T>(r, "softmax" + place,
                      [&](const auto& inputs) { return softmax(inputs[0], axis); },
                      {.float_error = 5e-7});
    check_function<T>(r, "log_softmax" + place,
                      [&](const auto& inputs) { return log_softmax(inputs[0], axis); },
                      {.float_error = 5e-7});
  }
  CHECK(r.unused() == "");
}
