// Compiled twice: BENCH_NUMBER is Lane<float> (without the compiler's vectoriser) or Pack<float>.
#include "textbook.hpp"

#include <algorithm>
#include <cmath>

namespace bench {

namespace {

using One = Lane<float>;

/// f(V or One, i) at every whole pack of [0, count), then at every number that is left.
template <class V, class F>
void each(Index count, const F& f) {
  Index i = 0;
  for (; i + V::width <= count; i += V::width) f(V::zero(), i);
  for (; i < count; ++i) f(One::zero(), i);
}
/// The sum of f's results.
template <class V, class F>
float total(Index count, const F& f) {
  V sum = V::zero();
  One rest = One::zero();
  Index i = 0;
  for (; i + V::width <= count; i += V::width) sum += f(V::zero(), i);
  for (; i < count; ++i) rest += f(One::zero(), i);
  return minnow::sum(sum) + rest.raw;
}

/// y = (x - mean) * scale + shift
template <class V>
void normalize(float* y, const float* x, Index count, float mean, float scale, float shift) {
  each<V>(count, [=](auto v, Index i) {
    using P = decltype(v);
    fma(P::load(x + i) - P(mean), P(scale), P(shift)).store(y + i);
  });
}
template <class V>
float sum_of(const float* x, Index count) {
  return total<V>(count, [=](auto v, Index i) { return decltype(v)::load(x + i); });
}
template <class V>
float squares(const float* x, Index count, float mean) {
  return total<V>(count, [=](auto v, Index i) {
    using P = decltype(v);
    const P d = P::load(x + i) - P(mean);
    return d * d;
  });
}
/// sum dy * (x - mean)
template <class V>
float products(const float* dy, const float* x, Index count, float mean) {
  return total<V>(count, [=](auto v, Index i) {
    using P = decltype(v);
    return P::load(dy + i) * (P::load(x + i) - P(mean));
  });
}
/// dx = a * dy + b * (x - mean) + c
template <class V>
void combine(float* dx, const float* dy, const float* x, Index count, float mean, float a, float b,
             float c) {
  each<V>(count, [=](auto v, Index i) {
    using P = decltype(v);
    fma(P::load(dy + i), P(a), fma(P::load(x + i) - P(mean), P(b), P(c))).store(dx + i);
  });
}

}  // namespace

template <class V>
void Textbook<V>::batch_norm_forward(float* y, float* mean, float* rstd, const float* x,
                                     const float* gamma, const float* beta, Index n, Index c,
                                     Index hw, float eps) {
  const float m = static_cast<float>(n * hw);
  for (Index k = 0; k < c; ++k) {
    float sum = 0, deviations = 0;
    for (Index i = 0; i < n; ++i) sum += sum_of<V>(x + (i * c + k) * hw, hw);
    mean[k] = sum / m;
    for (Index i = 0; i < n; ++i) deviations += squares<V>(x + (i * c + k) * hw, hw, mean[k]);
    rstd[k] = 1 / std::sqrt(deviations / m + eps);
    for (Index i = 0; i < n; ++i)
      normalize<V>(y + (i * c + k) * hw, x + (i * c + k) * hw, hw, mean[k], rstd[k] * gamma[k],
                   beta[k]);
  }
}

template <class V>
void Textbook<V>::batch_norm_backward(float* dx, float* dgamma, float* dbeta, const float* dy,
                                      const float* x, const float* mean, const float* rstd,
                                      const float* gamma, Index n, Index c, Index hw) {
  const float m = static_cast<float>(n * hw);
  for (Index k = 0; k < c; ++k) {
    const float r = rstd[k];
    float sum = 0, dots = 0;
    for (Index i = 0; i < n; ++i) sum += sum_of<V>(dy + (i * c + k) * hw, hw);
    for (Index i = 0; i < n; ++i)
      dots += products<V>(dy + (i * c + k) * hw, x + (i * c + k) * hw, hw, mean[k]);
    dbeta[k] = sum;
    dgamma[k] = dots * r;
    for (Index i = 0; i < n; ++i)
      combine<V>(dx + (i * c + k) * hw, dy + (i * c + k) * hw, x + (i * c + k) * hw, hw, mean[k],
                 gamma[k] * r, -gamma[k] * r * r * dgamma[k] / m, -gamma[k] * r * sum / m);
  }
}

template <class V>
void Textbook<V>::group_norm_forward(float* y, float* mean, float* rstd, const float* x,
                                     const float* gamma, const float* beta, Index n, Index c,
                                     Index hw, Index groups, float eps) {
  const Index channels = c / groups, run = channels * hw;
  for (Index i = 0; i < n * groups; ++i) {
    const float* from = x + i * run;
    mean[i] = sum_of<V>(from, run) / static_cast<float>(run);
    rstd[i] = 1 / std::sqrt(squares<V>(from, run, mean[i]) / static_cast<float>(run) + eps);
    for (Index k = 0; k < channels; ++k) {
      const Index channel = i % groups * channels + k;
      normalize<V>(y + i * run + k * hw, from + k * hw, hw, mean[i], rstd[i] * gamma[channel],
                   beta[channel]);
    }
  }
}

template <class V>
void Textbook<V>::group_norm_backward(float* dx, float* dgamma, float* dbeta, const float* dy,
                                      const float* x, const float* mean, const float* rstd,
                                      const float* gamma, Index n, Index c, Index hw,
                                      Index groups) {
  const Index channels = c / groups, run = channels * hw;
  std::fill_n(dgamma, c, 0.f);
  std::fill_n(dbeta, c, 0.f);
  for (Index i = 0; i < n * groups; ++i) {
    const float r = rstd[i], m = static_cast<float>(run);
    float sum = 0, dots = 0;
    for (Index k = 0; k < channels; ++k) {
      const Index channel = i % groups * channels + k, at = i * run + k * hw;
      const float of_dy = sum_of<V>(dy + at, hw),
                  of_dot = products<V>(dy + at, x + at, hw, mean[i]);
      dbeta[channel] += of_dy;
      dgamma[channel] += of_dot * r;
      sum += gamma[channel] * of_dy;
      dots += gamma[channel] * of_dot;
    }
    for (Index k = 0; k < channels; ++k) {
      const Index channel = i % groups * channels + k, at = i * run + k * hw;
      combine<V>(dx + at, dy + at, x + at, hw, mean[i], gamma[channel] * r, -r * r * r * dots / m,
                 -r * sum / m);
    }
  }
}

template <class V>
void Textbook<V>::layer_norm_forward(float* y, float* mean, float* rstd, const float* x,
                                     const float* gamma, const float* beta, Index rows, Index cols,
                                     float eps) {
  const float m = static_cast<float>(cols);
  for (Index row = 0; row < rows; ++row) {
    const float* from = x + row * cols;
    float* to = y + row * cols;
    const float center = mean ? sum_of<V>(from, cols) / m : 0;
    const float r = 1 / std::sqrt(squares<V>(from, cols, center) / m + eps);
    if (mean) mean[row] = center;
    rstd[row] = r;
    each<V>(cols, [=](auto v, Index i) {
      using P = decltype(v);
      const P xhat = (P::load(from + i) - P(center)) * P(r);
      fma(xhat, P::load(gamma + i), beta ? P::load(beta + i) : P::zero()).store(to + i);
    });
  }
}

template <class V>
void Textbook<V>::layer_norm_backward(float* dx, float* dgamma, float* dbeta, const float* dy,
                                      const float* x, const float* mean, const float* rstd,
                                      const float* gamma, Index rows, Index cols) {
  const float m = static_cast<float>(cols);
  std::fill_n(dgamma, cols, 0.f);
  if (dbeta) std::fill_n(dbeta, cols, 0.f);
  for (Index row = 0; row < rows; ++row) {
    const float *g = dy + row * cols, *from = x + row * cols, center = mean ? mean[row] : 0;
    const float r = rstd[row];
    float* to = dx + row * cols;
    const auto dxhat = [=](auto v, Index i) {
      using P = decltype(v);
      return P::load(g + i) * P::load(gamma + i);
    };
    const auto xhat = [=](auto v, Index i) {
      using P = decltype(v);
      return (P::load(from + i) - P(center)) * P(r);
    };
    const float a = mean ? total<V>(cols, dxhat) / m : 0;
    const float b = total<V>(cols, [=](auto v, Index i) { return dxhat(v, i) * xhat(v, i); }) / m;
    each<V>(cols, [=](auto v, Index i) {
      using P = decltype(v);
      ((dxhat(v, i) - P(a) - xhat(v, i) * P(b)) * P(r)).store(to + i);
      fma(P::load(g + i), xhat(v, i), P::load(dgamma + i)).store(dgamma + i);
      if (dbeta) (P::load(g + i) + P::load(dbeta + i)).store(dbeta + i);
    });
  }
}

namespace {

/// f(row of x, row of y, their first columns, columns, weight) for every tap of every pair of rows.
template <class F>
void for_rows(const kernels::Conv2dSizes& s, const F& f) {
  for (Index n = 0; n < s.n; ++n)
    for (Index k = 0; k < s.k; ++k)
      for (Index of_group = 0; of_group < s.group_c(); ++of_group)
        for (Index a = 0; a < s.kernel.h; ++a)
          for (Index b = 0; b < s.kernel.w; ++b) {
            const Index c = k / s.group_k() * s.group_c() + of_group;
            const Index first = std::max<Index>(0, s.padding.w - b);
            const Index last = std::min(s.ow(), s.w + s.padding.w - b);
            const Index tap = ((k * s.group_c() + of_group) * s.kernel.h + a) * s.kernel.w + b;
            for (Index i = 0; i < s.oh(); ++i) {
              const Index h = i + a - s.padding.h;
              if (h < 0 || h >= s.h) continue;
              f(((n * s.c + c) * s.h + h) * s.w + first + b - s.padding.w,
                ((n * s.k + k) * s.oh() + i) * s.ow() + first, last - first, tap);
            }
          }
}

/// y += factor * x
template <class V>
void add_scaled(float* y, const float* x, float factor, Index count) {
  each<V>(count, [=](auto v, Index i) {
    using P = decltype(v);
    fma(P(factor), P::load(x + i), P::load(y + i)).store(y + i);
  });
}
template <class V>
float dot(const float* x, const float* y, Index count) {
  return total<V>(count, [=](auto v, Index i) {
    using P = decltype(v);
    return P::load(x + i) * P::load(y + i);
  });
}

}  // namespace

template <class V>
void Textbook<V>::conv2d_forward(float* y, const float* x, const float* weight,
                                 const kernels::Conv2dSizes& s) {
  std::fill_n(y, s.n * s.k * s.oh() * s.ow(), 0.f);
  for_rows(s, [=](Index from, Index to, Index count, Index tap) {
    add_scaled<V>(y + to, x + from, weight[tap], count);
  });
}
template <class V>
void Textbook<V>::conv2d_backward_data(float* dx, const float* dy, const float* weight,
                                       const kernels::Conv2dSizes& s) {
  std::fill_n(dx, s.n * s.c * s.h * s.w, 0.f);
  for_rows(s, [=](Index to, Index from, Index count, Index tap) {
    add_scaled<V>(dx + to, dy + from, weight[tap], count);
  });
}
template <class V>
void Textbook<V>::conv2d_backward_weight(float* dweight, const float* dy, const float* x,
                                         const kernels::Conv2dSizes& s) {
  std::fill_n(dweight, s.k * s.terms(), 0.f);
  for_rows(s, [=](Index of_x, Index of_dy, Index count, Index tap) {
    dweight[tap] += dot<V>(x + of_x, dy + of_dy, count);
  });
}

template <class V>
void Textbook<V>::linear_forward(float* y, const float* x, const float* weight, const float* bias,
                                 Index n, Index in, Index out) {
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < out; ++o)
      y[i * out + o] = bias[o] + dot<V>(x + i * in, weight + o * in, in);
}
template <class V>
void Textbook<V>::linear_backward(float* dx, float* dweight, float* dbias, const float* dy,
                                  const float* x, const float* weight, Index n, Index in,
                                  Index out) {
  std::fill_n(dx, n * in, 0.f);
  std::fill_n(dweight, in * out, 0.f);
  std::fill_n(dbias, out, 0.f);
  for (Index i = 0; i < n; ++i)
    for (Index o = 0; o < out; ++o) {
      const float g = dy[i * out + o];
      add_scaled<V>(dx + i * in, weight + o * in, g, in);
      add_scaled<V>(dweight + o * in, x + i * in, g, in);
      dbias[o] += g;
    }
}

