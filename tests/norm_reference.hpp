#pragma once
/// @file
/// Normalisation by its definition, in double, for the tests of all normalisation layers.

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "error_of.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/testing/compare.hpp"
#include "minnow/testing/composed.hpp"

namespace norm_reference {

using namespace minnow;

/// Memory at an odd address, full of NaN, with guards that show whether anything else was written.
template <class T>
class Guarded {
 public:
  explicit Guarded(Index size) : numbers_(static_cast<std::size_t>(size) + 2 * guard, nan()) {}
  explicit Guarded(const Tensor<T>& values) : Guarded(values.size()) {
    std::copy_n(values.data(), values.size(), data());
  }
  ~Guarded() {
    for (std::size_t i = 0; i < guard; ++i) {
      CHECK(std::isnan(numbers_[i]));
      CHECK(std::isnan(numbers_[numbers_.size() - 1 - i]));
    }
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() { return numbers_.data() + guard; }
  Tensor<T> tensor() {
    const auto size = static_cast<Index>(numbers_.size() - 2 * guard);
    return Tensor<T>(Shape{size}, std::span<const T>(data(), static_cast<std::size_t>(size)));
  }

 private:
  static constexpr std::size_t guard = 17;
  static T nan() { return std::numeric_limits<T>::quiet_NaN(); }
  std::vector<T> numbers_;
};

/// What belongs together: element i is normalised within set `set_of(i)` and scaled by parameter
/// `param_of(i)`.
struct Layout {
  Index size, sets, params;
  std::function<Index(Index)> set_of, param_of;
};

/// The layout of a normalisation over channels of [n, c, hw].
inline Layout batch_layout(Index n, Index c, Index hw) {
  const auto channel = [=](Index i) { return i / hw % c; };
  return {n * c * hw, c, c, channel, channel};
}
inline Layout group_layout(Index n, Index c, Index hw, Index groups) {
  return {n * c * hw, n * groups, c, [=](Index i) { return i / (hw * (c / groups)); },
          [=](Index i) { return i / hw % c; }};
}
inline Layout row_layout(Index rows, Index cols) {
  return {rows * cols, rows, cols, [=](Index i) { return i / cols; },
          [=](Index i) { return i % cols; }};
}

/// Everything there is to know about one normalisation, forward and backward.
struct Result {
  Tensor<double> y, mean, variance, rstd, dx, dgamma, dbeta;
};

/// gamma and beta may be undefined. With `centered` false the mean counts as zero (RMS
/// normalisation).
template <class T>
Result reference(const Layout& layout, const Tensor<T>& x, const Tensor<T>& dy,
                 const Tensor<T>& gamma, const Tensor<T>& beta, double eps, bool centered = true) {
  const auto zeros = [](Index size) { return Tensor<double>::zeros({size}); };
  const auto at = [](const Tensor<T>& tensor, Index i) { return static_cast<double>(tensor[i]); };
  const Index size = layout.size, sets = layout.sets;
  Result r{zeros(size), zeros(sets),          zeros(sets),         zeros(sets),
           zeros(size), zeros(layout.params), zeros(layout.params)};
  auto count = zeros(sets), xhat = zeros(size), dxhat = zeros(size);
  auto mean_dxhat = zeros(sets), mean_dxhat_xhat = zeros(sets);
  for (Index i = 0; i < size; ++i) count[layout.set_of(i)] += 1;
  if (centered)
    for (Index i = 0; i < size; ++i) r.mean[layout.set_of(i)] += at(x, i) / count[layout.set_of(i)];
  for (Index i = 0; i < size; ++i) {
    const Index s = layout.set_of(i);
    r.variance[s] += (at(x, i) - r.mean[s]) * (at(x, i) - r.mean[s]) / count[s];
  }
  for (Index s = 0; s < sets; ++s) r.rstd[s] = 1 / std::sqrt(r.variance[s] + eps);
  for (Index i = 0; i < size; ++i) {
    const Index s = layout.set_of(i), p = layout.param_of(i);
    const double scale = gamma.defined() ? at(gamma, p) : 1,
                 shift = beta.defined() ? at(beta, p) : 0;
    xhat[i] = (at(x, i) - r.mean[s]) * r.rstd[s];
    r.y[i] = xhat[i] * scale + shift;
    dxhat[i] = at(dy, i) * scale;
    r.dgamma[p] += at(dy, i) * xhat[i];
    r.dbeta[p] += at(dy, i);
    if (centered) mean_dxhat[s] += dxhat[i] / count[s];
    mean_dxhat_xhat[s] += dxhat[i] * xhat[i] / count[s];
  }
  for (Index i = 0; i < size; ++i) {
    const Index s = layout.set_of(i);
    r.dx[i] = r.rstd[s] * (dxhat[i] - mean_dxhat[s] - xhat[i] * mean_dxhat_xhat[s]);
  }
  return r;
}

/// Random numbers that are neither centred nor of unit size.
template <class T>
Tensor<T> numbers(Index size, std::uint32_t stream, double mean = 0.5, double deviation = 2) {
  return Tensor<T>::normal({size}, static_cast<T>(mean), static_cast<T>(deviation), {7, stream, 0});
}

/// The error a sum of moderate numbers may have in `T`.
template <class T>
constexpr double tolerance() {
  return std::is_same_v<T, float> ? 3e-5 : 1e-12;
}

/// Calls `compute` with 1, 2 and 4 threads; all results must have the same bits.
template <class T>
void check_same_bits(const std::function<std::vector<Tensor<T>>()>& compute) {
  set_num_threads(1);
  const std::vector<Tensor<T>> expected = compute();
  for (const int threads : {2, 4}) {
    set_num_threads(threads);
    const std::vector<Tensor<T>> actual = compute();
    for (std::size_t i = 0; i < expected.size(); ++i)
      CHECK(minnow::testing::same_bits(actual[i], expected[i]));
  }
  set_num_threads(0);
}

/// Values and all gradients of a fused function and its composition from plain operations must
/// agree, for x of this shape and parameters gamma and beta of that one. Both take {x, gamma,
/// beta}.
template <class T, class Fused, class Composed>
void check_agreement(const Shape& shape, const Shape& parameters, const Fused& fused,
                     const Composed& composed) {
  const auto dy = numbers<T>(shape.size(), 9).reshape(shape);
  const auto run = [&](const auto& f) {
    std::vector<Variable<T>> in{{numbers<T>(shape.size(), 1).reshape(shape), true},
                                {numbers<T>(parameters.size(), 2).reshape(parameters), true},
                                {numbers<T>(parameters.size(), 3).reshape(parameters), true}};
    const Variable<T> y = f(in);
    y.backward(dy);
    return std::vector{y.value(), in[0].grad(), in[1].grad(), in[2].grad()};
  };
  const auto actual = run(fused), expected = run(composed);
  const double rows = static_cast<double>(shape.size() / parameters.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (!expected[i].defined()) continue;  // a layer without beta
    const double scale = i < 2 ? 10 : 10 * std::sqrt(rows);
    CHECK(minnow::testing::compare(actual[i], expected[i], tolerance<T>(), tolerance<T>() * scale));
  }
}

using minnow_test::error_of;

}  // namespace norm_reference
