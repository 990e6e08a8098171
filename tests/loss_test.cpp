#include "minnow/ops/loss.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "minnow/testing/compare.hpp"
#include "minnow/testing/composed.hpp"
#include "minnow/testing/gradcheck.hpp"

using namespace minnow;
namespace composed = minnow::testing::composed;

namespace {

enum class Kind { labels, probabilities, nll, mse, bce };

struct Reference {
  Kind kind;
  Shape shape;
  bool weighted;
  double smoothing;
  std::int64_t ignore_index;
  Reduction reduction;
  std::vector<double> loss, dx;
};

const std::vector<Reference> references = {
#include "reference/loss.inc"
};

// The reference's inputs.
template <class T>
Tensor<T> numbers(const Shape& shape, Index factor, double scale) {
  Tensor<T> x(shape);
  for (Index i = 0; i < x.size(); ++i)
    x[i] = static_cast<T>(static_cast<double>((i * factor + 3) % 17 - 5) * scale);
  return x;
}
template <class T>
Tensor<T> cycle(Index size, Index period, double scale) {
  Tensor<T> x(Shape{size});
  for (Index i = 0; i < size; ++i)
    x[i] = static_cast<T>(static_cast<double>(i % period + 1) * scale);
  return x;
}
Tensor<std::int64_t> labels_for(const Shape& shape, Index classes) {
  Tensor<std::int64_t> labels(shape);
  for (Index i = 0; i < labels.size(); ++i) labels[i] = (i * 7 + i / 3 + 1) % classes;
  return labels;
}
Shape without_classes(const Shape& shape) {
  Shape result;
  for (Index axis = 0; axis < shape.rank(); ++axis)
    if (shape.rank() > 1 && axis != 1) result.push_back(shape[axis]);
  return result;
}

template <class T>
Variable<T> loss_of(const Reference& r, const Variable<T>& x) {
  const Index axis = r.shape.rank() > 1 ? 1 : 0, classes = r.shape[axis];
  const auto labels = labels_for(without_classes(r.shape), classes);
  const Tensor<T> weight = r.weighted ? cycle<T>(classes, 3, 0.5) : Tensor<T>();
  switch (r.kind) {
    case Kind::labels:
      return cross_entropy(x, labels,
                           {.label_smoothing = r.smoothing,
                            .weight = weight,
                            .ignore_index = r.ignore_index,
                            .reduction = r.reduction});
    case Kind::probabilities: {
      const Variable<T> target = softmax(Variable<T>(numbers<T>(r.shape, 11, 0.125)), axis);
      return cross_entropy(
          x, target.value(),
          {.label_smoothing = r.smoothing, .weight = weight, .reduction = r.reduction});
    }
    case Kind::nll:
      return nll_loss(x, labels,
                      {.weight = weight, .ignore_index = r.ignore_index, .reduction = r.reduction});
    default: {
      Tensor<T> target = numbers<T>(r.shape, 11, 1);
      for (T& t : target.values()) t = (t + 5) / 16;
      if (r.kind == Kind::mse) return mse_loss(x, target, {.reduction = r.reduction});
      const Index last = r.shape.back();
      return binary_cross_entropy_with_logits(
          x, target,
          {.weight = r.weighted ? cycle<T>(last, 3, 0.5) : Tensor<T>(),
           .pos_weight = r.weighted ? cycle<T>(last, 4, 1) : Tensor<T>(),
           .reduction = r.reduction});
    }
  }
}

std::string_view name_of(Reduction reduction) {
  return reduction == Reduction::none ? "none" : reduction == Reduction::mean ? "mean" : "sum";
}

template <class T>
void check_close(const Tensor<T>& actual, const Tensor<T>& expected, double tolerance) {
  const auto close = testing::compare(actual, expected, tolerance, tolerance);
  CHECK_MESSAGE(close, close.message);
}

template <class T>
Variable<T> leaf(const Shape& shape, double deviation = 2, std::uint32_t stream = 1) {
  return Variable<T>(Tensor<T>::normal(shape, 0, static_cast<T>(deviation), {stream, 0, 0}), true);
}

Tensor<std::int64_t> random_labels(const Shape& shape, Index classes, bool some_ignored) {
  Tensor<std::int64_t> labels(shape);
  for (Index i = 0; i < labels.size(); ++i) {
    const auto at = static_cast<std::uint64_t>(i);
    const auto bound = static_cast<std::uint64_t>(classes);
    labels[i] = static_cast<std::int64_t>(random_integer({3, 0, 0}, at, bound));
    if (some_ignored && i % 5 == 2) labels[i] = -100;
  }
  return labels;
}

}  // namespace

