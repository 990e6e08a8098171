#include "minnow/nn/pool2d.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "minnow/testing/compare.hpp"
#include "minnow/testing/composed.hpp"
#include "minnow/testing/gradcheck.hpp"

using namespace minnow;

namespace {

enum class Kind { max, avg, adaptive };

struct Geometry {
  Kind kind;
  Shape shape;
  Size2 kernel, stride, padding, dilation;
  bool ceil_mode, count_include_pad;
};

struct Reference : Geometry {
  Shape out;
  std::vector<double> y, dx;
};

const std::vector<Reference> references = {
#include "reference/pool2d.inc"
};

/// The reference's inputs.
template <class T>
Tensor<T> integers(const Shape& shape, Index factor) {
  Tensor<T> x(shape);
  for (Index i = 0; i < x.size(); ++i) x[i] = static_cast<T>((i * factor + 3) % 17 - 5);
  return x;
}

template <class T>
Variable<T> pool(const Variable<T>& x, const Geometry& g) {
  switch (g.kind) {
    case Kind::max:
      return nn::max_pool2d(x, g.kernel,
                            {.stride = g.stride,
                             .padding = g.padding,
                             .dilation = g.dilation,
                             .ceil_mode = g.ceil_mode});
    case Kind::avg:
      return nn::avg_pool2d(x, g.kernel,
                            {.stride = g.stride,
                             .padding = g.padding,
                             .ceil_mode = g.ceil_mode,
                             .count_include_pad = g.count_include_pad});
    default:
      return nn::adaptive_avg_pool2d(x, g.kernel);
  }
}

struct Result {
  Tensor<double> y, dx;
};

/// Every tap of every window, one after the other, in double. `out` is what pool() gave.
template <class T>
Result slowly(const Tensor<T>& x, const Tensor<T>& dy, const Geometry& g) {
  const Shape out = dy.shape();
  const Index h = x.size(-2), w = x.size(-1), planes = x.shape().product(0, x.rank() - 2);
  Result result{Tensor<double>(out), Tensor<double>::zeros(x.shape())};
  Index o = 0;
  for (Index p = 0; p < planes; ++p)
    for (Index oh = 0; oh < out[-2]; ++oh)
      for (Index ow = 0; ow < out[-1]; ++ow, ++o) {
        Index h0 = oh * g.stride.h - g.padding.h, h1 = h0 + (g.kernel.h - 1) * g.dilation.h + 1;
        Index w0 = ow * g.stride.w - g.padding.w, w1 = w0 + (g.kernel.w - 1) * g.dilation.w + 1;
        if (g.kind == Kind::adaptive) {
          h0 = oh * h / out[-2];
          w0 = ow * w / out[-1];
          h1 = (oh * h + h + out[-2] - 1) / out[-2];
          w1 = (ow * w + w + out[-1] - 1) / out[-1];
        }
        double sum = 0, best = 0;
        Index padded = 0, inside = 0, place = -1;
        for (Index a = h0; a < h1; a += g.dilation.h)
          for (Index b = w0; b < w1; b += g.dilation.w) {
            padded += a < h + g.padding.h && b < w + g.padding.w;
            if (a < 0 || a >= h || b < 0 || b >= w) continue;
            const Index at = (p * h + a) * w + b;
            const auto value = static_cast<double>(x[at]);
            ++inside;
            sum += value;
            if (place < 0 || value > best || std::isnan(value)) {
              best = value;
              place = at;
            }
          }
        const auto upstream = static_cast<double>(dy[o]);
        if (g.kind == Kind::max) {
          result.y[o] = best;
          result.dx[place] += upstream;
          continue;
        }
        const auto count =
            static_cast<double>(g.kind == Kind::avg && g.count_include_pad ? padded : inside);
        result.y[o] = sum / count;
        for (Index a = std::max<Index>(0, h0); a < std::min(h, h1); ++a)
          for (Index b = std::max<Index>(0, w0); b < std::min(w, w1); ++b)
            result.dx[(p * h + a) * w + b] += upstream / count;
      }
  return result;
}

Geometry max_pairs(const Shape& shape) { return {Kind::max, shape, 2, 2, 0, 1, false, true}; }
Geometry whole(const Shape& shape) {
  return {Kind::avg, shape, {shape[-2], shape[-1]}, {shape[-2], shape[-1]}, 0, 1, false, true};
}

/// Compares forward and backward with the slow loop, from unaligned memory.
template <class T>
void check_against_loop(const Geometry& g) {
  CAPTURE(g.shape.str());
  CAPTURE(g.kernel.str());
  const Index size = g.shape.size();
  // A coarse grid of values, so that there are ties.
  auto values = Tensor<T>::normal({size + 1}, 0, 1, {1, 0, 0});
  if (g.kind == Kind::max)
    for (T& value : values.values()) value = std::round(value * 2);
  const Variable<T> x(values.slice(1, size + 1).reshape(g.shape), true);
  const Variable<T> y = pool(x, g);
  const auto dy = Tensor<T>::normal(y.shape(), 0, 1, {2, 0, 0});
  const Result expected = slowly(x.value(), dy, g);
  y.backward(dy);
  const double tolerance = sizeof(T) == 4 ? 4e-6 : 1e-14;
  const auto value = testing::compare(y.value(), expected.y, tolerance, tolerance);
  CHECK_MESSAGE(value, value.message);
  const auto dx = testing::compare(x.grad(), expected.dx, tolerance, tolerance);
  CHECK_MESSAGE(dx, dx.message);
}

}  // namespace

