#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "minnow/nn/predictor.hpp"
#include "minnow/testing/compare.hpp"

using namespace minnow;

namespace {

/// A network with each thing that a predictor folds or keeps, after some training steps.
template <class T>
nn::Sequential<T> trained_net(bool linear) {
  manual_seed(11);
  nn::Sequential<T> net(nn::Conv2d<T>(2, 5, 3, {.padding = 1}), nn::BatchNorm2d<T>(5),
                        nn::Dropout<T>(0.5), nn::ReLU<T>(), nn::MaxPool2d<T>(2));
  net.add(nn::Conv2d<T>(5, 6, {2, 3})).add(nn::GroupNorm<T>(2, 6)).add(nn::ReLU<T>());
  net.add(nn::Conv2d<T>(6, 4, 1)).add(nn::LayerNorm<T>({3})).add(nn::ReLU<T>());
  net.add(nn::Conv2d<T>(4, 4, 1)).add(nn::LayerNorm<T>({4, 4, 3})).add(nn::AvgPool2d<T>({2, 3}));
  if (linear) net.add(nn::Flatten<T>()).add(nn::Linear<T>(8, 3)).add(nn::BatchNorm1d<T>(3));
  for (auto& parameter : net.parameters())
    if (parameter.rank() == 1)
      for (T& value : parameter.mutable_value().values()) value += Tensor<T>::normal({1})[0];
  for (int i = 0; i < 3; ++i) net(Tensor<T>::normal({16, 2, 10, 10}, 1, 2));
  net.eval();
  return net;
}

}  // namespace

TEST_CASE_TEMPLATE("predictor: gives what the model gives in evaluation", T, float, double) {
  constexpr Index lanes = Pack<T>::width;
  const double tolerance = sizeof(T) == 4 ? 2e-4 : 1e-10;
  for (const bool linear : {false, true}) {
    auto net = trained_net<T>(linear);
    net.plan(false);
    const nn::Predictor<T> predictor(net, {3 * lanes, 2, 10, 10});
    CHECK(predictor.x_shape() == Shape{2, 10, 10});
    CHECK(predictor.y_shape() == (linear ? Shape{3} : Shape{4, 2, 1}));
    for (const Index n :
         {Index{1}, Index{3}, (lanes + 1) / 2, lanes, lanes + 1, lanes + lanes / 2, 3 * lanes}) {
      CAPTURE(n);
      const auto x = Tensor<T>::normal({n, 2, 10, 10});
      const auto outcome = testing::compare(predictor(x), net(x).value(), tolerance, tolerance);
      CHECK_MESSAGE(outcome, outcome.str());
    }
  }
}

TEST_CASE("predictor: takes features, and keeps what it was made from") {
  manual_seed(1);
  nn::Sequential net(nn::Linear(6, 5), nn::BatchNorm1d(5), nn::ReLU(), nn::Linear(5, 2));
  net.eval();
  const nn::Predictor predictor(net, {40, 6});
  const auto x = Tensor<float>::normal({33, 6});
  const Tensor<float> before = net(x).value();
  for (auto& parameter : net.parameters()) parameter.mutable_value().fill(9);
  const auto outcome = testing::compare(predictor(x), before, 1e-5, 1e-5);
  CHECK_MESSAGE(outcome, outcome.str());
}

TEST_CASE("predictor: a call with a workspace allocates nothing") {
  manual_seed(3);
  nn::Sequential net(nn::Conv2d(2, 5, 3, {.padding = 1}), nn::BatchNorm2d(5), nn::ReLU());
  net.add(nn::MaxPool2d(2)).add(nn::Conv2d(5, 6, {2, 3})).add(nn::GroupNorm(2, 6));
  net.add(nn::AvgPool2d(2)).add(nn::Conv2d(6, 4, 1)).add(nn::LayerNorm({4, 2, 1}));
  net.add(nn::AvgPool2d({2, 1})).add(nn::Flatten()).add(nn::Linear(4, 3));
  net.eval();
  const nn::Predictor predictor(net, {64, 2, 10, 10});
  auto workspace = predictor.workspace();
  const auto x = Tensor<float>::normal({64, 2, 10, 10});
  std::vector<float> y(64 * 3);
  release_cached_memory();  // what is in the pool would hide an allocation
  const MemoryStats before = memory_stats();
  for (const Index n : {1, 5, 16, 40, 64}) predictor.predict(y.data(), x.data(), n, workspace);
  const MemoryStats after = memory_stats();
  CHECK(after.system_allocations == before.system_allocations);
  CHECK(after.peak_bytes_in_use == before.peak_bytes_in_use);
}

