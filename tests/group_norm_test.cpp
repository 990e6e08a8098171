#include "minnow/nn/group_norm.hpp"

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
  Index n, c, hw, groups;
};

/// Planes of one position to several pieces, one group to one per channel.
template <class T>
std::vector<Size> sizes() {
  const Index W = Pack<T>::width, below = std::max<Index>(1, W - 1);
  return {{1, 1, 1, 1},
          {2, 6, 1, 3},
          {3, 4 * W, 1, 2},
          {70, 14, 1, 7},
          {3, 6, 2, 2},
          {2, 4, below, 2},
          {5, 4, W, 4},
          {1, 2, W + 1, 1},
          {9, 12, 25, 2},
          {130, 8, 25, 4},
          {2, 3, 3 * W + 1, 1},
          {3, 4, 676, 2},
          {2, 2, 4100, 1},
          {2, 2, 4100, 2},
          {20, 8, 3, 4},
          {9, 6, 19, 6},
          // groups below a pack, as many as lanes take in turn and more
          {33, 64, 5, 64},
          {41, 12, 2, 3},
          {100, 32, 1, 8},
          {37, 10, 3, 5},
          {40, 33, 3, 33},
          {300, 3, 13, 3}};
}

template <class T>
void check_against_reference(const Size& s, bool affine) {
  const Index n = s.n, c = s.c, hw = s.hw, groups = s.groups, size = n * c * hw, sets = n * groups;
  CAPTURE(n);
  CAPTURE(c);
  CAPTURE(hw);
  CAPTURE(groups);
  CAPTURE(affine);
  const auto x = numbers<T>(size, 1), dy = numbers<T>(size, 2);
  const auto gamma = affine ? numbers<T>(c, 3) : Tensor<T>(),
             beta = affine ? numbers<T>(c, 4) : Tensor<T>();
  const auto expected = reference(group_layout(n, c, hw, groups), x, dy, gamma, beta, 1e-5);
  const double relative = tolerance<T>();

  Guarded<T> x_in(x), dy_in(dy), y(size), mean(sets), rstd(sets), dx(size), dgamma(c), dbeta(c);
  kernels::group_norm_forward(y.data(), mean.data(), rstd.data(), x_in.data(), gamma.data(),
                              beta.data(), n, c, hw, groups, 1e-5);
  CHECK(compare(y.tensor(), expected.y, relative, relative));
  CHECK(compare(mean.tensor(), expected.mean, relative, relative));
  CHECK(compare(rstd.tensor(), expected.rstd, relative, relative));

  kernels::group_norm_backward(dx.data(), dgamma.data(), dbeta.data(), dy_in.data(), x_in.data(),
                               mean.data(), rstd.data(), gamma.data(), n, c, hw, groups);
  // The sums' errors grow with the size of their terms, not of their result.
  const double scale = std::sqrt(static_cast<double>(n * hw)) * 10;
  CHECK(compare(dgamma.tensor(), expected.dgamma, relative, relative * scale));
  CHECK(compare(dbeta.tensor(), expected.dbeta, relative, relative * scale));
  // Where a group's numbers are close to each other, the rounding of its mean is enlarged by rstd
  // twice.
  const double largest = std::max(1.0, *std::ranges::max_element(expected.rstd.values()));
  CHECK(compare(dx.tensor(), expected.dx, relative, relative * 10 * largest * largest));

  // Each output alone has the same bits; x and dy may be overwritten.
  Guarded<T> dx_only(dy), y_in_place(x), dgamma_only(c), dbeta_only(c);
  kernels::group_norm_backward<T>(dx_only.data(), nullptr, nullptr, dx_only.data(), x.data(),
                                  mean.data(), rstd.data(), gamma.data(), n, c, hw, groups);
  CHECK(testing::same_bits(dx_only.tensor(), dx.tensor()));
  kernels::group_norm_backward<T>(nullptr, dgamma_only.data(), nullptr, dy.data(), x.data(),
                                  mean.data(), rstd.data(), gamma.data(), n, c, hw, groups);
  CHECK(testing::same_bits(dgamma_only.tensor(), dgamma.tensor()));
  kernels::group_norm_backward<T>(nullptr, nullptr, dbeta_only.data(), dy.data(), x.data(),
                                  mean.data(), rstd.data(), gamma.data(), n, c, hw, groups);
  CHECK(testing::same_bits(dbeta_only.tensor(), dbeta.tensor()));
  kernels::group_norm_forward(y_in_place.data(), mean.data(), rstd.data(), y_in_place.data(),
                              gamma.data(), beta.data(), n, c, hw, groups, 1e-5);
  CHECK(testing::same_bits(y_in_place.tensor(), y.tensor()));
}

