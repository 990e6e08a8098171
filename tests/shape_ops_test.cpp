#include "minnow/ops/shape.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "minnow/core/parallel.hpp"
#include "variables.hpp"

using namespace minnow;
using namespace minnow_test;
using minnow::testing::compare;
using minnow::testing::same_bits;

namespace {

using V = Variable<double>;

/// 0, 1, 2, ... in a shape.
Tensor<double> counting(const Shape& shape) {
  return Tensor<double>::arange(shape.size()).reshape(shape);
}
V parameter(const Shape& shape) { return V(counting(shape), true); }

bool equal(const V& x, const Shape& shape, std::initializer_list<double> values) {
  return same_bits(x.value(), Tensor<double>(shape, values));
}

}  // namespace

TEST_CASE("reshape, flatten, squeeze and unsqueeze change the shape and share the memory") {
  const V x = parameter({2, 3, 1, 4});
  const auto check_shape = [&](const V& y, const Shape& shape) {
    CHECK(y.shape() == shape);
    CHECK(y.value().shares_memory_with(x.value()));
    Variable<double>(x).zero_grad();
    y.backward(counting(shape));
    CHECK(same_bits(x.grad(), counting(x.shape())));
  };
  check_shape(reshape(x, {4, -1}), {4, 6});
  check_shape(reshape(x, Shape{24}), {24});
  check_shape(flatten(x), {24});
  check_shape(flatten(x, 1), {2, 12});
  check_shape(flatten(x, 0, 1), {6, 1, 4});
  check_shape(flatten(x, -3, -2), {2, 3, 4});
  check_shape(flatten(x, 2, 2), {2, 3, 1, 4});
  check_shape(squeeze(x, 2), {2, 3, 4});
  check_shape(squeeze(x, -2), {2, 3, 4});
  check_shape(unsqueeze(x, 0), {1, 2, 3, 1, 4});
  check_shape(unsqueeze(x, -1), {2, 3, 1, 4, 1});
  check_shape(unsqueeze(x, 4), {2, 3, 1, 4, 1});
  check_shape(unsqueeze(x, 1), {2, 1, 3, 1, 4});
  CHECK(flatten(V(Tensor<double>::scalar(3))).shape() == Shape{1});
}

TEST_CASE_TEMPLATE("permute moves every element to its place", T, float, double) {
  const std::vector<std::vector<Index>> orders = {{0, 1, 2, 3}, {3, 2, 1, 0}, {0, 2, 3, 1},
                                                  {0, 3, 1, 2}, {1, 0, 3, 2}, {-1, 0, -3, -2}};
  for (const Shape& shape : {Shape{2, 3, 4, 5}, Shape{1, 7, 1, 3}, Shape{3, 17, 33, 20}})
    for (const auto& order : orders) {
      const auto x = random_variable<T>(shape);
      const auto y = permute(x, Axes(order));
      const auto axis = [&](std::size_t i) { return shape.wrap(order[i]); };
      for (Index i = 0; i < 4; ++i) REQUIRE(y.size(i) == shape[order[static_cast<std::size_t>(i)]]);
      Index at[4];
      bool right = true;
      for (at[0] = 0; at[0] < shape[0]; ++at[0])
        for (at[1] = 0; at[1] < shape[1]; ++at[1])
          for (at[2] = 0; at[2] < shape[2]; ++at[2])
            for (at[3] = 0; at[3] < shape[3]; ++at[3])
              right = right && y.value()(at[axis(0)], at[axis(1)], at[axis(2)], at[axis(3)]) ==
                                   x.value()(at[0], at[1], at[2], at[3]);
      CHECK(right);
      // The gradient goes the way back.
      y.backward(y.value());
      CHECK(same_bits(x.grad(), x.value()));
    }
}

