#include "minnow/nn/conv2d.hpp"

#include "minnow/kernels/lane_conv2d.hpp"
#include "oracle.hpp"
#include "textbook.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
Four ways, chosen by the sizes: what lies in the lanes of a register.
Positions (any sizes and options): a plane of pitch W is read as one long row, so the output at flat
position p is the sum of w[c, a, b] * x[p + c * plane + a * W + b]: the inner loop of a matrix product, with
shifted views of x in place of a copied matrix. 8 output channels by 3 registers of positions stay in
registers; the few columns at each row's end that belong to no output are thrown away.
Output channels (wide layers): 14 positions by 2 registers of channels; weights are loaded, each position
is broadcast. No gaps, no load that straddles lines; the next piece of x is fetched ahead. Kernels of three
columns take half the multiplications (Winograd's F(4, 3) along the rows): six values for each four columns of
x are staged in place of them, each is convolved with a column of the weights' values, and six sums of a
tile make four outputs, turned in registers on their way to memory.
Images (batches of small images): 16 images interleaved, one a lane, so that the plain scalar convolution
with registers for numbers has no tail and no waste, whatever the number of channels. "minnow"
interleaves and separates; "lanes" is the part in between, which is all that a Sequential's plan pays
between layers. Kernels of 3 x 3 take half the multiplications here, too, so that GFLOP/s, which count the
direct sums, may pass the peak. Backward to the input is the same over dy with reversed
weights; backward to the weights holds sums for weights in registers over many positions.
A kernel for each channel (depthwise): 16 planes of whatever images are interleaved, so that each position is
one aligned register, whose lanes have kernels of their own.
)";

struct ConvSize {
  std::string set, name;
  Index n, c, h, k, kernel, padding;
  bool first = false;  ///< its input needs no gradient
  Index groups = 1;

  kernels::Conv2dSizes sizes() const {
    return {.n = n,
            .c = c,
            .h = h,
            .w = h,
            .k = k,
            .kernel = kernel,
            .padding = padding,
            .groups = groups};
  }
  std::string text() const {
    return (name.empty() ? "" : name + ": ") + shape_text({n, c, h, h}) + " > " +
           std::to_string(k) + ", " + shape_text({kernel, kernel});
  }
};

ConvSize depthwise(Index n, Index c, Index h, Index kernel) {
  return {"depthwise", "", n, c, h, c, kernel, kernel / 2, false, c};
}

std::vector<ConvSize> conv_sizes() {
  return {{"seed", "c1", 128, 1, 28, 8, 3, 0, true},
          {"seed", "c2", 128, 8, 26, 8, 3, 0},
          {"seed", "c3", 128, 8, 24, 8, 3, 0},
          {"seed", "c4", 128, 8, 11, 12, 3, 0},
          {"seed", "c5", 128, 12, 9, 14, 3, 0},
          {"seed", "c6", 128, 14, 7, 8, 1, 0},
          {"seed", "c7", 128, 8, 7, 26, 3, 0},
          {"seed", "c8", 128, 26, 5, 50, 1, 0},
          {"seed", "c9", 128, 50, 1, 10, 1, 0},
          {"wide", "", 32, 64, 56, 64, 3, 1},
          {"wide", "", 32, 256, 14, 256, 3, 1},
          {"wide", "", 8, 64, 112, 64, 3, 1},
          {"wide", "", 32, 256, 14, 256, 1, 0},
          {"one", "", 1, 8, 26, 8, 3, 0},
          {"one", "", 1, 64, 56, 64, 3, 1},
          depthwise(32, 64, 56, 3),
          depthwise(32, 256, 14, 3),
          depthwise(32, 512, 7, 3),
          depthwise(32, 96, 28, 5),
          {"odd", "", 37, 7, 31, 13, 3, 0}};
}

