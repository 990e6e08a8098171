#pragma once
/// @file
/// Direct convolution with images in lanes, for batches of small images: packets of images are
/// interleaved, convolved (lane_conv2d.hpp) and separated again while they are in the caches.

#include <algorithm>

#include "minnow/kernels/conv2d_staging.hpp"
#include "minnow/kernels/lane_conv2d.hpp"

namespace minnow::inline MINNOW_ABI::kernels::detail {

/// Images in lanes have one group, and a stride and a dilation of 1.
inline bool fits_lanes(const Conv2dSizes& s) {
  return s.groups == 1 && s.stride == Size2(1) && s.dilation == Size2(1);
}

/// How many numbers a lane holds of x, y, x with its padding, and dy with the columns of space that
/// the backward reads; the last two are 0 where there is neither.
struct ImageSizes {
  LaneConv2dSizes lane;
  Index x, y, padded, bordered;

  explicit ImageSizes(const Conv2dSizes& s)
      : lane{s.c, s.h + 2 * s.padding.h, s.w + 2 * s.padding.w, s.k, s.kernel},
        x(s.c * s.h * s.w),
        y(s.k * lane.oh() * lane.ow()),
        padded(s.padding == Size2(0) ? 0 : lane.c * lane.h * lane.w),
        bordered(s.kernel.w == 1 ? 0 : s.k * lane.oh() * lane.bordered_w()) {}
};

/// The packets of a batch, and memory for each thread to hold some of one.
template <class T>
class Packets {
 public:
  static constexpr Index lanes = Pack<T>::width;

  Packets(Index images, Index memory)
      : images_(images),
        memory_size_(memory),
        count_(packet_count<T>(images)),
        workers_(worker_count(count_)),
        memory_(workers_ * memory) {}

  /// Calls f(packet, its first image, how many images it has, memory).
  template <class F>
  void for_each(const F& f) const {
    parallel_for(
        count_,
        [&](Index packet, Index worker) {
          f(packet, packet * lanes, std::min(lanes, images_ - packet * lanes),
            memory_.data() + worker * memory_size_);
        },
        workers_);
  }
  Index count() const { return count_; }

 private:
  Index images_, memory_size_, count_, workers_;
  Scratch<T> memory_;
};

template <class T>
void forward_by_images(T* y, const T* x, const T* weight, const T* bias, const Conv2dSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const ImageSizes size(s);
  if (s.n * size.y == 0) return;
  const LaneConv2d<T> convolution(size.lane);
  const Scratch<T> packed(convolution.forward_weights());
  convolution.pack_forward(packed.data(), weight);
  const Packets<T> packets(s.n, (size.x + size.padded + size.y) * lanes + convolution.memory());
  packets.for_each([&](Index, Index first, Index images, T* memory) {
    T *in = memory, *padded = in + size.x * lanes, *out = padded + size.padded * lanes;
    interleave(in, x + first * size.x, images, size.x);
    if (size.padded > 0) add_border(padded, in, s.c, s.h, s.w, s.padding, lanes);
    convolution.forward(out, size.padded > 0 ? padded : in, packed.data(), {.bias = bias},
                        out + size.y * lanes);
    separate(y + first * size.y, out, images, size.y);
  });
}

template <class T>
void backward_data_by_images(T* dx, const T* dy, const T* weight, const Conv2dSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const ImageSizes size(s);
  if (s.n * size.x == 0) return;
  const LaneConv2d<T> convolution(size.lane);
  const Scratch<T> packed(convolution.backward_weights());
  convolution.pack_backward(packed.data(), weight);
  const Packets<T> packets(
      s.n, (size.x + size.padded + size.y + size.bordered) * lanes + convolution.memory());
  packets.for_each([&](Index, Index first, Index images, T* memory) {
    T *in = memory, *bordered = in + size.y * lanes, *out = bordered + size.bordered * lanes,
      *padded = out + size.x * lanes;
    interleave(in, dy + first * size.y, images, size.y);
    if (size.bordered > 0)
      add_border(bordered, in, s.k, size.lane.oh(), size.lane.ow(), Size2(0, s.kernel.w - 1),
                 lanes);
    convolution.backward_data(size.padded > 0 ? padded : out, size.bordered > 0 ? bordered : in,
                              packed.data(), false, padded + size.padded * lanes);
    if (size.padded > 0) cut_border(out, padded, s.c, s.h, s.w, s.padding, lanes);
    separate(dx + first * size.x, out, images, size.x);
  });
}

template <class T>
void backward_weight_by_images(T* dweight, const T* dy, const T* x, const Conv2dSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const ImageSizes size(s);
  const Index weights = size.lane.weights();
  const LaneConv2d<T> convolution(size.lane);
  const Packets<T> packets(
      s.n, (size.x + size.padded + size.y + size.bordered) * lanes + convolution.memory());
  const Scratch<T> partial(packets.count() * weights);
  packets.for_each([&](Index packet, Index first, Index images, T* memory) {
    T *in = memory, *padded = in + size.x * lanes, *gradient = padded + size.padded * lanes,
      *bordered = gradient + size.y * lanes;
    interleave(in, x + first * size.x, images, size.x);
    if (size.padded > 0) add_border(padded, in, s.c, s.h, s.w, s.padding, lanes);
    interleave(gradient, dy + first * size.y, images, size.y);
    if (size.bordered > 0)
      add_border(bordered, gradient, s.k, size.lane.oh(), size.lane.ow(), Size2(0, s.kernel.w - 1),
                 lanes);
    convolution.backward_weight(partial.data() + packet * weights,
                                size.bordered > 0 ? bordered : gradient,
                                size.padded > 0 ? padded : in, bordered + size.bordered * lanes);
  });
  merge_partials(dweight, partial.data(), packets.count(), s.k, size.lane.terms());
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
