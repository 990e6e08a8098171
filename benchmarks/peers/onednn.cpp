// oneDNN (2.x or 3.x) on the benchmarks' work: single primitives, each in several layouts. "own"
// leaves the layout to the library, and does not count the reorders that a user of plain tensors
// would need.
#include <omp.h>

#include <dnnl.hpp>
#include <memory>
#include <unordered_map>

#include "peer.hpp"

namespace {

using namespace dnnl;
using Tag = memory::format_tag;
using Arguments = std::unordered_map<int, memory>;

const engine& cpu() {
  static const engine instance(engine::kind::cpu, 0);
  return instance;
}

memory::desc describe(const memory::dims& sizes, Tag tag) {
  return memory::desc(sizes, memory::data_type::f32, tag);
}

memory filled(const memory::desc& description) {
  memory result(description, cpu());
  auto* numbers = static_cast<float*>(result.get_data_handle());
  unsigned state = 1;
  for (std::size_t i = 0; i < description.get_size() / sizeof(float); ++i) {
    state = state * 1664525u + 1013904223u;
    numbers[i] = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
  }
  return result;
}

// Between the generations only the making of a primitive's description differs.
#if DNNL_VERSION_MAJOR >= 3
template <class Primitive, class... Arguments_>
typename Primitive::primitive_desc make(const Arguments_&... arguments) {
  return typename Primitive::primitive_desc(cpu(), arguments...);
}
#else
template <class Primitive>
typename Primitive::primitive_desc make(const typename Primitive::desc& description) {
  return typename Primitive::primitive_desc(description, cpu());
}
template <class Primitive, class Hint>
typename Primitive::primitive_desc make(const typename Primitive::desc& description,
                                        const Hint& hint) {
  return typename Primitive::primitive_desc(description, cpu(), hint);
}
#endif

std::function<void()> runner(const primitive& p, const Arguments& arguments) {
  return [p, arguments, s = stream(cpu())]() mutable {
    p.execute(s, arguments);
    s.wait();
  };
}

std::function<void()> convolution(const bench::Work& work, Tag tag) {
  const auto& v = work.sizes;  // n, c, h, w, k, kernel, padding, groups
  const long out = v[2] + 2 * v[6] - v[5] + 1;
  const auto src = describe({v[0], v[1], v[2], v[3]}, tag),
             weights =
                 describe(v[7] == 1 ? memory::dims{v[4], v[1], v[5], v[5]}
                                    : memory::dims{v[7], v[4] / v[7], v[1] / v[7], v[5], v[5]},
                          Tag::any),
             dst = describe({v[0], v[4], out, out}, tag);
  const memory::dims stride{1, 1}, padding{v[6], v[6]};
  const auto method = algorithm::convolution_direct;
  using Forward = convolution_forward;
  using Data = convolution_backward_data;
  using Weights = convolution_backward_weights;
#if DNNL_VERSION_MAJOR >= 3
  const auto f = make<Forward>(prop_kind::forward_training, method, src, weights, dst, stride,
                               padding, padding);
#else
  const auto f = make<Forward>(
      {prop_kind::forward_training, method, src, weights, dst, stride, padding, padding});
#endif
  if (work.direction == "forward")
    return runner(Forward(f), {{DNNL_ARG_SRC, filled(f.src_desc())},
                               {DNNL_ARG_WEIGHTS, filled(f.weights_desc())},
                               {DNNL_ARG_DST, memory(f.dst_desc(), cpu())}});
  if (work.direction == "backward data") {
#if DNNL_VERSION_MAJOR >= 3
    const auto d = make<Data>(method, src, weights, dst, stride, padding, padding, f);
#else
    const auto d = make<Data>({method, src, weights, dst, stride, padding, padding}, f);
#endif
    return runner(Data(d), {{DNNL_ARG_DIFF_DST, filled(d.diff_dst_desc())},
                            {DNNL_ARG_WEIGHTS, filled(d.weights_desc())},
                            {DNNL_ARG_DIFF_SRC, memory(d.diff_src_desc(), cpu())}});
  }
#if DNNL_VERSION_MAJOR >= 3
  const auto w = make<Weights>(method, src, weights, dst, stride, padding, padding, f);
#else
  const auto w = make<Weights>({method, src, weights, dst, stride, padding, padding}, f);
#endif
  return runner(Weights(w), {{DNNL_ARG_SRC, filled(w.src_desc())},
                             {DNNL_ARG_DIFF_DST, filled(w.diff_dst_desc())},
                             {DNNL_ARG_DIFF_WEIGHTS, memory(w.diff_weights_desc(), cpu())}});
}

/// What batch, group and layer norm share once they are described.
template <class Forward, class Backward>
std::function<void()> normalization(const typename Forward::primitive_desc& f,
                                    const typename Backward::primitive_desc& b,
                                    const memory::desc& data, long parameters, bool forward) {
  const auto vector = describe({parameters}, Tag::a);
  Arguments arguments{{DNNL_ARG_SRC, filled(data)},
                      {DNNL_ARG_SCALE, filled(vector)},
                      {DNNL_ARG_SHIFT, filled(vector)},
                      {DNNL_ARG_MEAN, memory(f.mean_desc(), cpu())},
                      {DNNL_ARG_VARIANCE, memory(f.mean_desc(), cpu())},
                      {DNNL_ARG_DST, memory(data, cpu())}};
  const auto run = runner(Forward(f), arguments);
  if (forward) return run;
  run();  // for the statistics
  arguments.erase(DNNL_ARG_DST);
  arguments[DNNL_ARG_DIFF_DST] = filled(data);
  arguments[DNNL_ARG_DIFF_SRC] = memory(data, cpu());
  arguments[DNNL_ARG_DIFF_SCALE] = memory(vector, cpu());
  arguments[DNNL_ARG_DIFF_SHIFT] = memory(vector, cpu());
  return runner(Backward(b), arguments);
}

const auto scale_and_shift = normalization_flags::use_scale | normalization_flags::use_shift;

std::function<void()> batch_norm(const bench::Work& work, Tag tag) {
  const auto& v = work.sizes;
  const auto data = describe({v[0], v[1], v[2], v[3]}, tag);
  using Forward = batch_normalization_forward;
  using Backward = batch_normalization_backward;
#if DNNL_VERSION_MAJOR >= 3
  const auto f = make<Forward>(prop_kind::forward_training, data, data, 1e-5f, scale_and_shift);
  const auto b = make<Backward>(prop_kind::backward, data, data, data, 1e-5f, scale_and_shift, f);
#else
  const auto f = make<Forward>({prop_kind::forward_training, data, 1e-5f, scale_and_shift});
  const auto b = make<Backward>({prop_kind::backward, data, data, 1e-5f, scale_and_shift}, f);
#endif
  return normalization<Forward, Backward>(f, b, data, v[1], work.direction == "forward");
}

std::function<void()> layer_norm(const bench::Work& work) {
  const auto& v = work.sizes;
  const auto data = describe({v[0], v[1]}, Tag::ab);
  using Forward = layer_normalization_forward;
  using Backward = layer_normalization_backward;
#if DNNL_VERSION_MAJOR >= 3
  const auto f = make<Forward>(prop_kind::forward_training, data, data, 1e-5f, scale_and_shift);
  const auto b = make<Backward>(prop_kind::backward, data, data, data, 1e-5f, scale_and_shift, f);
#else
  const auto f = make<Forward>({prop_kind::forward_training, data, 1e-5f, scale_and_shift});
  const auto b = make<Backward>({prop_kind::backward, data, data, 1e-5f, scale_and_shift}, f);
#endif
  return normalization<Forward, Backward>(f, b, data, v[1], work.direction == "forward");
}

#if DNNL_VERSION_MAJOR >= 3
std::function<void()> group_norm(const bench::Work& work) {
  const auto& v = work.sizes;
  const auto data = describe({v[0], v[1], v[2], v[3]}, Tag::abcd);
  using Forward = group_normalization_forward;
  using Backward = group_normalization_backward;
  const auto f =
      make<Forward>(prop_kind::forward_training, data, data, v[4], 1e-5f, scale_and_shift);
  const auto b =
      make<Backward>(prop_kind::backward, data, data, data, v[4], 1e-5f, scale_and_shift, f);
  return normalization<Forward, Backward>(f, b, data, v[1], work.direction == "forward");
}
#endif

std::function<void()> pooling(const bench::Work& work, Tag tag) {
  const auto& v = work.sizes;  // n, c, h, w, kernel
  const auto src = describe({v[0], v[1], v[2], v[3]}, tag),
             dst = describe({v[0], v[1], v[2] / v[4], v[3] / v[4]}, tag);
  const memory::dims kernel{v[4], v[4]}, zero{0, 0};
  const auto method =
      work.layer == "max_pool2d" ? algorithm::pooling_max : algorithm::pooling_avg_exclude_padding;
  using Forward = pooling_forward;
  using Backward = pooling_backward;
#if DNNL_VERSION_MAJOR >= 3
  const auto f = make<Forward>(prop_kind::forward_training, method, src, dst, kernel, kernel, zero,
                               zero, zero);
  const auto b = make<Backward>(method, src, dst, kernel, kernel, zero, zero, zero, f);
#else
  const auto f =
      make<Forward>({prop_kind::forward_training, method, src, dst, kernel, kernel, zero, zero});
  const auto b = make<Backward>({method, src, dst, kernel, kernel, zero, zero}, f);
#endif
  const memory places(f.workspace_desc(), cpu());
  const auto forward = runner(Forward(f), {{DNNL_ARG_SRC, filled(src)},
                                           {DNNL_ARG_DST, memory(dst, cpu())},
                                           {DNNL_ARG_WORKSPACE, places}});
  if (work.direction == "forward") return forward;
  forward();
  return runner(Backward(b), {{DNNL_ARG_DIFF_DST, filled(dst)},
                              {DNNL_ARG_DIFF_SRC, memory(src, cpu())},
                              {DNNL_ARG_WORKSPACE, places}});
}

class OneDnn : public bench::Peer {
 public:
  std::string version() const override {
    const auto* v = dnnl_version();
    return "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." +
           std::to_string(v->patch);
  }

