#include "minnow/autograd.hpp"

#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "minnow/core/parallel.hpp"
#include "minnow/ops/elementwise.hpp"
#include "minnow/ops/matmul.hpp"
#include "minnow/ops/reduce.hpp"
#include "minnow/ops/shape.hpp"
#include "minnow/testing/compare.hpp"
#include "minnow/testing/gradcheck.hpp"

using namespace minnow;
using minnow::testing::same_bits;

namespace {

using V = Variable<double>;

V parameter(std::initializer_list<double> values) {
  return V(Tensor<double>({static_cast<Index>(values.size())}, values), true);
}

std::vector<double> values(const Tensor<double>& tensor) {
  return {tensor.values().begin(), tensor.values().end()};
}

using Doubles = std::vector<double>;

}  // namespace

TEST_CASE("a variable of a tensor is a leaf, and a constant unless asked otherwise") {
  V constant = Tensor<double>({2}, {1, 2});
  CHECK(constant.is_leaf());
  CHECK_FALSE(constant.requires_grad());
  CHECK(constant.shape() == Shape{2});
  CHECK(constant.size() == 2);
  CHECK(constant.size(0) == 2);
  CHECK(constant.rank() == 1);
  constant.set_requires_grad(true);
  CHECK(constant.requires_grad());
  CHECK_FALSE(constant.grad().defined());
  CHECK_FALSE(V().defined());
  CHECK_FALSE(V().requires_grad());
}

TEST_CASE("an undefined variable says so, wherever it is used") {
  const Variable<float> none;
  CHECK_FALSE(none.defined());
  CHECK_FALSE(none.requires_grad());
  const char* message = "the variable is undefined: nothing was ever assigned to it";
  CHECK_THROWS_WITH_AS((void)none.shape(), message, Error);
  CHECK_THROWS_WITH_AS((void)none.grad(), message, Error);
  CHECK_THROWS_WITH_AS(none.backward(), message, Error);
  CHECK_THROWS_WITH_AS(none + none, message, Error);
  CHECK_THROWS_WITH_AS(Variable<float>().set_requires_grad(true), message, Error);
  CHECK_THROWS_WITH_AS(Variable<float>(Tensor<float>()), "Variable: the tensor is undefined",
                       Error);
}

TEST_CASE("only what depends on a parameter is recorded") {
  const V x = parameter({1, 2}), c = Tensor<double>({2}, {3, 4});
  CHECK_FALSE((c * c).requires_grad());
  CHECK((c * c).is_leaf());
  CHECK((x * c).requires_grad());
  CHECK_FALSE((x * c).is_leaf());
  V y = x * c;
  CHECK_THROWS_WITH_AS(y.set_requires_grad(false),
                       "set_requires_grad: only a leaf's can be set; use detach()", Error);
}

TEST_CASE("a variable that is used several times gets the sum of what its uses pass back") {
  const V x = parameter({2, 3});
  sum(x + x).backward();
  CHECK(values(x.grad()) == Doubles{2, 2});

  V y = parameter({2, 3});
  sum(y * y * y).backward();
  CHECK(values(y.grad()) == Doubles{12, 27});

  // The operands' memory is their own: x + x hands the same dy to both.
  V z = parameter({1, 1});
  const V twice = z * 2.0;
  sum((twice + twice) * twice).backward();
  CHECK(values(z.grad()) == Doubles{16, 16});
}

TEST_CASE("a diamond's paths are added before the sweep goes on below them") {
  const V x = parameter({3});
  int calls = 0;
  const V shared =
      record<double>("shared", (x * 2.0).value(), {x}, [&calls](const Tensor<double>& dy) {
        ++calls;
        Tensor<double> dx = dy.clone();
        dx[0] *= 2;
        return std::vector{dx};
      });
  const V left = shared * 5.0, right = shared * shared, deeper = left * right;
  sum(left + right + deeper).backward();
  // With s = 2x: L = 5s + s^2 + 5s^3.
  CHECK(values(x.grad()) == Doubles{2 * (5 + 2 * 6 + 15 * 36)});
  CHECK(calls == 1);
}

TEST_CASE("gradients add up over sweeps until they are zeroed") {
  V x = parameter({1, -1});
  for (int sweep = 1; sweep <= 3; ++sweep) {
    sum(x * 3.0).backward();
    CHECK(values(x.grad()) == Doubles{3.0 * sweep, 3.0 * sweep});
  }
  x.zero_grad();
  CHECK_FALSE(x.grad().defined());
  sum(x * 3.0).backward();
  CHECK(values(x.grad()) == Doubles{3, 3});
}

