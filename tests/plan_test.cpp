#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "minnow/core/parallel.hpp"
#include "minnow/nn/sequential.hpp"
#include "minnow/ops/elementwise.hpp"
#include "minnow/optim/sgd.hpp"
#include "minnow/testing/compare.hpp"
#include "minnow/testing/gradcheck.hpp"
#include "sanitized.hpp"

using namespace minnow;

namespace {

/// Numbers for choices, one after the other.
struct Dice {
  std::uint64_t seed;
  std::uint64_t count = 0;

  Index below(Index bound) {
    const RandomKey key{seed, 77, 0};
    return static_cast<Index>(random_integer(key, count++, static_cast<std::uint64_t>(bound)));
  }
  bool coin() { return below(2) == 1; }
  double between(double low, double high) {
    return low + (high - low) * static_cast<double>(below(1 << 20)) / (1 << 20);
  }
};

/// A network of random layers, most of them such as a plan takes.
template <class T>
struct RandomNet {
  nn::Sequential<T> net;
  Shape image;  ///< of the input

  explicit RandomNet(std::uint64_t seed) {
    Dice dice{seed};
    Index c = 1 + dice.below(4), h = 6 + dice.below(9), w = 6 + dice.below(9);
    image = {c, h, w};
    const Index blocks = 1 + dice.below(4);
    for (Index block = 0; block < blocks; ++block) {
      const Size2 kernel(1 + dice.below(std::min<Index>(3, h)),
                         1 + dice.below(std::min<Index>(3, w)));
      const Size2 padding(dice.below(2), dice.below(2));
      const Index stride = dice.below(8) == 0 ? 2 : 1;  // a stride of 2 runs layer by layer
      const Index k = 2 * (1 + dice.below(8));
      net.add(
          nn::Conv2d<T>(c, k, kernel, {.stride = stride, .padding = padding, .bias = dice.coin()}));
      c = k;
      h = (h + 2 * padding.h - kernel.h) / stride + 1;
      w = (w + 2 * padding.w - kernel.w) / stride + 1;
      switch (dice.below(8)) {
        case 0:
          net.add(nn::BatchNorm2d<T>(c));
          break;
        case 1:
          net.add(nn::BatchNorm2d<T>(c, {.momentum = std::nullopt, .affine = false}));
          break;
        case 2:
          net.add(nn::GroupNorm<T>(2, c));
          break;
        case 3:
          net.add(nn::GroupNorm<T>(c, c, {.affine = false}));
          break;
        case 4:
          net.add(nn::LayerNorm<T>({w}));
          break;
        case 5:
          net.add(nn::LayerNorm<T>({h, w}));
          break;
        case 6:
          net.add(nn::LayerNorm<T>({c, h, w}, {.bias = false}));
          break;
        default:
          break;
      }
      const bool relu_first = dice.coin(), relu = dice.coin();
      if (relu && relu_first) net.add(nn::ReLU<T>());
      if (dice.coin()) net.add(nn::Dropout<T>(0.25));
      if (relu && !relu_first) net.add(nn::ReLU<T>());
      if (dice.below(8) == 0) net.add(nn::Tanh<T>());  // layer by layer
      if (h >= 4 && w >= 4 && dice.coin()) {
        const Index size = 2 + dice.below(2), step = 1 + dice.below(2);
        if (dice.coin())
          net.add(nn::MaxPool2d<T>(size, {.stride = Size2(step)}));
        else
          net.add(nn::AvgPool2d<T>(size, {.stride = Size2(step)}));
        h = (h - size) / step + 1;
        w = (w - size) / step + 1;
      }
    }
    if (dice.coin()) {
      net.add(nn::Flatten<T>()).add(nn::Linear<T>(c * h * w, 7, {.bias = dice.coin()}));
      if (dice.coin()) net.add(nn::BatchNorm1d<T>(7)).add(nn::ReLU<T>());
      if (dice.coin()) net.add(nn::Linear<T>(7, 3));
    }
    randomize();
  }

