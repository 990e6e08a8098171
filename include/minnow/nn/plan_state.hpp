#pragma once
/// @file
/// What one call of a `Plan` holds, from its forward to its backward, and how its packets of images
/// go through the stages.

#include <algorithm>
#include <optional>

#include "minnow/core/parallel.hpp"
#include "minnow/nn/plan.hpp"

namespace minnow::inline MINNOW_ABI::nn {

namespace detail {

/// One call of a plan: what the backward needs to know of the forward.
///
/// Packets of images are independent of each other but for batch norm's moments. So the work is a
/// list of steps that every packet goes through, and only where a batch norm collects its moments
/// do all packets wait for each other. A packet's numbers stay in the caches of the core that works
/// on it.
template <class T>
struct PlanState {
  using V = Pack<T>;
  using Stage = PlanStage<T>;
  static constexpr Index lanes = V::width;

  /// What is particular to this call of a stage.
  struct Call {
    std::optional<kernels::DropoutRule> dropout;
    bool batch_moments = false;  ///< batch norm by this batch's own moments
    Index forward_at = 0, backward_at = 0, shared_at = 0;
  };

  std::shared_ptr<const Plan<T>> plan;
  Index images, packets, workers;
  std::vector<Call> calls;  ///< one a stage
  Tensor<T> numbers;        ///< what the stages of each packet leave behind
  Tensor<T> packed;         ///< weights as the forward and the backward read them
  Tensor<T> shared;         ///< moments, and means of gradients, that all packets share
  bool descending = false;  ///< the direction in which the packets are taken next

  PlanState(std::shared_ptr<const Plan<T>> call_plan, Index image_count)
      : plan(std::move(call_plan)),
        images(image_count),
        packets(kernels::packet_count<T>(images)),
        workers(worker_count(packets)),
        calls(plan->stages.size()),
        numbers(Shape{packets, plan->packet_size, lanes}) {
    Index packed_size = 0, shared_size = 0;
    for (std::size_t i = 0; i < calls.size(); ++i) {
      const Stage& s = stage(i);
      Call& call = calls[i];
      if (s.dropout && s.dropout->is_training() && s.dropout->p() > 0)
        call.dropout.emplace(default_generator().next(), s.dropout->p());
      call.batch_moments = s.batch_norm && (s.batch_norm->is_training() ||
                                            !s.batch_norm->options().track_running_stats);
      call.forward_at = std::exchange(packed_size, packed_size + s.convolution.forward_weights());
      call.backward_at = std::exchange(packed_size, packed_size + s.convolution.backward_weights());
      // mean, rstd, and in the backward mean_g, mean_gx, the same for every packet
      if (s.batch_norm)
        call.shared_at = std::exchange(shared_size, shared_size + 4 * s.norm.channels * lanes);
    }
    packed = Tensor<T>(Shape{packed_size});
    shared = Tensor<T>(Shape{shared_size});
    for (std::size_t i = 0; i < calls.size(); ++i) {
      const Stage& s = stage(i);
      const T* weight = s.weight.value().data();
      s.convolution.pack_forward(packed.data() + calls[i].forward_at, weight);
      if (grad_enabled()) s.convolution.pack_backward(packed.data() + calls[i].backward_at, weight);
      if (s.batch_norm && !calls[i].batch_moments)
        share_moments(i, [&](Index c) {
          return std::pair(static_cast<double>(s.batch_norm->running_mean()[c]),
                           static_cast<double>(s.batch_norm->running_var()[c]));
        });
    }
  }

  const Stage& stage(std::size_t i) const { return plan->stages[i]; }
  Shape batch_of(const Shape& image) const {
    Shape shape{images};
    for (const Index size : image) shape.push_back(size);
    return shape;
  }
  Index images_of(Index packet) const { return std::min(lanes, images - packet * lanes); }
  T* saved(Index packet, Index at) {
    return numbers.data() + (packet * plan->packet_size + at) * lanes;
  }
  T* mean_of(std::size_t i, Index packet) {
    const Stage& s = stage(i);
    return s.batch_norm ? shared.data() + calls[i].shared_at : saved(packet, s.mean_at);
  }
  T* rstd_of(std::size_t i, Index packet) {
    const Stage& s = stage(i);
    return s.batch_norm ? shared.data() + calls[i].shared_at + s.norm.channels * lanes
                        : saved(packet, s.rstd_at);
  }

  /// mean_g [channels][lane] of a batch norm, the same for every packet; mean_gx follows it.
  T* shared_mean_g_of(std::size_t i) {
    return shared.data() + calls[i].shared_at + 2 * stage(i).norm.channels * lanes;
  }

  /// Puts mean and rstd of each channel into every lane of the shared memory.
  template <class MeanAndVariance>
  void share_moments(std::size_t i, const MeanAndVariance& moments) {
    const Stage& s = stage(i);
    for (Index c = 0; c < s.norm.channels; ++c) {
      const auto [mean, variance] = moments(c);
      V(static_cast<T>(mean)).store(mean_of(i, 0) + c * lanes);
      V(static_cast<T>(1 / std::sqrt(variance + s.eps))).store(rstd_of(i, 0) + c * lanes);
    }
  }

  /// Calls first(stage, packet, worker) and then `second` of each stage for every packet, all
  /// packets waiting for each other between the two, with `between` on one thread, where a batch
  /// norm uses the batch's moments.
  ///
  /// A worker keeps its packets from wait to wait and takes them to and fro: the last one before a
  /// wait, whose numbers are still in its core's cache, is the first one after it.
  template <class First, class Between, class Second>
  void run_steps(const First& first, const Between& between, const Second& second, bool reversed) {
    const std::size_t count = 2 * calls.size();
    const auto stage_of = [&](std::size_t step) {
      return reversed ? calls.size() - 1 - step / 2 : step / 2;
    };
    for (std::size_t begin = 0; begin < count;) {
      std::size_t end = begin + 1;
      while (end < count && !(end % 2 == 1 && calls[stage_of(end)].batch_moments)) ++end;
      parallel_for(
          workers,
          [&](Index worker) {
            const Index first_packet = packets * worker / workers,
                        last_packet = packets * (worker + 1) / workers - 1;
            for (Index n = 0; n <= last_packet - first_packet; ++n) {
              const Index packet = descending ? last_packet - n : first_packet + n;
              for (std::size_t step = begin; step < end; ++step)
                step % 2 == 0 ? first(stage_of(step), packet, worker)
                              : second(stage_of(step), packet, worker);
            }
          },
          workers);
      descending = !descending;
      if (end < count) between(stage_of(end));
      begin = end;
    }
  }
};

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI::nn
