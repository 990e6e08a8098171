#include "minnow/kernels/nest.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace minnow;
using minnow::kernels::Nest;

namespace {

/// The offsets of every position in [begin, end), element by element.
template <std::size_t arrays>
std::vector<std::array<Index, arrays>> offsets(const Nest<arrays>& nest, Index begin, Index end) {
  std::vector<std::array<Index, arrays>> result;
  nest.walk(begin, end, [&](Index position, const auto& at, Index count) {
    CHECK(position == begin + static_cast<Index>(result.size()));
    CHECK(count > 0);
    for (Index i = 0; i < count; ++i) {
      auto& offset = result.emplace_back(at);
      for (std::size_t k = 0; k < arrays; ++k) offset[k] += i * nest.strides()[k];
    }
  });
  return result;
}

/// How many innermost rows the walk over everything takes.
template <std::size_t arrays>
Index rows(const Nest<arrays>& nest) {
  Index count = 0;
  nest.walk(0, nest.size(), [&](Index, const auto&, Index) { ++count; });
  return count;
}

}  // namespace

TEST_CASE("a walk visits each position once, in order, wherever it is cut") {
  Nest<2> nest;
  nest.push(3, {100, 1});
  nest.push(1, {77, 77});
  nest.push(4, {10, 3});
  nest.push(5, {1, 12});
  CHECK(nest.size() == 60);
  std::vector<std::array<Index, 2>> expected;
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 4; ++j)
      for (Index k = 0; k < 5; ++k) expected.push_back({100 * i + 10 * j + k, i + 3 * j + 12 * k});
  CHECK(offsets(nest, 0, 60) == expected);
  for (Index cut = 0; cut <= 60; ++cut) {
    auto joined = offsets(nest, 0, cut);
    const auto rest = offsets(nest, cut, 60);
    joined.insert(joined.end(), rest.begin(), rest.end());
    CHECK(joined == expected);
  }
}

TEST_CASE("axes along which all arrays move evenly become one") {
  const Shape shape{2, 3, 4, 5};
  CHECK(rows(kernels::broadcast_nest(shape, shape, shape)) == 1);
  CHECK(rows(kernels::broadcast_nest(shape, shape, Shape{4, 5})) == 6);
  CHECK(rows(kernels::broadcast_nest(shape, shape, Shape{2, 3, 1, 1})) == 6);
  CHECK(rows(kernels::broadcast_nest(shape, shape, Shape{3, 1, 1})) == 6);
  CHECK(rows(kernels::broadcast_nest(shape, shape, Shape{})) == 1);
  CHECK(rows(kernels::broadcast_nest(shape, Shape{2, 1, 1, 1}, Shape{2, 1, 1, 1})) == 2);
}

TEST_CASE("missing axes and axes of size 1 are repeated") {
  const auto nest = kernels::broadcast_nest(Shape{2, 3, 4}, Shape{2, 1, 4}, Shape{3, 1}, Shape{});
  std::vector<std::array<Index, 3>> expected;
  for (Index i = 0; i < 2; ++i)
    for (Index j = 0; j < 3; ++j)
      for (Index k = 0; k < 4; ++k) expected.push_back({4 * i + k, j, 0});
  CHECK(offsets(nest, 0, 24) == expected);
}

TEST_CASE("a nest of nothing, and one of a single element, work like any other") {
  CHECK(kernels::broadcast_nest(Shape{3, 0, 2}, Shape{3, 0, 2}).size() == 0);
  CHECK(offsets(kernels::broadcast_nest(Shape{3, 0, 2}, Shape{1, 1, 2}), 0, 0).empty());
  const auto single = kernels::broadcast_nest(Shape{}, Shape{}, Shape{});
  CHECK(single.size() == 1);
  CHECK(offsets(single, 0, 1) == std::vector<std::array<Index, 2>>{{0, 0}});
  CHECK(kernels::broadcast_nest(Shape{1, 1}, Shape{1}).size() == 1);
}

TEST_CASE("a nest holds as many axes as a shape") {
  const Shape shape{2, 2, 2, 2, 2, 2, 2, 2}, other{2, 1, 2, 1, 2, 1, 2, 1};
  const auto nest = kernels::broadcast_nest(shape, shape, other);
  CHECK(nest.size() == 256);
  const auto all = offsets(nest, 0, 256);
  for (Index i = 0; i < 256; ++i) {
    Index expected = 0;
    for (const Index bit : {7, 5, 3, 1}) expected = 2 * expected + (i >> bit & 1);
    CHECK(all[static_cast<std::size_t>(i)] == std::array<Index, 2>{i, expected});
  }
}
