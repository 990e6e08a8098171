#pragma once
/// @file
/// The forward of a `Plan`.

#include "minnow/nn/parameters.hpp"
#include "minnow/nn/plan_state.hpp"

namespace minnow::inline MINNOW_ABI::nn {

namespace detail {

/// The forward of one call: each stage convolves, and finishes with what follows its convolution.
template <class T>
class PlanForward {
 public:
  explicit PlanForward(PlanState<T>& state) : state_(state) {}

  /// The result for images x.
  Tensor<T> run(const Tensor<T>& x) {
    Tensor<T> y(state_.batch_of(state_.plan->y));
    std::vector<kernels::Moments> moments(
        static_cast<std::size_t>(state_.packets * most_channels()));
    const Scratch<T> memory(state_.workers * state_.plan->memory_size);
    state_.run_steps(
        [&](std::size_t i, Index packet, Index worker) {
          convolve(i, packet, x.data(), moments.data() + packet * most_channels(),
                   memory.data() + worker * state_.plan->memory_size);
        },
        [&](std::size_t i) { merge_moments(i, moments); },
        [&](std::size_t i, Index packet, Index) { finish(i, packet, y.data()); }, false);
    return y;
  }

 private:
  using Stage = PlanStage<T>;
  static constexpr Index lanes = PlanState<T>::lanes;

  Index most_channels() const {
    Index most = 0;
    for (const Stage& s : state_.plan->stages) most = std::max(most, s.norm.channels);
    return most;
  }

  void convolve(std::size_t i, Index packet, const T* x, kernels::Moments* moments, T* memory) {
    const Stage& s = state_.stage(i);
    const Index images = state_.images_of(packet);
    if (i == 0)
      kernels::interleave(state_.saved(packet, s.x_at), x + packet * lanes * s.x_size(), images,
                          s.x_size());
    if (s.padded())
      kernels::add_border(state_.saved(packet, s.padded_at), state_.saved(packet, s.x_at),
                          s.conv().c, s.x_h(), s.x_w(), s.padding, lanes);
    T* z = state_.saved(packet, s.z_at);
    const bool relu_now = s.relu && !s.normalized && !state_.calls[i].dropout;
    s.convolution.forward(z, state_.saved(packet, s.padded_at),
                          state_.packed.data() + state_.calls[i].forward_at,
                          {.bias = data_or_null(s.bias), .relu = relu_now, .far = true}, memory);
    if (state_.calls[i].batch_moments)
      kernels::lane_channel_moments(moments, z, s.norm, images);
    else if (s.normalized && !s.batch_norm)
      kernels::lane_run_moments(state_.mean_of(i, packet), state_.rstd_of(i, packet), z, s.norm,
                                s.eps, images);
  }

  void finish(std::size_t i, Index packet, T* y) {
    const Stage& s = state_.stage(i);
    T* activated = state_.saved(packet, s.y_at);
    const auto& dropout = state_.calls[i].dropout;
    const auto normalize = [&](Index begin, Index end, auto relu) {
      if (s.normalized)
        kernels::lane_normalize<relu>(activated, state_.saved(packet, s.z_at), begin, end,
                                      state_.mean_of(i, packet), state_.rstd_of(i, packet),
                                      data_or_null(s.gamma), data_or_null(s.beta), s.norm);
    };
    const auto drop = [&](Index begin, Index end, auto relu) {
      kernels::lane_dropout<relu>(activated, activated, begin, end, packet * lanes, *dropout);
    };
    if (dropout) {
      // In steps that stay in the first-level cache.
      constexpr Index step = 16 * kernels::DropoutRule::block_size;
      for (Index begin = 0; begin < s.z_size(); begin += step) {
        const Index end = std::min(s.z_size(), begin + step);
        normalize(begin, end, std::false_type{});
        s.relu ? drop(begin, end, std::true_type{}) : drop(begin, end, std::false_type{});
      }
    } else {
      s.relu ? normalize(0, s.z_size(), std::true_type{})
             : normalize(0, s.z_size(), std::false_type{});
    }
    T* out = state_.saved(packet, s.out_at);
    if (s.pool == Stage::Pool::max) kernels::lane_max_pool2d_forward(out, activated, s.pooling);
    if (s.pool == Stage::Pool::average) kernels::lane_avg_pool2d_forward(out, activated, s.pooling);
    if (i + 1 == state_.calls.size())
      kernels::separate(y + packet * lanes * s.out_size(), out, state_.images_of(packet),
                        s.out_size());
  }

  void merge_moments(std::size_t i, const std::vector<kernels::Moments>& moments) {
    const Stage& s = state_.stage(i);
    std::vector<kernels::Moments> total(static_cast<std::size_t>(s.norm.channels));
    for (Index packet = 0; packet < state_.packets; ++packet)
      for (Index c = 0; c < s.norm.channels; ++c) {
        kernels::Moments& sum = total[static_cast<std::size_t>(c)];
        sum = merge(sum, moments[static_cast<std::size_t>(packet * most_channels() + c)]);
      }
    state_.share_moments(i, [&](Index c) {
      const kernels::Moments& m = total[static_cast<std::size_t>(c)];
      return std::pair(m.mean, m.variance());
    });
    s.batch_norm->track(total);
  }

  PlanState<T>& state_;
};

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI::nn