template <class T>
Tensor<T> normalized(const Tensor<T>& x, const Tensor<T>& beta, const Size& s) {
  Tensor<T> y(x.shape()), mean({s.n * s.groups}), rstd({s.n * s.groups});
  kernels::group_norm_forward<T>(y.data(), mean.data(), rstd.data(), x.data(), nullptr, beta.data(),
                                 s.n, s.c, s.hw, s.groups, 1e-5);
  return y;
}

}  // namespace

TEST_CASE_TEMPLATE("the kernels agree with plain double loops, for any size", T, float, double) {
  for (const Size& size : sizes<T>())
    for (const bool affine : {true, false}) check_against_reference<T>(size, affine);
}

TEST_CASE_TEMPLATE("an empty batch has no outputs but zero gradients", T, float, double) {
  for (const Size& s : {Size{0, 4, 4, 2}, Size{2, 4, 0, 2}, Size{0, 40, 40, 5}}) {
    Guarded<T> nothing(0), mean(s.n * s.groups), rstd(s.n * s.groups), dx(0), dgamma(s.c),
        dbeta(s.c);
    kernels::group_norm_forward<T>(nothing.data(), mean.data(), rstd.data(), nothing.data(),
                                   nullptr, nullptr, s.n, s.c, s.hw, s.groups, 1e-5);
    kernels::group_norm_backward<T>(nothing.data(), dgamma.data(), dbeta.data(), nothing.data(),
                                    nothing.data(), mean.data(), rstd.data(), nullptr, s.n, s.c,
                                    s.hw, s.groups);
    const auto zeros = Tensor<double>::zeros({s.c});
    CHECK(compare(dgamma.tensor(), zeros, 0, 0));
    CHECK(compare(dbeta.tensor(), zeros, 0, 0));
  }
}

TEST_CASE_TEMPLATE("a mean far larger than the deviation takes no digits from the result", T, float,
                   double) {
  for (const Size& s : {Size{4, 6, 49, 2}, Size{5, 200, 1, 2}, Size{1, 2, 50000, 1}})
    for (const double deviation : {1.0, 0.01}) {
      const auto x = numbers<T>(s.n * s.c * s.hw, 1, 1e4, deviation);
      const auto expected =
          reference<T>(group_layout(s.n, s.c, s.hw, s.groups), x, x, {}, {}, 1e-5);
      CHECK(compare(normalized<T>(x, {}, s), expected.y, 1e-5, 1e-5));
    }
}

TEST_CASE_TEMPLATE("constant groups give beta", T, float, double) {
  for (const Size& s : {Size{4, 6, 49, 2}, Size{5, 200, 1, 2}, Size{2, 2, 9999, 1}})
    for (const double constant : {0.0, 0.1, -12345.678, 1e20}) {
      const auto beta = numbers<T>(s.c, 1);
      const auto y =
          normalized(Tensor<T>::full({s.n * s.c * s.hw}, static_cast<T>(constant)), beta, s);
      for (Index i = 0; i < y.size(); ++i) REQUIRE(y[i] == beta[i / s.hw % s.c]);
    }
}

