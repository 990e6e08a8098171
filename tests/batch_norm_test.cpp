#include "minnow/nn/batch_norm.hpp"

#include <doctest/doctest.h>

#include "minnow/nn/sequential.hpp"
#include "minnow/testing/gradcheck.hpp"
#include "norm_reference.hpp"

using namespace minnow;
using namespace norm_reference;
using minnow::testing::compare;
using minnow::testing::gradcheck;
namespace composed = minnow::testing::composed;

namespace {

struct Size {
  Index n, c, hw;
};

/// Planes of one position to several pieces, lanes across columns and along planes, one block and
/// many.
template <class T>
std::vector<Size> sizes() {
  const Index W = Pack<T>::width, below = std::max<Index>(1, W - 1);
  return {{2, 1, 1},
          {1, 1, 2},
          {7, below, 1},
          {70, W, 1},
          {129, W + 1, 1},
          {3, 3 * W + 1, 1},
          {3, 2, 3},
          {150, 3, 2},
          {2, 3, below},
          {5, 3, W},
          {1, 2, W + 1},
          {9, 4, 25},
          {130, 3, 25},
          {2, 3, 3 * W + 1},
          {3, 2, 676},
          {2, 2, 4100},
          {1, 1, 10000},
          {2, 5, 7 * W},
          // image by image, with more channels than a task takes
          {2, 8, 16 * W},
          {9, 30, 20 * W + 3},
          // as a matrix of more columns than a task takes, and of more than pays
          {70, 50, 25},
          {34, 90, 13},
          {33, 170, 25},
          // a channel at a time
          {11, 8, 2100}};
}

template <class T>
void check_against_reference(const Size& s, bool affine) {
  const Index n = s.n, c = s.c, hw = s.hw;
  CAPTURE(n);
  CAPTURE(c);
  CAPTURE(hw);
  CAPTURE(affine);
  const Index size = n * c * hw;
  const auto x = numbers<T>(size, 1), dy = numbers<T>(size, 2);
  const auto gamma = affine ? numbers<T>(c, 3) : Tensor<T>(),
             beta = affine ? numbers<T>(c, 4) : Tensor<T>();
  const auto expected = reference(batch_layout(n, c, hw), x, dy, gamma, beta, 1e-5);
  const double relative = tolerance<T>();

  Guarded<T> x_in(x), dy_in(dy), y(size), mean(c), rstd(c), dx(size), dgamma(c), dbeta(c);
  auto running_mean = Tensor<T>::full({c}, T(3)), running_var = Tensor<T>::full({c}, T(5));
  kernels::batch_norm_forward(y.data(), mean.data(), rstd.data(), running_mean.data(),
                              running_var.data(), x_in.data(), gamma.data(), beta.data(), n, c, hw,
                              1e-5, 0.25);
  CHECK(compare(y.tensor(), expected.y, relative, relative));
  CHECK(compare(mean.tensor(), expected.mean, relative, relative));
  CHECK(compare(rstd.tensor(), expected.rstd, relative, relative));
  const double m = static_cast<double>(n * hw);
  for (Index ch = 0; ch < c; ++ch) {
    CHECK(static_cast<double>(running_mean[ch]) ==
          doctest::Approx(0.75 * 3 + 0.25 * expected.mean[ch]));
    CHECK(static_cast<double>(running_var[ch]) ==
          doctest::Approx(0.75 * 5 + 0.25 * expected.variance[ch] * m / (m - 1)));
  }

  kernels::batch_norm_backward(dx.data(), dgamma.data(), dbeta.data(), dy_in.data(), x_in.data(),
                               mean.data(), rstd.data(), gamma.data(), n, c, hw);
  // The sums' errors grow with the size of their terms, not of their result.
  const double scale = std::sqrt(m) * 10;
  CHECK(compare(dgamma.tensor(), expected.dgamma, relative, relative * scale));
  CHECK(compare(dbeta.tensor(), expected.dbeta, relative, relative * scale));
  CHECK(compare(dx.tensor(), expected.dx, relative, relative * 10));

  // Each output alone has the same bits; x and dy may be overwritten.
  Guarded<T> dx_only(dy), y_in_place(x), dgamma_only(c), dbeta_only(c);
  kernels::batch_norm_backward<T>(dx_only.data(), nullptr, nullptr, dx_only.data(), x.data(),
                                  mean.data(), rstd.data(), gamma.data(), n, c, hw);
  CHECK(testing::same_bits(dx_only.tensor(), dx.tensor()));
  kernels::batch_norm_backward<T>(nullptr, dgamma_only.data(), nullptr, dy.data(), x.data(),
                                  mean.data(), rstd.data(), gamma.data(), n, c, hw);
  CHECK(testing::same_bits(dgamma_only.tensor(), dgamma.tensor()));
  kernels::batch_norm_backward<T>(nullptr, nullptr, dbeta_only.data(), dy.data(), x.data(),
                                  mean.data(), rstd.data(), gamma.data(), n, c, hw);
  CHECK(testing::same_bits(dbeta_only.tensor(), dbeta.tensor()));
  kernels::batch_norm_forward<T>(y_in_place.data(), mean.data(), rstd.data(), nullptr, nullptr,
                                 y_in_place.data(), gamma.data(), beta.data(), n, c, hw, 1e-5, 0);
  CHECK(testing::same_bits(y_in_place.tensor(), y.tensor()));
}

template <class T>
void check_inference(const Size& s, bool affine) {
  const Index n = s.n, c = s.c, hw = s.hw;
  const Index size = n * c * hw;
  const auto x = numbers<T>(size, 1), dy = numbers<T>(size, 2), mean = numbers<T>(c, 5);
  const auto variance = Tensor<T>::uniform({c}, T(0.5), T(2));
  const auto gamma = affine ? numbers<T>(c, 3) : Tensor<T>(),
             beta = affine ? numbers<T>(c, 4) : Tensor<T>();
  Tensor<double> y({size}), dx({size}), rstd({c});
  auto dgamma = Tensor<double>::zeros({c}), dbeta = Tensor<double>::zeros({c});
  for (Index i = 0; i < size; ++i) {
    const Index ch = i / hw % c;
    rstd[ch] = 1 / std::sqrt(static_cast<double>(variance[ch]) + 1e-3);
    const double xhat = (static_cast<double>(x[i]) - static_cast<double>(mean[ch])) * rstd[ch];
    y[i] = affine ? xhat * static_cast<double>(gamma[ch]) + static_cast<double>(beta[ch]) : xhat;
    dx[i] = static_cast<double>(dy[i]) * rstd[ch] * (affine ? static_cast<double>(gamma[ch]) : 1);
    dgamma[ch] += static_cast<double>(dy[i]) * xhat;
    dbeta[ch] += static_cast<double>(dy[i]);
  }
  const double relative = tolerance<T>(), scale = 10 * std::sqrt(static_cast<double>(n * hw));
  Guarded<T> y_out(size), rstd_out(c), dx_out(size), dgamma_out(c), dbeta_out(c);
  kernels::batch_norm_inference(y_out.data(), rstd_out.data(), x.data(), mean.data(),
                                variance.data(), gamma.data(), beta.data(), n, c, hw, 1e-3);
  CHECK(compare(y_out.tensor(), y, relative, relative));
  CHECK(compare(rstd_out.tensor(), rstd, relative, 0));
  kernels::batch_norm_backward(dx_out.data(), dgamma_out.data(), dbeta_out.data(), dy.data(),
                               x.data(), mean.data(), rstd_out.data(), gamma.data(), n, c, hw,
                               true);
  CHECK(compare(dx_out.tensor(), dx, relative, relative));
  CHECK(compare(dgamma_out.tensor(), dgamma, relative, relative * scale));
  CHECK(compare(dbeta_out.tensor(), dbeta, relative, relative * scale));
  Guarded<T> dx_only(size);
  kernels::batch_norm_backward<T>(dx_only.data(), nullptr, nullptr, dy.data(), x.data(),
                                  mean.data(), rstd_out.data(), gamma.data(), n, c, hw, true);
  CHECK(testing::same_bits(dx_only.tensor(), dx_out.tensor()));
}

template <class T>
Tensor<T> normalized(const Tensor<T>& x, const Tensor<T>& beta, Index n, Index c, Index hw) {
  Tensor<T> y(x.shape()), mean({c}), rstd({c});
  kernels::batch_norm_forward<T>(y.data(), mean.data(), rstd.data(), nullptr, nullptr, x.data(),
                                 nullptr, beta.data(), n, c, hw, 1e-5, 0);
  return y;
}

}  // namespace

