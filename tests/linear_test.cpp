#include "minnow/nn/linear.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "exact.hpp"
#include "minnow/testing/compare.hpp"
#include "minnow/testing/composed.hpp"
#include "minnow/testing/gradcheck.hpp"

using namespace minnow;
using exact::first_difference;
using exact::integers;
using exact::normals;
using exact::Numbers;
using exact::Place;
using testing::compare;
using testing::gradcheck;
using testing::same_bits;

namespace {

/// The four kernels on integers: equal to plain sums to the last bit.
template <class T>
void check_kernels(Index n, Index in, Index out) {
  CAPTURE(n);
  CAPTURE(in);
  CAPTURE(out);
  for (const Place place : {Place::exact, Place::unaligned}) {
    const auto x = integers<T>(n * in, 1, place), weight = integers<T>(out * in, 2, place),
               bias = integers<T>(out, 3, place), dy = integers<T>(n * out, 4, place);
    const auto zeros = [](Index size) { return Numbers<T>(size, Place::exact, T(0)); };
    auto y0 = zeros(n * out), shifted0 = zeros(n * out), dx0 = zeros(n * in),
         dweight0 = zeros(out * in), dbias0 = zeros(out);
    for (Index i = 0; i < n; ++i)
      for (Index o = 0; o < out; ++o) {
        for (Index c = 0; c < in; ++c) {
          y0[i * out + o] += x[i * in + c] * weight[o * in + c];
          dx0[i * in + c] += dy[i * out + o] * weight[o * in + c];
          dweight0[o * in + c] += dy[i * out + o] * x[i * in + c];
        }
        shifted0[i * out + o] = y0[i * out + o] + bias[o];
        dbias0[o] += dy[i * out + o];
      }

    Numbers<T> y(n * out, place), shifted(n * out, place), dx(n * in, place),
        dweight(out * in, place), dbias(out, place);
    kernels::linear_forward(y.data(), x.data(), weight.data(), static_cast<const T*>(nullptr), n,
                            in, out);
    kernels::linear_forward(shifted.data(), x.data(), weight.data(), bias.data(), n, in, out);
    kernels::linear_backward_data(dx.data(), dy.data(), weight.data(), n, in, out);
    kernels::linear_backward_weight(dweight.data(), dy.data(), x.data(), n, in, out);
    kernels::linear_backward_bias(dbias.data(), dy.data(), n, out);
    REQUIRE(first_difference(y, y0) == -1);
    REQUIRE(first_difference(shifted, shifted0) == -1);
    REQUIRE(first_difference(dx, dx0) == -1);
    REQUIRE(first_difference(dweight, dweight0) == -1);
    REQUIRE(first_difference(dbias, dbias0) == -1);
    const bool intact =
        y.intact() && shifted.intact() && dx.intact() && dweight.intact() && dbias.intact();
    REQUIRE(intact);
  }
}

/// x, weight, bias for a call of nn::linear.
template <class T>
struct Arguments {
  Variable<T> x, weight, bias;

  explicit Arguments(const Shape& shape, Index out)
      : x(Tensor<T>::normal(shape, 0, 1, {1, 0, 0}), true),
        weight(Tensor<T>::normal({out, shape.back()}, 0, 1, {2, 0, 0}), true),
        bias(Tensor<T>::normal({out}, 0, 1, {3, 0, 0}), true) {}
};

}  // namespace

TEST_CASE_TEMPLATE("a fully connected layer of integers is exact", T, float, double) {
  constexpr Index w = Pack<T>::width;
  for (Index n : {0, 1, 2, 3, 17, 130})
    for (Index in : {Index{1}, Index{2}, w - 1, w, w + 1, 3 * w + 1})
      for (Index out : {Index{1}, Index{2}, Index{10}, w - 1, w, w + 1, 3 * w + 1})
        check_kernels<T>(n, in, out);
  for (Index n : {1, 128}) check_kernels<T>(n, 784, 50);
  check_kernels<T>(1000, 9, 33);
}

TEST_CASE_TEMPLATE("the gradient of a bias is summed in double", T, float, double) {
  // 1e8 swallows every 1 in float.
  const Index n = 4097, out = 3;
  Numbers<T> dy(n * out, Place::exact, T(1)), dbias(out);
  for (Index o = 0; o < out; ++o) {
    dy[o] = T(1e8);
    dy[(n - 1) * out + o] = T(-1e8);
  }
  kernels::linear_backward_bias(dbias.data(), dy.data(), n, out);
  for (Index o = 0; o < out; ++o) CHECK(dbias[o] == T(n - 2));
}