TEST_CASE("a kept gradient does not change with later sweeps") {
  V x = parameter({1});
  sum(x * 2.0).backward();
  const Tensor<double> kept = x.grad();
  sum(x * 2.0).backward();
  CHECK(kept[0] == 2);
  CHECK(x.grad()[0] == 4);
}

TEST_CASE("leaves that are handed the same memory keep gradients of their own") {
  V x = parameter({1, 2}), y = parameter({3, 4});
  Tensor<double> dy({2}, {1, 1});
  (x + y).backward(dy);
  CHECK_FALSE(x.grad().shares_memory_with(y.grad()));
  CHECK_FALSE(x.grad().shares_memory_with(dy));
  x.mutable_grad()[0] = 100;
  dy[1] = 50;
  CHECK(values(y.grad()) == Doubles{1, 1});
  CHECK(values(x.grad()) == Doubles{100, 1});

  // A leaf's own backward copies the upstream gradient as well.
  V leaf = parameter({1, 2});
  leaf.backward(dy);
  dy[0] = 7;
  CHECK(values(leaf.grad()) == Doubles{1, 50});

  // Through a reshape too, which passes its memory on.
  V z = parameter({1, 2});
  reshape(z, {2, 1}).backward(dy.reshape({2, 1}));
  CHECK_FALSE(z.grad().shares_memory_with(dy));
}

TEST_CASE("the upstream gradient is not changed by the sweep") {
  const V x = parameter({1, 2});
  const V y = x * 1.0;
  const Tensor<double> dy({2}, {1, 1});
  (y + y + y).backward(dy);
  CHECK(values(dy) == Doubles{1, 1});
  CHECK(values(x.grad()) == Doubles{3, 3});
}

TEST_CASE("detach stops the gradient and shares the value") {
  const V x = parameter({2, 3});
  const V y = x * x;
  const V constant = y.detach();
  CHECK_FALSE(constant.requires_grad());
  CHECK(constant.value().shares_memory_with(y.value()));
  sum(constant * x).backward();
  CHECK(values(x.grad()) == Doubles{4, 9});
}

TEST_CASE("while a NoGrad lives nothing is recorded, on its thread only") {
  const V x = parameter({1});
  CHECK(grad_enabled());
  {
    const NoGrad outer;
    {
      const NoGrad inner;
      CHECK_FALSE(grad_enabled());
    }
    CHECK_FALSE(grad_enabled());
    const V y = x * 2.0;
    CHECK_FALSE(y.requires_grad());
    CHECK(y.is_leaf());
    bool elsewhere = false;
    std::thread([&] { elsewhere = grad_enabled(); }).join();
    CHECK(elsewhere);
    CHECK_THROWS_WITH_AS(y.backward(),
                         "backward(): nothing this was computed from requires a gradient (a NoGrad "
                         "lives on this thread)",
                         Error);
  }
  CHECK(grad_enabled());
  CHECK((x * 2.0).requires_grad());
}

TEST_CASE("a second sweep needs retain_graph in the first") {
  V x = parameter({2, 3});
  const V y = sum(x * x);
  y.backward(true);
  y.backward(true);
  CHECK(values(x.grad()) == Doubles{8, 12});
  y.backward();
  CHECK(values(x.grad()) == Doubles{12, 18});
  const std::string freed =
      "backward(): the graph through 'sum' was freed by an earlier backward; compute the value "
      "again, or pass retain_graph = true the first time";
  CHECK_THROWS_WITH_AS(y.backward(), freed.c_str(), Error);
  CHECK(values(x.grad()) == Doubles{12, 18});

  // Also where only a part of the graph was freed.
  const V shared = exp(x), first = sum(shared), second = sum(shared * 2.0);
  first.backward();
  CHECK_THROWS_WITH_AS(second.backward(), doctest::Contains("through 'exp' was freed"), Error);
}

TEST_CASE("a sweep that failed leaves nothing behind for the next one") {
  V x = parameter({1});
  bool fail = true;
  const V shared = x * 3.0;
  const V y =
      record<double>("moody", shared.value().clone(), {shared}, [&fail](const Tensor<double>& dy) {
        check(!fail, "not now");
        return std::vector{dy};
      });
  // Number order: `shared` is reached through `late` before `moody` throws.
  const V late = sum(shared) + sum(y);
  CHECK_THROWS_WITH_AS(late.backward(true), "not now", Error);
  fail = false;
  x.zero_grad();
  late.backward();
  CHECK(values(x.grad()) == Doubles{6});
}

