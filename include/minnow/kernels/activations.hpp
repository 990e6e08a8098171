#pragma once
/// @file
/// Activation functions as small functors on packs; `map` of kernels/elementwise.hpp runs them over
/// arrays: `map(f.forward, y, ...)` and `map(f.backward, dx, ...)`.

#include <numbers>

#include "minnow/core/simd_math.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// s = 1 / (1 + exp(-x)) and rest = 1 - s, each with all its digits however close to 0 it is.
template <class V>
struct Logistic {
  V s, rest;
};

/// The exponential is taken of -|x|, so it never overflows.
template <class V>
MINNOW_INLINE Logistic<V> logistic(V x) {
  const V z = exp(-abs(x)), larger = V(1) / (V(1) + z), smaller = z * larger;
  return {select_less(x, V::zero(), smaller, larger), select_less(x, V::zero(), larger, smaller)};
}

/// log(1 + exp(x)), with the relative accuracy of exp also where it is tiny: the rounding error of
/// u = 1 + z is a small shift of z, which log(u) and u - 1 share.
template <class V>
MINNOW_INLINE V softplus(V x) {
  const V z = exp(-abs(x)), u = V(1) + z;
  const V small = select_equal(u, V(1), z, log(u) * z / (u - V(1)));
  return select_less(V::zero(), x, x, V::zero()) + small;
}

/// exp(x) - 1 for x <= 0, with the relative accuracy of exp also near 0. The rounding error of u =
/// exp(x) is a small shift of x, which u - 1 and log(u) share.
///
/// Method: Kahan, in Higham, "Accuracy and Stability of Numerical Algorithms", section 1.14.1.
template <class V>
MINNOW_INLINE V expm1_of_negative(V x) {
  const V u = exp(x), difference = u - V(1);
  const V result = select_equal(u, V(1), x, difference * x / log(u));
  return select_equal(difference, V(-1), V(-1), result);
}

// Each functor has
//   forward(x)           the value
//   backward(saved, dy)  dy times the derivative, where saved is y if keeps_output(), else x.
// Saving y where the derivative can be had from it shares the memory that the next layer keeps
// anyway. Errors are bounded in tests/activations_test.cpp: within 4e-7 (float) of double's value,
// relative to max(1, |value|); NaN gives NaN.

/// y = max(x, 0); dx = dy where y > 0. A NaN stays one.
struct Relu {
  static constexpr bool keeps_output() { return true; }
  template <class V>
  MINNOW_INLINE V forward(V x) const {
    return select_less(x, V::zero(), V::zero(), x);
  }
  template <class V>
  MINNOW_INLINE V backward(V y, V dy) const {
    return select_less_equal(y, V::zero(), V::zero(), dy);
  }
};

/// y = x where x > 0, slope * x elsewhere; dx = dy or slope * dy.
template <class T>
struct LeakyRelu {
  T slope;

  /// y has the sign of x unless the slope is negative.
  constexpr bool keeps_output() const { return slope >= 0; }
  template <class V>
  MINNOW_INLINE V forward(V x) const {
    return select_less(V::zero(), x, x, V(slope) * x);
  }
  template <class V>
  MINNOW_INLINE V backward(V saved, V dy) const {
    return select_less(V::zero(), saved, dy, V(slope) * dy);
  }
};

/// y = x where x > 0, alpha * (exp(x) - 1) elsewhere; dx = dy, or dy * alpha * exp(x), taken from x
/// because y + alpha has no correct digit left where y is near -alpha.
///
/// Paper: Clevert, Unterthiner, Hochreiter, "Fast and accurate deep network learning by exponential
/// linear units", ICLR 2016.
template <class T>
struct Elu {
  T alpha;

  static constexpr bool keeps_output() { return false; }
  template <class V>
  MINNOW_INLINE V forward(V x) const {
    return select_less(V::zero(), x, x, V(alpha) * expm1_of_negative(x));
  }
  template <class V>
  MINNOW_INLINE V backward(V x, V dy) const {
    return select_less(V::zero(), x, dy, dy * V(alpha) * exp(x));
  }
};