namespace {

/// f(window, its corner in x) for all windows.
template <class F>
void for_windows(Index planes, Index h, Index w, Index kernel, const F& f) {
  Index out = 0;
  for (Index p = 0; p < planes; ++p)
    for (Index i = 0; i + kernel <= h; i += kernel)
      for (Index j = 0; j + kernel <= w; j += kernel) f(out++, (p * h + i) * w + j);
}

}  // namespace

template <class V>
void Textbook<V>::max_pool2d_forward(float* y, const float* x, Index planes, Index h, Index w,
                                     Index kernel) {
  for_windows(planes, h, w, kernel, [=](Index out, Index corner) {
    y[out] = x[corner];
    for (Index a = 0; a < kernel; ++a)
      for (Index b = 0; b < kernel; ++b) y[out] = std::max(y[out], x[corner + a * w + b]);
  });
}
template <class V>
void Textbook<V>::max_pool2d_backward(float* dx, const float* dy, const float* x, Index planes,
                                      Index h, Index w, Index kernel) {
  std::fill_n(dx, planes * h * w, 0.f);
  for_windows(planes, h, w, kernel, [=](Index out, Index corner) {
    Index best = corner;
    for (Index a = 0; a < kernel; ++a)
      for (Index b = 0; b < kernel; ++b)
        if (x[corner + a * w + b] > x[best]) best = corner + a * w + b;
    dx[best] += dy[out];
  });
}
template <class V>
void Textbook<V>::avg_pool2d_forward(float* y, const float* x, Index planes, Index h, Index w,
                                     Index kernel) {
  for_windows(planes, h, w, kernel, [=](Index out, Index corner) {
    float sum = 0;
    for (Index a = 0; a < kernel; ++a)
      for (Index b = 0; b < kernel; ++b) sum += x[corner + a * w + b];
    y[out] = sum / static_cast<float>(kernel * kernel);
  });
}
template <class V>
void Textbook<V>::avg_pool2d_backward(float* dx, const float* dy, Index planes, Index h, Index w,
                                      Index kernel) {
  std::fill_n(dx, planes * h * w, 0.f);
  for_windows(planes, h, w, kernel, [=](Index out, Index corner) {
    for (Index a = 0; a < kernel; ++a)
      for (Index b = 0; b < kernel; ++b)
        dx[corner + a * w + b] = dy[out] / static_cast<float>(kernel * kernel);
  });
}