  /// Scales and shifts away from 1 and 0, where mistakes would hide.
  void randomize() {
    for (auto& [name, parameter] : net.named_parameters())
      if (parameter.rank() == 1)
        for (T& value : parameter.mutable_value().values())
          value += static_cast<T>(0.5) * Tensor<T>::normal({1})[0];
  }
};

/// What a forward and a backward leave behind.
template <class T>
struct Outcome {
  Tensor<T> y;
  std::vector<std::pair<std::string, Tensor<T>>> rest;  ///< gradients and running statistics
};

template <class T>
Outcome<T> run(nn::Sequential<T>& net, const Tensor<T>& images, bool plan) {
  net.plan(plan);
  net.zero_grad();
  Variable<T> x(images, true);
  const Variable<T> y = net(x);
  y.backward(Tensor<float>::normal(y.shape(), 0, 1, {5, 5, 5}).template to<T>());
  Outcome<T> outcome{y.value(), {{"x", x.grad()}}};
  for (const auto& [name, parameter] : net.named_parameters())
    outcome.rest.emplace_back(name, parameter.grad());
  for (const auto& [name, buffer] : net.named_buffers())
    if (const auto* numbers = std::get_if<Tensor<T>>(&buffer))
      outcome.rest.emplace_back(name, numbers->clone());
  return outcome;
}

/// The largest difference of two outcomes, and where it is. Rounding is relative to the largest
/// gradient: some are zero by nature (a bias before a norm).
struct Distance {
  double value = 0;
  std::string place;
};

template <class T>
Distance distance(const Outcome<T>& actual, const Outcome<double>& exact) {
  double largest = 1;
  for (const auto& [name, tensor] : exact.rest)
    for (const double value : tensor.values()) largest = std::max(largest, std::abs(value));
  Distance result;
  const auto add = [&](const std::string& name, const Tensor<T>& a, const Tensor<double>& e) {
    const auto outcome = testing::compare(a, e, 1e-12, 1e-12 * largest);
    if (std::isnan(result.value) || outcome.worst * 1e-12 <= result.value) return;
    result = {outcome.worst * 1e-12, name + ": " + outcome.str()};
  };
  add("y", actual.y, exact.y);
  REQUIRE(actual.rest.size() == exact.rest.size());
  for (std::size_t i = 0; i < actual.rest.size(); ++i)
    add(exact.rest[i].first, actual.rest[i].second, exact.rest[i].second);
  return result;
}

/// Runs `net` by its plan and layer by layer from the same state, and `exact`, the same network, in
/// double: both are at most `tolerance` off. Rows of two numbers that are nearly equal make much of
/// every rounding, so that two results in T may be further from each other than from the truth.
template <class T>
void check_plan_equals_layers(nn::Sequential<T>& net, nn::Sequential<double>& exact,
                              const Tensor<T>& images, double tolerance) {
  const RandomKey key = default_generator().state();
  StateDict before;
  for (const auto& [name, tensor] : net.state_dict())
    before[name] = std::visit([](const auto& t) { return StateTensor(t.clone()); }, tensor);
  exact.load_state_dict(before);
  const Outcome<double> expected = run(exact, images.template to<double>(), false);
  default_generator().set_state(key);
  const Distance layered = distance(run(net, images, false), expected);
  const RandomKey after_layers = default_generator().state();
  default_generator().set_state(key);
  net.load_state_dict(before);
  const Distance planned = distance(run(net, images, true), expected);
  CHECK(default_generator().state().step == after_layers.step);
  CHECK_MESSAGE(layered.value <= tolerance, layered.place);
  CHECK_MESSAGE(planned.value <= tolerance, planned.place);
}

/// The network of the example mnist, smaller.
template <class T>
nn::Sequential<T> small_net(double dropout) {
  nn::Sequential<T> net(nn::Conv2d<T>(1, 6, 3, {.bias = false}), nn::BatchNorm2d<T>(6),
                        nn::Dropout<T>(dropout), nn::ReLU<T>(), nn::MaxPool2d<T>(2));
  net.add(nn::Conv2d<T>(6, 9, 3)).add(nn::GroupNorm<T>(3, 9)).add(nn::ReLU<T>());
  net.add(nn::AvgPool2d<T>(2)).add(nn::Conv2d<T>(9, 4, 1)).add(nn::LayerNorm<T>({1, 1}));
  return net;
}

}  // namespace