TEST_CASE_TEMPLATE("sizes, values and gradients are PyTorch's", T, float, double) {
  CHECK(references.size() == 21);
  for (const Reference& reference : references) {
    CAPTURE(reference.shape.str());
    CAPTURE(reference.kernel.str());
    const Variable<T> x(integers<T>(reference.shape, 7), true);
    const Variable<T> y = pool(x, reference);
    REQUIRE(y.shape() == reference.out);
    y.backward(integers<T>(y.shape(), 5));
    const auto value =
        testing::compare(y.value(), Tensor<double>(reference.out, reference.y), 1e-6, 1e-6);
    CHECK_MESSAGE(value, value.message);
    const auto dx =
        testing::compare(x.grad(), Tensor<double>(reference.shape, reference.dx), 1e-6, 1e-6);
    CHECK_MESSAGE(dx, dx.message);
  }
}

TEST_CASE_TEMPLATE("2x2 max pooling agrees with the loop at every width", T, float, double) {
  constexpr Index width = Pack<T>::width;
  for (const Index out : {Index{1}, Index{2}, width - 1, width, width + 1, 3 * width + 1})
    for (const Index odd : {0, 1}) {
      if (out == 0) continue;
      check_against_loop<T>(max_pairs({3, 2, 2 + odd, 2 * out + odd}));
      check_against_loop<T>(max_pairs({1, 6 + odd, 2 * out}));
      check_against_loop<T>(max_pairs({2, 2, 7, 2 * out + odd}));
    }
  check_against_loop<T>(max_pairs({0, 3, 4, 4}));
}

TEST_CASE_TEMPLATE("means of whole planes agree with the loop at every size", T, float, double) {
  constexpr Index width = Pack<T>::width;
  for (const Index w : {Index{1}, Index{2}, width - 1, width, width + 1, 3 * width + 1, Index{113}})
    for (const Index h : {1, 2, 5, 101}) {
      if (w == 0) continue;
      check_against_loop<T>(whole({2, 3, h, w}));
    }
  check_against_loop<T>(whole({0, 3, 4, 4}));
}