TEST_CASE_TEMPLATE("inputs around 1e30 are as accurate as others, forward and backward", T, float,
                   double) {
  for (const Size& s : {Size{6, 4, 49, 2}, Size{7, 20, 1, 1}, Size{1, 2, 9000, 2}}) {
    const Index size = s.n * s.c * s.hw, sets = s.n * s.groups;
    const auto x = numbers<T>(size, 1, 1e30, 1e30), dy = numbers<T>(size, 2);
    const auto expected = reference<T>(group_layout(s.n, s.c, s.hw, s.groups), x, dy, {}, {}, 1e-5);
    Tensor<T> y({size}), mean({sets}), rstd({sets}), dx({size});
    kernels::group_norm_forward<T>(y.data(), mean.data(), rstd.data(), x.data(), nullptr, nullptr,
                                   s.n, s.c, s.hw, s.groups, 1e-5);
    CHECK(compare(y, expected.y, tolerance<T>(), tolerance<T>()));
    kernels::group_norm_backward<T>(dx.data(), nullptr, nullptr, dy.data(), x.data(), mean.data(),
                                    rstd.data(), nullptr, s.n, s.c, s.hw, s.groups);
    CHECK(compare(dx, expected.dx, tolerance<T>(), tolerance<T>() * 1e-30));
  }
}

TEST_CASE_TEMPLATE("any number of threads gives the same bits", T, float, double) {
  for (const Size& s : {Size{130, 8, 81, 2}, Size{300, 36, 1, 3}, Size{1, 64, 784, 32}})
    check_same_bits<T>([s]() -> std::vector<Tensor<T>> {
      const Index size = s.n * s.c * s.hw, sets = s.n * s.groups;
      const auto x = numbers<T>(size, 1), dy = numbers<T>(size, 2), gamma = numbers<T>(s.c, 3);
      Tensor<T> y({size}), mean({sets}), rstd({sets}), dx({size}), dgamma({s.c}), dbeta({s.c});
      kernels::group_norm_forward<T>(y.data(), mean.data(), rstd.data(), x.data(), gamma.data(),
                                     nullptr, s.n, s.c, s.hw, s.groups, 1e-5);
      kernels::group_norm_backward(dx.data(), dgamma.data(), dbeta.data(), dy.data(), x.data(),
                                   mean.data(), rstd.data(), gamma.data(), s.n, s.c, s.hw,
                                   s.groups);
      return {y, mean, rstd, dx, dgamma, dbeta};
    });
}

TEST_CASE_TEMPLATE("the function agrees with its composition from plain operations", T, float,
                   double) {
  for (const Shape& shape : {Shape{4, 6, 5, 6}, Shape{10, 8}, Shape{3, 4, 33}})
    check_agreement<T>(
        shape, {shape[1]},
        [](const auto& in) { return nn::group_norm(in[0], 2, in[1], in[2], 0.01); },
        [](const auto& in) { return composed::group_norm(in[0], 2, in[1], in[2], 0.01); });
}

TEST_CASE("finite differences confirm every gradient") {
  for (const Shape& shape :
       {Shape{2, 4, 3, 5}, Shape{3, 6}, Shape{2, 4, 3}, Shape{2, 2, 2, 1, 2}}) {
    const Index c = shape[1];
    const std::vector<Variable<double>> inputs{
        Variable<double>(Tensor<double>::normal(shape, 1, 2), true),
        Variable<double>(Tensor<double>::normal({c}), true),
        Variable<double>(Tensor<double>::normal({c}), true)};
    CHECK(gradcheck([](const auto& in) { return nn::group_norm(in[0], 2, in[1], in[2]); }, inputs));
    CHECK(gradcheck([](const auto& in) { return nn::group_norm<double>(in[0], 1, {}, {}, 0.1); },
                    {inputs[0]}));
  }
}

TEST_CASE("only what requires a gradient receives one") {
  const auto run = [](bool x_on, bool gamma_on, bool beta_on) {
    Variable<double> x(numbers<double>(24, 1).reshape({3, 4, 2}), x_on);
    Variable<double> gamma(Tensor<double>::ones({4}), gamma_on),
        beta(Tensor<double>::ones({4}), beta_on);
    nn::group_norm(x, 2, gamma, beta).backward(numbers<double>(24, 2).reshape({3, 4, 2}));
    CHECK(x.grad().defined() == x_on);
    CHECK(gamma.grad().defined() == gamma_on);
    CHECK(beta.grad().defined() == beta_on);
  };
  run(true, false, false);
  run(false, true, false);
  run(false, false, true);
}