/// y = x * P(x), P the distribution function of the normal distribution, p its density;
/// dx = dy * (P(x) + x * p(x)).
///
/// Paper: Hendrycks, Gimpel, "Gaussian error linear units", 2016.
struct Gelu {
  static constexpr bool keeps_output() { return false; }
  template <class V>
  MINNOW_INLINE V forward(V x) const {
    return x * distribution(x);
  }
  template <class V>
  MINNOW_INLINE V backward(V x, V dy) const {
    using T = typename V::value_type;
    constexpr T scale = std::numbers::inv_sqrtpi_v<T> / std::numbers::sqrt2_v<T>;
    const V density = V(scale) * exp(V(T(-0.5)) * x * x);
    return dy * fma(x, density, distribution(x));
  }

 private:
  template <class V>
  MINNOW_INLINE static V distribution(V x) {
    using T = typename V::value_type;
    if constexpr (V::width > 1 && sizeof(T) == 4) {
      // With z = |x| / sqrt(2) and t = 1 / (1 + z / 2): erfc(z) = t * h(t) * exp(-z^2), h a
      // polynomial fitted for the least relative error, 1e-8. Taken from the tail, it keeps its
      // digits there.
      constexpr float h[] = {0.04244803904f, -0.2313127702f, 0.4870950383f,  -0.4479891346f,
                             0.1277552737f,  -0.0574974666f, 0.09306197924f, 0.1753694892f,
                             0.2468808871f,  0.2820938597f,  0.2820947947f};
      const V z = abs(x) * V(1 / std::numbers::sqrt2_v<T>), t = V(1) / fma(z, V(0.5f), V(1));
      V sum(h[0]);
      MINNOW_UNROLL
      for (int i = 1; i < 11; ++i) sum = fma(sum, t, V(h[i]));
      const V tail = V(0.5f) * t * sum * exp(-(z * z));
      return select_less(x, V::zero(), tail, V(1) - tail);
    } else {
      return V(T(0.5)) * (V(1) + erf(x * V(1 / std::numbers::sqrt2_v<T>)));
    }
  }
};

/// The same with P(x) replaced by (1 + tanh(u)) / 2 = s = 1 / (1 + exp(-2u)), u = sqrt(2 / pi) * (x
/// + 0.044715 x^3); dx = dy * s * (1 + x * (1 - s) * 2u'). The sigmoid keeps its digits where 1 +
/// tanh(u) loses them.
struct GeluTanh {
  static constexpr bool keeps_output() { return false; }
  template <class V>
  MINNOW_INLINE V forward(V x) const {
    return x * gate(x).s;
  }
  template <class V>
  MINNOW_INLINE V backward(V x, V dy) const {
    // Beyond 16, s is 0 or 1 to the last bit; the square of a large x would make 0 * infinity of
    // the rest.
    x = max(min(x, V(16)), V(-16));
    const auto [s, rest] = gate(x);
    return dy * s * fma(x * rest, V(factor<V>) * fma(V(3 * cubic<V>) * x, x, V(1)), V(1));
  }

 private:
  template <class V>
  static constexpr auto cubic = typename V::value_type(0.044715);
  template <class V>
  static constexpr auto factor = typename V::value_type(1.5957691216057307117);  // 2 sqrt(2 / pi)

  template <class V>
  MINNOW_INLINE static Logistic<V> gate(V x) {
    return logistic(V(factor<V>) * x * fma(V(cubic<V>) * x, x, V(1)));
  }
};

/// y = x * s, s = 1 / (1 + exp(-x)); dx = dy * s * (1 + x * (1 - s)).
struct Silu {
  static constexpr bool keeps_output() { return false; }
  template <class V>
  MINNOW_INLINE V forward(V x) const {
    return x * logistic(x).s;
  }
  template <class V>
  MINNOW_INLINE V backward(V x, V dy) const {
    const auto [s, rest] = logistic(x);
    return dy * s * fma(x, rest, V(1));
  }
};

/// y = 1 / (1 + exp(-x)); dx = dy * y * (1 - y).
struct Sigmoid {
  static constexpr bool keeps_output() { return true; }
  template <class V>
  MINNOW_INLINE V forward(V x) const {
    return logistic(x).s;
  }
  template <class V>
  MINNOW_INLINE V backward(V y, V dy) const {
    return dy * y * (V(1) - y);
  }
};

/// y = tanh(x); dx = dy * (1 - y^2).
struct Tanh {
  static constexpr bool keeps_output() { return true; }
  template <class V>
  MINNOW_INLINE V forward(V x) const {
    return tanh(x);
  }
  template <class V>
  MINNOW_INLINE V backward(V y, V dy) const {
    return dy * (V(1) - y * y);
  }
};

}  // namespace minnow::inline MINNOW_ABI::kernels