TEST_CASE_TEMPLATE("plan: random networks give what they give layer by layer", T, float, double) {
  const double tolerance = sizeof(T) == 4 ? 2e-4 : 1e-10;
  constexpr Index lanes = Pack<T>::width;
  Index planned = 0;
  const std::uint64_t seeds = minnow_test::sanitized ? 16 : 120;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    CAPTURE(seed);
    RandomNet<double> exact(seed);
    manual_seed(seed);
    RandomNet<T> random(seed);
    const Index sizes[] = {(lanes + 1) / 2, lanes, lanes + 1, 2 * lanes + 3, 3 * lanes};
    const Index n = std::max<Index>(2, sizes[seed % 5]);
    const auto images = Tensor<T>::normal({n, random.image[0], random.image[1], random.image[2]});
    CAPTURE(random.net.plan_report(images.shape()));
    planned += random.net.plan_report(images.shape()).find("a stage") != std::string::npos;
    check_plan_equals_layers(random.net, exact.net, images, tolerance);
  }
  CHECK(4 * static_cast<std::uint64_t>(planned) > 3 * seeds);
}

TEST_CASE_TEMPLATE("plan: evaluation and frozen statistics give what they give layer by layer", T,
                   float, double) {
  manual_seed(3);
  auto net = small_net<T>(0.2);
  net(Tensor<T>::normal({20, 1, 10, 10}, 1, 2));  // statistics other than 0 and 1
  net.eval();
  auto exact = small_net<double>(0.2);
  exact.eval();
  check_plan_equals_layers(net, exact, Tensor<T>::normal({21, 1, 10, 10}),
                           sizeof(T) == 4 ? 1e-4 : 1e-10);
}

TEST_CASE("plan: its gradients agree with finite differences") {
  manual_seed(4);
  nn::Sequential net(nn::Conv2d<double>(2, 4, {2, 3}, {.padding = {1, 0}}),
                     nn::BatchNorm2d<double>(4), nn::ReLU<double>(), nn::AvgPool2d<double>({2, 1}));
  net.add(nn::Conv2d<double>(4, 2, 1)).add(nn::LayerNorm<double>({2, 2}));
  const Index n = Pack<double>::width + 1;
  auto inputs = net.parameters();
  inputs.emplace_back(Tensor<double>::normal({n, 2, 3, 4}), true);
  REQUIRE(net.plan_report({n, 2, 3, 4}).find("layer by layer") == std::string::npos);
  const auto result = testing::gradcheck([&](const auto& in) { return net(in.back()); }, inputs,
                                         {.relative = 1e-5, .absolute = 1e-7});
  CHECK_MESSAGE(result, result.str());
}

TEST_CASE("plan: the same bits for 1, 2 and 4 threads") {
  std::vector<Outcome<float>> outcomes;
  for (const int threads : {1, 2, 4}) {
    set_num_threads(threads);
    manual_seed(9);
    auto net = small_net<float>(0.3);
    outcomes.push_back(run(net, Tensor<float>::normal({75, 1, 13, 11}, 0, 1, {1, 1, 1}), true));
  }
  set_num_threads(0);
  for (const auto& other : outcomes) {
    CHECK(testing::same_bits(other.y, outcomes[0].y));
    for (std::size_t i = 0; i < other.rest.size(); ++i)
      CHECK_MESSAGE(testing::same_bits(other.rest[i].second, outcomes[0].rest[i].second),
                    other.rest[i].first);
  }
}