template <class V>
void Textbook<V>::relu_forward(float* y, const float* x, Index size) {
  each<V>(size, [=](auto v, Index i) { max(decltype(v)::load(x + i), v).store(y + i); });
}
template <class V>
void Textbook<V>::relu_backward(float* dx, const float* dy, const float* y, Index size) {
  each<V>(size, [=](auto v, Index i) {
    using P = decltype(v);
    select_less(v, P::load(y + i), P::load(dy + i), v).store(dx + i);
  });
}

template <class V>
void Textbook<V>::dropout(float* y, const float* x, Index samples, Index size,
                          const kernels::DropoutRule& rule) {
  for (Index n = 0; n < samples; ++n)
    for (Index i = 0; i < size; ++i) {
      const auto block = (static_cast<std::uint64_t>(n) << 32) | static_cast<std::uint64_t>(i / 8);
      const std::uint32_t word = philox(rule.key, block)[static_cast<std::size_t>(i % 8 / 2)];
      const std::uint32_t half = i % 2 == 0 ? word & 0xFFFFu : word >> 16;
      const Index at = n * size + i;
      y[at] = half >= rule.threshold ? x[at] * static_cast<float>(rule.scale) : 0.f;
    }
}

template <class V>
void Textbook<V>::softmax_forward(float* y, const float* x, Index rows, Index cols) {
  for (Index row = 0; row < rows; ++row) {
    const float* from = x + row * cols;
    float* to = y + row * cols;
    const float top = *std::max_element(from, from + cols);
    each<V>(cols, [=](auto v, Index i) {
      using P = decltype(v);
      exp(P::load(from + i) - P(top)).store(to + i);
    });
    const float scale = 1 / sum_of<V>(to, cols);
    each<V>(cols, [=](auto v, Index i) {
      using P = decltype(v);
      (P::load(to + i) * P(scale)).store(to + i);
    });
  }
}
template <class V>
void Textbook<V>::softmax_backward(float* dx, const float* dy, const float* y, Index rows,
                                   Index cols) {
  for (Index row = 0; row < rows; ++row) {
    const float *g = dy + row * cols, *p = y + row * cols;
    float* to = dx + row * cols;
    const float mean = dot<V>(g, p, cols);
    each<V>(cols, [=](auto v, Index i) {
      using P = decltype(v);
      (P::load(p + i) * (P::load(g + i) - P(mean))).store(to + i);
    });
  }
}

template <class V>
void Textbook<V>::sgd_step(float* p, float* v, const float* dp, Index size, float lr,
                           float momentum) {
  each<V>(size, [=](auto zero, Index i) {
    using P = decltype(zero);
    const P velocity = fma(P(momentum), P::load(v + i), P::load(dp + i));
    velocity.store(v + i);
    (P::load(p + i) - P(lr) * velocity).store(p + i);
  });
}
template <class V>
void Textbook<V>::adam_step(float* p, float* m, float* s, const float* dp, Index size,
                            float step_size, float root_scale, float beta1, float beta2,
                            float eps) {
  each<V>(size, [=](auto zero, Index i) {
    using P = decltype(zero);
    const P g = P::load(dp + i);
    const P mean = fma(P(beta1), P::load(m + i), P(1 - beta1) * g);
    const P square = fma(P(beta2), P::load(s + i), P(1 - beta2) * g * g);
    mean.store(m + i);
    square.store(s + i);
    const P root = fma(sqrt(square), P(root_scale), P(eps));
    (P::load(p + i) - P(step_size) * mean / root).store(p + i);
  });
}

template struct Textbook<BENCH_NUMBER>;

}  // namespace bench