TEST_CASE_TEMPLATE("fully connected layers have the same bits for any number of threads", T, float,
                   double) {
  struct Sizes {
    Index n, in, out;
  };
  for (const Sizes& s : {Sizes{200, 300, 150}, {1, 900, 700}, {3000, 20, 40}}) {
    const Index n = s.n, in = s.in, out = s.out;
    CAPTURE(n);
    const auto x = normals<T>(n * in, 1), weight = normals<T>(out * in, 2),
               bias = normals<T>(out, 3), dy = normals<T>(n * out, 4);
    const auto results = [&](int threads) {
      const exact::Threads scope(threads);
      std::array<Numbers<T>, 4> r{Numbers<T>(n * out), Numbers<T>(n * in), Numbers<T>(out * in),
                                  Numbers<T>(out)};
      kernels::linear_forward(r[0].data(), x.data(), weight.data(), bias.data(), n, in, out);
      kernels::linear_backward_data(r[1].data(), dy.data(), weight.data(), n, in, out);
      kernels::linear_backward_weight(r[2].data(), dy.data(), x.data(), n, in, out);
      kernels::linear_backward_bias(r[3].data(), dy.data(), n, out);
      return r;
    };
    const auto one = results(1);
    for (const int threads : {2, 4}) {
      const auto many = results(threads);
      for (std::size_t i = 0; i < one.size(); ++i)
        CHECK(std::memcmp(one[i].data(), many[i].data(),
                          static_cast<std::size_t>(one[i].size()) * sizeof(T)) == 0);
    }
  }
}

TEST_CASE_TEMPLATE("linear agrees with its composition from plain operations", T, float, double) {
  const double tolerance = sizeof(T) == 4 ? 2e-5 : 1e-13;
  for (const bool with_bias : {true, false})
    for (const Shape& shape : {Shape{5, 7}, Shape{1, 30}, Shape{2, 3, 4, 9}, Shape{3, 1, 1}}) {
      CAPTURE(with_bias);
      CAPTURE(shape.str());
      Arguments<T> a(shape, 6), b(shape, 6);
      if (!with_bias) a.bias = b.bias = {};
      const auto y = nn::linear(a.x, a.weight, a.bias);
      const auto expected = testing::composed::linear(b.x, b.weight, b.bias);
      const auto dy = Tensor<T>::normal(y.shape(), 0, 1, {4, 0, 0});
      y.backward(dy);
      expected.backward(dy);
      CHECK(compare(y.value(), expected.value(), tolerance, tolerance));
      CHECK(compare(a.x.grad(), b.x.grad(), tolerance, tolerance));
      CHECK(compare(a.weight.grad(), b.weight.grad(), tolerance, tolerance));
      if (with_bias) CHECK(compare(a.bias.grad(), b.bias.grad(), tolerance, tolerance));
    }
}

TEST_CASE("linear's gradients are those of finite differences") {
  for (const Shape& shape :
       {Shape{4, 7}, Shape{1, 5}, Shape{3, 1}, Shape{2, 3, 5}, Shape{6}, Shape{19, 17}})
    for (const Index out : {1, 4}) {
      CAPTURE(shape.str());
      CAPTURE(out);
      const Arguments<double> a(shape, out);
      const testing::GradcheckOptions check{.step = 1e-3, .relative = 1e-8};
      const auto with_bias =
          gradcheck([](const auto& in) { return nn::linear(in[0], in[1], in[2]); },
                    {a.x, a.weight, a.bias}, check);
      CHECK_MESSAGE(with_bias, with_bias.str());
      const auto without = gradcheck([](const auto& in) { return nn::linear(in[0], in[1]); },
                                     {a.x, a.weight}, check);
      CHECK_MESSAGE(without, without.str());
    }
}

TEST_CASE("linear computes gradients only for inputs that need them") {
  for (int needed = 0; needed < 8; ++needed) {
    CAPTURE(needed);
    Arguments<float> a({3, 5}, 4);
    a.x.set_requires_grad(needed & 1);
    a.weight.set_requires_grad(needed & 2);
    a.bias.set_requires_grad(needed & 4);
    const auto y = nn::linear(a.x, a.weight, a.bias);
    REQUIRE(y.is_leaf() == (needed == 0));
    if (needed == 0) continue;
    CHECK(y.node()->name == "linear");
    const auto gradients = y.node()->backward(Tensor<float>::ones(y.shape()));
    REQUIRE(gradients.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) CHECK(gradients[i].defined() == ((needed >> i & 1) == 1));
  }
}