  void set_num_threads(int threads) override { omp_set_num_threads(threads); }

  std::vector<bench::PeerWay> ways(const bench::Work& work) override {
    std::vector<bench::PeerWay> result;
    const auto add = [&](const char* name, const auto& make_run) {
      try {
        result.push_back({name, make_run()});
      } catch (const dnnl::error&) {  // not in this version, or not in this layout
      }
    };
    const std::string& layer = work.layer;
    // Where a primitive cannot choose for itself, its own layout is the one with 16 channels a
    // block.
    if (layer == "conv2d") {
      add("oneDNN own", [&] { return convolution(work, Tag::any); });
      add("oneDNN nhwc", [&] { return convolution(work, Tag::acdb); });
      add("oneDNN nchw", [&] { return convolution(work, Tag::abcd); });
    } else if (layer == "batch_norm") {
      add("oneDNN own", [&] { return batch_norm(work, Tag::aBcd16b); });
      add("oneDNN nhwc", [&] { return batch_norm(work, Tag::acdb); });
      add("oneDNN nchw", [&] { return batch_norm(work, Tag::abcd); });
    } else if (layer == "max_pool2d" || layer == "avg_pool2d") {
      add("oneDNN own", [&] { return pooling(work, Tag::aBcd16b); });
      add("oneDNN nhwc", [&] { return pooling(work, Tag::acdb); });
      add("oneDNN nchw", [&] { return pooling(work, Tag::abcd); });
    } else if (layer == "layer_norm") {
      add("oneDNN", [&] { return layer_norm(work); });
    }
#if DNNL_VERSION_MAJOR >= 3
    if (layer == "group_norm") add("oneDNN nchw", [&] { return group_norm(work); });
#endif
    return result;
  }
};

}  // namespace

extern "C" bench::Peer* minnow_bench_peer() { return new OneDnn; }
