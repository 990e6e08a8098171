#pragma once
/// @file
/// Differentiable functions that act on each element: arithmetic, exp, log, sqrt, pow, abs, ...
///
/// Operands of different shapes are repeated to fit each other as in NumPy: shapes are aligned at
/// the last axis, and sizes must be equal or one of them 1.
///
/// Errors: ShapeError, with both shapes, where they do not fit.

#include <cmath>
#include <numbers>

#include "minnow/autograd.hpp"
#include "minnow/core/simd_math.hpp"
#include "minnow/ops/broadcast.hpp"

namespace minnow::inline MINNOW_ABI {

namespace detail {

/// y = f(x) with dx = df(dy, x, y), both functions of packs.
template <class T, class F, class DF>
Variable<T> unary(std::string_view name, const Variable<T>& x, Index cost, const F& f,
                  const DF& df) {
  const Tensor<T> in = x.value();
  const Tensor<T> out = map(cost, f, in);
  return record<T>(name, out, {x},
                   [=](const Tensor<T>& dy) { return std::vector{map(cost, df, dy, in, out)}; });
}

/// z = f(x, y) with dx = dfx(dz, x, y) and dy = dfy(dz, x, y).
template <class T, class F, class DFX, class DFY>
Variable<T> binary(std::string_view name, const Variable<T>& x, const Variable<T>& y, Index cost,
                   const F& f, const DFX& dfx, const DFY& dfy) {
  const Tensor<T> a = x.value(), b = y.value();
  const Shape shape = broadcast_shape(a.shape(), b.shape(), name);
  const bool need_x = x.requires_grad(), need_y = y.requires_grad();
  return record<T>(name, map_to(shape, cost, f, a, b), {x, y}, [=](const Tensor<T>& dz) {
    std::vector<Tensor<T>> gradients(2);
    if (need_x) gradients[0] = sum_to(map_to(shape, cost, dfx, dz, a, b), a.shape());
    if (need_y) gradients[1] = sum_to(map_to(shape, cost, dfy, dz, a, b), b.shape());
    return gradients;
  });
}

/// y = f(x) with dx = df(dy), both functions of tensors; x need not be kept.
template <class T, class F, class DF>
Variable<T> linear_unary(std::string_view name, const Variable<T>& x, const F& f, const DF& df) {
  return record<T>(name, f(x.value()), {x},
                   [=](const Tensor<T>& dy) { return std::vector<Tensor<T>>{df(dy)}; });
}

/// z = f(x, y) with dx = dz and dy = dfy(dz), summed where they were repeated.
template <class T, class F, class DFY>
Variable<T> linear_binary(std::string_view name, const Variable<T>& x, const Variable<T>& y,
                          const F& f, const DFY& dfy) {
  const Shape a = x.shape(), b = y.shape(), shape = broadcast_shape(a, b, name);
  const bool need_x = x.requires_grad(), need_y = y.requires_grad();
  return record<T>(name, map_to(shape, 1, f, x.value(), y.value()), {x, y},
                   [=](const Tensor<T>& dz) {
                     std::vector<Tensor<T>> gradients(2);
                     if (need_x) gradients[0] = sum_to(dz, a);
                     if (need_y) gradients[1] = dfy(sum_to(dz, b));
                     return gradients;
                   });
}

/// -x.
template <class T>
Tensor<T> negative(const Tensor<T>& x) {
  return map(
      1, [](Pack<T> a) { return -a; }, x);
}

/// A number next to a variable, converted to the variable's type.
template <class T>
using Scalar = std::type_identity_t<T>;

}  // namespace detail

template <class T>
Variable<T> operator+(const Variable<T>& x, const Variable<T>& y) {
  return detail::linear_binary(
      "add", x, y, [](Pack<T> a, Pack<T> b) { return a + b; },
      [](const Tensor<T>& dz) { return dz; });
}
template <class T>
Variable<T> operator-(const Variable<T>& x, const Variable<T>& y) {
  return detail::linear_binary(
      "sub", x, y, [](Pack<T> a, Pack<T> b) { return a - b; }, detail::negative<T>);
}
template <class T>
Variable<T> operator*(const Variable<T>& x, const Variable<T>& y) {
  return detail::binary(
      "mul", x, y, 1, [](Pack<T> a, Pack<T> b) { return a * b; },
      [](Pack<T> dz, Pack<T>, Pack<T> b) { return dz * b; },
      [](Pack<T> dz, Pack<T> a, Pack<T>) { return dz * a; });
}
template <class T>
Variable<T> operator/(const Variable<T>& x, const Variable<T>& y) {
  return detail::binary(
      "div", x, y, 2, [](Pack<T> a, Pack<T> b) { return a / b; },
      [](Pack<T> dz, Pack<T>, Pack<T> b) { return dz / b; },
      [](Pack<T> dz, Pack<T> a, Pack<T> b) { return -dz * (a / b / b); });
}
template <class T>
Variable<T> operator-(const Variable<T>& x) {
  return detail::linear_unary("neg", x, detail::negative<T>, detail::negative<T>);
}

template <class T>
Variable<T> operator+(const Variable<T>& x, detail::Scalar<T> s) {
  const auto add = [=](Pack<T> a) { return a + Pack<T>(s); };
  return detail::linear_unary(
      "add", x, [=](const Tensor<T>& a) { return detail::map(1, add, a); },
      [](const Tensor<T>& dy) { return dy; });
}
template <class T>
Variable<T> operator+(detail::Scalar<T> s, const Variable<T>& x) {
  return x + s;
}
template <class T>
Variable<T> operator-(const Variable<T>& x, detail::Scalar<T> s) {
  return x + (-s);
}
template <class T>
Variable<T> operator-(detail::Scalar<T> s, const Variable<T>& x) {
  const auto from = [=](Pack<T> a) { return Pack<T>(s) - a; };
  return detail::linear_unary(
      "sub", x, [=](const Tensor<T>& a) { return detail::map(1, from, a); }, detail::negative<T>);
}
template <class T>
Variable<T> operator*(const Variable<T>& x, detail::Scalar<T> s) {
  const auto times = [=](const Tensor<T>& a) {
    return detail::map(
        1, [=](Pack<T> v) { return v * Pack<T>(s); }, a);
  };
  return detail::linear_unary("mul", x, times, times);
}
template <class T>
Variable<T> operator*(detail::Scalar<T> s, const Variable<T>& x) {
  return x * s;
}
template <class T>
Variable<T> operator/(const Variable<T>& x, detail::Scalar<T> s) {
  return detail::unary(
      "div", x, 2, [=](Pack<T> a) { return a / Pack<T>(s); },
      [=](Pack<T> dy, Pack<T>, Pack<T>) { return dy / Pack<T>(s); });
}
template <class T>
Variable<T> operator/(detail::Scalar<T> s, const Variable<T>& x) {
  return detail::unary(
      "div", x, 2, [=](Pack<T> a) { return Pack<T>(s) / a; },
      [](Pack<T> dy, Pack<T> a, Pack<T> y) { return -dy * (y / a); });
}

template <class T>
Variable<T> exp(const Variable<T>& x) {
  return detail::unary(
      "exp", x, detail::function_cost, [](Pack<T> a) { return exp(a); },
      [](Pack<T> dy, Pack<T>, Pack<T> y) { return dy * y; });
}

/// The natural logarithm; -infinity at 0, NaN below.
template <class T>
Variable<T> log(const Variable<T>& x) {
  return detail::unary(
      "log", x, detail::function_cost, [](Pack<T> a) { return log(a); },
      [](Pack<T> dy, Pack<T> a, Pack<T>) { return dy / a; });
}

/// NaN below 0. The gradient at 0 is infinite.
template <class T>
Variable<T> sqrt(const Variable<T>& x) {
  return detail::unary(
      "sqrt", x, 2, [](Pack<T> a) { return sqrt(a); },
      [](Pack<T> dy, Pack<T>, Pack<T> y) { return dy / (y + y); });
}

/// The Gauss error function.
template <class T>
Variable<T> erf(const Variable<T>& x) {
  const T factor = 2 * std::numbers::inv_sqrtpi_v<T>;
  return detail::unary(
      "erf", x, 4 * detail::function_cost, [](Pack<T> a) { return erf(a); },
      [=](Pack<T> dy, Pack<T> a, Pack<T>) { return dy * Pack<T>(factor) * exp(-(a * a)); });
}

/// The gradient at 0 is 0.
template <class T>
Variable<T> abs(const Variable<T>& x) {
  return detail::unary(
      "abs", x, 1, [](Pack<T> a) { return abs(a); },
      [](Pack<T> dy, Pack<T> a, Pack<T>) {
        const auto zero = Pack<T>::zero();
        return select_less(a, zero, -dy, select_equal(a, zero, zero, dy));
      });
}

/// x to the power of a number, as std::pow: of a finite x below 0 it is NaN unless the exponent is
/// whole.
template <class T>
Variable<T> pow(const Variable<T>& x, detail::Scalar<T> exponent) {
  if (exponent == 2)
    return detail::unary(
        "pow", x, 1, [](Pack<T> a) { return a * a; },
        [](Pack<T> dy, Pack<T> a, Pack<T>) { return dy * (a + a); });
  // At exponent 0 the derivative is 0 everywhere, also where x^-1 is infinite.
  return detail::unary(
      "pow", x, 4 * detail::function_cost,
      [=](Pack<T> a) { return detail::by_lane(a, [=](T v) { return std::pow(v, exponent); }); },
      [=](Pack<T> dy, Pack<T> a, Pack<T>) {
        if (exponent == 0) return Pack<T>::zero();
        return dy * detail::by_lane(a, [=](T v) { return exponent * std::pow(v, exponent - 1); });
      });
}

/// The larger of both, NaN if one is NaN. Where they are equal each gets half of the gradient.
template <class T>
Variable<T> maximum(const Variable<T>& x, const Variable<T>& y) {
  const auto share = [](Pack<T> dz, Pack<T> mine, Pack<T> other) {
    return select_less(mine, other, Pack<T>::zero(),
                       select_equal(mine, other, dz * Pack<T>(T(0.5)), dz));
  };
  return detail::binary(
      "maximum", x, y, 1,
      [](Pack<T> a, Pack<T> b) { return select_equal(b, b, select_less(a, b, b, a), b); },
      [=](Pack<T> dz, Pack<T> a, Pack<T> b) { return share(dz, a, b); },
      [=](Pack<T> dz, Pack<T> a, Pack<T> b) { return share(dz, b, a); });
}

/// x, but at least `low` and at most `high`, which is the stronger where low is larger; NaN stays
/// NaN. The gradient is 0 where x was changed.
template <class T>
Variable<T> clamp(const Variable<T>& x, detail::Scalar<T> low, detail::Scalar<T> high) {
  using P = Pack<T>;
  return detail::unary(
      "clamp", x, 1,
      [=](P a) {
        const P raised = select_less(a, P(low), P(low), a);
        return select_less(P(high), raised, P(high), raised);
      },
      [=](P dy, P a, P) {
        return select_less(a, P(low), P::zero(), select_less(P(high), a, P::zero(), dy));
      });
}

}  // namespace minnow::inline MINNOW_ABI
