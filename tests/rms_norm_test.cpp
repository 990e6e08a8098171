#include "minnow/nn/rms_norm.hpp"

#include <doctest/doctest.h>

#include "minnow/testing/gradcheck.hpp"
#include "norm_reference.hpp"

using namespace minnow;
using namespace norm_reference;
using minnow::testing::compare;
using minnow::testing::gradcheck;
namespace composed = minnow::testing::composed;

namespace {

struct Size {
  Index rows, cols;
};

/// Rows of one number to several pieces; few rows, and several blocks of rows in lanes with a rest.
template <class T>
std::vector<Size> sizes() {
  const Index W = Pack<T>::width, below = std::max<Index>(1, W - 1);
  std::vector<Size> result{{1, 1},         {1, 2},         {2, below}, {1, W},    {3, W + 1},
                           {2, 3 * W + 1}, {3, 4 * W + 1}, {70, 257},  {3, 1023}, {2, 10000},
                           {200, 4 * W},   {W - 1, 3},     {W, 3}};
  for (const Index cols :
       {Index{1}, Index{2}, Index{5}, Index{9}, below, W, W + 1, Index{26}, 3 * W + 1})
    result.push_back({1000, cols});
  for (const Index packs : {2, 3, 4, 5, 6, 7, 8}) result.push_back({5 * W + 3, packs * W - 1});
  return result;
}

template <class T>
Result expectation(const Size& s, const Tensor<T>& x, const Tensor<T>& dy, const Tensor<T>& gamma,
                   double eps) {
  return reference<T>(row_layout(s.rows, s.cols), x, dy, gamma, {}, eps, false);
}

template <class T>
void check_against_reference(const Size& s, bool affine) {
  const Index rows = s.rows, cols = s.cols, size = rows * cols;
  CAPTURE(rows);
  CAPTURE(cols);
  CAPTURE(affine);
  const auto x = numbers<T>(size, 1), dy = numbers<T>(size, 2);
  const auto gamma = affine ? numbers<T>(cols, 3) : Tensor<T>();
  // A short row may happen to be small; eps keeps rstd from enlarging rounding.
  const double eps = 0.01, relative = tolerance<T>();
  const auto expected = expectation(s, x, dy, gamma, eps);

  Guarded<T> x_in(x), dy_in(dy), y(size), rstd(rows), dx(size), dgamma(cols);
  kernels::rms_norm_forward(y.data(), rstd.data(), x_in.data(), gamma.data(), rows, cols, eps);
  CHECK(compare(y.tensor(), expected.y, relative, relative));
  CHECK(compare(rstd.tensor(), expected.rstd, relative, relative));

  kernels::rms_norm_backward(dx.data(), dgamma.data(), dy_in.data(), x_in.data(), rstd.data(),
                             gamma.data(), rows, cols);
  // The sum's error grows with the size of its terms, not of its result.
  CHECK(compare(dgamma.tensor(), expected.dgamma, relative,
                relative * 10 * std::sqrt(static_cast<double>(rows))));
  CHECK(compare(dx.tensor(), expected.dx, relative, relative * 10));

  // Each output alone has the same bits; x and dy may be overwritten.
  Guarded<T> dx_only(dy), y_in_place(x), dgamma_only(cols);
  kernels::rms_norm_backward<T>(dx_only.data(), nullptr, dx_only.data(), x.data(), rstd.data(),
                                gamma.data(), rows, cols);
  CHECK(testing::same_bits(dx_only.tensor(), dx.tensor()));
  kernels::rms_norm_backward<T>(nullptr, dgamma_only.data(), dy.data(), x.data(), rstd.data(),
                                gamma.data(), rows, cols);
  CHECK(testing::same_bits(dgamma_only.tensor(), dgamma.tensor()));
  kernels::rms_norm_forward(y_in_place.data(), rstd.data(), y_in_place.data(), gamma.data(), rows,
                            cols, eps);
  CHECK(testing::same_bits(y_in_place.tensor(), y.tensor()));
}

}  // namespace

TEST_CASE_TEMPLATE("the kernels agree with plain double loops, for any size", T, float, double) {
  for (const Size& size : sizes<T>())
    for (const bool affine : {true, false}) check_against_reference<T>(size, affine);
}

