// The three MNIST networks, whole, against PyTorch's numbers.

#include <doctest/doctest.h>

#include <cmath>

#include "minnow/nn/activations.hpp"
#include "minnow/nn/batch_norm.hpp"
#include "minnow/nn/conv2d.hpp"
#include "minnow/nn/dropout.hpp"
#include "minnow/nn/group_norm.hpp"
#include "minnow/nn/layer_norm.hpp"
#include "minnow/nn/pool2d.hpp"
#include "minnow/nn/sequential.hpp"
#include "minnow/ops/loss.hpp"
#include "minnow/ops/shape.hpp"
#include "reference.hpp"

using namespace minnow;
using namespace minnow_test;

namespace {

// generate.py builds the same, from the same formulas.
template <class T>
nn::Sequential<T> make_net(const std::string& norm) {
  nn::Sequential<T> net;
  const auto block = [&](Index in, Index out, Index kernel, Index size) {
    net.add(nn::Conv2d<T>(in, out, kernel, {.bias = false}));
    if (norm == "batch") net.add(nn::BatchNorm2d<T>(out));
    if (norm == "group") net.add(nn::GroupNorm<T>(2, out));
    if (norm == "layer") net.add(nn::LayerNorm<T>(size));
    net.add(nn::Dropout<T>(0)).add(nn::ReLU<T>());
  };
  block(1, 8, 3, 26);
  block(8, 8, 3, 24);
  block(8, 8, 3, 22);
  net.add(nn::MaxPool2d<T>(2));
  block(8, 12, 3, 9);
  block(12, 14, 3, 7);
  block(14, 8, 1, 7);
  block(8, 26, 3, 5);
  block(26, 50, 1, 5);
  net.add(nn::AvgPool2d<T>(5)).add(nn::Conv2d<T>(50, 10, 1, {.bias = false}));

  double number = 0;
  for (auto& [key, parameter] : net.named_parameters()) {
    Tensor<T>& values = Variable<T>(parameter).mutable_value();
    const bool weight = values.rank() == 4;
    const double scale =
        weight ? 1.5 / std::sqrt(static_cast<double>(values.size() / values.size(0))) : 0.2;
    const double offset = !weight && key.ends_with("weight") ? 1 : 0;
    for (Index i = 0; i < values.size(); ++i)
      values[i] = static_cast<T>(offset + scale * std::sin(1.7 * static_cast<double>(i) + number));
    ++number;
  }
  return net;
}

template <class T>
Tensor<T> images(Index copies) {
  Tensor<T> x({2 * copies, 1, 28, 28});
  for (Index at = 0; at < x.size(); ++at) {
    const Index i = at % (2 * 28 * 28);
    const auto row = static_cast<double>(i / 28), column = static_cast<double>(i % 28);
    x[at] = static_cast<T>(std::sin(0.37 * row) * std::cos(0.23 * column) +
                           0.2 * std::sin(1.3 * static_cast<double>(i)));
  }
  return x;
}

// Sum, sum of squares, first, middle and last value.
template <class T>
Tensor<double> excerpt(const Tensor<T>& x) {
  double sum = 0, squares = 0;
  for (const T value : x.values()) {
    sum += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  return Tensor<double>(
      {5}, {sum, squares, static_cast<double>(x[0]), static_cast<double>(x[x.size() / 2]),
            static_cast<double>(x[x.size() - 1])});
}

}  // namespace

// The two images go layer by layer; many copies of them by a plan, with the same logits, loss and
// gradients.
TEST_CASE_TEMPLATE("the three networks give PyTorch's logits, loss, gradients and statistics", T,
                   float, double) {
  const Reference r("network");
  const double error = std::is_same_v<T, double> ? 1e-8 : 2e-4;
  const auto check_excerpt = [&](const Tensor<T>& actual, const std::string& name,
                                 double factor = 1) {
    Tensor<double> expected = r.tensor(name);
    for (const Index linear : {0, 2, 3, 4}) expected[linear] *= factor;
    expected[1] *= factor * factor;
    const double size = std::sqrt(expected[1]);
    const auto comparison =
        minnow::testing::compare(excerpt(actual), expected, error, error * size);
    CHECK_MESSAGE(comparison.close, name, ": ", comparison.message);
  };
  for (const std::string norm : {"batch", "group", "layer"}) {
    for (const Index copies : {1, 11}) {
      CAPTURE(copies);
      auto net = make_net<T>(norm);
      net.plan(copies > 1);
      const std::string plan = net.plan_report({2 * copies, 1, 28, 28});
      CHECK((plan.find("one image a lane") != std::string::npos) == (copies > 1));
      const Variable<T> x(images<T>(copies), true);
      const Variable<T> logits = reshape(net(x), {2 * copies, 10});
      Tensor<std::int64_t> labels({2 * copies});
      for (Index i = 0; i < labels.size(); ++i) labels[i] = i % 2 == 0 ? 3 : 7;
      const Variable<T> loss = cross_entropy(logits, labels);
      loss.backward();
      check_close(logits.value().slice(0, 2), r, norm + "/logits", error);
      check_close(logits.value().slice(2 * copies - 2, 2 * copies), r, norm + "/logits", error);
      check_close(loss.value(), r, norm + "/loss", error);
      check_excerpt(x.grad().slice(0, 2), norm + "/dx", 1 / static_cast<double>(copies));
      for (const auto& [key, parameter] : net.named_parameters())
        check_excerpt(parameter.grad(), norm + "/" + key);
      if (copies > 1) continue;  // the running variance is unbiased, so copies change it
      for (const auto& [key, buffer] : net.named_buffers())
        if (const auto* statistics = std::get_if<Tensor<T>>(&buffer))
          check_excerpt(*statistics, norm + "/" + key);
      net.eval();
      check_close(reshape(net(x), {2, 10}).value(), r, norm + "/eval_logits", error);
    }
  }
  CHECK(r.unused() == "");
}