TEST_CASE("transpose exchanges two axes") {
  const V x = parameter({2, 3});
  CHECK(equal(transpose(x, 0, 1), {3, 2}, {0, 3, 1, 4, 2, 5}));
  CHECK(equal(transpose(x, -1, -2), {3, 2}, {0, 3, 1, 4, 2, 5}));
  CHECK(equal(transpose(x, 1, 1), {2, 3}, {0, 1, 2, 3, 4, 5}));
  CHECK(transpose(parameter({2, 3, 4}), 0, 2).shape() == Shape{4, 3, 2});
  CHECK(permute(V(Tensor<double>::scalar(3)), {}).item() == 3);
}

TEST_CASE("slice takes entries of an axis, with a step, counted from the back too") {
  const V x = parameter({2, 5});
  CHECK(equal(slice(x, 1, 1, 3), {2, 2}, {1, 2, 6, 7}));
  CHECK(equal(slice(x, 1, 0, 5, 2), {2, 3}, {0, 2, 4, 5, 7, 9}));
  CHECK(equal(slice(x, 1, 1, 5, 3), {2, 2}, {1, 4, 6, 9}));
  CHECK(equal(slice(x, -1, -3, -1), {2, 2}, {2, 3, 7, 8}));
  CHECK(equal(slice(x, 0, 1, 2), {1, 5}, {5, 6, 7, 8, 9}));
  CHECK(slice(x, 0, 1, 1).shape() == Shape{0, 5});
  CHECK(equal(select(x, 0, 1), {5}, {5, 6, 7, 8, 9}));
  CHECK(equal(select(x, 1, -1), {2}, {4, 9}));
  // What was not taken gets a gradient of zero.
  slice(x, 1, 0, 5, 2).backward(Tensor<double>({2, 3}, {1, 2, 3, 4, 5, 6}));
  CHECK(same_bits(x.grad(), Tensor<double>({2, 5}, {1, 0, 2, 0, 3, 4, 0, 5, 0, 6})));
}

TEST_CASE("pad surrounds an axis with a value") {
  const V x = parameter({2, 2});
  CHECK(equal(pad(x, 1, 1, 2, -1), {2, 5}, {-1, 0, 1, -1, -1, -1, 2, 3, -1, -1}));
  CHECK(equal(pad(x, 0, 0, 1), {3, 2}, {0, 1, 2, 3, 0, 0}));
  CHECK(equal(pad(x, -2, 1, 0, 7), {3, 2}, {7, 7, 0, 1, 2, 3}));
  CHECK(equal(pad(x, 0, 0, 0), {2, 2}, {0, 1, 2, 3}));
  CHECK(equal(pad(V(Tensor<double>({0})), 0, 1, 1, 5), {2}, {5, 5}));
  pad(x, 1, 1, 2, std::numeric_limits<double>::infinity()).backward(counting({2, 5}));
  CHECK(same_bits(x.grad(), Tensor<double>({2, 2}, {1, 2, 6, 7})));
}

TEST_CASE("concat joins along an axis, stack along a new one") {
  const V x = parameter({2, 2}), y = parameter({2, 1}), z = parameter({1, 2});
  CHECK(equal(concat({x, y, x}, 1), {2, 5}, {0, 1, 0, 0, 1, 2, 3, 1, 2, 3}));
  CHECK(equal(concat({x, z}, -2), {3, 2}, {0, 1, 2, 3, 0, 1}));
  CHECK(equal(concat({z}, 0), {1, 2}, {0, 1}));
  CHECK(concat({x, V(Tensor<double>({2, 0}))}, 1).shape() == Shape{2, 2});
  CHECK(equal(stack({x, x}, 0), {2, 2, 2}, {0, 1, 2, 3, 0, 1, 2, 3}));
  CHECK(equal(stack({x, x}, -1), {2, 2, 2}, {0, 0, 1, 1, 2, 2, 3, 3}));
  const std::vector<V> list{x, x, x};
  CHECK(stack(list, 1).shape() == Shape{2, 3, 2});
  concat({x, y, x}, 1).backward(counting({2, 5}));
  CHECK(same_bits(x.grad(), Tensor<double>({2, 2}, {0 + 3, 1 + 4, 5 + 8, 6 + 9})));
  CHECK(same_bits(y.grad(), Tensor<double>({2, 1}, {2, 7})));
}