TEST_CASE_TEMPLATE("windows of any geometry agree with the loop", T, float, double) {
  std::uint64_t draw = 0;
  const auto random = [&](Index low, Index high) {
    const auto bound = static_cast<std::uint64_t>(high - low + 1);
    return low + static_cast<Index>(random_integer({7, 0, 0}, draw++, bound));
  };
  int compared = 0;
  for (int trial = 0; trial < 400; ++trial) {
    Geometry g{trial % 2 == 0 ? Kind::max : Kind::avg,
               {random(1, 3), random(1, 3), random(1, 12), random(1, 40)},
               {random(1, 5), random(1, 5)},
               {random(1, 4), random(1, 4)},
               0,
               1,
               random(0, 1) == 1,
               random(0, 1) == 1};
    g.padding = {random(0, g.kernel.h / 2), random(0, g.kernel.w / 2)};
    if (g.kind == Kind::max) g.dilation = {random(1, 3), random(1, 3)};
    try {
      pool(Variable<T>(Tensor<T>(g.shape)), g);
    } catch (const ShapeError&) {
      continue;
    }
    ++compared;
    check_against_loop<T>(g);
  }
  CHECK(compared > 250);
  for (int trial = 0; trial < 50; ++trial)
    check_against_loop<T>({Kind::adaptive,
                           {random(1, 3), random(1, 3), random(1, 12), random(1, 40)},
                           {random(1, 9), random(1, 9)},
                           1,
                           0,
                           1,
                           false,
                           true});
}

TEST_CASE_TEMPLATE("functions agree with their definition by plain operations", T, float, double) {
  namespace composed = testing::composed;
  const Shape shape{2, 3, 7, 19};
  for (const Geometry& g : {max_pairs(shape), whole(shape),
                            Geometry{Kind::max, shape, {3, 2}, {2, 3}, 1, {1, 2}, true, true},
                            Geometry{Kind::avg, shape, {3, 2}, {2, 3}, 1, 1, true, true},
                            Geometry{Kind::avg, shape, {3, 2}, {2, 3}, 1, 1, true, false},
                            Geometry{Kind::adaptive, shape, {3, 4}, 1, 0, 1, false, true}}) {
    const auto values = Tensor<T>::normal(shape, 0, 1, {1, 0, 0});
    const Variable<T> x(values, true), same(values, true);
    const Variable<T> y = pool(x, g);
    const Variable<T> expected =
        g.kind == Kind::max
            ? composed::max_pool2d(same, g.kernel, g.stride, g.padding, g.dilation, g.ceil_mode)
        : g.kind == Kind::avg ? composed::avg_pool2d(same, g.kernel, g.stride, g.padding,
                                                     g.ceil_mode, g.count_include_pad)
                              : composed::adaptive_avg_pool2d(same, g.kernel);
    const auto dy = Tensor<T>::normal(y.shape(), 0, 1, {2, 0, 0});
    y.backward(dy);
    expected.backward(dy);
    const double bound = sizeof(T) == 4 ? 2e-6 : 1e-14;
    const auto value = testing::compare(y.value(), expected.value(), bound, bound);
    CHECK_MESSAGE(value, value.message);
    const auto dx = testing::compare(x.grad(), same.grad(), bound, bound);
    CHECK_MESSAGE(dx, dx.message);
  }
}

TEST_CASE("a window of more than 256 places keeps its place in 32 bits") {
  check_against_loop<float>({Kind::max, {2, 20, 40}, {17, 16}, {3, 5}, 2, 1, false, true});
  check_against_loop<float>({Kind::max, {2, 20, 40}, {16, 16}, {3, 5}, 2, 1, false, true});
}

TEST_CASE_TEMPLATE("kernels write every element of their outputs and nothing else", T, float,
                   double) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (const Index h : {6, 7})
    for (const Index w : {8, 27})
      for (const Index kernel : {2, 3}) {
        const kernels::PoolAxis rows{h, h / kernel, kernel, kernel},
            cols{w, w / kernel, kernel, kernel};
        const Index planes = 3, in = planes * h * w, out = planes * rows.out * cols.out;
        const auto x = Tensor<T>::normal({in}, 0, 1, {1, 0, 0});
        const auto y = Tensor<T>::full({out + 2}, nan), dx = Tensor<T>::full({in + 2}, nan);
        const auto arg = Tensor<std::uint8_t>::full({out + 2}, 99);
        const auto finite_inside = [](Tensor<T> tensor) {
          const Index last = tensor.size() - 1;
          CHECK(std::isnan(tensor[0]));
          CHECK(std::isnan(tensor[last]));
          for (Index i = 1; i < last; ++i) CHECK(!std::isnan(tensor[i]));
          tensor.fill(std::numeric_limits<T>::quiet_NaN());
        };
        const auto mutable_data = [](Tensor<T> tensor) { return tensor.data() + 1; };
        auto places = arg;
        kernels::max_pool2d_forward(mutable_data(y), {places.data() + 1}, x.data(), planes, rows,
                                    cols);
        CHECK(arg[0] == 99);
        CHECK(arg[out + 1] == 99);
        for (Index o = 1; o <= out; ++o) CHECK(arg[o] < kernel * kernel);
        kernels::max_pool2d_backward(mutable_data(dx), y.data() + 1, {places.data() + 1}, planes,
                                     rows, cols);
        finite_inside(y);
        finite_inside(dx);
        kernels::avg_pool2d_forward(mutable_data(y), x.data(), planes, rows, cols);
        kernels::avg_pool2d_backward(mutable_data(dx), y.data() + 1, planes, rows, cols);
        finite_inside(y);
        finite_inside(dx);
      }
}