TEST_CASE("plan: images of one batch do not see each other's lanes") {
  manual_seed(2);
  nn::Sequential net(nn::Conv2d(1, 4, 3), nn::GroupNorm(2, 4), nn::ReLU());
  net.eval();
  const Index n = Pack<float>::width;
  auto images = Tensor<float>::normal({n, 1, 6, 6});
  const Tensor<float> before = net(images).value().clone();
  for (float& value : images.slice(0, 1).values()) value = 1e6f;
  const Tensor<float> after = net(images).value();
  CHECK(testing::same_bits(before.slice(1, n), after.slice(1, n)));
}

TEST_CASE("plan: numbers whose squares are too large for a float are normalised all the same") {
  const Index n = Pack<float>::width + 1;
  const auto images = [&](float scale) {
    auto result = Tensor<float>::normal({n, 2, 6, 7}, 0, 1, {3, 3, 3});
    for (float& value : result.values()) value *= scale;
    return result;
  };
  const auto net = [](int norm) {
    manual_seed(8);
    nn::Sequential result(nn::Conv2d(2, 4, 3, {.bias = false}));
    if (norm == 0) result.add(nn::BatchNorm2d(4, {.eps = 0, .track_running_stats = false}));
    if (norm == 1) result.add(nn::GroupNorm(2, 4, {.eps = 0}));
    if (norm == 2) result.add(nn::LayerNorm({5}, {.eps = 0}));
    result.add(nn::ReLU());
    return result;
  };
  const float scale = std::ldexp(1.0f, 100);  // a power of two changes no digit
  for (int norm = 0; norm < 3; ++norm) {
    CAPTURE(norm);
    auto plain = net(norm), scaled = net(norm);
    REQUIRE(plain.plan_report({n, 2, 6, 7}).find("layer by layer") == std::string::npos);
    const Outcome<float> expected = run(plain, images(1), false);
    Outcome<float> actual = run(scaled, images(scale), true);
    CHECK(testing::compare(actual.y, expected.y, 1e-5, 1e-5));
    for (std::size_t i = 0; i < expected.rest.size(); ++i) {
      const std::string& name = expected.rest[i].first;
      const Tensor<float>& gradient = expected.rest[i].second;
      CAPTURE(name);
      for (const float value : gradient.values()) REQUIRE(std::isfinite(value));
      if (name == "x")
        for (float& value : actual.rest[i].second.values()) value *= scale;
      CHECK(testing::compare(actual.rest[i].second, gradient, 1e-4, 1e-4));
    }
  }
}

TEST_CASE("plan: several threads run one network in evaluation, also on shapes new to it") {
  nn::Sequential net(nn::Conv2d(1, 4, 3), nn::BatchNorm2d(4), nn::ReLU(), nn::MaxPool2d(2),
                     nn::Flatten());
  net.eval();
  const Index n = Pack<float>::width;
  std::vector<Tensor<float>> images, expected;
  for (Index i = 0; i < 12; ++i) images.push_back(Tensor<float>::normal({n + i % 2, 1, 6 + i, 9}));
  {
    const NoGrad no_grad;
    nn::Sequential<float>& other = net;
    for (const auto& x : images) expected.push_back(other(x).value());
  }
  net.add(nn::ReLU());  // drops the plans; what was above zero stays
  const auto run_all = [&](std::size_t first, bool& same) {
    const NoGrad no_grad;
    for (std::size_t i = 0; i < images.size(); ++i) {
      const std::size_t at = (first + i) % images.size();
      same = same && testing::same_bits(net(images[at]).value(), expected[at]);
    }
  };
  bool same[4] = {true, true, true, true};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) threads.emplace_back(run_all, 3 * t, std::ref(same[t]));
  for (std::thread& thread : threads) thread.join();
  for (const bool s : same) CHECK(s);
}

TEST_CASE("plan: the report leaves every module in the mode it was in") {
  nn::Sequential net(nn::Conv2d(1, 4, 3), nn::BatchNorm2d(4), nn::GELU());
  net[1].eval();
  net.plan_report({Pack<float>::width, 1, 8, 8});
  CHECK(net[0].is_training());
  CHECK_FALSE(net[1].is_training());
}

