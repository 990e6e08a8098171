#include "minnow/ops/matmul.hpp"

#include <doctest/doctest.h>

#include "minnow/core/parallel.hpp"
#include "variables.hpp"

using namespace minnow;
using namespace minnow_test;
using minnow::testing::compare;
using minnow::testing::same_bits;

namespace {

struct Case {
  Shape x, y, z;
};
const std::vector<Case> cases = {
    // matrices
    {{3, 4}, {4, 5}, {3, 5}},
    {{1, 1}, {1, 1}, {1, 1}},
    {{1, 4}, {4, 1}, {1, 1}},
    {{7, 1}, {1, 9}, {7, 9}},
    // vectors
    {{4}, {4}, {}},
    {{4}, {4, 5}, {5}},
    {{3, 4}, {4}, {3}},
    {{2, 3, 4}, {4}, {2, 3}},
    {{4}, {2, 4, 5}, {2, 5}},
    // many on the left, one on the right, and the other way round
    {{2, 3, 4}, {4, 5}, {2, 3, 5}},
    {{2, 6, 3, 4}, {4, 5}, {2, 6, 3, 5}},
    {{3, 4}, {2, 4, 5}, {2, 3, 5}},
    // many on both sides, repeated or not
    {{2, 3, 4}, {2, 4, 5}, {2, 3, 5}},
    {{2, 1, 3, 4}, {6, 4, 5}, {2, 6, 3, 5}},
    {{6, 3, 4}, {2, 1, 4, 5}, {2, 6, 3, 5}},
    {{1, 3, 4}, {2, 4, 5}, {2, 3, 5}},
    {{2, 3, 4}, {1, 4, 5}, {2, 3, 5}},
    // nothing
    {{0, 4}, {4, 5}, {0, 5}},
    {{3, 0}, {0, 5}, {3, 5}},
    {{0, 3, 4}, {4, 5}, {0, 3, 5}},
    {{0, 3, 4}, {1, 4, 5}, {0, 3, 5}},
};

/// The product by its definition, for operands of rank 2 and more that have the same batch sizes.
template <class T>
Tensor<double> naive(const Tensor<T>& x, const Tensor<T>& y, const Shape& shape) {
  auto z = Tensor<double>::zeros(shape);
  const Index m = x.size(-2), k = x.size(-1), n = y.size(-1);
  const Index batch = shape.product(0, shape.rank() - 2);
  for (Index b = 0; b < batch; ++b)
    for (Index i = 0; i < m; ++i)
      for (Index j = 0; j < n; ++j)
        for (Index r = 0; r < k; ++r)
          z[(b * m + i) * n + j] += static_cast<double>(x[(b * m + i) * k + r]) *
                                    static_cast<double>(y[(b * k + r) * n + j]);
  return z;
}

/// x copied to the batch sizes of `shape`, by plain division.
template <class T>
Tensor<T> spread(const Tensor<T>& x, const Shape& shape) {
  Shape whole = shape.slice(0, shape.rank() - 2);
  whole.push_back(x.size(-2));
  whole.push_back(x.size(-1));
  Tensor<T> result(whole);
  for (Index i = 0; i < whole.size(); ++i) {
    Index rest = i, offset = 0, stride = 1;
    for (Index axis = -1; axis >= -x.rank(); --axis) {
      if (x.size(axis) != 1) offset += rest % whole[axis] * stride;
      rest /= whole[axis];
      stride *= x.size(axis);
    }
    result[i] = x[offset];
  }
  return result;
}

}  // namespace