TEST_CASE_TEMPLATE("of equal numbers the first in the window gets the gradient", T, float, double) {
  for (const Size2 kernel : {Size2(2), Size2(3, 2), Size2(2, 4)}) {
    const Variable<T> x(Tensor<T>::full({1, 12, 40}, T(3)), true);
    const Variable<T> y = nn::max_pool2d(x, kernel);
    y.backward(Tensor<T>::ones(y.shape()));
    for (Index h = 0; h < 12; ++h)
      for (Index w = 0; w < 40; ++w)
        CHECK(x.grad()(0, h, w) == (h % kernel.h == 0 && w % kernel.w == 0 ? 1 : 0));
  }
}

TEST_CASE_TEMPLATE("NaN and infinity pass through", T, float, double) {
  const T nan = std::numeric_limits<T>::quiet_NaN(), inf = std::numeric_limits<T>::infinity();
  for (const Size2 kernel : {Size2(2), Size2(2, 3)})
    for (Index spot = 0; spot < kernel.h * kernel.w; ++spot) {
      CAPTURE(spot);
      auto values = Tensor<T>::normal({1, 4, 60}, 0, 1, {1, 0, 0});
      const Index h = spot / kernel.w, w = spot % kernel.w;
      values(0, h, w) = nan;
      const Variable<T> x(values, true);
      const Variable<T> y = nn::max_pool2d(x, kernel);
      CHECK(std::isnan(y.value()(0, 0, 0)));
      CHECK(!std::isnan(y.value()(0, 0, 1)));
      y.backward(Tensor<T>::ones(y.shape()));
      CHECK(x.grad()(0, h, w) == 1);
      CHECK(std::isnan(nn::avg_pool2d(x, kernel).value()(0, 0, 0)));
    }
  const Variable<T> low(Tensor<T>::full({1, 4, 4}, -inf), true);
  const Variable<T> y = nn::max_pool2d(low, 3, {.stride = 1, .padding = 1});
  y.backward(Tensor<T>::ones(y.shape()));
  for (const T value : y.value().values()) CHECK(value == -inf);
  CHECK(low.grad()(0, 0, 0) == 4);
}