TEST_CASE_TEMPLATE("losses and gradients are PyTorch's", T, float, double) {
  const double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-10;
  CHECK(references.size() == 32);
  for (const Reference& r : references) {
    CAPTURE(static_cast<int>(r.kind));
    CAPTURE(r.shape.str());
    CAPTURE(name_of(r.reduction));
    const bool elements = r.kind == Kind::mse || r.kind == Kind::bce;
    const Variable<T> x(numbers<T>(r.shape, 7, elements ? 0.5 : 0.25), true);
    const Variable<T> loss = loss_of(r, x);
    const bool none = r.reduction == Reduction::none;
    const Shape shape = !none ? Shape{} : elements ? r.shape : without_classes(r.shape);
    const auto dy = none ? numbers<T>(shape, 5, 0.25) : Tensor<T>::scalar(T(-1.5));
    loss.backward(dy);
    check_close(loss.value(), Tensor<double>(shape, r.loss).template to<T>(), tolerance);
    check_close(x.grad(), Tensor<double>(r.shape, r.dx).template to<T>(), tolerance);
  }
}

TEST_CASE_TEMPLATE("cross entropy agrees with its definition at every size", T, float, double) {
  constexpr Index width = Pack<T>::width;
  const double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-13;
  std::vector<Shape> shapes{{128, 10}, {7, 1000}};
  for (const Index size : {Index{1}, Index{2}, width - 1, width, width + 1, 3 * width + 1})
    if (size > 0) {
      shapes.push_back({3, size});
      shapes.push_back({1, size});
      shapes.push_back({size, 3});
      shapes.push_back({2, 4, size});
      shapes.push_back({2, size, 3, 2});
    }
  for (const Shape& shape : shapes)
    for (const bool weighted : {false, true})
      for (const double smoothing : {0.0, 0.2})
        for (const Reduction reduction : {Reduction::mean, Reduction::sum, Reduction::none}) {
          CAPTURE(shape.str());
          CAPTURE(name_of(reduction));
          const Shape label_shape = without_classes(shape);
          const auto labels = random_labels(label_shape, shape[1], label_shape.size() > 3);
          const auto weight = weighted ? cycle<T>(shape[1], 3, 0.5) : Tensor<T>();
          const auto x = leaf<T>(shape), same = leaf<T>(shape);
          const Variable<T> loss = cross_entropy(
              x, labels, {.label_smoothing = smoothing, .weight = weight, .reduction = reduction});
          const Variable<T> expected =
              composed::cross_entropy(same, labels, weight, -100, name_of(reduction), smoothing);
          check_close(loss.value(), expected.value(),
                      reduction == Reduction::sum ? 20 * tolerance : tolerance);
          const auto dy = Tensor<T>::normal(loss.shape(), 0, 1, {2, 0, 0});
          loss.backward(dy);
          expected.backward(dy);
          check_close(x.grad(), same.grad(), tolerance);
        }
}

