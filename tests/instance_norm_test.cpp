#include "minnow/nn/instance_norm.hpp"

#include <doctest/doctest.h>

#include "minnow/testing/gradcheck.hpp"
#include "norm_reference.hpp"

using namespace minnow;
using namespace norm_reference;
using minnow::testing::compare;
using minnow::testing::gradcheck;
namespace composed = minnow::testing::composed;

TEST_CASE_TEMPLATE("forward and backward agree with plain double loops, for any size", T, float,
                   double) {
  const Index W = Pack<T>::width;
  for (const Shape& shape :
       {Shape{1, 1, 1, 2}, Shape{3, 5, 2, 1}, Shape{2, 3, 1, W + 1}, Shape{4, 3, 5, 5},
        Shape{1, 2, 3, W}, Shape{2, 2, 70, 70}, Shape{20, 16, 9, 9}})
    for (const bool affine : {true, false}) {
      const Index c = shape[1], hw = shape[2] * shape[3], size = shape.size();
      const auto x = numbers<T>(size, 1), dy = numbers<T>(size, 2);
      const auto gamma = affine ? numbers<T>(c, 3) : Tensor<T>();
      const auto beta = affine ? numbers<T>(c, 4) : Tensor<T>();
      // Few numbers may happen to be close to each other; eps keeps rstd from enlarging rounding.
      const double eps = 0.01, relative = tolerance<T>();
      const auto expected = reference(group_layout(shape[0], c, hw, c), x, dy, gamma, beta, eps);
      Variable<T> x_in(x.reshape(shape), true), gamma_in, beta_in;
      if (affine) gamma_in = Variable<T>(gamma, true);
      if (affine) beta_in = Variable<T>(beta, true);
      const auto y = nn::instance_norm<T>(x_in, {}, {}, gamma_in, beta_in, true, 0.1, eps);
      y.backward(dy.reshape(shape));
      CHECK(compare(y.value(), expected.y.reshape(shape), relative, relative));
      CHECK(compare(x_in.grad(), expected.dx.reshape(shape), relative, relative * 10));
      if (!affine) continue;
      const double scale = 10 * std::sqrt(static_cast<double>(size / c));
      CHECK(compare(gamma_in.grad(), expected.dgamma, relative, relative * scale));
      CHECK(compare(beta_in.grad(), expected.dbeta, relative, relative * scale));
    }
}

TEST_CASE_TEMPLATE("running statistics are the means over the batch, unbiased", T, float, double) {
  for (const Shape& shape : {Shape{4, 3, 5}, Shape{1, 2, 2}, Shape{3, 2, 5000}}) {
    const Index n = shape[0], c = shape[1], hw = shape[2];
    const auto x = numbers<T>(shape.size(), 1);
    const auto expected = reference<T>(group_layout(n, c, hw, c), x, x, {}, {}, 1e-5);
    auto running_mean = Tensor<T>::full({c}, T(3)), running_var = Tensor<T>::full({c}, T(5));
    kernels::instance_norm_running(running_mean.data(), running_var.data(), x.data(), n, c, hw,
                                   0.25);
    for (Index ch = 0; ch < c; ++ch) {
      double mean = 0, variance = 0;
      for (Index i = 0; i < n; ++i) {
        mean += expected.mean[i * c + ch] / static_cast<double>(n);
        variance += expected.variance[i * c + ch] * static_cast<double>(hw) /
                    static_cast<double>(hw - 1) / static_cast<double>(n);
      }
      CHECK(static_cast<double>(running_mean[ch]) == doctest::Approx(0.75 * 3 + 0.25 * mean));
      CHECK(static_cast<double>(running_var[ch]) == doctest::Approx(0.75 * 5 + 0.25 * variance));
    }
    auto mean_only = Tensor<T>::full({c}, T(3)), var_only = Tensor<T>::full({c}, T(5));
    kernels::instance_norm_running<T>(mean_only.data(), nullptr, x.data(), n, c, hw, 0.25);
    kernels::instance_norm_running<T>(nullptr, var_only.data(), x.data(), n, c, hw, 0.25);
    kernels::instance_norm_running<T>(nullptr, var_only.data(), x.data(), 0, c, hw, 0.25);
    CHECK(testing::same_bits(mean_only, running_mean));
    CHECK(testing::same_bits(var_only, running_var));
  }
}