TEST_CASE("a mean keeps its digits far from zero and for huge numbers") {
  auto x = Tensor<float>::normal({2, 100, 100}, 1e4F, 1, {1, 0, 0});
  double exact = 0;
  for (Index i = 0; i < 10'000; ++i) exact += static_cast<double>(x[i]) / 1e4;
  CHECK(std::abs(nn::adaptive_avg_pool2d(Variable<float>(x), 1).value()[0] - exact) < 4e-6 * 1e4);
  const Variable<float> huge(Tensor<float>::full({1, 30, 30}, 1e30F));
  CHECK(nn::adaptive_avg_pool2d(huge, 1).item() == doctest::Approx(1e30));
  CHECK(nn::avg_pool2d(huge, 7).value()[0] == doctest::Approx(1e30));
}

TEST_CASE("gradients agree with finite differences") {
  // Distinct values half a unit apart: a small step does not change which is the largest.
  Tensor<double> spread({2, 2, 7, 9});
  for (Index i = 0; i < spread.size(); ++i) spread[i] = static_cast<double>(i * 101 % 252) / 2;
  const Variable<double> x(spread, true);
  for (const Geometry& g :
       {max_pairs(x.shape()), Geometry{Kind::max, {}, {3, 2}, {2, 1}, 1, {1, 2}, true, true},
        whole(x.shape()), Geometry{Kind::avg, {}, {3, 2}, {2, 1}, 1, 1, true, true},
        Geometry{Kind::avg, {}, {3, 2}, {2, 1}, 1, 1, true, false},
        Geometry{Kind::adaptive, {}, {3, 4}, 1, 0, 1, false, true}}) {
    const auto result =
        testing::gradcheck([&](const auto& in) { return pool(in[0], g); }, {x}, {.relative = 1e-5});
    CHECK_MESSAGE(result, result.message);
  }
}

TEST_CASE("results have the same bits with 1, 2 and 4 threads") {
  const auto values = Tensor<float>::normal({9, 7, 31, 33}, 0, 1, {1, 0, 0});
  for (const Geometry& g :
       {max_pairs(values.shape()), Geometry{Kind::max, {}, 3, 2, 1, 1, false, true},
        whole(values.shape()), Geometry{Kind::avg, {}, 3, 2, 1, 1, false, true}}) {
    const auto run = [&](int threads) {
      set_num_threads(threads);
      const Variable<float> x(values, true);
      const Variable<float> y = pool(x, g);
      y.backward(Tensor<float>::normal(y.shape(), 0, 1, {2, 0, 0}));
      return std::pair{y.value(), x.grad()};
    };
    const auto [y, dx] = run(1);
    for (const int threads : {2, 4}) {
      const auto [other_y, other_dx] = run(threads);
      CHECK(testing::same_bits(y, other_y));
      CHECK(testing::same_bits(dx, other_dx));
    }
  }
  set_num_threads(0);
}

TEST_CASE("without a gradient nothing is recorded and the values are the same") {
  const Variable<float> x(Tensor<float>::normal({2, 8, 9}, 0, 1, {1, 0, 0}), true);
  for (const Size2 kernel : {Size2(2), Size2(3)}) {
    const Variable<float> y = nn::max_pool2d(x, kernel);
    const NoGrad no_grad;
    const Variable<float> bare = nn::max_pool2d(x, kernel);
    CHECK(!bare.requires_grad());
    CHECK(testing::same_bits(bare.value(), y.value()));
  }
}

TEST_CASE("modules apply their function, show their options and carry PyTorch's names") {
  const Variable<float> x(Tensor<float>::normal({2, 3, 11, 13}, 0, 1, {1, 0, 0}));
  nn::MaxPool2d pairs(2), strided(3, {.stride = 2, .padding = 1});
  nn::AvgPool2d mean(5), flat({2, 3}, {.stride = Size2(1, 2), .count_include_pad = false});
  nn::AdaptiveAvgPool2d adaptive({4, 3});
  static_assert(std::is_same_v<decltype(pairs), nn::MaxPool2d<float>>);
  CHECK(pairs.name() == "MaxPool2d");
  CHECK(mean.name() == "AvgPool2d");
  CHECK(adaptive.name() == "AdaptiveAvgPool2d");
  CHECK(pairs.kernel() == Size2(2));
  CHECK(!pairs.options().stride);
  CHECK(strided.options().stride == Size2(2));
  CHECK(!flat.options().count_include_pad);
  CHECK(adaptive.output() == Size2(4, 3));
  CHECK(pairs.state_dict().empty());
  CHECK(pairs(x).shape() == Shape{2, 3, 5, 6});
  CHECK(strided(x).shape() == Shape{2, 3, 6, 7});
  CHECK(mean(x).shape() == Shape{2, 3, 2, 2});
  CHECK(flat(x).shape() == Shape{2, 3, 10, 6});
  CHECK(adaptive(x).shape() == Shape{2, 3, 4, 3});
  CHECK(testing::same_bits(strided(x).value(),
                           nn::max_pool2d(x, 3, {.stride = 2, .padding = 1}).value()));
  mean.eval();
  CHECK(testing::same_bits(mean(x).value(), nn::avg_pool2d(x, 5).value()));
}

TEST_CASE("one window takes a stride of any size") {
  const Variable<float> x(Tensor<float>::normal({3, 7, 9}), true);
  const Index far = Index{1} << 30;
  CHECK(testing::same_bits(nn::max_pool2d(x, {5, 6}, {.stride = far}).value(),
                           nn::max_pool2d(x, {5, 6}, {.stride = 20}).value()));
  CHECK(testing::same_bits(nn::avg_pool2d(x, {5, 6}, {.stride = far}).value(),
                           nn::avg_pool2d(x, {5, 6}, {.stride = 20}).value()));
}

TEST_CASE("errors say what is wrong") {
  const auto x = [](const Shape& shape) { return Variable<float>(Tensor<float>::zeros(shape)); };
  CHECK_THROWS_WITH_AS(
      nn::max_pool2d(x({5, 5}), 2),
      "MaxPool2d(2): x has shape [5, 5]; expected images, [N, C, H, W] or [C, H, W]", ShapeError);
  CHECK_THROWS_WITH_AS(nn::avg_pool2d(x({5}), 2),
                       "AvgPool2d(2): x has shape [5]; expected images, [N, C, H, W] or [C, H, W]",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      nn::max_pool2d(x({1, 5, 2}), {3, 2}, {.dilation = 3}),
      "MaxPool2d(3, 2): a window of height 7 does not fit into x of shape [1, 5, 2] "
      "with padding 0",
      ShapeError);
  CHECK_THROWS_WITH_AS(
      nn::avg_pool2d(x({1, 3, 5, 4}), 5),
      "AvgPool2d(5): a window of width 5 does not fit into x of shape [1, 3, 5, 4] with "
      "padding 0",
      ShapeError);
  CHECK_THROWS_WITH_AS(nn::max_pool2d(x({1, 5, 5}), 3, {.padding = 2}),
                       "MaxPool2d(3): padding 2 must lie between 0 and half the kernel, 1",
                       ShapeError);
  CHECK_THROWS_WITH_AS(nn::avg_pool2d(x({1, 5, 5}), 3, {.stride = Size2(1, 0)}),
                       "AvgPool2d(3): stride (1, 0), expected 1 to 1073741824", ShapeError);
  CHECK_THROWS_WITH_AS(nn::MaxPool2d(2, {.stride = 0}),
                       "MaxPool2d(2): stride 0, expected 1 to 1073741824", ShapeError);
  CHECK_THROWS_WITH_AS(nn::AvgPool2d(Size2(2, -1)),
                       "AvgPool2d(2, -1): kernel (2, -1), expected 1 to 1073741824", ShapeError);
  CHECK_THROWS_WITH_AS(nn::AdaptiveAvgPool2d(0),
                       "AdaptiveAvgPool2d(0): output 0, expected 1 to 1073741824", ShapeError);
  CHECK_THROWS_WITH_AS(
      nn::max_pool2d(x({1, 5, 1}), {1, 3},
                     {.stride = 3, .padding = {0, 1}, .dilation = 2, .ceil_mode = true}),
      "MaxPool2d(1, 3): window 0 along the width of x of shape [1, 5, 1] holds nothing but "
      "padding",
      ShapeError);
  CHECK_THROWS_WITH_AS(nn::adaptive_avg_pool2d(x({3, 4}), 2),
                       "AdaptiveAvgPool2d(2): x has shape [3, 4]; expected images, [N, C, H, W] or "
                       "[C, H, W]",
                       ShapeError);
  CHECK_THROWS_WITH_AS(nn::adaptive_avg_pool2d(x({3, 4, 4}), {0, 2}),
                       "AdaptiveAvgPool2d(0, 2): output (0, 2), expected 1 to 1073741824",
                       ShapeError);
  CHECK_THROWS_WITH_AS(nn::adaptive_avg_pool2d(x({3, 0, 4}), 2),
                       "AdaptiveAvgPool2d(2): x of shape [3, 0, 4] has no pixels to average",
                       ShapeError);
}
