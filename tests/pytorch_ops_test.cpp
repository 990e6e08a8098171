// Elementwise functions, reductions, products and changes of shape against PyTorch's numbers.

#include <doctest/doctest.h>

#include "minnow/ops/elementwise.hpp"
#include "minnow/ops/matmul.hpp"
#include "minnow/ops/reduce.hpp"
#include "minnow/ops/shape.hpp"
#include "reference.hpp"

using namespace minnow;
using namespace minnow_test;

TEST_CASE_TEMPLATE("operations give PyTorch's values and gradients", T, float, double) {
  const Reference r("ops");
  using V = Variable<T>;
  const auto one = [&](const std::string& name, const auto& f) {
    check_function<T>(r, name, [&](const std::vector<V>& in) { return f(in[0]); },
                      {.output = "out"});
  };
  const auto two = [&](const std::string& name, const auto& f) {
    check_function<T>(r, name, [&](const std::vector<V>& in) { return f(in[0], in[1]); },
                      {.inputs = {"x", "y"}, .output = "out"});
  };
  two("add", [](const V& x, const V& y) { return x + y; });
  two("subtract", [](const V& x, const V& y) { return x - y; });
  two("multiply", [](const V& x, const V& y) { return x * y; });
  two("divide", [](const V& x, const V& y) { return x / y; });
  one("exp", [](const V& x) { return exp(x); });
  one("log", [](const V& x) { return log(x); });
  one("sqrt", [](const V& x) { return sqrt(x); });
  one("pow", [](const V& x) { return pow(x, 3); });
  one("pow_fraction", [](const V& x) { return pow(x, T(1.7)); });
  one("sum", [](const V& x) { return sum(x); });
  one("sum_axes", [](const V& x) { return sum(x, {0, 2}); });
  one("mean_keep", [](const V& x) { return mean(x, 1, true); });
  one("max_axis", [](const V& x) { return max(x, -1); });
  one("max_ties", [](const V& x) { return max(x, {0, 2}); });
  two("matmul", [](const V& x, const V& y) { return matmul(x, y); });
  two("matmul_batch", [](const V& x, const V& y) { return matmul(x, y); });
  two("matmul_broadcast", [](const V& x, const V& y) { return matmul(x, y); });
  one("permute", [](const V& x) { return permute(x, {2, 0, 1}); });
  one("transpose", [](const V& x) { return transpose(x, 0, 2); });
  two("concat", [](const V& x, const V& y) { return concat({x, y}, 1); });
  one("slice", [](const V& x) { return slice(x, 1, 1, 3); });
  CHECK(r.unused() == "");
}
