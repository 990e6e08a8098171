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
inline LaneConv2dSizes lane_sizes(const Conv2dSizes& s) {
  return {s.c, s.h + 2 * s.padding.h, s.w + 2 * s.padding.w, s.k, s.kernel};
}

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
  const LaneConv2dSizes lane = lane_sizes(s);
  const Index x_size = s.c * s.h * s.w, y_size = s.k * lane.oh() * lane.ow();
  if (s.n * y_size == 0) return;
  const bool padded = s.padding != Size2(0);
  const Index padded_size = padded ? lane.c * lane.h * lane.w : 0;
  const LaneConv2d<T> convolution(lane);
  const Scratch<T> packed(convolution.forward_weights());
  convolution.pack_forward(packed.data(), weight);
  const Packets<T> packets(s.n, (x_size + padded_size + y_size) * lanes + convolution.memory());
  packets.for_each([&](Index, Index first, Index images, T* memory) {
    T *in = memory, *bordered = in + x_size * lanes, *out = bordered + padded_size * lanes;
    interleave(in, x + first * x_size, images, x_size);
    if (padded) add_border(bordered, in, s.c, s.h, s.w, s.padding, lanes);
    convolution.forward(out, padded ? bordered : in, packed.data(), {.bias = bias},
                        out + y_size * lanes);
    separate(y + first * y_size, out, images, y_size);
  });
}

template <class T>
void backward_data_by_images(T* dx, const T* dy, const T* weight, const Conv2dSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const LaneConv2dSizes lane = lane_sizes(s);
  const Index x_size = s.c * s.h * s.w, y_size = s.k * lane.oh() * lane.ow();
  if (s.n * x_size == 0) return;
  const bool padded = s.padding != Size2(0), bordered = s.kernel.w > 1;
  const Index padded_size = padded ? lane.c * lane.h * lane.w : 0;
  const Index bordered_size = bordered ? s.k * lane.oh() * lane.bordered_w() : 0;
  const LaneConv2d<T> convolution(lane);
  const Scratch<T> packed(convolution.backward_weights());
  convolution.pack_backward(packed.data(), weight);
  const Packets<T> packets(
      s.n, (x_size + padded_size + y_size + bordered_size) * lanes + convolution.memory());
  packets.for_each([&](Index, Index first, Index images, T* memory) {
    T *in = memory, *wide = in + y_size * lanes, *out = wide + bordered_size * lanes,
      *large = out + x_size * lanes;
    interleave(in, dy + first * y_size, images, y_size);
    if (bordered) add_border(wide, in, s.k, lane.oh(), lane.ow(), Size2(0, s.kernel.w - 1), lanes);
    convolution.backward_data(padded ? large : out, bordered ? wide : in, packed.data(), false,
                              large + padded_size * lanes);
    if (padded) cut_border(out, large, s.c, s.h, s.w, s.padding, lanes);
    separate(dx + first * x_size, out, images, x_size);
  });
}

template <class T>
void backward_weight_by_images(T* dweight, const T* dy, const T* x, const Conv2dSizes& s) {
  constexpr Index lanes = Pack<T>::width;
  const LaneConv2dSizes lane = lane_sizes(s);
  const Index x_size = s.c * s.h * s.w, y_size = s.k * lane.oh() * lane.ow();
  const Index weights = s.k * lane.terms();
  const bool padded = s.padding != Size2(0), bordered = s.kernel.w > 1;
  const Index padded_size = padded ? lane.c * lane.h * lane.w : 0;
  const Index bordered_size = bordered ? s.k * lane.oh() * lane.bordered_w() : 0;
  const LaneConv2d<T> convolution(lane);
  const Packets<T> packets(
      s.n, (x_size + padded_size + y_size + bordered_size) * lanes + convolution.memory());
  const Scratch<T> partial(packets.count() * weights);
  packets.for_each([&](Index packet, Index first, Index images, T* memory) {
    T *in = memory, *large = in + x_size * lanes, *gradient = large + padded_size * lanes,
      *wide = gradient + y_size * lanes;
    interleave(in, x + first * x_size, images, x_size);
    if (padded) add_border(large, in, s.c, s.h, s.w, s.padding, lanes);
    interleave(gradient, dy + first * y_size, images, y_size);
    if (bordered)
      add_border(wide, gradient, s.k, lane.oh(), lane.ow(), Size2(0, s.kernel.w - 1), lanes);
    convolution.backward_weight(partial.data() + packet * weights, bordered ? wide : gradient,
                                padded ? large : in, wide + bordered_size * lanes);
  });
  merge_partials(dweight, partial.data(), packets.count(), s.k, lane.terms());
}

}  // namespace minnow::inline MINNOW_ABI::kernels::detail