TEST_CASE_TEMPLATE("the other losses agree with their definitions at every size", T, float,
                   double) {
  constexpr Index width = Pack<T>::width;
  const double tolerance = sizeof(T) == 4 ? 4e-6 : 1e-13;
  for (const Index size :
       {Index{1}, Index{2}, width - 1, width, width + 1, 3 * width + 1, Index{3000}})
    for (const Reduction reduction : {Reduction::mean, Reduction::sum, Reduction::none}) {
      if (size == 0) continue;
      CAPTURE(size);
      CAPTURE(name_of(reduction));
      const Shape shape{3, size};
      const auto compare = [&](const auto& fast, const auto& slow) {
        const auto x = leaf<T>(shape), same = leaf<T>(shape);
        const Variable<T> loss = fast(x), expected = slow(same);
        check_close(loss.value(), expected.value(), tolerance);
        const auto dy = Tensor<T>::normal(loss.shape(), 0, 1, {2, 0, 0});
        loss.backward(dy);
        expected.backward(dy);
        check_close(x.grad(), same.grad(), tolerance);
      };
      const auto target = Tensor<T>::uniform(shape, 0, 1, {4, 0, 0});
      compare([&](const auto& x) { return mse_loss(x, target, {.reduction = reduction}); },
              [&](const auto& x) {
                return composed::mse_loss(x, Variable<T>(target), name_of(reduction));
              });
      compare(
          [&](const auto& x) {
            return binary_cross_entropy_with_logits(x, target, {.reduction = reduction});
          },
          [&](const auto& x) {
            return composed::bce_with_logits(x, Variable<T>(target), {}, {}, name_of(reduction));
          });
      const auto weight = cycle<T>(3, 3, 0.5).reshape({3, 1}), positive = cycle<T>(size, 4, 1);
      compare(
          [&](const auto& x) {
            return binary_cross_entropy_with_logits(
                x, target, {.weight = weight, .pos_weight = positive, .reduction = reduction});
          },
          [&](const auto& x) {
            return composed::bce_with_logits(x, Variable<T>(target), Variable<T>(weight),
                                             Variable<T>(positive), name_of(reduction));
          });
      const auto labels = random_labels(Shape{3}, size, false);
      compare(
          [&](const auto& x) {
            return nll_loss(x, labels, {.weight = positive, .reduction = reduction});
          },
          [&](const auto& x) {
            return composed::nll_loss(x, labels, positive, -100, name_of(reduction));
          });
    }
}

TEST_CASE("kernels write every element of their outputs and nothing else") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Shape& shape : {Shape{5, 21, 1}, Shape{3, 4, 21}}) {
    const Index size = shape.size(), positions = shape[0] * shape[2];
    const auto labels = random_labels(Shape{positions}, shape[1], true);
    const kernels::LabelTargets<float> targets{labels.data(), nullptr, shape[0], shape[1],
                                               shape[2],      -100,    0.1};
    auto plain = targets;
    plain.smoothing = 0;
    const auto log_p = Tensor<float>::normal(shape, -2, 1, {1, 0, 0});
    auto loss = Tensor<float>::full({positions + 2}, nan),
         dx = Tensor<float>::full({size + 2}, nan);
    const auto check_written = [nan](Tensor<float>& tensor) {
      const Index last = tensor.size() - 1;
      CHECK(std::isnan(tensor[0]));
      CHECK(std::isnan(tensor[last]));
      for (Index i = 1; i < last; ++i) CHECK(!std::isnan(tensor[i]));
      tensor.fill(nan);
    };
    const float dy = 1;
    kernels::cross_entropy_backward(dx.data() + 1, &dy, 0, log_p.data(), targets, 1);
    check_written(dx);
    kernels::nll_backward(dx.data() + 1, &dy, 0, plain, 1);
    check_written(dx);
    kernels::nll_forward(loss.data() + 1, log_p.data(), targets);
    check_written(loss);
  }
}

