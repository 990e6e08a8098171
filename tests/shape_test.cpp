#include "minnow/core/shape.hpp"

#include <doctest/doctest.h>

#include <array>
#include <vector>

using namespace minnow;

TEST_CASE("a shape knows its sizes from the front and from the back") {
  const Shape shape{128, 8, 26, 24};
  CHECK(shape.rank() == 4);
  CHECK(shape[0] == 128);
  CHECK(shape[3] == 24);
  CHECK(shape[-1] == 24);
  CHECK(shape[-4] == 128);
  CHECK(shape.back() == 24);
  CHECK(shape.size() == 128 * 8 * 26 * 24);
  CHECK(shape.product(1, 3) == 8 * 26);
  CHECK(shape.product(2, 2) == 1);
  CHECK(shape.str() == "[128, 8, 26, 24]");
  CHECK(std::vector<Index>(shape.begin(), shape.end()) == std::vector<Index>{128, 8, 26, 24});
}

TEST_CASE("a shape of rank 0 is a scalar of one element, one with a size of 0 has none") {
  const Shape scalar;
  CHECK(scalar.empty());
  CHECK(scalar.rank() == 0);
  CHECK(scalar.size() == 1);
  CHECK(scalar.str() == "[]");
  CHECK(scalar == Shape{});
  CHECK(Shape{3, 0, 2}.size() == 0);
  CHECK_FALSE(Shape{3, 0, 2}.empty());
}

TEST_CASE("shapes are equal when rank and every size are") {
  CHECK(Shape{2, 3} == Shape{2, 3});
  CHECK(Shape{2, 3} != Shape{3, 2});
  CHECK(Shape{2, 3} != Shape{2, 3, 1});
  CHECK(Shape{} != Shape{1});
  Shape shrunk{2, 3, 4};
  shrunk = shrunk.slice(0, 2);
  CHECK(shrunk == Shape{2, 3});
}

TEST_CASE("shapes are built, cut and changed by axis") {
  Shape shape{2, 3};
  shape.push_back(5);
  CHECK(shape == Shape{2, 3, 5});
  shape.set(-2, 7);
  CHECK(shape == Shape{2, 7, 5});
  CHECK(shape.slice(1) == Shape{7, 5});
  CHECK(shape.slice(0, 1) == Shape{2});
  CHECK(shape.slice(3) == Shape{});
  const std::array<Index, 2> sizes{4, 6};
  CHECK(Shape(std::span<const Index>(sizes)) == Shape{4, 6});
  CHECK(shape.wrap(-1) == 2);
  CHECK(shape.wrap(0) == 0);
}

TEST_CASE("a shape's errors name the size, the axis and the shape") {
  CHECK_THROWS_WITH_AS((Shape{2, -1}), "Shape: size -1 is negative", ShapeError);
  CHECK_THROWS_WITH_AS((Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}),
                       "Shape: 9 dimensions, at most 8 are supported", ShapeError);
  Shape full{1, 2, 1, 2, 1, 2, 1, 2};
  CHECK_THROWS_WITH_AS(full.push_back(1), "Shape: more than 8 dimensions", ShapeError);
  CHECK_THROWS_WITH_AS(full.set(0, -3), "Shape: size -3 is negative", ShapeError);
  CHECK_THROWS_WITH_AS((void)(Shape{2, 3}[2]),
                       "axis 2 of shape [2, 3]: a shape of rank 2 has axes -2 to 1", ShapeError);
  CHECK_THROWS_WITH_AS((void)(Shape{2, 3}[-3]),
                       "axis -3 of shape [2, 3]: a shape of rank 2 has axes -2 to 1", ShapeError);
  CHECK_THROWS_AS((void)Shape{}.back(), ShapeError);
  CHECK(full == Shape{1, 2, 1, 2, 1, 2, 1, 2});
}

TEST_CASE("one number stands for height and width") {
  constexpr Size2 square = 3, wide = {3, 5};
  static_assert(square == Size2(3, 3) && square != wide);
  CHECK(square.str() == "3");
  CHECK(wide.str() == "(3, 5)");
}

TEST_CASE("texts join words, numbers and everything that has a text") {
  CHECK(text("conv", 1, ' ', Size2(2, 3), ": ", Shape{4}, ", ", 0.1, ", ", 1.5f) ==
        "conv1 (2, 3): [4], 0.1, 1.5");
  CHECK(text() == "");
  CHECK(text(1e30, ' ', -2.0, ' ', std::string("end")) == "1e+30 -2 end");
}

TEST_CASE("check throws the asked-for error, with the joined text, only when its condition fails") {
  CHECK_NOTHROW(check<ShapeError>(true, "never"));
  CHECK_THROWS_WITH_AS(check<DataError>(false, "file ", 7), "file 7", DataError);
  CHECK_THROWS_WITH_AS(check(false, "plain"), "plain", Error);
  // Every error of minnow can be caught as one.
  CHECK_THROWS_AS(check<ShapeError>(false, ""), Error);
  CHECK_THROWS_AS(check<DataError>(false, ""), std::runtime_error);
}