TEST_CASE("chains of 200,000 calls are swept and destroyed without deep recursion") {
  const Index length = 200000;
  V x = parameter({1});
  {
    V y = x;
    for (Index i = 0; i < length; ++i) y = y + 1e-6;
    y.backward();
    CHECK(values(x.grad()) == Doubles{1});
  }
  {
    // Never swept: the destructor alone.
    V y = x;
    for (Index i = 0; i < length; ++i) y = y + x;
  }
  {
    // Two variables hold each link.
    V y = x, before = x;
    for (Index i = 0; i < length; ++i) {
      const V next = y + before;
      before = y;
      y = next * 0.5;
    }
  }
  CHECK(x.owners() == 1);
}

TEST_CASE("saved tensors are freed as the sweep passes them") {
  const Index size = 100000, layers = 8;
  const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(double);
  V x(Tensor<double>::ones({size}), true);
  std::vector<std::size_t> in_use;
  const auto probe = [&](const V& y) {
    return record<double>("probe", y.value(), {y}, [&in_use](const Tensor<double>& dy) {
      in_use.push_back(memory_stats().bytes_in_use);
      return std::vector{dy};
    });
  };
  const std::size_t before = memory_stats().bytes_in_use;
  V y = x;
  for (Index i = 0; i < layers; ++i) y = probe(exp(y * 1e-3));
  y = sum(y);
  CHECK(memory_stats().bytes_in_use >= before + layers * bytes);
  y.backward();
  REQUIRE(in_use.size() == layers);
  for (std::size_t i = 1; i < in_use.size(); ++i) CHECK(in_use[i] + bytes <= in_use[i - 1]);
  // The gradient of x and the scalar result are all that is left.
  y = V();
  CHECK(memory_stats().bytes_in_use <= before + 2 * bytes);
  x.zero_grad();
  CHECK(memory_stats().bytes_in_use == before);
}

TEST_CASE("a graph that is dropped without a sweep frees everything") {
  const std::size_t before = memory_stats().bytes_in_use;
  {
    const V x(Tensor<double>::ones({1000}), true);
    const V y = sum(exp(x * x));
    CHECK(memory_stats().bytes_in_use > before);
  }
  CHECK(memory_stats().bytes_in_use == before);
}

TEST_CASE("the same steps again need no memory from the system") {
  V w(Tensor<double>::uniform({50, 40}, -1, 1, {1, 0, 0}), true);
  const auto step = [&] {
    const V x = Tensor<double>::ones({30, 50});
    mean(exp(matmul(x, w))).backward();
    w.zero_grad();
  };
  step();
  step();
  const std::size_t system = memory_stats().system_allocations;
  for (int i = 0; i < 20; ++i) step();
  CHECK(memory_stats().system_allocations == system);
}

TEST_CASE("record makes a differentiable function of your own") {
  // The cube, as a user would write it.
  const auto cube = [](const V& x) {
    const Tensor<double> in = x.value();
    Tensor<double> out(in.shape());
    for (Index i = 0; i < in.size(); ++i) out[i] = in[i] * in[i] * in[i];
    return record<double>("cube", out, {x}, [in](const Tensor<double>& dy) {
      Tensor<double> dx(in.shape());
      for (Index i = 0; i < in.size(); ++i) dx[i] = 3 * in[i] * in[i] * dy[i];
      return std::vector{dx};
    });
  };
  const V x = parameter({1, -2, 0.5});
  CHECK(values(cube(x).value()) == Doubles{1, -8, 0.125});
  CHECK(minnow::testing::gradcheck([&](const auto& in) { return cube(exp(in[0])); }, {x}));
  CHECK(cube(x).node()->name == "cube");
}

TEST_CASE("an undefined gradient is passed over, whoever needed it") {
  const V x = parameter({1}), y = parameter({1});
  const V z = record<double>("first_only", x.value(), {x, y}, [](const Tensor<double>& dy) {
    return std::vector{dy, Tensor<double>()};
  });
  z.backward();
  CHECK(values(x.grad()) == Doubles{1});
  CHECK_FALSE(y.grad().defined());
  // Nothing arrives below `y * 2`, so nothing is computed there.
  const V below = y * 2.0;
  record<double>("none", below.value(), {below}, [](const Tensor<double>&) {
    return std::vector{Tensor<double>()};
  }).backward();
  CHECK_FALSE(y.grad().defined());
}