TEST_CASE_TEMPLATE("logits far from zero and huge ones give finite, right losses", T, float,
                   double) {
  const Tensor<std::int64_t> label({1}, {1});
  const auto loss = [&](std::initializer_list<T> logits, T expected) {
    const Variable<T> x(Tensor<T>({1, 3}, logits), true);
    const Variable<T> y = cross_entropy(x, label);
    y.backward();
    CHECK(y.item() == doctest::Approx(expected).epsilon(1e-6));
    for (const T value : x.grad().values()) CHECK(std::isfinite(value));
  };
  loss({10000, 10000, 10000}, static_cast<T>(std::log(3.)));
  loss({10001, 10000, 10000}, static_cast<T>(std::log(2 + std::exp(1.))));
  loss({0, T(1e30), 0}, 0);
  loss({0, T(-1e30), 0}, T(1e30));
  const auto infinity = std::numeric_limits<T>::infinity();
  const Variable<T> masked(Tensor<T>({1, 3}, {0, 0, -infinity}), true);
  CHECK(cross_entropy(masked, label).item() == doctest::Approx(std::log(2.)));

  const auto binary = [](T x, T target) {
    const Variable<T> logit(Tensor<T>({1}, {x}), true);
    const Variable<T> y = binary_cross_entropy_with_logits(logit, Tensor<T>({1}, {target}));
    y.backward();
    return std::pair{static_cast<double>(y.item()), static_cast<double>(logit.grad()[0])};
  };
  CHECK(binary(T(1e30), 0) == std::pair{static_cast<double>(T(1e30)), 1.0});
  CHECK(binary(T(1e30), 1) == std::pair{0.0, 0.0});
  CHECK(binary(T(-1e30), 1) == std::pair{static_cast<double>(T(1e30)), -1.0});
  CHECK(binary(20, 1).first == doctest::Approx(std::log1p(std::exp(-20.))).epsilon(1e-6));
  CHECK(binary(20, 1).second == doctest::Approx(-1 / (1 + std::exp(20.))).epsilon(1e-6));
  CHECK(binary(-40, 0).first == doctest::Approx(std::exp(-40.)).epsilon(1e-6));
  CHECK(binary(infinity, 1) == std::pair{0.0, 0.0});
  CHECK(binary(-infinity, 0) == std::pair{0.0, 0.0});
  CHECK(binary(infinity, 0) == std::pair{static_cast<double>(infinity), 1.0});
  CHECK(std::isnan(binary(std::numeric_limits<T>::quiet_NaN(), 1).first));
}

TEST_CASE("a mean over nothing but ignored labels is NaN, its gradient zero") {
  for (const Shape& shape : {Shape{2, 3}, Shape{2, 3, 4}}) {
    const auto x = leaf<float>(shape), log_p = leaf<float>(shape);
    const auto labels = Tensor<std::int64_t>::full(without_classes(shape), -100);
    const Variable<float> loss = cross_entropy(x, labels, {.label_smoothing = 0.1});
    const Variable<float> nll = nll_loss(log_p, labels);
    CHECK(std::isnan(loss.item()));
    CHECK(std::isnan(nll.item()));
    loss.backward();
    nll.backward();
    for (const float value : x.grad().values()) CHECK(value == 0);
    for (const float value : log_p.grad().values()) CHECK(value == 0);
  }
  // The smoothed target's share of the other class alone would be infinite.
  CHECK(std::isnan(cross_entropy(leaf<float>({2, 2}), Tensor<std::int64_t>::zeros({2}),
                                 {.label_smoothing = 0.1, .weight = Tensor<float>({2}, {0, 1})})
                       .item()));
}

TEST_CASE("the mean of many small losses is exact to the last digits") {
  const Index count = 1 << 20;
  const Variable<float> x(Tensor<float>::full({count}, 0.1F));
  const auto target = Tensor<float>::zeros({count});
  CHECK(mse_loss(x, target).item() == doctest::Approx(0.01).epsilon(2e-7));
  CHECK(mse_loss(x, target, {.reduction = Reduction::sum}).item() ==
        doctest::Approx(0.01 * count).epsilon(2e-7));
}

