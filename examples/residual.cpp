// A network that is no chain: a residual block as a module of its own, in a model that tells crosses
// from rings.
#include <cstdio>
#include <minnow/minnow.hpp>

using namespace minnow;

/// y = relu(x + norm(conv(relu(norm(conv(x)))))). Paper: He et al., "Deep residual learning for
/// image recognition", 2016, figure 2.
///
/// Whatever is registered is found by `parameters`, `state_dict`, `train` and `eval`.
class Residual : public nn::Module<float> {
 public:
  explicit Residual(Index channels)
      : conv1_(register_module("conv1", same_size(channels))),
        norm1_(register_module("norm1", nn::BatchNorm2d(channels))),
        conv2_(register_module("conv2", same_size(channels))),
        norm2_(register_module("norm2", nn::BatchNorm2d(channels))) {}

  Variable<float> forward(const Variable<float>& x) override {
    const auto hidden = relu((*norm1_)((*conv1_)(x)));
    return relu(x + (*norm2_)((*conv2_)(hidden)));
  }
  std::string name() const override { return "Residual"; }

 private:
  static nn::Conv2d<float> same_size(Index channels) {
    return nn::Conv2d(channels, channels, 3, {.padding = 1, .bias = false});
  }

  std::shared_ptr<nn::Conv2d<float>> conv1_;
  std::shared_ptr<nn::BatchNorm2d<float>> norm1_;
  std::shared_ptr<nn::Conv2d<float>> conv2_;
  std::shared_ptr<nn::BatchNorm2d<float>> norm2_;
};

int main() {
  manual_seed(1);
  const Index count = 1200, trained = 1000, size = 10;
  auto images = Tensor<float>::normal({count, 1, size, size});
  Tensor<std::int64_t> labels({count});
  for (Index i = 0; i < count; ++i) {
    labels[i] = i % 2;
    const Index top = i / 2 % (size - 4), left = i / 7 % (size - 4);
    for (Index h = 0; h < 5; ++h)
      for (Index w = 0; w < 5; ++w) {
        const bool cross = h == 2 || w == 2, ring = h % 4 == 0 || w % 4 == 0;
        if (labels[i] == 0 ? cross : ring) images(i, 0, top + h, left + w) += 2;
      }
  }

  nn::Sequential model{nn::Conv2d(1, 8, 3), Residual(8),   nn::MaxPool2d(2), Residual(8),
                       nn::AvgPool2d(4),    nn::Flatten(), nn::Linear(8, 2)};
  std::puts(nn::summary(model, {1, size, size}).str().c_str());

  data::DataLoader loader(images.slice(0, trained), labels.slice(0, trained),
                          {.batch_size = 50, .shuffle = true});
  optim::AdamW optimizer(model.parameters(), {.lr = 0.005});
  for (int epoch = 0; epoch < 5; ++epoch)
    for (const auto& [x, y] : loader) {
      optimizer.zero_grad();
      cross_entropy(model(x), y).backward();
      optimizer.step();
    }

  model.eval();
  const NoGrad no_grad;
  train::ConfusionMatrix result(2);
  result.add(model(images.slice(trained, count)).value(), labels.slice(trained, count));
  std::printf("%.1f %% of 200 new images are classified correctly\n", 100 * result.accuracy());
  return result.accuracy() > 0.95 ? 0 : 1;
}
