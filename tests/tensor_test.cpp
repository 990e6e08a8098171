#include "minnow/tensor.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "minnow/testing/compare.hpp"

using namespace minnow;
using minnow::testing::same_bits;

TEST_CASE("a default-constructed tensor is undefined and empty") {
  const Tensor<float> tensor;
  CHECK_FALSE(tensor.defined());
  CHECK(tensor.size() == 0);
  CHECK(tensor.values().empty());
  CHECK_FALSE(tensor.clone().defined());
  CHECK_FALSE(tensor.to<double>().defined());
  CHECK_FALSE(tensor.shares_memory_with(tensor));
}

TEST_CASE_TEMPLATE("tensors are made from values, constants and counts", T, float, double,
                   std::int64_t, std::uint8_t) {
  const Tensor<T> tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  CHECK(tensor.defined());
  CHECK(tensor.shape() == Shape{2, 3});
  CHECK(tensor.rank() == 2);
  CHECK(tensor.size() == 6);
  CHECK(tensor.size(-1) == 3);
  CHECK(tensor(0, 2) == 3);
  CHECK(tensor(1, 0) == 4);
  CHECK(tensor[4] == 5);
  const std::vector<T> values{9, 8};
  CHECK(Tensor<T>({2}, values)[1] == 8);
  for (const T value : Tensor<T>::full({2, 2}, 7).values()) CHECK(value == 7);
  for (const T value : Tensor<T>::zeros({5}).values()) CHECK(value == 0);
  for (const T value : Tensor<T>::ones({5}).values()) CHECK(value == 1);
  CHECK(Tensor<T>::scalar(4).item() == 4);
  CHECK(Tensor<T>::scalar(4).shape() == Shape{});
  CHECK(Tensor<T>::arange(4)[3] == 3);
  CHECK(Tensor<T>::zeros({3, 0}).size() == 0);
}

TEST_CASE("a copy is another handle to the same numbers, a clone has its own") {
  Tensor<float> a({3}, {1, 2, 3});
  CHECK(a.unique());
  Tensor<float> b = a;
  CHECK_FALSE(a.unique());
  CHECK(a.shares_memory_with(b));
  b[0] = 10;
  CHECK(a[0] == 10);
  Tensor<float> c = a.clone();
  CHECK_FALSE(c.shares_memory_with(a));
  c[0] = 20;
  CHECK(a[0] == 10);
  b = Tensor<float>();
  CHECK(a.unique());
}

TEST_CASE("reshape and slice share memory") {
  Tensor<double> a = Tensor<double>::arange(24);
  Tensor<double> b = a.reshape({2, -1, 4});
  CHECK(b.shape() == Shape{2, 3, 4});
  CHECK(b.shares_memory_with(a));
  CHECK(b(1, 2, 3) == 23);
  CHECK(a.reshape(Shape{4, 6})(1, 0) == 6);
  CHECK(a.slice(0, 1).reshape(Shape{}).item() == 0);
  CHECK(a.reshape({-1}).shape() == Shape{24});

  Tensor<double> rows = b.slice(1, 2);
  CHECK(rows.shape() == Shape{1, 3, 4});
  CHECK(rows.shares_memory_with(a));
  CHECK(rows(0, 0, 0) == 12);
  rows.fill(-1);
  CHECK(a[11] == 11);
  CHECK(a[12] == -1);
  CHECK(a[23] == -1);
  CHECK(b.slice(2, 2).size() == 0);
  // A slice of a slice, and its clone.
  CHECK(a.slice(4, 10).slice(1, 3).clone()[0] == 5);
}

TEST_CASE("numbers convert to another type") {
  const Tensor<double> a({3}, {1.75, -2.5, 3});
  const auto integers = a.to<std::int64_t>();
  CHECK(integers[0] == 1);
  CHECK(integers[1] == -2);
  CHECK(a.to<float>()[1] == -2.5f);
}

TEST_CASE("copy_from overwrites the numbers in place") {
  Tensor<float> a({2, 2}, {1, 2, 3, 4}), seen = a;
  a.copy_from(Tensor<float>({2, 2}, {5, 6, 7, 8}));
  CHECK(seen[3] == 8);
}