TEST_CASE("gradients agree with finite differences") {
  for (const Reference& r : references) {
    CAPTURE(static_cast<int>(r.kind));
    CAPTURE(r.shape.str());
    if (std::isnan(r.loss[0])) continue;
    const auto result = testing::gradcheck([&](const auto& in) { return loss_of(r, in[0]); },
                                           {leaf<double>(r.shape)});
    CHECK_MESSAGE(result, result.message);
  }
  const auto both = testing::gradcheck([](const auto& in) { return mse_loss(in[0], in[1]); },
                                       {leaf<double>({3, 5}), leaf<double>({3, 5}, 2, 9)});
  CHECK_MESSAGE(both, both.message);
}

TEST_CASE("results have the same bits with 1, 2 and 4 threads") {
  const Shape shape{60, 30, 31};
  const auto labels = random_labels({60, 31}, 30, true);
  const auto run = [&](int threads) {
    set_num_threads(threads);
    const auto x = leaf<float>(shape);
    const Variable<float> loss = cross_entropy(x, labels, {.label_smoothing = 0.1});
    loss.backward();
    const auto z = leaf<float>(shape);
    const Variable<float> squares = mse_loss(z, Tensor<float>::zeros(shape));
    squares.backward();
    return std::vector{loss.value(), x.grad(), squares.value(), z.grad()};
  };
  const auto expected = run(1);
  for (const int threads : {2, 4}) {
    const auto results = run(threads);
    for (std::size_t i = 0; i < expected.size(); ++i)
      CHECK(testing::same_bits(results[i], expected[i]));
  }
  set_num_threads(0);
}

TEST_CASE("errors say what is wrong") {
  const auto x = leaf<float>({4, 10}), image = leaf<float>({2, 3, 5, 6});
  auto labels = Tensor<std::int64_t>::zeros({4});
  CHECK_THROWS_WITH_AS(
      cross_entropy(x, Tensor<std::int64_t>::zeros({5})),
      "cross_entropy: labels have shape [5]; an input of shape [4, 10] needs labels of "
      "shape [4], without the axis of the classes",
      ShapeError);
  CHECK_THROWS_WITH_AS(
      nll_loss(image, Tensor<std::int64_t>::zeros({2, 3, 5, 6})),
      "nll_loss: labels have shape [2, 3, 5, 6]; an input of shape [2, 3, 5, 6] needs "
      "labels of shape [2, 5, 6], without the axis of the classes",
      ShapeError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, labels, {.weight = Tensor<float>::ones({9})}),
                       "cross_entropy: weight has shape [9], expected [10], one number per class",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      cross_entropy(x, Tensor<float>::ones({4, 10}), {.weight = Tensor<float>::ones({9})}),
      "cross_entropy: weight has shape [9], expected [10], one number per class", ShapeError);
  CHECK_THROWS_WITH_AS(cross_entropy(Variable<float>(Tensor<float>::scalar(1)), labels),
                       "cross_entropy: a scalar has no classes; expected [N, C, ...] or [C]",
                       ShapeError);
  for (const std::int64_t wrong : {10, -1, -100}) {
    labels[2] = wrong;
    CHECK_THROWS_WITH_AS(cross_entropy(x, labels, {.ignore_index = 255}),
                         text("cross_entropy: label 2 is ", wrong,
                              "; with 10 classes, labels are 0 to 9 (or 255, which is ignored)")
                             .c_str(),
                         Error);
  }
  labels[2] = 0;
  CHECK_THROWS_WITH_AS(cross_entropy(x, labels, {.label_smoothing = 1.5}),
                       "cross_entropy: label_smoothing 1.5 must lie in [0, 1]", Error);
  CHECK_THROWS_WITH_AS(cross_entropy(x, Tensor<float>::ones({4, 10}), {.label_smoothing = -0.5}),
                       "cross_entropy: label_smoothing -0.5 must lie in [0, 1]", Error);
  CHECK_THROWS_WITH_AS(
      cross_entropy(x, Tensor<float>::ones({4, 9})),
      "cross_entropy: probabilities have shape [4, 9], expected that of the logits, "
      "[4, 10]",
      ShapeError);
  CHECK_THROWS_WITH_AS(mse_loss(x, Tensor<float>::ones({4})),
                       "mse_loss: x has shape [4, 10], target has shape [4]; they must be equal",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      binary_cross_entropy_with_logits(x, Tensor<float>::ones({10})),
      "binary_cross_entropy_with_logits: x has shape [4, 10], target has shape [10]; "
      "they must be equal",
      ShapeError);
  CHECK_THROWS_WITH_AS(
      binary_cross_entropy_with_logits(x, Tensor<float>::ones({4, 10}),
                                       {.weight = Tensor<float>::ones({2, 4, 10})}),
      "binary_cross_entropy_with_logits: weight has shape [2, 4, 10], which cannot be repeated to "
      "[4, 10]",
      ShapeError);
  CHECK_THROWS_WITH_AS(
      binary_cross_entropy_with_logits(x, Tensor<float>::ones({4, 10}),
                                       {.pos_weight = Tensor<float>::ones({1, 1, 10})}),
      "binary_cross_entropy_with_logits: pos_weight has shape [1, 1, 10], which cannot be repeated "
      "to "
      "[4, 10]",
      ShapeError);
}