TEST_CASE("a new module has PyTorch's parameters and options") {
  nn::GroupNorm norm(2, 6);
  static_assert(std::is_same_v<decltype(norm), nn::GroupNorm<float>>);
  CHECK(norm.name() == "GroupNorm");
  CHECK(norm.num_groups() == 2);
  CHECK(norm.num_channels() == 6);
  CHECK(norm.options().eps == 1e-5);
  const auto parameters = norm.named_parameters();
  REQUIRE(parameters.size() == 2);
  CHECK(parameters[0].first == "weight");
  CHECK(compare(parameters[0].second.value(), Tensor<float>::ones({6}), 0, 0));
  CHECK(parameters[1].first == "bias");
  CHECK(compare(parameters[1].second.value(), Tensor<float>::zeros({6}), 0, 0));
  CHECK(norm.named_buffers().empty());
  CHECK(nn::GroupNorm(2, 6, {.affine = false}).named_parameters().empty());
}

TEST_CASE(
    "the module is the function with its parameters, also in evaluation and after a round trip") {
  nn::GroupNorm<double> norm(2, 4, {.eps = 0.01}), other(2, 4, {.eps = 0.01});
  norm.load_state_dict({{"weight", numbers<double>(4, 1)}, {"bias", numbers<double>(4, 2)}});
  const auto x = numbers<double>(40, 3).reshape({2, 4, 5});
  const auto expected =
      nn::group_norm<double>(x, 2, numbers<double>(4, 1), numbers<double>(4, 2), 0.01);
  CHECK(testing::same_bits(norm(x).value(), expected.value()));
  other.load_state_dict(norm.state_dict());
  other.eval();
  CHECK(testing::same_bits(other(x).value(), expected.value()));
}

TEST_CASE("errors name the place, what it got and what it needs") {
  const auto zeros = [](const Shape& shape) { return Tensor<float>::zeros(shape); };
  CHECK(error_of([] { nn::GroupNorm(4, 14); }) ==
        "GroupNorm(4, 14): 14 channels cannot be divided into 4 groups; 1, 2, 7 or 14 would work");
  CHECK(error_of([] { nn::GroupNorm(0, 3); }) ==
        "GroupNorm(0, 3): 3 channels cannot be divided into 0 groups; 1 or 3 would work");
  CHECK(error_of([] { nn::GroupNorm(2, 1); }) ==
        "GroupNorm(2, 1): 1 channels cannot be divided into 2 groups; 1 would work");
  CHECK(error_of([] { nn::GroupNorm(1, 0); }) ==
        "GroupNorm(1, 0): 0 channels; at least one is needed");
  nn::GroupNorm norm(2, 8);
  CHECK(error_of([&] {
          norm(zeros({4, 6, 2, 2}));
        }) == "GroupNorm(2, 8): x has shape [4, 6, 2, 2], expected [N, 8, ...]");
  CHECK(error_of([&] { norm(zeros({8})); }) ==
        "GroupNorm(2, 8): x has shape [8], expected [N, 8, ...]");
  CHECK(error_of([&] { nn::group_norm<float>(zeros({8}), 2); }) ==
        "group_norm: x has shape [8], expected [N, C] or [N, C, ...]");
  CHECK(error_of([&] {
          nn::group_norm<float>(zeros({3, 6}), 4);
        }) ==
        "group_norm(4, 6): 6 channels cannot be divided into 4 groups; 1, 2, 3 or 6 would work");
  CHECK(error_of([&] {
          nn::group_norm<float>(zeros({3, 4}), 2, zeros({3}));
        }) == "group_norm: gamma has shape [3], x of shape [3, 4] needs [4]");
  CHECK(error_of([&] {
          nn::group_norm<float>(zeros({3, 4}), 2, {}, zeros({5}));
        }) == "group_norm: beta has shape [5], x of shape [3, 4] needs [4]");
}
