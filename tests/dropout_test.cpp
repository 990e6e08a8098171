#include "minnow/nn/dropout.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "minnow/testing/compare.hpp"
#include "minnow/testing/gradcheck.hpp"

using namespace minnow;

namespace {

constexpr RandomKey key{0x1234'5678'9abc'def0, 3, 17};

/// The rule, one element at a time.
bool keeps(const RandomKey& with, double p, Index n, Index i) {
  const auto block = (static_cast<std::uint64_t>(n) << 32) | static_cast<std::uint64_t>(i / 8);
  const std::uint32_t word = philox(with, block)[static_cast<std::size_t>(i % 8 / 2)];
  const std::uint32_t half = i % 2 == 0 ? word & 0xFFFF : word >> 16;
  return half >= std::lround(p * 65536);
}

template <class T>
Tensor<T> expected_dropout(const Tensor<T>& x, Index samples, double p) {
  Tensor<T> y(x.shape());
  const Index size = x.size() / std::max<Index>(1, samples);
  for (Index n = 0; n < samples; ++n)
    for (Index i = 0; i < size; ++i)
      y[n * size + i] = keeps(key, p, n, i) ? x[n * size + i] * static_cast<T>(1 / (1 - p)) : T(0);
  return y;
}

}  // namespace

TEST_CASE("Philox gives its published numbers, in any number of lanes") {
  const auto one = philox(RandomKey{}, 0);
  CHECK(one == std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const auto ones = philox(RandomKey{~std::uint64_t{0}, ~0u, ~0u}, ~std::uint64_t{0});
  CHECK(ones == std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});

  std::uint32_t low[19], high[19], words[4][19];
  for (unsigned j = 0; j < 19; ++j) {
    low[j] = 0xFFFFFFF0u + 7 * j;
    high[j] = 0x80000000u + j;
  }
  philox<19>(words, key, low, high);
  for (std::size_t j = 0; j < 19; ++j) {
    const auto single = philox(key, (std::uint64_t{high[j]} << 32) | low[j]);
    for (std::size_t w = 0; w < 4; ++w) CHECK(words[w][j] == single[w]);
  }
}

TEST_CASE_TEMPLATE("each element is kept as the rule says, forward and backward", T, float,
                   double) {
  for (const Shape& shape :
       {Shape{}, Shape{1}, Shape{2}, Shape{7}, Shape{8}, Shape{9}, Shape{127}, Shape{129}, Shape{0},
        Shape{0, 3}, Shape{5, 0}, Shape{1, 1}, Shape{3, 128}, Shape{3, 2, 5}, Shape{4, 3, 5, 9},
        Shape{2, 2047}, Shape{2, 2049}, Shape{3, 5000}}) {
    CAPTURE(shape.str());
    for (const double p : {0.05, 0.5, 0.9}) {
      // One element late: aligned to nothing.
      const auto values = Tensor<T>::normal({shape.size() + 1}, 0, 1, {1, 0, 0});
      const auto at = values.slice(1, shape.size() + 1).reshape(shape);
      const auto dy = Tensor<T>::normal(shape, 0, 1, {2, 0, 0});
      const Index samples = shape.rank() >= 2 ? shape[0] : 1;
      const Variable<T> x(at, true);
      const Variable<T> y = nn::dropout(x, p, key);
      y.backward(dy);
      CHECK(testing::same_bits(y.value(), expected_dropout(at, samples, p)));
      CHECK(testing::same_bits(x.grad(), expected_dropout(dy, samples, p)));
    }
  }
}

TEST_CASE_TEMPLATE("Dropout2d keeps or drops whole channels by the same rule", T, float, double) {
  for (const Shape& shape : {Shape{1, 1, 1}, Shape{3, 8, 2, 5}, Shape{2, 9, 7}, Shape{2, 300, 3, 3},
                             Shape{0, 4, 3, 3}, Shape{2, 4, 0, 3}}) {
    CAPTURE(shape.str());
    const Variable<T> x(Tensor<T>::normal(shape, 0, 1, {1, 0, 0}), true);
    const auto dy = Tensor<T>::normal(shape, 0, 1, {2, 0, 0});
    const Variable<T> y = nn::dropout2d(x, 0.3, key);
    y.backward(dy);
    Tensor<T> value(shape), dx(shape);
    const Index channels = shape[1], size = shape.product(2, shape.rank());
    for (Index i = 0; i < shape.size(); ++i) {
      const bool kept = keeps(key, 0.3, i / size / channels, i / size % channels);
      value[i] = kept ? x.value()[i] * static_cast<T>(1 / 0.7) : T(0);
      dx[i] = kept ? dy[i] * static_cast<T>(1 / 0.7) : T(0);
    }
    CHECK(testing::same_bits(y.value(), value));
    CHECK(testing::same_bits(x.grad(), dx));
  }
}

TEST_CASE("the kernel may work in place and writes every element, and nothing else") {
  const Index samples = 3, size = 700;
  const kernels::DropoutRule rule(key, 0.25);
  const auto x = Tensor<float>::normal({samples, size}, 0, 1, {1, 0, 0});
  auto y = Tensor<float>::full({samples * size + 2}, std::numeric_limits<float>::quiet_NaN());
  auto kept = Tensor<std::uint8_t>::full({samples * size + 2}, 7);
  kernels::dropout_forward(y.data() + 1, kept.data() + 1, x.data(), samples, size, rule);
  CHECK(std::isnan(y[0]));
  CHECK(std::isnan(y[samples * size + 1]));
  CHECK(kept[0] == 7);
  CHECK(kept[samples * size + 1] == 7);
  Tensor<float> in_place = x.clone();
  kernels::dropout_forward(in_place.data(), kept.data() + 1, in_place.data(), samples, size, rule);
  CHECK(testing::same_bits(in_place, y.slice(1, samples * size + 1).reshape({samples, size})));
  Tensor<float> gradient = x.clone();
  kernels::dropout_backward(gradient.data(), gradient.data(), kept.data() + 1, x.size(),
                            rule.scale);
  CHECK(testing::same_bits(gradient, in_place));
}

TEST_CASE("halves of a batch are the elements' in order, from any multiple of 8") {
  const kernels::DropoutRule rule(key, 0.5);
  for (const Index begin : {Index{0}, Index{8}, Index{1024}, Index{8} << 31}) {
    std::uint16_t halves[kernels::dropout_batch];
    kernels::dropout_halves(halves, rule, 5, begin);
    for (Index i = 0; i < kernels::dropout_batch; ++i)
      CHECK((halves[i] >= rule.threshold) == keeps(key, 0.5, 5, begin + i));
  }
}

TEST_CASE("the dropped share is p, and its mask is independent of the element's neighbours") {
  constexpr Index rows = 400, cols = 1000;
  const auto ones = Tensor<float>::ones({rows, cols});
  for (const double p : {0.05, 0.5, 0.95}) {
    const Tensor<float> y = nn::dropout(Variable<float>(ones), p, key).value();
    double dropped = 0, pairs = 0, below = 0, sum = 0;
    for (Index n = 0; n < rows; ++n)
      for (Index i = 0; i < cols; ++i) {
        const bool zero = y(n, i) == 0;
        dropped += zero;
        sum += static_cast<double>(y(n, i));
        if (i > 0) pairs += zero && y(n, i - 1) == 0;
        if (n > 0) below += zero && y(n - 1, i) == 0;
      }
    const auto within_noise = [](double count, double trials, double probability) {
      return std::abs(count - trials * probability) <
             4.5 * std::sqrt(trials * probability * (1 - probability));
    };
    CHECK(within_noise(dropped, rows * cols, p));
    CHECK(within_noise(pairs, rows * (cols - 1), p * p));
    CHECK(within_noise(below, (rows - 1) * cols, p * p));
    CHECK(std::abs(sum / (rows * cols) - 1) < 4.5 * std::sqrt(p / (1 - p) / (rows * cols)));
  }
}

TEST_CASE("the threshold is within 1 / 131072 of p") {
  for (const double p : {0.0, 1e-6, 1e-5, 0.1, 1. / 3, 0.5, 0.99999, 1.0})
    CHECK(std::abs(kernels::DropoutRule(key, p).threshold / 65536. - p) <= 1. / 131072);
}

TEST_CASE("what is dropped is zero even if it was infinite or NaN") {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {inf, -inf, std::numeric_limits<float>::quiet_NaN()}) {
    const auto x = Tensor<float>::full({4, 33}, bad);
    const Tensor<float> y = nn::dropout(Variable<float>(x), 0.5, key).value();
    const Tensor<float> images =
        nn::dropout2d(Variable<float>(x.reshape({4, 11, 3})), 0.5, key).value();
    for (Index n = 0; n < 4; ++n)
      for (Index i = 0; i < 33; ++i) {
        CHECK((y(n, i) == 0) == !keeps(key, 0.5, n, i));
        CHECK((images(n, i / 3, i % 3) == 0) == !keeps(key, 0.5, n, i / 3));
      }
    const Tensor<float> all = nn::dropout(Variable<float>(x), 1, key).value();
    for (const float value : all.values()) CHECK(value == 0);
  }
}

