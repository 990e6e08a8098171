// The oracle of the layers' tests is itself held against PyTorch's numbers.
#include "minnow/testing/composed.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"
#include "variables.hpp"

using namespace minnow;
using namespace minnow_test;
namespace composed = minnow::testing::composed;

namespace {

using V = Variable<double>;
using Inputs = const std::vector<V>&;

const std::vector<std::string> x_only = {"x"}, with_weight = {"x", "weight"},
                               with_both = {"x", "weight", "bias"};

template <class F>
void check_case(const Reference& r, const std::string& name, std::vector<std::string> inputs,
                const F& f) {
  check_function<double>(r, name, f, {.inputs = std::move(inputs)});
}

}  // namespace

TEST_CASE("composed normalisations are PyTorch's") {
  const Reference r("norms");
  const auto group = [&](const std::string& name, Index groups, double eps, bool affine = true) {
    check_case(r, name, affine ? with_both : x_only, [=](Inputs in) {
      return composed::group_norm(in[0], groups, affine ? in[1] : V(), affine ? in[2] : V(), eps);
    });
  };
  group("group", 2, 1e-5);
  group("group_one", 1, 0.1);
  group("group_each", 3, 1e-5);
  group("group_flat", 2, 1e-5);
  group("group_no_affine", 2, 1e-5, false);
  const auto layer = [&](const std::string& name, const Shape& shape, double eps,
                         bool affine = true) {
    check_case(r, name, affine ? with_both : x_only, [=](Inputs in) {
      return composed::layer_norm(in[0], shape, affine ? in[1] : V(), affine ? in[2] : V(), eps);
    });
  };
  layer("layer_last", {7}, 1e-5);
  layer("layer_image", {3, 2, 4}, 0.1);
  layer("layer_no_affine", {5}, 1e-5, false);
  check_case(r, "instance", x_only,
             [](Inputs in) { return composed::instance_norm(in[0], V(), V(), 1e-5); });
  check_case(r, "instance_affine", with_both,
             [](Inputs in) { return composed::instance_norm(in[0], in[1], in[2], 0.1); });
  check_case(r, "rms_last", with_weight,
             [](Inputs in) { return composed::rms_norm(in[0], {6}, in[1], 1e-5); });
  check_case(r, "rms_image", with_weight, [](Inputs in) {
    return composed::rms_norm(in[0], {3, 4}, in[1], 0.1);
  });
  check_case(r, "rms_no_affine", x_only,
             [](Inputs in) { return composed::rms_norm(in[0], {5}, V(), 1e-5); });
}

TEST_CASE("composed batch norm is PyTorch's, in training and in evaluation") {
  const Reference r("batch_norm");
  for (const std::string name : {"two_d", "one_d", "one_d_length"}) {
    const V gamma = r.tensor(name + "/weight"), beta = r.tensor(name + "/bias");
    check_case(r, name + "/first", x_only, [&](Inputs in) {
      const auto result = composed::batch_norm(in[0], gamma, beta, 1e-5);
      const double n = static_cast<double>(in[0].size() / in[0].size(1));
      Tensor<double> mean = result.mean, variance = result.variance;
      for (double& m : mean.values()) m *= 0.1;
      for (double& v : variance.values()) v = 0.9 + 0.1 * v * n / (n - 1);
      check_close(mean, r, name + "/first/after/running_mean");
      check_close(variance, r, name + "/first/after/running_var");
      return result.y;
    });
    check_case(r, name + "/eval", x_only, [&](Inputs in) {
      return composed::batch_norm_eval(in[0], r.tensor(name + "/eval/after/running_mean"),
                                       r.tensor(name + "/eval/after/running_var"), gamma, beta,
                                       1e-5);
    });
  }
}