TEST_CASE_TEMPLATE("large means, constant planes and inputs around 1e30 are normalised rightly", T,
                   float, double) {
  const Shape shape{2, 3, 7, 7};
  const auto run = [&](const Tensor<T>& x) {
    return nn::instance_norm<T>(x.reshape(shape)).value();
  };
  const auto expected = [&](const Tensor<T>& x) {
    return reference<T>(group_layout(2, 3, 49, 3), x, x, {}, {}, 1e-5).y.reshape(shape);
  };
  const auto large = numbers<T>(294, 1, 1e4, 1), huge = numbers<T>(294, 1, 1e30, 1e30);
  CHECK(compare(run(large), expected(large), 1e-5, 1e-5));
  CHECK(compare(run(huge), expected(huge), tolerance<T>(), tolerance<T>()));
  CHECK(compare(run(Tensor<T>::full({294}, T(-123.4))), Tensor<T>::zeros(shape), 0, 0));
}

TEST_CASE_TEMPLATE("any number of threads gives the same bits", T, float, double) {
  check_same_bits<T>([]() -> std::vector<Tensor<T>> {
    const Shape shape{40, 6, 20, 20};
    Variable<T> x(numbers<T>(shape.size(), 1).reshape(shape), true), gamma(numbers<T>(6, 2), true);
    auto mean = Tensor<T>::zeros({6}), variance = Tensor<T>::ones({6});
    const auto y = nn::instance_norm<T>(x, mean, variance, gamma);
    y.backward(numbers<T>(shape.size(), 3).reshape(shape));
    return {y.value(), x.grad(), gamma.grad(), mean, variance};
  });
}

TEST_CASE_TEMPLATE("the function agrees with its composition from plain operations", T, float,
                   double) {
  for (const Shape& shape : {Shape{4, 6, 5, 6}, Shape{3, 2, 7}})
    check_agreement<T>(
        shape, {shape[1]},
        [](const auto& in) {
          return nn::instance_norm<T>(in[0], {}, {}, in[1], in[2], true, 0.1, 0.01);
        },
        [](const auto& in) { return composed::instance_norm(in[0], in[1], in[2], 0.01); });
}

TEST_CASE("finite differences confirm every gradient") {
  for (const Shape& shape : {Shape{2, 3, 3, 2}, Shape{1, 2, 17}, Shape{2, 2, 3}}) {
    const Index c = shape[1];
    const std::vector<Variable<double>> inputs{
        Variable<double>(Tensor<double>::normal(shape, 1, 2), true),
        Variable<double>(Tensor<double>::normal({c}), true),
        Variable<double>(Tensor<double>::normal({c}), true)};
    const auto mean = Tensor<double>::normal({c}), variance = Tensor<double>::uniform({c}, 0.5, 2);
    for (const bool use_input_stats : {true, false})
      CHECK(gradcheck(
          [&](const auto& in) {
            return nn::instance_norm(in[0], mean.clone(), variance.clone(), in[1], in[2],
                                     use_input_stats);
          },
          inputs));
  }
}

TEST_CASE("a new module has PyTorch's parameters, buffers and options") {
  nn::InstanceNorm2d norm(3);
  static_assert(std::is_same_v<decltype(norm), nn::InstanceNorm2d<float>>);
  CHECK(norm.name() == "InstanceNorm2d");
  CHECK(norm.num_features() == 3);
  CHECK(norm.options().eps == 1e-5);
  CHECK(norm.options().momentum == 0.1);
  CHECK(norm.state_dict().empty());

  nn::InstanceNorm2d full(3, {.affine = true, .track_running_stats = true});
  const auto parameters = full.named_parameters();
  REQUIRE(parameters.size() == 2);
  CHECK(parameters[0].first == "weight");
  CHECK(compare(parameters[0].second.value(), Tensor<float>::ones({3}), 0, 0));
  CHECK(parameters[1].first == "bias");
  CHECK(compare(parameters[1].second.value(), Tensor<float>::zeros({3}), 0, 0));
  const auto buffers = full.named_buffers();
  REQUIRE(buffers.size() == 3);
  CHECK(buffers[0].first == "running_mean");
  CHECK(compare(full.running_mean(), Tensor<float>::zeros({3}), 0, 0));
  CHECK(buffers[1].first == "running_var");
  CHECK(compare(full.running_var(), Tensor<float>::ones({3}), 0, 0));
  CHECK(buffers[2].first == "num_batches_tracked");
}

