#include "minnow/testing/gradcheck.hpp"

#include <doctest/doctest.h>

#include "minnow/ops/elementwise.hpp"
#include "minnow/testing/compare.hpp"

using namespace minnow;
using minnow::testing::gradcheck;

namespace {

using V = Variable<double>;
using Inputs = const std::vector<V>&;

V random(const Shape& shape, std::uint32_t stream = 0) {
  return V(Tensor<double>::uniform(shape, 0.5, 2, {3, stream, 0}), true);
}

/// x * y with a backward that multiplies the true gradients by factors of its own.
V product(const V& x, const V& y, double x_factor, double y_factor) {
  const Tensor<double> a = x.value(), b = y.value();
  return record<double>("product", (x * y).value(), {x, y}, [=](const Tensor<double>& dz) {
    std::vector gradients{Tensor<double>(a.shape()), Tensor<double>(b.shape())};
    for (Index i = 0; i < dz.size(); ++i) {
      gradients[0][i] = x_factor * dz[i] * b[i];
      gradients[1][i] = y_factor * dz[i] * a[i];
    }
    return gradients;
  });
}

}  // namespace

TEST_CASE("a right gradient passes and leaves the inputs as they were") {
  const V x = random({2, 3}), y = random({2, 3}, 1);
  const Tensor<double> before = x.value().clone();
  const auto result = gradcheck([](Inputs in) { return exp(in[0]) * log(in[1]); }, {x, y});
  CHECK(result);
  CHECK(result.str() == "");
  CHECK(minnow::testing::same_bits(x.value(), before));
}

TEST_CASE("a wrong gradient is caught, even by a millionth part, and its place is named") {
  const V x = random({2, 3}), y = random({2, 3}, 1);
  CHECK(gradcheck([](Inputs in) { return product(in[0], in[1], 1, 1); }, {x, y}));
  const auto first =
      gradcheck([](Inputs in) { return product(in[0], in[1], 1 + 1e-5, 1); }, {x, y});
  CHECK_FALSE(first);
  CHECK(first.str().starts_with("input 0 of shape [2, 3], element 0: gradient "));
  const auto second = gradcheck([](Inputs in) { return product(in[0], in[1], 1, -1); }, {x, y});
  CHECK_FALSE(second);
  CHECK(second.str().starts_with("input 1 of shape [2, 3], element 0: gradient "));
  // A constant's gradient is nobody's business.
  const V constant(y.value(), false);
  CHECK(gradcheck([](Inputs in) { return product(in[0], in[1], 1, -1); }, {x, constant}));
}

TEST_CASE("NaN is no gradient") {
  const V x = random({2});
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(gradcheck([&](Inputs in) { return product(in[0], in[0], nan, 1); }, {x}));
}

TEST_CASE("a gradient that does not arrive, or is zero everywhere, proves nothing") {
  const V x = random({2}), unused = random({2}, 1);
  CHECK(gradcheck([](Inputs in) { return exp(in[0]); }, {x, unused}).str() ==
        "input 1 received no gradient");
  const auto constant = [](Inputs in) { return in[0] * 0; };
  CHECK(gradcheck(constant, {x}).str() ==
        "input 0: the gradient is zero everywhere, so nothing was checked");
  CHECK(gradcheck(constant, {x}, {.allow_zero = true}));
}

TEST_CASE("earlier gradients of the inputs do not disturb the check") {
  const V x = random({2});
  exp(x).backward(Tensor<double>::ones({2}));
  CHECK(gradcheck([](Inputs in) { return exp(in[0]); }, {x}));
}