TEST_CASE_TEMPLATE("the kernels agree with plain double loops, for any size", T, float, double) {
  for (const Size& size : sizes<T>())
    for (const bool affine : {true, false}) {
      check_against_reference<T>(size, affine);
      check_inference<T>(size, affine);
    }
}

TEST_CASE_TEMPLATE("an empty batch has no outputs but zero gradients", T, float, double) {
  for (const Size s : {Size{0, 3, 4}, Size{2, 3, 0}, Size{0, 40, 40}}) {
    Guarded<T> nothing(0), mean(s.c), rstd(s.c), dgamma(s.c), dbeta(s.c);
    kernels::batch_norm_forward<T>(nothing.data(), mean.data(), rstd.data(), nullptr, nullptr,
                                   nothing.data(), nullptr, nullptr, s.n, s.c, s.hw, 1e-5, 0);
    kernels::batch_norm_backward<T>(nothing.data(), dgamma.data(), dbeta.data(), nothing.data(),
                                    nothing.data(), mean.data(), rstd.data(), nullptr, s.n, s.c,
                                    s.hw);
    const auto zeros = Tensor<double>::zeros({s.c});
    CHECK(compare(mean.tensor(), zeros, 0, 0));
    CHECK(compare(dgamma.tensor(), zeros, 0, 0));
    CHECK(compare(dbeta.tensor(), zeros, 0, 0));
  }
}