TEST_CASE_TEMPLATE("without rows or columns there are no outputs but zero gradients", T, float,
                   double) {
  for (const Size& s : {Size{0, 5}, Size{40, 0}, Size{0, 500}}) {
    Guarded<T> nothing(0), rstd(s.rows), dgamma(s.cols);
    kernels::rms_norm_forward<T>(nothing.data(), rstd.data(), nothing.data(), nullptr, s.rows,
                                 s.cols, 1e-5);
    kernels::rms_norm_backward<T>(nothing.data(), dgamma.data(), nothing.data(), nothing.data(),
                                  rstd.data(), nullptr, s.rows, s.cols);
    CHECK(compare(dgamma.tensor(), Tensor<double>::zeros({s.cols}), 0, 0));
  }
}

TEST_CASE_TEMPLATE("constant rows give gamma, rows of zero give zero", T, float, double) {
  for (const Size& s : {Size{100, 26}, Size{5, 800}, Size{2, 9999}})
    for (const double constant : {0.0, 1e4, 1e30}) {
      const auto gamma = numbers<T>(s.cols, 1);
      const auto x = Tensor<T>::full({s.rows * s.cols}, static_cast<T>(constant));
      Tensor<T> y(x.shape()), rstd({s.rows});
      kernels::rms_norm_forward(y.data(), rstd.data(), x.data(), gamma.data(), s.rows, s.cols,
                                1e-5);
      for (Index i = 0; i < y.size(); ++i) {
        const double expected = constant == 0 ? 0 : static_cast<double>(gamma[i % s.cols]);
        REQUIRE(static_cast<double>(y[i]) == doctest::Approx(expected).epsilon(tolerance<T>()));
      }
    }
}

TEST_CASE_TEMPLATE("rows around 1e30 are as accurate as others, forward and backward", T, float,
                   double) {
  for (const Size& s : {Size{100, 26}, Size{5, 800}, Size{2, 9000}}) {
    const Index size = s.rows * s.cols;
    auto x = numbers<T>(size, 1, 1e30, 1e30);
    const auto dy = numbers<T>(size, 2), usual = numbers<T>(s.cols, 3);
    std::copy_n(usual.data(), s.cols, x.data() + s.cols);  // among them a usual row
    const auto expected = expectation<T>(s, x, dy, {}, 1e-5);
    Tensor<T> y({size}), dx({size}), rstd({s.rows});
    kernels::rms_norm_forward<T>(y.data(), rstd.data(), x.data(), nullptr, s.rows, s.cols, 1e-5);
    CHECK(compare(y, expected.y, tolerance<T>(), tolerance<T>()));
    kernels::rms_norm_backward<T>(dx.data(), nullptr, dy.data(), x.data(), rstd.data(), nullptr,
                                  s.rows, s.cols);
    for (Index i = 0; i < size; ++i) {
      const double bound = tolerance<T>() * 10 * expected.rstd[i / s.cols];
      REQUIRE(std::abs(static_cast<double>(dx[i]) - expected.dx[i]) <= bound);
    }
  }
}

TEST_CASE_TEMPLATE("any number of threads gives the same bits", T, float, double) {
  for (const Size& s : {Size{20000, 5}, Size{5000, 26}, Size{300, 257}})
    check_same_bits<T>([s]() -> std::vector<Tensor<T>> {
      const Index size = s.rows * s.cols;
      const auto x = numbers<T>(size, 1), dy = numbers<T>(size, 2), gamma = numbers<T>(s.cols, 3);
      Tensor<T> y({size}), rstd({s.rows}), dx({size}), dgamma({s.cols});
      kernels::rms_norm_forward(y.data(), rstd.data(), x.data(), gamma.data(), s.rows, s.cols,
                                1e-5);
      kernels::rms_norm_backward(dx.data(), dgamma.data(), dy.data(), x.data(), rstd.data(),
                                 gamma.data(), s.rows, s.cols);
      return {y, rstd, dx, dgamma};
    });
}

TEST_CASE_TEMPLATE("the function agrees with its composition from plain operations", T, float,
                   double) {
  for (const Shape& normalized : {Shape{26}, Shape{3, 26}, Shape{2, 3, 26}})
    check_agreement<T>(
        {4, 2, 3, 26}, normalized,
        [&](const auto& in) { return nn::rms_norm(in[0], normalized, in[1], 0.01); },
        [&](const auto& in) { return composed::rms_norm(in[0], normalized, in[1], 0.01); });
}