TEST_CASE("labels and class weights may be filled anew before the backward") {
  const auto gradient = [](bool refill, bool nll) {
    const Variable<double> x(Tensor<double>::normal({4, 3}, 0, 1, {5, 0, 0}), true);
    auto labels = Tensor<std::int64_t>::full({4}, 1);
    auto weight = Tensor<double>::full({3}, 2);
    weight[2] = 5;
    const auto loss = nll ? nll_loss(x, labels, {.weight = weight})
                          : cross_entropy(x, labels, {.weight = weight});
    if (refill) {
      labels.fill(2);
      weight.fill(7);
    }
    loss.backward();
    return x.grad();
  };
  for (const bool nll : {false, true})
    CHECK(testing::same_bits(gradient(true, nll), gradient(false, nll)));
}

TEST_CASE("so may other losses' targets and weights") {
  const auto gradient = [](bool refill, bool binary) {
    const Variable<double> x(Tensor<double>::normal({4, 3}, 0, 1, {5, 0, 0}), true);
    auto target = Tensor<double>::full({4, 3}, 0.25);
    auto weight = Tensor<double>::full({3}, 2), pos_weight = Tensor<double>::full({3}, 3);
    const auto loss = binary ? binary_cross_entropy_with_logits(
                                   x, target, {.weight = weight, .pos_weight = pos_weight})
                             : mse_loss(x, target);
    if (refill)
      for (auto* tensor : {&target, &weight, &pos_weight}) tensor->fill(1);
    loss.backward();
    return x.grad();
  };
  for (const bool binary : {false, true})
    CHECK(testing::same_bits(gradient(true, binary), gradient(false, binary)));
}

TEST_CASE("binary cross entropy keeps its digits far from the target's side") {
  for (const double logit : {-12.0, -17.0, -30.0}) {
    const Variable<float> x(Tensor<float>::full({1}, static_cast<float>(logit)));
    const double expected = std::log1p(std::exp(logit));
    CHECK(binary_cross_entropy_with_logits(x, Tensor<float>::zeros({1})).item() ==
          doctest::Approx(expected).epsilon(1e-5));
    const Variable<float> opposite(Tensor<float>::full({1}, static_cast<float>(-logit)));
    CHECK(binary_cross_entropy_with_logits(opposite, Tensor<float>::ones({1})).item() ==
          doctest::Approx(expected).epsilon(1e-5));
  }
}

TEST_CASE("undefined targets are refused, also for a scalar") {
  const Variable<float> x(Tensor<float>::scalar(3)), y(Tensor<float>::ones({3}));
  CHECK_THROWS_WITH_AS(binary_cross_entropy_with_logits(x, Tensor<float>()),
                       doctest::Contains("the target is undefined"), Error);
  CHECK_THROWS_WITH_AS(cross_entropy(y, Tensor<std::int64_t>()),
                       doctest::Contains("the labels are undefined"), Error);
}
