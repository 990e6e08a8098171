#include "minnow/testing/compare.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <utility>
#include <vector>

using namespace minnow;
using minnow::testing::compare;
using minnow::testing::same_bits;

namespace {

Tensor<double> numbers(std::initializer_list<double> values) {
  return Tensor<double>({static_cast<Index>(values.size())}, values);
}

const double inf = std::numeric_limits<double>::infinity();
const double not_a_number = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("numbers within either tolerance are close") {
  const auto expected = numbers({0, 100, -100});
  CHECK(compare(expected, expected, 0, 0));
  CHECK(compare(expected, expected, 0, 0).worst == 0);
  CHECK(compare(numbers({0.009, 100, -100}), expected, 0, 0.01));
  CHECK_FALSE(compare(numbers({0.011, 100, -100}), expected, 0, 0.01));
  CHECK(compare(numbers({0, 100.9, -100.9}), expected, 0.01, 0));
  CHECK_FALSE(compare(numbers({0, 100, -101.1}), expected, 0.01, 0));
  CHECK(compare(numbers({0, 101.5, -100}), expected, 0.01, 1));
  CHECK(compare(numbers({0, 50, -100}), expected, 0.5, 0).worst == doctest::Approx(1));
  // Different types meet in double.
  CHECK(compare(Tensor<float>({1}, {0.1f}), numbers({0.1}), 1e-7, 0));
  CHECK_FALSE(compare(Tensor<float>({1}, {0.1f}), numbers({0.1}), 1e-9, 0));
}

TEST_CASE("the message names the worst element and how many are too far") {
  const auto one = compare(numbers({1, 2, 3}), numbers({1, 2.5, 3}), 0, 0.1);
  CHECK(one.str() == "element 1 of shape [3] is 2, expected 2.5 (difference -0.5)");
  CHECK(one.worst == doctest::Approx(5));
  const auto two = compare(numbers({1.2, 2, 3}), numbers({1, 2.5, 3}), 0, 0.1);
  CHECK(two.str() ==
        "element 1 of shape [3] is 2, expected 2.5 (difference -0.5); 2 of 3 elements are too far");
  CHECK(compare(numbers({1}), numbers({1}), 0, 0).str() == "");
}

TEST_CASE("NaN is close to NaN only, infinity to the same infinity only") {
  CHECK(compare(numbers({not_a_number, inf, -inf}), numbers({not_a_number, inf, -inf}), 1, 1));
  const std::vector<std::pair<double, double>> pairs = {
      {not_a_number, 1}, {1, not_a_number},   {inf, 1},           {1, inf},
      {inf, -inf},       {not_a_number, inf}, {inf, not_a_number}};
  for (const auto& pair : pairs) {
    const double actual = pair.first, expected = pair.second;
    CAPTURE(actual);
    CAPTURE(expected);
    const auto comparison = compare(numbers({0, actual, 0}), numbers({0, expected, 0}), 1, 1);
    CHECK_FALSE(comparison);
    CHECK(comparison.str().substr(0, 9) == "element 1");
  }
}

TEST_CASE("a difference in shape is never close") {
  const auto a = Tensor<double>::zeros({2, 3}), b = Tensor<double>::zeros({3, 2});
  CHECK_FALSE(compare(a, b, 1, 1));
  CHECK(compare(a, b, 1, 1).str() == "shape [2, 3], expected [3, 2]");
  CHECK(compare(Tensor<double>::zeros({0}), Tensor<double>::zeros({0}), 0, 0));
  const auto scalar = Tensor<double>::scalar(1), undefined = Tensor<double>();
  CHECK(compare(undefined, scalar, 1, 1).str() == "the tensor is undefined");
  CHECK(compare(scalar, undefined, 1, 1).str() == "the expected tensor is undefined");
  CHECK_FALSE(compare(undefined, undefined, 1, 1));
}

TEST_CASE("the same bits are the same shape and the same representation") {
  CHECK(same_bits(numbers({1, not_a_number}), numbers({1, not_a_number})));
  CHECK_FALSE(same_bits(numbers({0.0}), numbers({-0.0})));
  CHECK_FALSE(same_bits(numbers({1, 2}), numbers({1, 3})));
  CHECK_FALSE(same_bits(Tensor<double>::zeros({2, 1}), Tensor<double>::zeros({1, 2})));
  CHECK_FALSE(same_bits(Tensor<double>(), Tensor<double>()));
  CHECK_FALSE(same_bits(Tensor<double>::scalar(1), Tensor<double>()));
}