TEST_CASE("an empty batch leaves the running statistics as they are") {
  nn::BatchNorm2d norm(3);
  CHECK(norm(Tensor<float>::zeros({0, 3, 4, 4})).shape() == Shape{0, 3, 4, 4});
  CHECK(compare(norm.running_mean(), Tensor<double>::zeros({3}), 0, 0));
  CHECK(compare(norm.running_var(), Tensor<double>::ones({3}), 0, 0));
}

TEST_CASE_TEMPLATE("a mean far larger than the deviation takes no digits from the result", T, float,
                   double) {
  for (const auto& [n, c, hw] : {Size{64, 5, 49}, Size{500, 20, 1}, Size{2, 1, 50000}})
    for (const double deviation : {1.0, 0.01}) {
      const auto x = numbers<T>(n * c * hw, 1, 1e4, deviation);
      const auto expected = reference(batch_layout(n, c, hw), x, x, {}, {}, 1e-5);
      CHECK(compare(normalized<T>(x, {}, n, c, hw), expected.y, 1e-5, 1e-5));
    }
}

TEST_CASE_TEMPLATE("a channel whose pivot lies far off loses no digits either", T, float, double) {
  // The pivot is the mean of four numbers of a channel: here all four lie 100 deviations off.
  for (const auto& [n, c, hw] : {Size{20000, 5, 3}, Size{700, 3, 100}, Size{12, 2, 6000}}) {
    auto x = numbers<T>(n * c * hw, 1, 100, 1);
    for (Index i = 0; i < 4; ++i) x[((n - 1) * i / 3 * c + 1) * hw + (hw - 1) * i / 3] = T(0);
    const auto expected = reference(batch_layout(n, c, hw), x, x, {}, {}, 1e-5);
    CHECK(compare(normalized<T>(x, {}, n, c, hw), expected.y, 1e-5, 1e-5));
  }
}

TEST_CASE_TEMPLATE("constant channels give beta", T, float, double) {
  for (const auto& [n, c, hw] : {Size{33, 3, 49}, Size{77, 19, 1}, Size{5, 2, 4}, Size{1, 1, 9999}})
    for (const double constant : {0.0, 0.1, -12345.678, 1e20}) {
      const auto beta = numbers<T>(c, 1);
      const auto y =
          normalized(Tensor<T>::full({n * c * hw}, static_cast<T>(constant)), beta, n, c, hw);
      for (Index i = 0; i < y.size(); ++i) REQUIRE(y[i] == beta[i / hw % c]);
    }
}