/// By slices of images, for memory's sake.
Oracle conv_oracle(const Tensor<float>& x, const Tensor<float>& weight, const Tensor<float>& dy,
                   Index padding, Index groups) {
  Oracle whole{Tensor<double>(dy.shape()),
               {Tensor<double>(x.shape()), Tensor<double>::zeros(weight.shape())}};
  const Index slice = 4;
  for (Index i = 0; i < x.size(0); i += slice) {
    const Index end = std::min(x.size(0), i + slice);
    const Oracle part = oracle(
        [=](const auto& v) { return composed::conv2d(v[0], v[1], {}, 1, padding, 1, groups); },
        {x.slice(i, end), weight}, dy.slice(i, end));
    whole.y.slice(i, end).copy_from(part.y);
    whole.gradients[0].slice(i, end).copy_from(part.gradients[0]);
    for (Index j = 0; j < weight.size(); ++j) whole.gradients[1][j] += part.gradients[1][j];
  }
  return whole;
}

/// The same arrays with one image a lane, and the kernels on them.
class Lanes {
 public:
  Lanes(const ConvSize& s, const Tensor<float>& x, const Tensor<float>& weight,
        const Tensor<float>& dy)
      : sizes_{s.c, s.h, s.h, s.k, s.kernel},
        n_(s.n),
        packets_(kernels::packet_count<float>(s.n)),
        convolution_(sizes_),
        forward_weight_({convolution_.forward_weights()}),
        backward_weight_({convolution_.backward_weights()}),
        memory_({packets_, convolution_.memory()}),
        x_(lanes_of(s.c * s.h * s.h)),
        y_(lanes_of(sizes_.k * sizes_.oh() * sizes_.ow())),
        dy_(Tensor<float>::zeros({packets_, sizes_.k * sizes_.oh() * sizes_.bordered_w() * width})),
        dx_(x_.shape()),
        dweight_({packets_, weight.size()}) {
    convolution_.pack_forward(forward_weight_.data(), weight.data());
    convolution_.pack_backward(backward_weight_.data(), weight.data());
    for (Index p = 0; p < packets_; ++p)
      kernels::interleave(at(x_, p), x.data() + p * width * sizes_.c * s.h * s.h, images(p),
                          sizes_.c * s.h * s.h);
    const Index rows = sizes_.k * sizes_.oh();
    for (Index p = 0; p < packets_; ++p) {
      kernels::interleave(at(y_, p), dy.data() + p * width * rows * sizes_.ow(), images(p),
                          rows * sizes_.ow());
      for (Index row = 0; row < rows; ++row)
        std::copy_n(at(y_, p) + row * sizes_.ow() * width, sizes_.ow() * width,
                    at(dy_, p) + (row * sizes_.bordered_w() + sizes_.kernel.w - 1) * width);
    }
  }

  void forward() {
    for_each_packet([&](Index p, float* memory) {
      convolution_.forward(at(y_, p), at(x_, p), forward_weight_.data(), {}, memory);
    });
  }
  void backward_data() {
    for_each_packet([&](Index p, float* memory) {
      convolution_.backward_data(at(dx_, p), at(dy_, p), backward_weight_.data(), false, memory);
    });
  }
  void backward_weight(Tensor<float> dweight) {
    for_each_packet([&](Index p, float* memory) {
      convolution_.backward_weight(at(dweight_, p), at(dy_, p), at(x_, p), memory);
    });
    kernels::detail::merge_partials(dweight.data(), dweight_.data(), packets_, sizes_.k,
                                    sizes_.terms());
  }
  void store_y(Tensor<float> y) { separate(y, y_); }
  void store_dx(Tensor<float> dx) { separate(dx, dx_); }

 private:
  static constexpr Index width = Pack<float>::width;

  template <class F>
  void for_each_packet(const F& f) {
    parallel_for(
        packets_,
        [&](Index p, Index worker) { f(p, memory_.data() + worker * convolution_.memory()); },
        worker_count(packets_));
  }
  Tensor<float> lanes_of(Index size) const { return Tensor<float>({packets_, size * width}); }
  static float* at(Tensor<float>& lanes, Index p) { return lanes.data() + p * lanes.size(1); }
  Index images(Index p) const { return std::min(width, n_ - p * width); }
  void separate(Tensor<float>& out, Tensor<float>& lanes) {
    const Index size = out.size() / n_;
    for (Index p = 0; p < packets_; ++p)
      kernels::separate(out.data() + p * width * size, at(lanes, p), images(p), size);
  }