TEST_CASE("finite differences confirm every gradient") {
  struct Case {
    Shape x, normalized;
  };
  for (const Case& c : {Case{{3, 5}, {5}}, Case{{2, 3, 2, 7}, {3, 2, 7}}, Case{{20, 3}, {3}},
                        Case{{2, 40}, {40}}, Case{{4}, {4}}}) {
    const std::vector<Variable<double>> inputs{
        Variable<double>(Tensor<double>::normal(c.x, 1, 2), true),
        Variable<double>(Tensor<double>::normal(c.normalized), true)};
    CHECK(gradcheck([&](const auto& in) { return nn::rms_norm(in[0], c.normalized, in[1]); },
                    inputs));
    CHECK(gradcheck(
        [&](const auto& in) { return nn::rms_norm<double>(in[0], c.normalized, {}, 0.1); },
        {inputs[0]}));
  }
}

TEST_CASE("only what requires a gradient receives one") {
  const auto run = [](bool x_on, bool gamma_on) {
    Variable<double> x(numbers<double>(24, 1).reshape({6, 4}), x_on);
    Variable<double> gamma(Tensor<double>::ones({4}), gamma_on);
    nn::rms_norm(x, {4}, gamma).backward(numbers<double>(24, 2).reshape({6, 4}));
    CHECK(x.grad().defined() == x_on);
    CHECK(gamma.grad().defined() == gamma_on);
  };
  run(true, false);
  run(false, true);
}

TEST_CASE("a new module has PyTorch's parameter and options") {
  nn::RMSNorm norm({3, 5});
  static_assert(std::is_same_v<decltype(norm), nn::RMSNorm<float>>);
  CHECK(norm.name() == "RMSNorm");
  CHECK(norm.normalized_shape() == Shape{3, 5});
  CHECK(nn::RMSNorm({26}).normalized_shape() == Shape{26});
  CHECK(nn::RMSNorm(26).normalized_shape() == Shape{26});
  CHECK(!norm.options().eps.has_value());
  const auto parameters = norm.named_parameters();
  REQUIRE(parameters.size() == 1);
  CHECK(parameters[0].first == "weight");
  CHECK(compare(parameters[0].second.value(), Tensor<float>::ones({3, 5}), 0, 0));
  CHECK(norm.named_buffers().empty());
  CHECK(nn::RMSNorm(5, {.elementwise_affine = false}).named_parameters().empty());
}

TEST_CASE("the default eps is the machine's") {
  const Tensor<float> x({1, 2}, {1e-4f, 1e-4f});
  const double eps = 0x1p-23;
  CHECK(nn::RMSNorm(2)(x).value()[0] == doctest::Approx(1e-4 / std::sqrt(1e-8 + eps)));
  CHECK(nn::RMSNorm(2, {.eps = 3e-8})(x).value()[0] == doctest::Approx(0.5));
}

TEST_CASE(
    "the module is the function with its parameters, also in evaluation and after a round trip") {
  nn::RMSNorm<double> norm(5, {.eps = 0.01}), other({5}, {.eps = 0.01});
  norm.load_state_dict({{"weight", numbers<double>(5, 1)}});
  const auto x = numbers<double>(40, 3).reshape({2, 4, 5});
  const auto expected = nn::rms_norm<double>(x, {5}, numbers<double>(5, 1), 0.01);
  CHECK(testing::same_bits(norm(x).value(), expected.value()));
  other.load_state_dict(norm.state_dict());
  other.eval();
  CHECK(testing::same_bits(other(x).value(), expected.value()));
}

TEST_CASE("errors name the place, what it got and what it needs") {
  const auto zeros = [](const Shape& shape) { return Tensor<float>::zeros(shape); };
  CHECK(error_of([] { nn::RMSNorm(Shape{}); }) ==
        "RMSNorm: the normalized shape is empty; name at least the last axis, e.g. {26}");
  nn::RMSNorm norm({3, 4});
  CHECK(error_of([&] {
          norm(zeros({5, 4, 3}));
        }) ==
        "RMSNorm([3, 4]): x has shape [5, 4, 3], which does not end in the normalized shape [3, "
        "4]; it takes the last sizes of x, such as [3]");
  CHECK(error_of([&] {
          nn::rms_norm<float>(zeros({2, 4}), {3});
        }) ==
        "rms_norm: x has shape [2, 4], which does not end in the normalized shape [3]; it takes "
        "the last sizes of x, such as [4]");
  CHECK(error_of([&] {
          nn::rms_norm<float>(zeros({2, 4}), {4}, zeros({3}));
        }) == "rms_norm: gamma has shape [3], x of shape [2, 4] needs [4]");
}