TEST_CASE("plan: the report names stages and single layers") {
  nn::Sequential net(nn::Conv2d(1, 4, 3), nn::BatchNorm2d(4), nn::ReLU(), nn::GELU());
  net.add("head", nn::Conv2d(4, 2, 3, {.stride = 2}));
  const Index n = Pack<float>::width;
  CHECK(net.plan_report({n, 1, 8, 8}) ==
        "0-2  Conv2d + BatchNorm2d + ReLU: a stage, one image a lane\n"
        "3  GELU: layer by layer\n"
        "head  Conv2d: layer by layer\n");
  net.plan(false);
  CHECK(net.plan_report({n, 1, 8, 8}).find("a stage") == std::string::npos);
  CHECK(net.is_training());
}

TEST_CASE("plan: a few images, wide layers and observed modules run layer by layer") {
  nn::Sequential net(nn::Conv2d(1, 4, 3), nn::ReLU());
  if (Pack<float>::width > 2)
    CHECK(net.plan_report({1, 1, 8, 8}).find("a stage") == std::string::npos);
  nn::Sequential wide(nn::Conv2d(256, 64, 3));
  CHECK(wide.plan_report({64, 256, 56, 56}).find("a stage") == std::string::npos);
  Index calls = 0;
  const nn::ModuleObserver<float> observer([&](const auto&, const auto&) { ++calls; });
  net(Tensor<float>::zeros({64, 1, 8, 8}));
  CHECK(calls == 3);
}

namespace {

/// A relu that goes no further than one.
struct CappedReLU : nn::ReLU<float> {
  Variable<float> forward(const Variable<float>& x) override { return clamp(x, 0.0f, 1.0f); }
};

}  // namespace

TEST_CASE("plan: a class derived from a layer keeps its own forward") {
  nn::Sequential<float> net;
  net.add(nn::Linear(4, 4));
  net.add(CappedReLU());
  const auto x = Tensor<float>::normal({64, 4}, 0, 10);
  const Tensor<float> planned = net(x).value();
  net.plan(false);
  CHECK(testing::compare(planned, net(x).value(), 1e-6, 1e-6));
  CHECK(*std::max_element(planned.data(), planned.data() + planned.size()) == 1);
}

TEST_CASE("plan: a weight of another shape is what the layers take it for") {
  nn::Sequential net(nn::Linear(4, 4, {.bias = false}), nn::ReLU());
  const auto x = Tensor<float>::normal({32, 4});
  CHECK(net(x).shape() == Shape{32, 4});
  net.parameters()[0].mutable_value() = Tensor<float>::normal({2, 4});
  CHECK(net(x).shape() == Shape{32, 2});

  // The same number of numbers, but other channels.
  nn::Sequential images(nn::Conv2d(4, 8, 3, {.bias = false}), nn::ReLU());
  const auto four = Tensor<float>::normal({32, 4, 6, 6});
  CHECK(images(four).node()->name == "plan");
  images.parameters()[0].mutable_value() = Tensor<float>::normal({4, 8, 3, 3});
  CHECK_THROWS_AS(images(four), ShapeError);
  CHECK(images(Tensor<float>::normal({32, 8, 6, 6})).shape() == Shape{32, 4, 4, 4});
}