TEST_CASE("predictor: many threads at once get the right results") {
  auto net = trained_net<float>(false);
  const nn::Predictor predictor(net, {20, 2, 10, 10}, {.parallel = false});
  std::vector<Tensor<float>> inputs, expected;
  for (Index i = 0; i < 12; ++i) {
    inputs.push_back(Tensor<float>::normal({1 + i * 19 / 11, 2, 10, 10}));
    expected.push_back(predictor(inputs.back()));
  }
  std::vector<int> wrong(inputs.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    threads.emplace_back([&, i] {
      for (int repeat = 0; repeat < 20; ++repeat)
        wrong[i] += !testing::same_bits(predictor(inputs[i]), expected[i]);
    });
  for (auto& thread : threads) thread.join();
  for (const int count : wrong) CHECK(count == 0);
}

TEST_CASE("predictor: a workspace serves the predictor it was made for") {
  auto net = trained_net<float>(true);
  nn::Sequential tiny(nn::Conv2d(2, 1, 1));
  const nn::Predictor small(tiny, {64, 2, 1, 1}), large(net, {64, 2, 10, 10});
  auto workspace = small.workspace();
  std::vector<float> y(64 * 3);
  const auto x = Tensor<float>::normal({64, 2, 10, 10});
  CHECK_THROWS_WITH_AS(large.predict(y.data(), x.data(), 64, workspace),
                       doctest::Contains("the workspace was made for another predictor"),
                       ShapeError);
}

TEST_CASE("predictor: errors say what does not fit") {
  nn::Sequential net(nn::Conv2d(1, 4, 3), nn::GELU());
  CHECK_THROWS_WITH_AS(
      nn::Predictor(net, {8, 1, 6, 6}),
      doctest::Contains("child 1 (GELU) cannot be part of a predictor: nn/predictor.hpp names"),
      Error);
  nn::Sequential strided(nn::Conv2d(1, 4, 3), nn::Conv2d(4, 4, 3, {.stride = 2}));
  CHECK_THROWS_WITH_AS(nn::Predictor(strided, {8, 1, 9, 9}),
                       "Predictor: child 1 (Conv2d) cannot be part of a predictor: its stride is "
                       "2, only 1 will do. For input [8, 1, 9, 9], the first size being the number "
                       "of samples, call the model itself after eval(), under a NoGrad",
                       Error);
  CHECK_THROWS_WITH_AS(nn::Predictor(strided, {8, 2, 9, 9}),
                       doctest::Contains("child 0 (Conv2d) cannot be part of a predictor: it does "
                                         "not take a sample of shape [2, 9, 9]"),
                       Error);
  CHECK_THROWS_WITH_AS(nn::Predictor(net, Shape{8}),
                       doctest::Contains("Predictor: shape [8], expected"), ShapeError);
  nn::Sequential conv(nn::Conv2d(1, 4, 3));
  const nn::Predictor predictor(conv, {8, 1, 6, 6});
  CHECK_THROWS_WITH_AS(predictor(Tensor<float>::zeros({9, 1, 6, 6})),
                       "Predictor: 9 images, planned for at most 8; give the constructor the "
                       "largest number of a call",
                       ShapeError);
  nn::Sequential<float> empty;
  CHECK_THROWS_WITH_AS(nn::Predictor(empty, {8, 1, 6, 6}), "Predictor: the model has no layers",
                       Error);
  CHECK_THROWS_WITH_AS(predictor(Tensor<float>::zeros({2, 1, 7, 6})),
                       "Predictor: x has shape [2, 1, 7, 6], expected [N] and [1, 6, 6]",
                       ShapeError);
}
