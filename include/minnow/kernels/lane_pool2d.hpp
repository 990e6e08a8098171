#pragma once
/// @file
/// Pooling of a packet of images, one image a lane.

#include <algorithm>
#include <type_traits>

#include "minnow/core/shape.hpp"
#include "minnow/kernels/lanes.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// The sizes of a pooling without padding: x [c, h, w] -> y [c, oh(), ow()].
struct LanePool2dSizes {
  Index c, h, w;
  Size2 kernel = 1, stride = 1;

  Index oh() const { return (h - kernel.h) / stride.h + 1; }
  Index ow() const { return (w - kernel.w) / stride.w + 1; }
  /// True if no element lies in two windows.
  bool apart() const { return kernel.h <= stride.h && kernel.w <= stride.w; }
  /// True if every element lies in a window.
  bool covered() const {
    return kernel.h >= stride.h && kernel.w >= stride.w && (oh() - 1) * stride.h + kernel.h == h &&
           (ow() - 1) * stride.w + kernel.w == w;
  }
};

namespace detail {

/// Calls f(y position, x position of the window's corner) for every output.
template <class F>
void for_lane_windows(const LanePool2dSizes& s, const F& f) {
  Index out = 0;
  for (Index c = 0; c < s.c; ++c)
    for (Index i = 0; i < s.oh(); ++i)
      for (Index j = 0; j < s.ow(); ++j)
        f(out++, (c * s.h + i * s.stride.h) * s.w + j * s.stride.w);
}

/// Calls spread(add), which goes through the windows and, where `add` is true, adds to dx, else
/// assigns: windows that lie apart need neither zeros before nor a second look.
template <class T, class Spread>
void spread_over_windows(T* dx, const LanePool2dSizes& s, const Spread& spread) {
  if (!s.apart() || !s.covered()) std::fill_n(dx, s.c * s.h * s.w * Pack<T>::width, T(0));
  s.apart() ? spread(std::false_type{}) : spread(std::true_type{});
}

}  // namespace detail

/// y = the largest of each window; NaN is the largest. Writes every element of y [c, oh, ow, lane].
template <class T>
void lane_max_pool2d_forward(T* y, const T* x, const LanePool2dSizes& s) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  detail::for_lane_windows(s, [&](Index out, Index corner) {
    V best = V::load(x + corner * lanes);
    for (Index a = 0; a < s.kernel.h; ++a)
      for (Index b = 0; b < s.kernel.w; ++b) {
        const V next = V::load(x + (corner + a * s.w + b) * lanes);
        best = select_equal(next, next, select_less(best, next, next, best), next);
      }
    best.store(y + out * lanes);
  });
}

namespace detail {

/// lane_max_pool2d_backward one number at a time, for windows with NaN, which equals nothing, and
/// for gradients that are not finite.
template <class T>
MINNOW_NOINLINE void lane_max_pool2d_backward_of_any(T* dx, const T* dy, const T* x,
                                                     const LanePool2dSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  std::fill_n(dx, s.c * s.h * s.w * lanes, T(0));
  for_lane_windows(s, [&](Index out, Index corner) {
    for (Index lane = 0; lane < lanes; ++lane) {
      Index place = corner * lanes + lane;
      for (Index a = 0; a < s.kernel.h; ++a)
        for (Index b = 0; b < s.kernel.w; ++b) {
          const Index at = (corner + a * s.w + b) * lanes + lane;
          if (x[at] > x[place] || x[at] != x[at]) place = at;
        }
      dx[place] += dy[out * lanes + lane];
    }
  });
}

}  // namespace detail

/// dx = dy at the first of a window's largest elements, in the order of rows (of NaN at the last,
/// as in max_pool2d_forward), else 0. The place is found again by comparison with y. Writes every
/// element of dx; windows may overlap.
template <class T>
void lane_max_pool2d_backward(T* dx, const T* dy, const T* x, const T* y,
                              const LanePool2dSizes& s) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  // Rows two windows further down are asked for: the hardware sees them coming too late.
  const Index ahead = 2 * s.stride.h * s.w * lanes;
  V finite = V::zero();  // becomes NaN where x or dy is NaN or infinite
  detail::spread_over_windows(dx, s, [&](auto add) {
    detail::for_lane_windows(s, [&](Index out, Index corner) {
      const V largest = V::load(y + out * lanes);
      // The gradient of lanes that have not found their place yet.
      V left = V::load(dy + out * lanes);
      finite += (largest - largest) + (left - left);
      for (Index a = 0; a < s.kernel.h; ++a)
        for (Index b = 0; b < s.kernel.w; ++b) {
          const Index at = (corner + a * s.w + b) * lanes;
          __builtin_prefetch(x + at + ahead);
          const V here = select_equal(V::load(x + at), largest, left, V::zero());
          (add ? V::load(dx + at) + here : here).store(dx + at);
          left -= here;
        }
    });
  });
  if (!(sum(finite) == 0)) [[unlikely]]
    detail::lane_max_pool2d_backward_of_any(dx, dy, x, s);
}

/// y = the mean of each window. Writes every element of y [c, oh, ow, lane].
template <class T>
void lane_avg_pool2d_forward(T* y, const T* x, const LanePool2dSizes& s) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  const V scale(T(1) / static_cast<T>(s.kernel.h * s.kernel.w));
  detail::for_lane_windows(s, [&](Index out, Index corner) {
    V sum = V::zero();
    for (Index a = 0; a < s.kernel.h; ++a)
      for (Index b = 0; b < s.kernel.w; ++b) sum += V::load(x + (corner + a * s.w + b) * lanes);
    (sum * scale).store(y + out * lanes);
  });
}

/// dx = the sum of dy / window size over the windows an element lies in. Writes every element of
/// dx.
template <class T>
void lane_avg_pool2d_backward(T* dx, const T* dy, const LanePool2dSizes& s) {
  using V = Pack<T>;
  constexpr Index lanes = V::width;
  const V scale(T(1) / static_cast<T>(s.kernel.h * s.kernel.w));
  detail::spread_over_windows(dx, s, [&](auto add) {
    detail::for_lane_windows(s, [&](Index out, Index corner) {
      const V share = V::load(dy + out * lanes) * scale;
      for (Index a = 0; a < s.kernel.h; ++a)
        for (Index b = 0; b < s.kernel.w; ++b) {
          T* to = dx + (corner + a * s.w + b) * lanes;
          (add ? V::load(to) + share : share).store(to);
        }
    });
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