TEST_CASE_TEMPLATE("inputs around 1e30 are as accurate as others, forward and backward", T, float,
                   double) {
  for (const auto& [n, c, hw] :
       {Size{6, 3, 49}, Size{3, 8, 300}, Size{3, 8, 2100}, Size{77, 19, 1}, Size{1, 2, 9000}}) {
    const auto x = numbers<T>(n * c * hw, 1, 1e30, 1e30), dy = numbers<T>(n * c * hw, 2);
    const auto expected = reference(batch_layout(n, c, hw), x, dy, {}, {}, 1e-5);
    CHECK(compare(normalized<T>(x, {}, n, c, hw), expected.y, tolerance<T>(), tolerance<T>()));
    Tensor<T> y({n * c * hw}), dx({n * c * hw}), mean({c}), rstd({c});
    kernels::batch_norm_forward<T>(y.data(), mean.data(), rstd.data(), nullptr, nullptr, x.data(),
                                   nullptr, nullptr, n, c, hw, 1e-5, 0);
    kernels::batch_norm_backward<T>(dx.data(), nullptr, nullptr, dy.data(), x.data(), mean.data(),
                                    rstd.data(), nullptr, n, c, hw);
    CHECK(compare(dx, expected.dx, tolerance<T>(), tolerance<T>() * 1e-30));
  }
}

TEST_CASE_TEMPLATE("any number of threads gives the same bits", T, float, double) {
  for (const auto& [n, c, hw] :
       {Size{130, 8, 81}, Size{20, 40, 300}, Size{4, 9, 2100}, Size{700, 37, 1}, Size{64, 10, 4}})
    check_same_bits<T>([n = n, c = c, hw = hw]() -> std::vector<Tensor<T>> {
      const Index size = n * c * hw;
      const auto x = numbers<T>(size, 1), dy = numbers<T>(size, 2), gamma = numbers<T>(c, 3);
      Tensor<T> y({size}), mean({c}), rstd({c}), dx({size}), dgamma({c}), dbeta({c});
      kernels::batch_norm_forward<T>(y.data(), mean.data(), rstd.data(), nullptr, nullptr, x.data(),
                                     gamma.data(), nullptr, n, c, hw, 1e-5, 0);
      kernels::batch_norm_backward(dx.data(), dgamma.data(), dbeta.data(), dy.data(), x.data(),
                                   mean.data(), rstd.data(), gamma.data(), n, c, hw);
      return {y, mean, rstd, dx, dgamma, dbeta};
    });
}

TEST_CASE_TEMPLATE("the function agrees with its composition from plain operations", T, float,
                   double) {
  for (const Shape& shape : {Shape{4, 3, 5, 6}, Shape{40, 5}, Shape{3, 7, 33}}) {
    check_agreement<T>(
        shape, {shape[1]},
        [](const auto& in) {
          return nn::batch_norm<T>(in[0], {}, {}, in[1], in[2], true, 0, 0.01);
        },
        [](const auto& in) { return composed::batch_norm(in[0], in[1], in[2], 0.01).y; });
    const auto mean = numbers<T>(shape[1], 4),
               variance = Tensor<T>::uniform({shape[1]}, T(0.5), T(2));
    check_agreement<T>(
        shape, {shape[1]},
        [&](const auto& in) { return nn::batch_norm<T>(in[0], mean, variance, in[1], in[2]); },
        [&](const auto& in) {
          return composed::batch_norm_eval(in[0], mean, variance, in[1], in[2], 1e-5);
        });
  }
}

TEST_CASE("finite differences confirm every gradient") {
  for (const Shape& shape : {Shape{3, 2, 3, 5}, Shape{5, 3}, Shape{2, 3, 4, 5}, Shape{2, 2}}) {
    const Index c = shape[1];
    const std::vector<Variable<double>> inputs{
        Variable<double>(Tensor<double>::normal(shape, 1, 2), true),
        Variable<double>(Tensor<double>::normal({c}), true),
        Variable<double>(Tensor<double>::normal({c}), true)};
    const auto mean = Tensor<double>::normal({c}), variance = Tensor<double>::uniform({c}, 0.5, 2);
    for (const bool training : {true, false})
      CHECK(gradcheck(
          [&](const auto& in) {
            return nn::batch_norm(in[0], mean.clone(), variance.clone(), in[1], in[2], training);
          },
          inputs));
    CHECK(gradcheck(
        [&](const auto& in) { return nn::batch_norm<double>(in[0], {}, {}, {}, {}, true, 0, 0.1); },
        {inputs[0]}));
  }
}