TEST_CASE("broadcast_to repeats axes, and its gradient adds the repetitions") {
  const V x = parameter({2, 1});
  const V y = broadcast_to(x, {3, 2, 2});
  CHECK(equal(y, {3, 2, 2}, {0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1}));
  y.backward(counting({3, 2, 2}));
  CHECK(same_bits(x.grad(),
                  Tensor<double>({2, 1}, {0 + 1 + 4 + 5 + 8 + 9, 2 + 3 + 6 + 7 + 10 + 11})));
  CHECK(broadcast_to(V(Tensor<double>::scalar(2)), {0, 3}).size() == 0);
}

TEST_CASE("gradients of changes of shape agree with differences") {
  const auto x = random_variable<double>({3, 4, 5}),
             y = random_variable<double>({3, 2, 5}, -1, 1, 1);
  const auto one = [&](const Function& f) { check_gradients(f, {x}); };
  one([](const auto& in) { return reshape(in[0], {-1, 6}); });
  one([](const auto& in) { return flatten(in[0], 1); });
  one([](const auto& in) { return squeeze(unsqueeze(in[0], 2), 2); });
  one([](const auto& in) { return permute(in[0], {2, 0, 1}); });
  one([](const auto& in) { return transpose(in[0], 0, 1); });
  one([](const auto& in) { return broadcast_to(in[0], {2, 3, 4, 5}); });
  one([](const auto& in) { return slice(in[0], 0, 1, 3); });
  one([](const auto& in) { return slice(in[0], 1, 0, 4, 3); });
  one([](const auto& in) { return slice(in[0], 2, 1, -1, 2); });
  one([](const auto& in) { return select(in[0], 1, 2); });
  one([](const auto& in) { return pad(in[0], 1, 2, 1, 3); });
  one([](const auto& in) { return stack({in[0], in[0]}, 1); });
  check_gradients([](const auto& in) { return concat({in[0], in[1]}, 1); }, {x, y});
  check_gradients(
      [](const auto& in) {
        return stack({in[0], in[1]}, -1);
      },
      {y, random_variable<double>({3, 2, 5}, -1, 1, 2)});
}

TEST_CASE_TEMPLATE("large copies give the same bits with any number of threads", T, float, double) {
  const auto compute = [] {
    const auto x = random_variable<T>({40, 50, 60});
    const auto y = concat({permute(x, {2, 0, 1}), pad(permute(x, {2, 0, 1}), 2, 3, 4)}, 2);
    const auto z = slice(y, 1, 3, 33, 2);
    z.backward(random_tensor<T>(z.shape(), -1, 1, 1));
    return std::vector<Tensor<T>>{z.value(), x.grad()};
  };
  set_num_threads(1);
  const auto expected = compute();
  for (const int threads : {2, 4}) {
    set_num_threads(threads);
    const auto actual = compute();
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(same_bits(actual[i], expected[i]));
  }
  set_num_threads(0);
}

TEST_CASE("a strided copy writes its elements and no other") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto x = Tensor<float>::arange(24);
  auto y = Tensor<float>::full({60}, nan);
  kernels::Nest<2> nest;
  nest.push(2, {30, 12});
  nest.push(4, {7, 1});
  nest.push(3, {2, 4});
  kernels::copy(y.data(), x.data(), nest);
  Index written = 0;
  for (const float value : y.values()) written += !std::isnan(value);
  CHECK(written == 24);
  for (Index i = 0; i < 2; ++i)
    for (Index j = 0; j < 4; ++j)
      for (Index k = 0; k < 3; ++k) CHECK(y[30 * i + 7 * j + 2 * k] == x[12 * i + j + 4 * k]);
}

