#pragma once
/// @file
/// The update rules of the optimisers and the norms of gradients: one pass over each parameter.
///
/// p is a parameter, dp its gradient. Every step changes p and its state in place and reads dp;
/// none of them may overlap. All are elementwise: in parallel over chunks of elements. State starts
/// as zeros.

#include <cmath>

#include "minnow/core/config.hpp"
#include "minnow/core/memory.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/core/simd.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

namespace detail {

/// Calls `update(load, store)` for every packet of [0, size), the last one shorter, where `load(x)`
/// and `store(x, value)` stand for this packet's elements of an array x.
template <class T, class Update>
void for_each_pack(Index size, Index cost, const Update& shared_update) {
  constexpr Index width = Pack<T>::width;
  parallel_chunks(size, cost, [&](Index begin, Index end) {
    const Update update = shared_update;  // a local copy, so that its constants stay in registers
    Index i = begin;
    for (; i + width <= end; i += width)
      update([i](const T* x) { return Pack<T>::load(x + i); },
             [i](T* x, Pack<T> value) { value.store(x + i); });
    if (const Index rest = end - i; rest > 0)
      update([i, rest](const T* x) { return Pack<T>::load(x + i, rest); },
             [i, rest](T* x, Pack<T> value) { value.store(x + i, rest); });
  });
}

}  // namespace detail

template <class T>
struct SgdStep {
  T lr, weight_decay, momentum;
  T gain;  ///< of the new gradient in the velocity: 1 - dampening, but 1 in the first step
  bool nesterov;
};

/// One step of gradient descent with momentum.
///
///     g = dp + weight_decay * p
///     v = momentum * v + gain * g
///     p = p - lr * (nesterov ? g + momentum * v : v)
///
/// p, dp: [size]; v: [size], or null for p = p - lr * g. Each element has a relative error of a few
/// rounding errors.
///
/// Paper: Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in
/// deep learning", ICML 2013; the velocity is free of lr, so that a new lr acts at once.
template <class T>
void sgd_step(T* p, T* v, const T* dp, Index size, const SgdStep<T>& step) {
  using P = Pack<T>;
  const P minus_lr(-step.lr), weight_decay(step.weight_decay), momentum(step.momentum),
      gain(step.gain);
  detail::for_each_pack<T>(size, 1, [=](const auto& load, const auto& store) {
    const P weight = load(p);
    P g = fma(weight_decay, weight, load(dp));
    if (v) {
      const P velocity = fma(momentum, load(v), gain * g);
      store(v, velocity);
      g = step.nesterov ? fma(momentum, velocity, g) : velocity;
    }
    store(p, fma(minus_lr, g, weight));
  });
}

template <class T>
struct AdamStep {
  T step_size;   ///< lr / (1 - beta1^t) in step number t
  T root_scale;  ///< 1 / sqrt(1 - beta2^t)
  T beta1, beta2, eps;
  T gain1, gain2;  ///< 1 - beta1 and 1 - beta2, rounded once
  T weight_decay;  ///< added to the gradient (Adam)
  T keep;          ///< what decoupled decay leaves of p: 1 - lr * weight_decay (AdamW)
};

/// One step of Adam or AdamW, with amsgrad where `largest` is given.
///
///     g = dp + weight_decay * p
///     m = beta1 * m + gain1 * g
///     s = beta2 * s + gain2 * g²
///     largest = max(largest, s)
///     p = keep * p - step_size * m / (root_scale * sqrt(largest or s) + eps)
///
/// p, m, s, dp: [size]; largest: [size] or null.
///
/// Papers: Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015; Loshchilov, Hutter,
/// "Decoupled weight decay regularization", ICLR 2019; Reddi, Kale, Kumar, "On the convergence of
/// Adam and beyond", ICLR 2018.
template <class T>
void adam_step(T* p, T* m, T* s, T* largest, const T* dp, Index size, const AdamStep<T>& step) {
  using P = Pack<T>;
  const P beta1(step.beta1), beta2(step.beta2), gain1(step.gain1), gain2(step.gain2), eps(step.eps);
  const P weight_decay(step.weight_decay), keep(step.keep), minus_step_size(-step.step_size);
  const P root_scale(step.root_scale);
  detail::for_each_pack<T>(size, 4, [=](const auto& load, const auto& store) {
    const P weight = load(p);
    const P g = fma(weight_decay, weight, load(dp));
    const P mean = fma(beta1, load(m), gain1 * g);
    P square = fma(beta2, load(s), gain2 * g * g);
    store(m, mean);
    store(s, square);
    if (largest) {
      square = max(load(largest), square);
      store(largest, square);
    }
    const P scale = fma(sqrt(square), root_scale, eps);
    store(p, fma(minus_step_size, mean / scale, keep * weight));
  });
}