TEST_CASE("linear maps the last axis of any number of them") {
  const Variable<float> weight(Tensor<float>({2, 3}, {1, 2, 3, 4, 5, 6}));
  const Variable<float> bias(Tensor<float>({2}, {10, 20}));
  const auto y = nn::linear(Variable<float>(Tensor<float>({3}, {1, 0, -1})), weight, bias);
  CHECK(y.shape() == Shape{2});
  CHECK(y.value()(0) == 8);
  CHECK(y.value()(1) == 18);
  CHECK(nn::linear(Variable<float>(Tensor<float>::zeros({4, 1, 2, 3})), weight).shape() ==
        Shape{4, 1, 2, 2});
  CHECK(nn::linear(Variable<float>(Tensor<float>::zeros({0, 3})), weight, bias).shape() ==
        Shape{0, 2});
}

TEST_CASE("linear's errors carry both shapes and the way out") {
  const auto zeros = [](const Shape& shape) {
    return Variable<float>(Tensor<float>::zeros(shape));
  };
  CHECK_THROWS_WITH_AS(nn::linear(zeros({2, 3}), zeros({4, 3, 1})),
                       "linear: weight has shape [4, 3, 1], expected [out features, in features]",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      nn::linear(zeros({2, 8, 5, 5}), zeros({10, 200})),
      "linear: x has shape [2, 8, 5, 5], its last axis must have the 200 features of weight "
      "[10, 200]; Flatten joins the axes of an image",
      ShapeError);
  CHECK_THROWS_AS(nn::linear(zeros({}), zeros({10, 1})), ShapeError);
  CHECK_THROWS_WITH_AS(nn::linear(zeros({2, 3}), zeros({4, 3}), zeros({3})),
                       "linear: bias has shape [3], expected [4]", ShapeError);
  CHECK_THROWS_WITH_AS(nn::Linear(0, 10), "Linear(0, 10): the numbers of features must be positive",
                       ShapeError);
  CHECK_THROWS_WITH_AS(nn::Linear(10, -2),
                       "Linear(10, -2): the numbers of features must be positive", ShapeError);
}

TEST_CASE("Linear holds a weight and a bias, float unless told otherwise") {
  nn::Linear layer(5, 3);
  static_assert(std::is_same_v<decltype(layer), nn::Linear<float>>);
  CHECK(layer.name() == "Linear");
  const auto parameters = layer.named_parameters();
  REQUIRE(parameters.size() == 2);
  CHECK(parameters[0].first == "weight");
  CHECK(parameters[0].second.shape() == Shape{3, 5});
  CHECK(parameters[0].second.requires_grad());
  CHECK(parameters[1].first == "bias");
  CHECK(parameters[1].second.shape() == Shape{3});
  CHECK(parameters[1].second.requires_grad());
  CHECK(layer.named_buffers().empty());

  const Variable<float> x(Tensor<float>::normal({4, 5}));
  const auto expected = nn::linear(x, layer.weight(), layer.bias());
  CHECK(same_bits(layer(x).value(), expected.value()));
  layer.eval();
  CHECK(same_bits(layer(x).value(), expected.value()));

  const nn::Linear<double> bare(5, 3, {.bias = false});
  CHECK(bare.named_parameters().size() == 1);
  CHECK_FALSE(bare.bias().defined());
}

TEST_CASE("Linear starts within one over the root of its inputs, as PyTorch's") {
  manual_seed(3);
  const nn::Linear layer(100, 200);
  for (const auto& parameter : layer.parameters()) {
    float least = 1, largest = -1;
    for (const float value : parameter.value().values()) {
      least = std::min(least, value);
      largest = std::max(largest, value);
    }
    CHECK(largest <= 0.1f);
    CHECK(least >= -0.1f);
    CHECK(largest > 0.09f);
    CHECK(least < -0.09f);
  }
  manual_seed(3);
  const nn::Linear same(100, 200), other(100, 200);
  CHECK(same_bits(layer.weight().value(), same.weight().value()));
  CHECK_FALSE(same_bits(layer.weight().value(), other.weight().value()));
}

TEST_CASE("Linear's state loads into another, also of another type") {
  nn::Linear layer(6, 4), other(6, 4);
  const Variable<float> x(Tensor<float>::normal({5, 6}));
  REQUIRE_FALSE(same_bits(layer(x).value(), other(x).value()));
  other.load_state_dict(layer.state_dict());
  CHECK(same_bits(layer(x).value(), other(x).value()));
  nn::Linear<double> wide(6, 4);
  wide.load_state_dict(layer.state_dict());
  CHECK(compare(wide(x.value().to<double>()).value(), layer(x).value(), 1e-4, 1e-5));
}