TEST_CASE("random tensors repeat with their key and differ between keys") {
  const RandomKey key{1, 2, 3};
  const auto a = Tensor<float>::uniform({100}, -2, 5, key);
  CHECK(same_bits(a, Tensor<float>::uniform({100}, -2, 5, key)));
  CHECK_FALSE(same_bits(a, Tensor<float>::uniform({100}, -2, 5, {1, 2, 4})));
  for (const float value : a.values()) CHECK((value >= -2 && value < 5));
  const auto b = Tensor<double>::normal({100}, 3, 2, key),
             c = Tensor<double>::normal({100}, 0, 1, key);
  for (Index i = 0; i < b.size(); ++i) CHECK(b[i] == doctest::Approx(3 + 2 * c[i]));

  manual_seed(5);
  const auto first = Tensor<float>::uniform({4}), second = Tensor<float>::uniform({4});
  CHECK_FALSE(same_bits(first, second));
  manual_seed(5);
  CHECK(same_bits(Tensor<float>::uniform({4}), first));
}

TEST_CASE_TEMPLATE("uniform numbers stay below the upper bound, however close it is", T, float,
                   double) {
  const T next = std::nextafter(T(1), T(2));
  for (const T value : Tensor<T>::uniform({100}, 1, next, {3, 0, 0}).values()) CHECK(value == 1);
  for (const T value : Tensor<T>::uniform({3}, 2, 2, {3, 0, 0}).values()) CHECK(value == 2);
}

TEST_CASE("a tensor's errors carry the shapes") {
  Tensor<float> a = Tensor<float>::zeros({2, 3});
  CHECK_THROWS_WITH_AS((Tensor<float>({2, 3}, {1, 2})),
                       "Tensor: 2 values for shape [2, 3], which has 6 elements", ShapeError);
  CHECK_THROWS_WITH_AS((void)(a(0)), "1 indices into a tensor of shape [2, 3]", ShapeError);
  CHECK_THROWS_WITH_AS((void)(Tensor<float>()(0)),
                       "1 indices into a tensor of shape []; it is undefined, as a gradient is "
                       "before backward()",
                       ShapeError);
  CHECK_THROWS_AS((void)(Tensor<float>()()), ShapeError);
  CHECK_THROWS_WITH_AS((void)(a(0, 3)), "index 3 on axis 1 of a tensor of shape [2, 3]",
                       ShapeError);
  CHECK_THROWS_WITH_AS((void)(a(-1, 0)), "index -1 on axis 0 of a tensor of shape [2, 3]",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      (void)a.item(),
      "item(): tensor of shape [2, 3] has 6 elements, only a tensor of one element "
      "has an item",
      ShapeError);
  CHECK_THROWS_WITH_AS(a.reshape({4, 2}),
                       "reshape: [2, 3] with 6 elements cannot become [4, 2] with 8", ShapeError);
  CHECK_THROWS_WITH_AS(
      a.reshape({-1, 4}),
      "reshape: [2, 3] with 6 elements cannot be divided by the known sizes, which "
      "hold 4",
      ShapeError);
  CHECK_THROWS_WITH_AS(a.reshape({-1, -1}), "reshape: more than one size is -1", ShapeError);
  CHECK_THROWS_WITH_AS(a.slice(1, 3), "slice: [1, 3) is not within the first axis of [2, 3]",
                       ShapeError);
  CHECK_THROWS_WITH_AS(a.slice(2, 1), "slice: [2, 1) is not within the first axis of [2, 3]",
                       ShapeError);
  CHECK_THROWS_WITH_AS(Tensor<float>::scalar(1).slice(0, 1), "slice: a scalar has no axis to slice",
                       ShapeError);
  CHECK_THROWS_WITH_AS(a.copy_from(Tensor<float>::zeros({3, 2})),
                       "copy_from: source has shape [3, 2], expected [2, 3]", ShapeError);
}

TEST_CASE("sizes beyond any memory, and undefined sources, are refused") {
  const Index large = Index{1} << 32;
  CHECK_THROWS_WITH_AS(Tensor<float>(Shape{large, large}),
                       "Tensor: shape [4294967296, 4294967296] has more elements than fit into "
                       "memory",
                       ShapeError);
  CHECK_THROWS_AS(Tensor<float>(Shape{Index{1} << 62}), ShapeError);
  auto number = Tensor<float>::scalar(1);
  CHECK_THROWS_AS(number.copy_from({}), ShapeError);
  CHECK(number.item() == 1);
}