TEST_CASE_TEMPLATE("products have torch.matmul's shapes and values", T, float, double) {
  for (const Case& c : cases) {
    const Shape &x_shape = c.x, &y_shape = c.y, &z_shape = c.z;
    CAPTURE(x_shape.str());
    CAPTURE(y_shape.str());
    const auto x = random_tensor<T>(x_shape), y = random_tensor<T>(y_shape, -1, 1, 1);
    // Vectors as matrices, both with all batch axes.
    const auto a = x.rank() == 1 ? x.reshape({1, -1}) : x,
               b = y.rank() == 1 ? y.reshape({-1, 1}) : y;
    const Shape batch =
        z_shape.slice(0, z_shape.rank() - (x.rank() > 1 ? 1 : 0) - (y.rank() > 1 ? 1 : 0));
    Shape whole = batch;
    whole.push_back(a.size(-2));
    whole.push_back(b.size(-1));
    const auto expected = naive(spread(a, whole), spread(b, whole), whole).reshape(z_shape);
    const Tensor<T> z = matmul(Variable<T>(x), Variable<T>(y)).value();
    CHECK(compare(z, expected, std::is_same_v<T, float> ? 1e-5 : 1e-13, 1e-6));
  }
}

TEST_CASE("gradients of products agree with differences") {
  for (const Case& c : cases) {
    const Shape &x_shape = c.x, &y_shape = c.y;
    if (x_shape.size() == 0 || y_shape.size() == 0) continue;
    CAPTURE(x_shape.str());
    CAPTURE(y_shape.str());
    check_gradients([](const auto& in) { return matmul(in[0], in[1]); },
                    {random_variable<double>(x_shape), random_variable<double>(y_shape, -1, 1, 1)});
  }
}

TEST_CASE("a product over no terms is zero, and so is its gradient's shape right") {
  const auto x = random_variable<double>({3, 0}), y = random_variable<double>({0, 5});
  const auto z = matmul(x, y);
  CHECK(same_bits(z.value(), Tensor<double>::zeros({3, 5})));
  z.backward(Tensor<double>::ones({3, 5}));
  CHECK(x.grad().shape() == Shape{3, 0});
  const auto none = random_variable<double>({0, 4}), w = random_variable<double>({4, 5});
  matmul(none, w).backward(Tensor<double>({0, 5}));
  CHECK(same_bits(w.grad(), Tensor<double>::zeros({4, 5})));
}

TEST_CASE_TEMPLATE(
    "large products, and many of them, give the same bits with any number of threads", T, float,
    double) {
  const auto compute = [] {
    std::vector<Tensor<T>> results;
    const std::vector<std::pair<Shape, Shape>> shapes = {
        {{100, 130}, {130, 90}}, {{50, 20, 30}, {50, 30, 10}}, {{4, 80, 90}, {1, 90, 70}}};
    for (const auto& [x_shape, y_shape] : shapes) {
      const auto x = random_variable<T>(x_shape), y = random_variable<T>(y_shape, -1, 1, 1);
      const auto z = matmul(x, y);
      z.backward(random_tensor<T>(z.shape(), -1, 1, 2));
      results.insert(results.end(), {z.value(), x.grad(), y.grad()});
      CHECK(compare(z.value(),
                    naive(spread(x.value(), z.shape()), spread(y.value(), z.shape()), z.shape()),
                    1e-4, 1e-4));
    }
    return results;
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

TEST_CASE("operands that do not fit are named with both shapes") {
  const auto multiply = [](const Shape& x, const Shape& y) {
    matmul(random_variable<float>(x), random_variable<float>(y));
  };
  CHECK_THROWS_WITH_AS(
      multiply({2, 3}, {4, 5}),
      "matmul: shapes [2, 3] and [4, 5] do not fit together: the last axis of the first is 3, the "
      "last axis but one of the second is 4; they must be equal",
      ShapeError);
  CHECK_THROWS_WITH_AS(multiply({2, 3}, {4}),
                       "matmul: shapes [2, 3] and [4] do not fit together: the last axis of the "
                       "first is 3, the only "
                       "axis of the second is 4; they must be equal",
                       ShapeError);
  CHECK_THROWS_WITH_AS(multiply({}, {4}),
                       "matmul: shapes [] and [4]: a scalar is no matrix; multiply by it with *",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      multiply({2, 3, 4}, {5, 4, 6}),
      "matmul: shapes [2, 3, 4] and [5, 4, 6] do not fit together: on axis -3 they "
      "have 2 and 5, which must be equal or one of them 1",
      ShapeError);
}