TEST_CASE("composed convolutions and linear maps are PyTorch's") {
  const Reference r("conv2d");
  const auto conv = [&](const std::string& name, Size2 stride, Size2 padding, Size2 dilation,
                        Index groups, bool bias = true) {
    check_case(r, name, bias ? with_both : with_weight, [=](Inputs in) {
      return composed::conv2d(in[0], in[1], bias ? in[2] : V(), stride, padding, dilation, groups);
    });
  };
  conv("plain", 1, 0, 1, 1);
  conv("no_bias", 1, 0, 1, 1, false);
  conv("padding", 1, 1, 1, 1);
  conv("stride", 2, 1, 1, 1);
  conv("dilation", 1, 2, 2, 1);
  conv("groups", 1, 0, 1, 2);
  conv("depthwise", 1, 1, 1, 3);
  conv("pointwise", 1, 0, 1, 1);
  conv("all", {2, 1}, {1, 2}, {2, 1}, 2);
  conv("whole_image", 1, 0, 1, 1);

  const Reference linear("linear");
  for (const std::string name : {"plain", "three_axes", "one"})
    check_case(linear, name, with_both,
               [](Inputs in) { return composed::linear(in[0], in[1], in[2]); });
  check_case(linear, "no_bias", with_weight,
             [](Inputs in) { return composed::linear(in[0], in[1], V()); });
}

TEST_CASE("composed poolings are PyTorch's") {
  const Reference r("pool2d");
  const auto max = [&](const std::string& name, Size2 kernel, Size2 stride, Size2 padding,
                       Size2 dilation = 1, bool ceil_mode = false) {
    check_case(r, name, x_only, [=](Inputs in) {
      return composed::max_pool2d(in[0], kernel, stride, padding, dilation, ceil_mode);
    });
  };
  max("max", 2, 2, 0);
  max("max_odd", 2, 2, 0);
  max("max_overlap", 3, 2, 1);
  max("max_ceil", 2, 2, 0, 1, true);
  max("max_ceil_padding", 3, 2, 1, 1, true);
  max("max_oblong", {2, 3}, {1, 2}, {1, 0});
  max("max_dilation", 2, 1, 0, {2, 3});
  max("max_ties", 3, 1, 1);
  const auto average = [&](const std::string& name, Size2 kernel, Size2 stride, Size2 padding,
                           bool ceil_mode = false, bool count_include_pad = true) {
    check_case(r, name, x_only, [=](Inputs in) {
      return composed::avg_pool2d(in[0], kernel, stride, padding, ceil_mode, count_include_pad);
    });
  };
  average("average", 5, 5, 0);
  average("average_odd", 2, 2, 0);
  average("average_overlap", 3, 2, 1);
  average("average_no_pad", 3, 2, 1, false, false);
  average("average_ceil", 2, 2, 0, true);
  average("average_ceil_padding", 3, 2, 1, true);
  average("average_ceil_no_pad", 3, 2, 1, true, false);
  average("average_oblong", {2, 3}, {1, 2}, {1, 0});
  const auto adaptive = [&](const std::string& name, Size2 output) {
    check_case(r, name, x_only,
               [=](Inputs in) { return composed::adaptive_avg_pool2d(in[0], output); });
  };
  adaptive("adaptive_one", 1);
  adaptive("adaptive_uneven", {3, 4});
  adaptive("adaptive_grow", {5, 3});
}

TEST_CASE("composed activations are PyTorch's") {
  const Reference r("activations");
  const auto one = [&](const std::string& name, const auto& f) {
    check_case(r, name, x_only, [&](Inputs in) { return f(in[0]); });
  };
  one("relu", [](const V& x) { return composed::relu(x); });
  one("leaky_relu", [](const V& x) { return composed::leaky_relu(x, 0.01); });
  one("leaky_relu_slope", [](const V& x) { return composed::leaky_relu(x, 0.2); });
  one("elu", [](const V& x) { return composed::elu(x, 1); });
  one("elu_alpha", [](const V& x) { return composed::elu(x, 0.5); });
  one("gelu", [](const V& x) { return composed::gelu(x); });
  one("gelu_tanh", [](const V& x) { return composed::gelu_tanh(x); });
  one("silu", [](const V& x) { return composed::silu(x); });
  one("sigmoid", [](const V& x) { return composed::sigmoid(x); });
  one("tanh", [](const V& x) { return composed::tanh(x); });
  for (const Index axis : {0, 1, -1}) {
    one(text("softmax/", axis), [=](const V& x) { return composed::softmax(x, axis); });
    one(text("log_softmax/", axis), [=](const V& x) { return composed::log_softmax(x, axis); });
  }
}

