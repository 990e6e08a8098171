#include "minnow/nn/flatten.hpp"

#include <doctest/doctest.h>

#include "minnow/nn/sequential.hpp"
#include "minnow/testing/compare.hpp"
#include "minnow/testing/gradcheck.hpp"

using namespace minnow;

namespace {

template <class T>
Variable<T> leaf(const Shape& shape) {
  return Variable<T>(Tensor<T>::normal(shape, 0, 1, {1, 0, 0}), true);
}

}  // namespace

TEST_CASE_TEMPLATE("Flatten joins the chosen axes and hands the gradient back in x's shape", T,
                   float, double) {
  const auto check = [](nn::Flatten<T> flatten, const Shape& in, const Shape& out) {
    CAPTURE(in.str());
    const auto x = leaf<T>(in);
    const Variable<T> y = flatten(x);
    CHECK(y.shape() == out);
    CHECK(y.value().shares_memory_with(x.value()));
    const auto dy = Tensor<T>::normal(out, 0, 1, {2, 0, 0});
    y.backward(dy);
    CHECK(x.grad().shape() == in);
    CHECK(testing::same_bits(x.grad().reshape(out), dy));
  };
  check(nn::Flatten<T>(), {4, 3, 2, 5}, {4, 30});
  check(nn::Flatten<T>(), {1, 1}, {1, 1});
  check(nn::Flatten<T>(), {0, 3, 5}, {0, 15});
  check(nn::Flatten<T>(0), {4, 3, 2}, {24});
  check(nn::Flatten<T>(0, 1), {4, 3, 2}, {12, 2});
  check(nn::Flatten<T>(-2), {4, 3, 2}, {4, 6});
  check(nn::Flatten<T>(1, 1), {4, 3, 2}, {4, 3, 2});
  check(nn::Flatten<T>(1, -2), {4, 3, 2, 5}, {4, 6, 5});
}

TEST_CASE("gradients agree with finite differences") {
  nn::Flatten<double> flatten;
  const auto result =
      testing::gradcheck([&](const auto& in) { return flatten(in[0]); }, {leaf<double>({2, 3, 4})});
  CHECK_MESSAGE(result, result.message);
}

TEST_CASE("Identity returns its very input") {
  nn::Identity identity;
  const auto x = leaf<float>({2, 3});
  const Variable<float> y = identity(x);
  CHECK(y.is_leaf());
  CHECK(y.value().shares_memory_with(x.value()));
}

TEST_CASE("modules carry PyTorch's names and no state") {
  nn::Flatten flatten(0, 2);
  static_assert(std::is_same_v<decltype(flatten), nn::Flatten<float>>);
  CHECK(flatten.name() == "Flatten");
  CHECK(flatten.start() == 0);
  CHECK(flatten.end() == 2);
  CHECK(nn::Flatten().start() == 1);
  CHECK(nn::Flatten().end() == -1);
  CHECK(flatten.state_dict().empty());
  CHECK(nn::Identity().name() == "Identity");
  nn::Sequential model{nn::Identity(), nn::Flatten()};
  CHECK(model(leaf<float>({2, 3, 4})).shape() == Shape{2, 12});
  model.eval();
  CHECK(model(leaf<float>({2, 3, 4})).shape() == Shape{2, 12});
}

TEST_CASE("errors say what is wrong") {
  CHECK_THROWS_WITH_AS(nn::Flatten()(leaf<float>({3})),
                       "flatten: there is no axis 1 in shape [3] of rank 1", ShapeError);
  CHECK_THROWS_WITH_AS(nn::Flatten(2, 1)(leaf<float>({3, 4, 5})),
                       "flatten: axis 2 of shape [3, 4, 5] comes after axis 1", ShapeError);
}