TEST_CASE("running statistics, where there are some, serve in evaluation") {
  const auto x = numbers<double>(2 * 2 * 6, 1).reshape({2, 2, 3, 2});
  nn::InstanceNorm2d<double> norm(2, {.momentum = 0.3, .track_running_stats = true}), bare(2),
      other = [] { return nn::InstanceNorm2d<double>(2, {.track_running_stats = true}); }();
  const auto trained = norm(x).value();
  CHECK(testing::same_bits(trained, bare(x).value()));
  auto mean = Tensor<double>::zeros({2}), variance = Tensor<double>::ones({2});
  kernels::instance_norm_running(mean.data(), variance.data(), x.data(), 2, 2, 6, 0.3);
  CHECK(testing::same_bits(norm.running_mean(), mean));
  CHECK(testing::same_bits(norm.running_var(), variance));

  norm.eval();
  bare.eval();
  const auto y = norm(x).value();
  CHECK(y[7] == doctest::Approx((x[7] - mean[1]) / std::sqrt(variance[1] + 1e-5)));
  CHECK(testing::same_bits(norm.running_mean(), mean));
  CHECK(testing::same_bits(trained, bare(x).value()));
  other.load_state_dict(norm.state_dict());
  other.eval();
  CHECK(testing::same_bits(other(x).value(), y));

  nn::InstanceNorm2d<double> fixed(2, {.momentum = std::nullopt, .track_running_stats = true});
  fixed(x);
  CHECK(compare(fixed.running_mean(), Tensor<double>::zeros({2}), 0, 0));
  CHECK(compare(fixed.running_var(), Tensor<double>::ones({2}), 0, 0));
}

TEST_CASE("errors name the place, what it got and what it needs") {
  const auto zeros = [](const Shape& shape) { return Tensor<float>::zeros(shape); };
  nn::InstanceNorm2d norm(8);
  CHECK(error_of([&] {
          norm(zeros({4, 6, 2, 2}));
        }) == "InstanceNorm2d(8): x has shape [4, 6, 2, 2], expected [N, 8, H, W]");
  CHECK(error_of([&] {
          norm(zeros({4, 8, 2}));
        }) == "InstanceNorm2d(8): x has shape [4, 8, 2], expected [N, 8, H, W]");
  CHECK(error_of([&] {
          norm(zeros({4, 8, 1, 1}));
        }) ==
        "instance_norm: expected more than 1 position per channel, got x of shape [4, 8, 1, 1]; "
        "normalise "
        "before the last pooling, or use BatchNorm2d");
  CHECK(error_of([] { nn::InstanceNorm2d(0); }) ==
        "InstanceNorm2d: 0 features; at least one is needed");
  CHECK(error_of([&] {
          nn::instance_norm<float>(zeros({3, 4}));
        }) == "instance_norm: x has shape [3, 4], expected [N, C, ...]");
  CHECK(error_of([&] {
          nn::instance_norm<float>(zeros({3, 4, 2}), {}, {}, zeros({3}));
        }) == "instance_norm: gamma has shape [3], x of shape [3, 4, 2] needs [4]");
  CHECK(error_of([&] {
          nn::instance_norm<float>(zeros({3, 4, 2}), zeros({5}));
        }) == "instance_norm: running_mean has shape [5], x of shape [3, 4, 2] needs [4]");
  CHECK(error_of([&] {
          nn::instance_norm<float>(zeros({3, 4, 2}), {}, {}, {}, {}, false);
        }) ==
        "instance_norm: without running_mean and running_var only the input's statistics can be "
        "used");
}
