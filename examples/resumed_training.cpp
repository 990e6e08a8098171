// Stops a training half-way and goes on from a file: the weights are those of one that never
// stopped, to the bit.
#include <cstdio>
#include <filesystem>
#include <minnow/io/checkpoint.hpp>
#include <minnow/minnow.hpp>

using namespace minnow;

constexpr int epochs = 6, batches = 8;

// All that a training remembers.
struct Training {
  nn::Sequential<float> net{nn::Linear(4, 32), nn::ReLU(), nn::Dropout(0.2), nn::Linear(32, 3)};
  optim::Adam<float> optimizer{net.parameters(), {.lr = 0.01}};
  optim::CosineAnnealingLR scheduler{optimizer, {.T_max = epochs}};
  data::DataLoader loader;

  Training(const Tensor<float>& inputs, const Tensor<std::int64_t>& labels)
      : loader(inputs, labels, {.batch_size = inputs.size(0) / batches, .shuffle = true}) {}

  void epoch() {
    for (const auto& [x, labels] : loader) {
      optimizer.zero_grad();
      cross_entropy(net(x), labels).backward();
      optimizer.step();
    }
    scheduler.step();
  }

  void save(const std::string& file) const {
    io::save_checkpoint(file, {{"net", net.state_dict()},
                               {"optimizer", optimizer.state_dict()},
                               {"scheduler", scheduler.state_dict()},
                               {"random", state_dict(default_generator())}});
  }
  void load(const std::string& file) {
    io::Checkpoint run = io::load_checkpoint(file);
    net.load_state_dict(run["net"]);
    optimizer.load_state_dict(run["optimizer"]);
    scheduler.load_state_dict(run["scheduler"]);
    load_state_dict(default_generator(), run["random"]);  // of dropout
    loader.set_epoch(scheduler.last_epoch());             // of the order of samples
  }
};

int main() {
  const auto inputs = Tensor<float>::normal({200, 4});
  Tensor<std::int64_t> labels({200});
  for (Index i = 0; i < 200; ++i)
    labels[i] = inputs(i, 0) > inputs(i, 1) ? 0 : inputs(i, 2) > 0 ? 1 : 2;

  manual_seed(1);
  Training whole(inputs, labels);
  for (int epoch = 0; epoch < epochs; ++epoch) whole.epoch();

  const std::string file =
      (std::filesystem::temp_directory_path() / "minnow-half-way.safetensors").string();
  manual_seed(1);
  Training first_half(inputs, labels);
  for (int epoch = 0; epoch < epochs / 2; ++epoch) first_half.epoch();
  first_half.save(file);

  manual_seed(2);  // a new program knows nothing of the old one
  Training second_half(inputs, labels);
  second_half.load(file);
  std::filesystem::remove(file);
  for (int epoch = epochs / 2; epoch < epochs; ++epoch) second_half.epoch();

  Index different = 0;
  for (std::size_t i = 0; i < whole.net.parameters().size(); ++i) {
    const auto &a = whole.net.parameters()[i].value(), &b = second_half.net.parameters()[i].value();
    for (Index j = 0; j < a.size(); ++j) different += a[j] != b[j] ? 1 : 0;
  }
  std::printf("%td weights differ from those of a training without a break\n", different);
  return different == 0 ? 0 : 1;
}