TEST_CASE("plan: NaN goes through relu and max pooling, forward and backward, as layer by layer") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  nn::Sequential net(nn::Conv2d(1, 1, 1, {.bias = false}), nn::ReLU(), nn::MaxPool2d(2));
  net.parameters()[0].mutable_value().fill(1);
  auto x = Tensor<float>::uniform({64, 1, 4, 6}, 1, 2);
  for (Index image = 0; image < 64; image += 3) x(image, 0, image % 4, image % 6) = nan;
  x(0, 0, 3, 5) = x(0, 0, 2, 4) = nan;
  const auto dy = Tensor<float>::normal({64, 1, 2, 3});
  Tensor<float> y[2], dx[2];
  for (const bool planned : {true, false}) {
    net.plan(planned);
    const Variable<float> in(x, true);
    const Variable<float> out = net(in);
    CHECK((out.node()->name == "plan") == planned);
    out.backward(dy);
    y[planned] = out.value();
    dx[planned] = in.grad();
  }
  Index found = 0;
  for (Index i = 0; i < y[0].size(); ++i) {
    REQUIRE(std::isnan(y[0][i]) == std::isnan(y[1][i]));
    if (!std::isnan(y[0][i])) CHECK(y[0][i] == y[1][i]);
    found += std::isnan(y[0][i]) ? 1 : 0;
  }
  CHECK(found >= 22);
  CHECK(testing::same_bits(dx[0], dx[1]));
}

TEST_CASE("plan: an infinite gradient goes through max pooling to the first of equals alone") {
  const float inf = std::numeric_limits<float>::infinity();
  nn::Sequential net(nn::Conv2d(1, 1, 1, {.bias = false}), nn::MaxPool2d(2));
  net.parameters()[0].mutable_value().fill(1);
  auto dy = Tensor<float>::normal({64, 1, 2, 3});
  for (Index image = 0; image < 64; image += 5) dy(image, 0, image % 2, image % 3) = inf;
  Tensor<float> dx[2];
  for (const bool planned : {true, false}) {
    net.plan(planned);
    const Variable<float> in(Tensor<float>::full({64, 1, 4, 6}, 0.25f), true);
    net(in).backward(dy);
    dx[planned] = in.grad();
  }
  CHECK(std::ranges::count(dx[0].values(), inf) == 13);
  CHECK(testing::same_bits(dx[0], dx[1]));
}

TEST_CASE("plan: errors are those of the layers") {
  nn::Sequential net(nn::Conv2d(1, 4, 3), nn::BatchNorm2d(4));
  CHECK_THROWS_WITH_AS(net(Tensor<float>::zeros({64, 2, 8, 8})),
                       doctest::Contains("0 (Conv2d): conv2d: x has shape [64, 2, 8, 8]"),
                       ShapeError);
  nn::Sequential other(nn::Conv2d(1, 4, 3), nn::BatchNorm2d(5));
  CHECK_THROWS_WITH_AS(other(Tensor<float>::zeros({64, 1, 8, 8})),
                       doctest::Contains("1 (BatchNorm2d)"), ShapeError);
}

namespace {

/// Bytes of this process that are in memory; 0 where the system does not tell.
Index resident_bytes() {
  Index pages = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
    long total = 0, resident = 0;
    if (std::fscanf(file, "%ld %ld", &total, &resident) == 2) pages = resident;
    std::fclose(file);
  }
  return pages * 4096;
}

}  // namespace

TEST_CASE("plan: after the first step of each shape, training takes no memory from the system") {
  manual_seed(6);
  auto net = small_net<float>(0.1);
  optim::SGD optimizer(net.parameters(), {.lr = 0.01, .momentum = 0.9});
  const auto images = Tensor<float>::normal({40, 1, 10, 10});
  const auto step = [&](Index n) {
    const Variable<float> y = net(images.slice(0, n));
    optimizer.zero_grad();
    y.backward(Tensor<float>::ones(y.shape()));
    optimizer.step();
  };
  const Index sizes[] = {40, 3, 17, 32, 8, 25};
  for (const Index n : sizes) step(n);
  for (const Index n : sizes) step(n);
  const MemoryStats before = memory_stats();
  const Index resident = resident_bytes();
  for (Index i = 0; i < (minnow_test::sanitized ? 30 : 1000); ++i) step(sizes[i % 6]);
  CHECK(memory_stats().system_allocations == before.system_allocations);
  CHECK(memory_stats().bytes_reserved == before.bytes_reserved);
  if (!minnow_test::sanitized) CHECK(resident_bytes() - resident < 1024 * 1024);
}