template <class T>
struct RmspropStep {
  T lr, alpha, eps, weight_decay, momentum;
  T gain;  ///< 1 - alpha, rounded once
};

/// One step of RMSprop, centred where `mean` is given, with momentum where v is given.
///
///     g = dp + weight_decay * p
///     s = alpha * s + gain * g²
///     mean = alpha * mean + gain * g
///     u = g / (sqrt(s - mean²) + eps)
///     v = momentum * v + u
///     p = p - lr * (v or u)
///
/// p, s, dp: [size]; mean, v: [size] or null; without `mean` it counts as zero. The difference s -
/// mean² is a variance and never negative but by rounding, so negative values count as zero.
///
/// Papers: Hinton, Srivastava, Swersky, "Neural networks for machine learning", lecture 6, 2012;
/// Graves, "Generating sequences with recurrent neural networks", 2013, for the centred version.
template <class T>
void rmsprop_step(T* p, T* s, T* mean, T* v, const T* dp, Index size, const RmspropStep<T>& step) {
  using P = Pack<T>;
  const P minus_lr(-step.lr), alpha(step.alpha), gain(step.gain), eps(step.eps);
  const P weight_decay(step.weight_decay), momentum(step.momentum);
  detail::for_each_pack<T>(size, 4, [=](const auto& load, const auto& store) {
    const P weight = load(p);
    const P g = fma(weight_decay, weight, load(dp));
    P square = fma(alpha, load(s), gain * g * g);
    store(s, square);
    if (mean) {
      const P centre = fma(alpha, load(mean), gain * g);
      store(mean, centre);
      square = max(fma(-centre, centre, square), P::zero());
    }
    P update = g / (sqrt(square) + eps);
    if (v) {
      update = fma(momentum, load(v), update);
      store(v, update);
    }
    store(p, fma(minus_lr, update, weight));
  });
}

/// p = min(max(p, -limit), limit). p: [size]; NaN stays NaN.
template <class T>
void clamp(T* p, Index size, T limit) {
  const Pack<T> high(limit), low(-limit);
  detail::for_each_pack<T>(size, 1, [=](const auto& load, const auto& store) {
    const Pack<T> value = load(p);
    store(p, select_less(high, value, high, select_less(value, low, low, value)));
  });
}

/// p = factor * p. p: [size].
template <class T>
void scale(T* p, Index size, T factor) {
  const Pack<T> by(factor);
  detail::for_each_pack<T>(size, 1,
                           [=](const auto& load, const auto& store) { store(p, by * load(p)); });
}

namespace detail {

/// Folds term(x[i]) by `combine`, in double: chunks of fixed size with eight partial results each.
template <class T, class Combine, class Term>
double fold_terms(const T* x, Index size, Index cost, const Combine& combine, const Term& term) {
  constexpr Index lanes = 8;
  const Chunks chunks = make_chunks(size, cost);
  const Scratch<double> partial(chunks.count);
  parallel_for(chunks, [&](Index chunk) {
    const Index end = chunks.end(chunk);
    double folded[lanes] = {};
    Index i = chunks.begin(chunk);
    for (; i + lanes <= end; i += lanes)
      for (Index j = 0; j < lanes; ++j)
        folded[j] = combine(folded[j], term(static_cast<double>(x[i + j])));
    for (; i < end; ++i) folded[0] = combine(folded[0], term(static_cast<double>(x[i])));
    double result = 0;
    for (const double lane : folded) result = combine(result, lane);
    partial.data()[chunk] = result;
  });
  double result = 0;
  for (Index chunk = 0; chunk < chunks.count; ++chunk)
    result = combine(result, partial.data()[chunk]);
  return result;
}

}  // namespace detail

/// Σ |x|^power, or the largest |x| for an infinite power, in double whatever T.
///
/// x: [size]. The relative error is below (size / 8 + 80) * 2^-53 and the bits do not depend on the
/// number of threads. NaN anywhere gives NaN. In parallel over chunks of elements.
template <class T>
double sum_abs_power(const T* x, Index size, double power) {
  const auto add = [](double a, double b) { return a + b; };
  const auto absolute = [](double value) { return std::abs(value); };
  if (power == 2)
    return detail::fold_terms(x, size, 1, add, [](double value) { return value * value; });
  if (power == 1) return detail::fold_terms(x, size, 1, add, absolute);
  if (std::isinf(power))
    return detail::fold_terms(
        x, size, 1, [](double a, double b) { return b <= a || a != a ? a : b; }, absolute);
  return detail::fold_terms(x, size, 8, add,
                            [power](double value) { return std::pow(std::abs(value), power); });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