TEST_CASE("only what requires a gradient receives one") {
  const auto run = [](bool x_on, bool gamma_on, bool beta_on) {
    Variable<double> x(numbers<double>(24, 1).reshape({4, 3, 2}), x_on);
    Variable<double> gamma(Tensor<double>::ones({3}), gamma_on),
        beta(Tensor<double>::ones({3}), beta_on);
    nn::batch_norm<double>(x, {}, {}, gamma, beta, true)
        .backward(numbers<double>(24, 2).reshape({4, 3, 2}));
    CHECK(x.grad().defined() == x_on);
    CHECK(gamma.grad().defined() == gamma_on);
    CHECK(beta.grad().defined() == beta_on);
  };
  run(true, false, false);
  run(false, true, false);
  run(false, false, true);
}

TEST_CASE("a new module has PyTorch's parameters, buffers and options") {
  nn::BatchNorm2d norm(3);
  static_assert(std::is_same_v<decltype(norm), nn::BatchNorm2d<float>>);
  CHECK(norm.name() == "BatchNorm2d");
  CHECK(nn::BatchNorm1d(3).name() == "BatchNorm1d");
  CHECK(norm.options().eps == 1e-5);
  CHECK(norm.options().momentum == 0.1);
  const auto parameters = norm.named_parameters();
  REQUIRE(parameters.size() == 2);
  CHECK(parameters[0].first == "weight");
  CHECK(compare(parameters[0].second.value(), Tensor<float>::ones({3}), 0, 0));
  CHECK(parameters[1].first == "bias");
  CHECK(compare(parameters[1].second.value(), Tensor<float>::zeros({3}), 0, 0));
  const auto buffers = norm.named_buffers();
  REQUIRE(buffers.size() == 3);
  CHECK(buffers[0].first == "running_mean");
  CHECK(compare(norm.running_mean(), Tensor<float>::zeros({3}), 0, 0));
  CHECK(buffers[1].first == "running_var");
  CHECK(compare(norm.running_var(), Tensor<float>::ones({3}), 0, 0));
  CHECK(buffers[2].first == "num_batches_tracked");
  CHECK(norm.num_batches_tracked().shape() == Shape{});
  CHECK(norm.num_batches_tracked().item() == 0);

  nn::BatchNorm1d<double> bare(3, {.affine = false, .track_running_stats = false});
  CHECK(bare.named_parameters().empty());
  CHECK(bare.named_buffers().empty());
}

TEST_CASE("running statistics follow the batches and serve in evaluation") {
  for (const auto& momentum : {std::optional<double>(0.1), std::optional<double>()}) {
    nn::BatchNorm2d<double> norm(2, {.momentum = momentum});
    double mean = 0, variance = 1;
    for (int batch = 1; batch <= 3; ++batch) {
      const auto x = numbers<double>(2 * 2 * 6, static_cast<std::uint32_t>(batch));
      norm(x.reshape({2, 2, 2, 3}));
      const auto expected = reference<double>(batch_layout(2, 2, 6), x, x, {}, {}, 1e-5);
      const double weight = momentum.value_or(1.0 / batch);
      mean += weight * (expected.mean[1] - mean);
      variance += weight * (expected.variance[1] * 12 / 11 - variance);
      CHECK(norm.running_mean()[1] == doctest::Approx(mean));
      CHECK(norm.running_var()[1] == doctest::Approx(variance));
      CHECK(norm.num_batches_tracked().item() == batch);
    }
    norm.eval();
    const auto x = numbers<double>(2 * 6, 9).reshape({1, 2, 3, 2});
    const auto y = norm(x).value();
    CHECK(y[7] == doctest::Approx((x[7] - mean) / std::sqrt(variance + 1e-5)));
    CHECK(norm.running_mean()[1] == doctest::Approx(mean));
    CHECK(norm.num_batches_tracked().item() == 3);
    norm(numbers<double>(2, 9).reshape({1, 2, 1, 1}));
  }
}

TEST_CASE("without running statistics evaluation uses the batch's own") {
  nn::BatchNorm1d<double> norm(2, {.track_running_stats = false});
  const auto x = numbers<double>(10, 1).reshape({5, 2});
  const auto trained = norm(x).value();
  norm.eval();
  CHECK(testing::same_bits(norm(x).value(), trained));
}