TEST_CASE("gradients agree with finite differences for a fixed key") {
  const Variable<double> x(Tensor<double>::normal({3, 4, 2, 5}, 0, 1, {1, 0, 0}), true);
  const auto single =
      testing::gradcheck([](const auto& in) { return nn::dropout(in[0], 0.3, key); }, {x});
  CHECK_MESSAGE(single, single.message);
  const auto channels =
      testing::gradcheck([](const auto& in) { return nn::dropout2d(in[0], 0.3, key); }, {x});
  CHECK_MESSAGE(channels, channels.message);
}

TEST_CASE("results have the same bits with 1, 2 and 4 threads") {
  const Variable<float> x(Tensor<float>::normal({40, 3, 30, 31}, 0, 1, {1, 0, 0}));
  set_num_threads(1);
  const Tensor<float> single = nn::dropout(x, 0.2, key).value();
  const Tensor<float> channels = nn::dropout2d(x, 0.2, key).value();
  for (const int threads : {2, 4}) {
    set_num_threads(threads);
    CHECK(testing::same_bits(nn::dropout(x, 0.2, key).value(), single));
    CHECK(testing::same_bits(nn::dropout2d(x, 0.2, key).value(), channels));
  }
  set_num_threads(0);
}

TEST_CASE("p = 0 and evaluation give x itself and draw no key; training draws one") {
  const Variable<float> x(Tensor<float>::ones({4, 5, 6}));
  const auto same = [&](const Variable<float>& y) {
    return y.value().shares_memory_with(x.value());
  };
  nn::Dropout layer, none(0);
  nn::Dropout2d channels, no_channels(0);
  CHECK(layer.p() == 0.5);
  CHECK(channels.p() == 0.5);
  manual_seed(9);
  const RandomKey before = default_generator().state();
  CHECK(same(none(x)));
  CHECK(same(no_channels(x)));
  layer.eval();
  channels.eval();
  CHECK(same(layer(x)));
  CHECK(same(channels(x)));
  CHECK(same(nn::dropout(x, 0.5, key, false)));
  CHECK(same(nn::dropout2d(x, 0.5, key, false)));
  CHECK(same(nn::dropout(x, 0, key)));
  CHECK(default_generator().state() == before);

  layer.train();
  channels.train();
  CHECK(testing::same_bits(layer(x).value(), nn::dropout(x, 0.5, before).value()));
  const RandomKey next = default_generator().state();
  CHECK(next.step == before.step + 1);
  CHECK(testing::same_bits(channels(x).value(), nn::dropout2d(x, 0.5, next).value()));
  CHECK(!testing::same_bits(layer(x).value(), layer(x).value()));
  manual_seed(9);
  const Tensor<float> first = layer(x).value();
  manual_seed(9);
  CHECK(testing::same_bits(layer(x).value(), first));
}