TEST_CASE("what cannot be reshaped, sliced or joined is named with its shape") {
  const V x = parameter({2, 3}), y = parameter({3, 3});
  CHECK_THROWS_WITH_AS(reshape(x, {4, 2}),
                       "reshape: [2, 3] with 6 elements cannot become [4, 2] with 8", ShapeError);
  CHECK_THROWS_WITH_AS(flatten(x, 1, 0), "flatten: axis 1 of shape [2, 3] comes after axis 0",
                       ShapeError);
  CHECK_THROWS_WITH_AS(flatten(x, 2), "flatten: there is no axis 2 in shape [2, 3] of rank 2",
                       ShapeError);
  CHECK_THROWS_WITH_AS(unsqueeze(x, 3),
                       "unsqueeze: no axis 3 can be inserted into shape [2, 3]; -3 to 2 can",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      squeeze(x, 0),
      "squeeze: axis 0 of shape [2, 3] has size 2, only an axis of size 1 can be removed",
      ShapeError);
  CHECK_THROWS_WITH_AS(permute(x, {0}),
                       "permute: 1 axes for shape [2, 3] of rank 2; each axis must be named once",
                       ShapeError);
  CHECK_THROWS_WITH_AS((permute(x, {0, -2})),
                       "permute: axis -2 of shape [2, 3] is named more than once", ShapeError);
  CHECK_THROWS_WITH_AS(transpose(x, 0, 2), doctest::Contains("transpose: there is no axis 2"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(broadcast_to(x, {2, 4}), doctest::Contains("broadcast_to: shapes [2, 3]"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(broadcast_to(x, {1, 3}),
                       "broadcast_to: shape [2, 3] cannot be repeated to [1, 3]", ShapeError);
  CHECK_THROWS_WITH_AS(slice(x, 1, 1, 4),
                       "slice: [1, 4) is not within axis 1 of shape [2, 3], which has size 3",
                       ShapeError);
  CHECK_THROWS_WITH_AS(slice(x, 1, 2, 1), doctest::Contains("slice: [2, 1) is not within axis 1"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(slice(x, 1, -4, 1), doctest::Contains("slice: [-4, 1)"), ShapeError);
  CHECK_THROWS_WITH_AS(slice(x, 1, 0, 2, 0), "slice: step 0 is not positive", ShapeError);
  CHECK_THROWS_WITH_AS(select(x, 1, 3),
                       "select: there is no entry 3 on axis 1 of shape [2, 3], which has size 3",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      pad(x, 1, -1, 0),
      "pad: -1 before and 0 after axis 1 of shape [2, 3]: neither may be negative; "
      "slice() removes entries",
      ShapeError);
  CHECK_THROWS_WITH_AS(
      (concat({x, y}, 1)),
      "concat: entry 1 has shape [3, 3], the first [2, 3]; they may differ on axis "
      "1 only",
      ShapeError);
  CHECK_THROWS_WITH_AS((concat({x, parameter({2, 3, 1})}, 0)), doctest::Contains("entry 1"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(concat(std::vector<V>{}, 0), "concat: the list is empty", ShapeError);
  CHECK_THROWS_WITH_AS((stack({x, y}, 0)),
                       "stack: entry 1 has shape [3, 3], the first [2, 3]; all must be the same",
                       ShapeError);
  CHECK_THROWS_WITH_AS(stack(std::vector<V>{}, 0), doctest::Contains("the list is empty"),
                       ShapeError);
}

TEST_CASE("sizes and steps beyond any memory") {
  constexpr Index huge = std::numeric_limits<Index>::max();
  const auto four = Tensor<double>::arange(4);
  CHECK_THROWS_AS(four.reshape({(Index{1} << 62) + 1, 4}), ShapeError);
  CHECK_THROWS_AS(four.reshape({Index{1} << 40, Index{1} << 40, -1}), ShapeError);
  CHECK_THROWS_AS(Tensor<double>(Shape{0}).reshape({Index{1} << 32, Index{1} << 32}), ShapeError);
  const V x(four);
  CHECK(slice(x, 0, 1, 4, huge).value()[0] == 1);
  CHECK(slice(x, 0, 1, 4, huge).shape() == Shape{1});
  CHECK_THROWS_AS(pad(x, 0, huge, huge), ShapeError);
}