TEST_CASE("composed losses are PyTorch's") {
  const Reference r("losses");
  const auto labels = r.tensor<std::int64_t>("labels"),
             some = r.tensor<std::int64_t>("labels_some");
  const auto weight = r.tensor("weight");
  const Tensor<double> none;
  for (const std::string reduction : {"mean", "sum", "none"}) {
    const auto loss = [&](const std::string& name, const auto& f, const FunctionCase& c) {
      check_function<double>(r, name + '/' + reduction, f, c);
    };
    const auto of_classes = [&](const std::string& name, const auto& f, const auto&... options) {
      loss(name, [&](Inputs in) { return f(in[0], options...); }, {.output = "out"});
    };
    const auto cross_entropy = [&](const V& x, const auto& target, const auto& w,
                                   double smoothing) {
      return composed::cross_entropy(x, target, w, -100, reduction, smoothing);
    };
    of_classes("cross_entropy", cross_entropy, labels, none, 0.0);
    of_classes("cross_entropy_weight", cross_entropy, labels, weight, 0.0);
    of_classes("cross_entropy_ignore", cross_entropy, some, none, 0.0);
    of_classes("cross_entropy_smooth", cross_entropy, labels, none, 0.1);
    of_classes("cross_entropy_all", cross_entropy, some, weight, 0.2);
    const auto nll = [&](const V& x, const auto& target, const auto& w) {
      return composed::nll_loss(x, target, w, -100, reduction);
    };
    of_classes("nll", nll, labels, none);
    of_classes("nll_weight", nll, some, weight);
    const auto pixels = r.tensor<std::int64_t>("pixels");
    of_classes("cross_entropy_pixels", cross_entropy, pixels, weight.slice(0, 3), 0.1);
    of_classes("nll_pixels", nll, pixels, none);
    loss("mse", [&](Inputs in) { return composed::mse_loss(in[0], in[1], reduction); },
         {.inputs = {"x", "target"}, .output = "out"});
    const V factor = r.tensor("bce_weight"), positive = r.tensor("bce_pos_weight");
    loss("bce_all",
         [&](Inputs in) {
           return composed::bce_with_logits(in[0], in[1], factor, positive, reduction);
         },
         {.inputs = {"x", "target"}, .output = "out", .constants = {"target"}});
    for (const std::string name : {"bce", "bce_far"})
      loss(name,
           [&](Inputs in) { return composed::bce_with_logits(in[0], in[1], V(), V(), reduction); },
           {.inputs = {"x", "target"}, .output = "out", .constants = {"target"}});
  }
}

TEST_CASE("composed dropout scales what is kept") {
  const auto x = random_variable<double>({2, 4});
  const Tensor<double> keep({2, 4}, {1, 0, 1, 1, 0, 0, 1, 0});
  const V y = composed::dropout(x, keep, 0.75);
  for (Index i = 0; i < 8; ++i) CHECK(y.value()[i] == x.value()[i] * keep[i] * 4);
}

TEST_CASE("an ignored position has no loss, and there are three reductions") {
  const auto image = random_variable<double>({2, 3, 2, 2}, -3, 3);
  const Tensor<std::int64_t> classes({2, 2, 2}, {0, 1, 2, 0, -100, 1, 1, 2});
  const auto losses = composed::cross_entropy(image, classes, {}, -100, "none");
  CHECK(losses.shape() == Shape{2, 2, 2});
  CHECK(losses.value()(1, 0, 0) == 0);
  CHECK(losses.value()(1, 0, 1) > 0);
  CHECK_THROWS_WITH_AS(composed::mse_loss(image, image, "median"), "no reduction 'median'", Error);
}