TEST_CASE("a backward that returns too few or misshapen gradients is named") {
  const V x = parameter({1, 2});
  const auto wrong = [&](std::vector<Tensor<double>> gradients) {
    return record<double>("wrong", x.value(), {x},
                          [gradients](const Tensor<double>&) { return gradients; });
  };
  const auto dy = Tensor<double>::ones({2});
  CHECK_THROWS_WITH_AS(wrong({}).backward(dy),
                       "backward of 'wrong' returned 0 gradients for 1 inputs", Error);
  CHECK_THROWS_WITH_AS(wrong({dy, dy}).backward(dy),
                       "backward of 'wrong' returned 2 gradients for 1 inputs", Error);
  CHECK_THROWS_WITH_AS(wrong({Tensor<double>::ones({2, 1})}).backward(dy),
                       "backward of 'wrong': gradient 0 has shape [2, 1], its input has [2]",
                       ShapeError);
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("backward's own errors say what to do") {
  const V x = parameter({1, 2});
  const V y = x * 2.0;
  CHECK_THROWS_WITH_AS(
      y.backward(),
      "backward(): the variable has shape [2]; without an upstream gradient it must have one "
      "element. Reduce it with sum() or mean(), or pass a gradient of its shape",
      ShapeError);
  CHECK_THROWS_WITH_AS(y.backward(Tensor<double>::ones({3})),
                       "backward(): dy has shape [3], expected [2], the variable's", ShapeError);
  CHECK_THROWS_WITH_AS(V(Tensor<double>::scalar(1)).backward(),
                       "backward(): nothing this was computed from requires a gradient", Error);
}

TEST_CASE("a change of a parameter in place is seen by the next computation") {
  V x = parameter({1, 2});
  x.mutable_value()[0] = 5;
  CHECK(sum(x).item() == 7);
}

TEST_CASE("different threads can build and sweep graphs over the same constants") {
  const V shared = Tensor<double>::ones({1000});
  std::vector<double> results(4);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < results.size(); ++t)
    threads.emplace_back([&, t] {
      const SerialScope serial;
      for (int repeat = 0; repeat < 20; ++repeat) {
        const V x(Tensor<double>::full({1000}, static_cast<double>(t)), true);
        sum(x * x * shared).backward();
        results[t] = x.grad()[999];
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t t = 0; t < results.size(); ++t)
    CHECK(results[t] == 2.0 * static_cast<double>(t));
}

TEST_CASE("a sweep gives the same bits with any number of threads") {
  const auto gradient = [] {
    const V x(Tensor<double>::uniform({300, 200}, -1, 1, {1, 0, 0}), true);
    const V w(Tensor<double>::uniform({200, 100}, -1, 1, {2, 0, 0}), true);
    sum(exp(matmul(x, w) * 0.1) * mean(x, {1}, true)).backward();
    return std::pair{x.grad(), w.grad()};
  };
  set_num_threads(1);
  const auto expected = gradient();
  for (const int threads : {2, 4}) {
    set_num_threads(threads);
    const auto actual = gradient();
    CHECK(same_bits(actual.first, expected.first));
    CHECK(same_bits(actual.second, expected.second));
  }
  set_num_threads(0);
}

TEST_CASE("a gradient is added to one of its own shape only") {
  V x(Tensor<double>::ones({8}), true);
  x.mutable_grad() = Tensor<double>::ones({2});
  CHECK_THROWS_WITH_AS(sum(x * 2.0).backward(),
                       "backward(): a gradient of shape [8] cannot be added to one of shape [2]; "
                       "zero_grad() drops the one that is there",
                       ShapeError);
  CHECK(x.grad().shape() == Shape{2});
}

TEST_CASE("an undefined upstream gradient is refused, also for a scalar") {
  V x(Tensor<double>::scalar(3), true);
  CHECK_THROWS_WITH_AS((x * x).backward(x.grad()), doctest::Contains("dy is undefined"), Error);
  CHECK_THROWS_WITH_AS(x.backward(Tensor<double>()), doctest::Contains("dy is undefined"), Error);
}