  kernels::LaneConv2dSizes sizes_;
  Index n_, packets_;
  kernels::LaneConv2d<float> convolution_;
  Tensor<float> forward_weight_, backward_weight_, memory_, x_, y_, dy_, dx_, dweight_;
};

void measure(Suite& suite, const ConvSize& size) {
  const auto s = size.sizes();
  const Shape x_shape{s.n, s.c, s.h, s.w}, y_shape{s.n, s.k, s.oh(), s.ow()},
      w_shape{s.k, s.group_c(), size.kernel, size.kernel};
  const auto x = normal(x_shape, 1), dy = normal(y_shape, 2), weight = normal(w_shape, 3);
  Tensor<float> y(y_shape), dx(x_shape), dweight(w_shape);
  const Oracle right = conv_oracle(x, weight, dy, size.padding, size.groups);
  const std::shared_ptr<Lanes> lanes =
      size.set == "seed" ? std::make_shared<Lanes>(size, x, weight, dy) : nullptr;

  const double flops = 2.0 * static_cast<double>(y.size() * s.terms());
  const nn::Conv2dOptions options{.padding = size.padding, .groups = size.groups, .bias = false};
  const auto measure_one = [&](const char* direction, const Tensor<float>& actual,
                               const Tensor<double>& expected, auto minnow, auto book, auto lane,
                               auto finish, const Way& layer) {
    std::vector<Way> ways;
    // Wide convolutions take the naive loops many seconds.
    const auto textbook = [&](const char* name, auto run) {
      ways.push_back({.name = name, .run = run, .serial = true, .tolerance = 1e-2});
    };
    if (flops < 2e9) textbook("naive", [=]() mutable { book(Naive()); });
    textbook("vectorised", [=]() mutable { book(Vectorised()); });
    ways.push_back({"minnow", minnow});
    if (lanes) ways.push_back({"lanes", lane, finish});
    ways.push_back(layer);
    Outputs outputs;
    outputs.expect(actual, expected);
    suite.measure(
        {.layer = "conv2d",
         .direction = direction,
         .shape = size.text(),
         .set = size.set,
         .elements = static_cast<double>(y.size()),
         .bytes = sizeof(float) * static_cast<double>(x.size() + y.size() + weight.size()),
         .flops = flops,
         .computes = true},
        outputs, ways,
        {"conv2d", direction, {s.n, s.c, s.h, s.w, s.k, size.kernel, size.padding, size.groups}});
  };
  const Variable<float> vx(x, true), vw(weight, true);
  measure_one(
      "forward", y, right.y,
      [=]() mutable {
        const float* const no_bias = nullptr;
        kernels::conv2d_forward(y.data(), x.data(), weight.data(), no_bias, s);
      },
      [=](auto book) mutable { book.conv2d_forward(y.data(), x.data(), weight.data(), s); },
      [=] { lanes->forward(); }, [=] { lanes->store_y(y); },
      layer_forward([=] { return nn::conv2d(vx, vw, {}, options); }, y));
  if (!size.first)
    measure_one(
        "backward data", dx, right.gradients[0],
        [=]() mutable { kernels::conv2d_backward_data(dx.data(), dy.data(), weight.data(), s); },
        [=](auto book) mutable {
          book.conv2d_backward_data(dx.data(), dy.data(), weight.data(), s);
        },
        [=] { lanes->backward_data(); }, [=] { lanes->store_dx(dx); },
        layer_backward(nn::conv2d(vx, Variable<float>(weight), {}, options), dy, {{vx, dx}}));
  measure_one(
      "backward weights", dweight, right.gradients[1],
      [=]() mutable { kernels::conv2d_backward_weight(dweight.data(), dy.data(), x.data(), s); },
      [=](auto book) mutable {
        book.conv2d_backward_weight(dweight.data(), dy.data(), x.data(), s);
      },
      [=] { lanes->backward_weight(dweight); }, [] {},
      layer_backward(nn::conv2d(Variable<float>(x), vw, {}, options), dy, {{vw, dweight}}));
}

}  // namespace

int main(int argc, char** argv) {
  return run("conv2d", argc, argv, [](Suite& suite) {
    suite.about("Convolution", how_it_works);
    for (const ConvSize& s : conv_sizes())
      if (suite.wants(s.set, s.text())) measure(suite, s);
  });
}