TEST_CASE("a change of the running statistics after the forward does not reach its backward") {
  nn::BatchNorm1d<double> norm(2);
  norm.eval();
  Variable<double> x(numbers<double>(10, 1).reshape({5, 2}), true);
  const auto y = norm(x);
  norm.load_state_dict(nn::BatchNorm1d<double>(2).state_dict());
  StateDict other = nn::BatchNorm1d<double>(2).state_dict();
  other["running_mean"] = Tensor<double>::full({2}, 100);
  other["running_var"] = Tensor<double>::full({2}, 100);
  norm.load_state_dict(other);
  y.backward(Tensor<double>::ones({5, 2}));
  CHECK(x.grad()[0] == doctest::Approx(1 / std::sqrt(1 + 1e-5)));
  CHECK(norm.weight().grad()[0] ==
        doctest::Approx((x.value()[0] + x.value()[2] + x.value()[4] + x.value()[6] + x.value()[8]) /
                        std::sqrt(1 + 1e-5)));
}

TEST_CASE("the state of one module makes another compute the same") {
  nn::Sequential<double> a(nn::BatchNorm1d<double>(3)), b(nn::BatchNorm1d<double>(3));
  a(numbers<double>(21, 1).reshape({7, 3}));
  b.load_state_dict(a.state_dict());
  CHECK(a.state_dict().contains("0.num_batches_tracked"));
  a.eval();
  b.eval();
  const auto x = numbers<double>(6, 2).reshape({2, 3});
  CHECK(testing::same_bits(a(x).value(), b(x).value()));
}

TEST_CASE("errors name the place, what it got and what it needs") {
  const auto zeros = [](const Shape& shape) { return Tensor<float>::zeros(shape); };
  nn::BatchNorm2d two(8);
  nn::BatchNorm1d one(8);
  CHECK(error_of([&] {
          two(zeros({4, 6, 2, 2}));
        }) == "BatchNorm2d(8): x has shape [4, 6, 2, 2], expected [N, 8, H, W]");
  CHECK(error_of([&] {
          two(zeros({4, 8}));
        }) == "BatchNorm2d(8): x has shape [4, 8], expected [N, 8, H, W]");
  CHECK(error_of([&] {
          one(zeros({4, 8, 2, 2}));
        }) == "BatchNorm1d(8): x has shape [4, 8, 2, 2], expected [N, 8] or [N, 8, L]");
  CHECK(error_of([&] {
          one(zeros({1, 8}));
        }) ==
        "batch_norm: expected more than 1 value per channel when training, got x of shape [1, 8]; "
        "use a "
        "larger batch, drop the last incomplete one, or call eval()");
  CHECK(one.num_batches_tracked().item() == 0);
  CHECK(error_of([] { nn::BatchNorm2d(0); }) == "BatchNorm2d: 0 features; at least one is needed");
  CHECK(error_of([&] { nn::batch_norm<float>(zeros({3}), {}, {}, {}, {}, true); }) ==
        "batch_norm: x has shape [3], expected [N, C] or [N, C, ...]");
  CHECK(error_of([&] {
          nn::batch_norm<float>(zeros({3, 4}), {}, {}, zeros({3}), {}, true);
        }) == "batch_norm: gamma has shape [3], x of shape [3, 4] needs [4]");
  CHECK(error_of([&] {
          nn::batch_norm<float>(zeros({3, 4}), {}, {}, {}, zeros({5}), true);
        }) == "batch_norm: beta has shape [5], x of shape [3, 4] needs [4]");
  CHECK(error_of([&] {
          nn::batch_norm<float>(zeros({3, 4}), zeros({2}), {}, {}, {}, true);
        }) == "batch_norm: running_mean has shape [2], x of shape [3, 4] needs [4]");
  CHECK(error_of([&] {
          nn::batch_norm<float>(zeros({3, 4}), {}, zeros({2}), {}, {}, true);
        }) == "batch_norm: running_var has shape [2], x of shape [3, 4] needs [4]");
  CHECK(error_of([&] {
          nn::batch_norm<float>(zeros({3, 4}), {}, {});
        }) == "batch_norm: without running_mean and running_var only training is possible");
}