TEST_CASE("modules carry PyTorch's names and no state") {
  CHECK(nn::Dropout().name() == "Dropout");
  CHECK(nn::Dropout2d(0.1).name() == "Dropout2d");
  CHECK(nn::Dropout(0.1).state_dict().empty());
  static_assert(std::is_same_v<decltype(nn::Dropout(0.1)), nn::Dropout<float>>);
}

TEST_CASE("errors say what is wrong") {
  const Variable<float> x(Tensor<float>::ones({2, 3}));
  CHECK_THROWS_WITH_AS(nn::Dropout(1.5),
                       "Dropout: p = 1.5 is no probability; it must lie in [0, 1]", Error);
  CHECK_THROWS_WITH_AS(nn::Dropout2d(-0.1),
                       "Dropout2d: p = -0.1 is no probability; it must lie in [0, 1]", Error);
  CHECK_THROWS_WITH_AS(nn::dropout(x, std::nan(""), key),
                       "dropout: p = nan is no probability; it must lie in [0, 1]", Error);
  CHECK_THROWS_WITH_AS(nn::dropout2d(x, 2, key),
                       "dropout2d: p = 2 is no probability; it must lie in [0, 1]", Error);
  CHECK_THROWS_WITH_AS(
      nn::dropout2d(x, 0.5, key),
      "dropout2d: x has shape [2, 3]; it drops channels of [N, C, H, W]. Use dropout "
      "for features",
      ShapeError);
}
