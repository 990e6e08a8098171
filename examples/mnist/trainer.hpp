#pragma once
/// @file
/// The training of one network: an epoch is a pass over the training images and one over the test
/// images.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "minnow/data/loader.hpp"
#include "minnow/data/transforms.hpp"
#include "minnow/ops/loss.hpp"
#include "minnow/ops/shape.hpp"
#include "minnow/optim/adam.hpp"
#include "minnow/optim/lr_scheduler.hpp"
#include "minnow/optim/rmsprop.hpp"
#include "minnow/optim/sgd.hpp"
#include "minnow/train/history.hpp"
#include "minnow/train/metrics.hpp"
#include "minnow/train/progress.hpp"
#include "recipe.hpp"

namespace mnist {

/// Images [N, 28, 28] and labels [N] of both splits, and what makes the pixels' mean 0 and
/// deviation 1.
struct Images {
  Tensor<std::uint8_t> train_images, test_images;
  Tensor<std::int64_t> train_labels, test_labels;
  double mean, deviation;
};

inline std::unique_ptr<optim::OptimizerBase> make_optimizer(const Recipe& recipe,
                                                            nn::Module<float>& net) {
  const auto parameters = net.parameters();
  if (recipe.optimizer == "sgd")
    return std::make_unique<optim::SGD<float>>(parameters,
                                               optim::SGDOptions{.lr = recipe.lr, .momentum = 0.9});
  if (recipe.optimizer == "adam")
    return std::make_unique<optim::Adam<float>>(parameters, optim::AdamOptions{.lr = recipe.lr});
  if (recipe.optimizer == "adamw")
    return std::make_unique<optim::AdamW<float>>(parameters, optim::AdamWOptions{.lr = recipe.lr});
  if (recipe.optimizer == "rmsprop")
    return std::make_unique<optim::RMSprop<float>>(parameters,
                                                   optim::RMSpropOptions{.lr = recipe.lr});
  throw Error(text("there is no optimizer '", recipe.optimizer, "'"));
}

/// A schedule that is stepped after every batch; null for a constant learning rate.
inline std::unique_ptr<optim::LRScheduler> make_schedule(const Recipe& recipe,
                                                         optim::OptimizerBase& optimizer,
                                                         Index steps) {
  if (recipe.schedule == "onecycle")
    return std::make_unique<optim::OneCycleLR>(optimizer,
                                               optim::OneCycleLROptions{.max_lr = recipe.lr,
                                                                        .total_steps = steps,
                                                                        .pct_start = 0.2,
                                                                        .cycle_momentum = false,
                                                                        .div_factor = 10,
                                                                        .final_div_factor = 1000});
  if (recipe.schedule == "step")
    return std::make_unique<optim::StepLR>(optimizer,
                                           optim::StepLROptions{.step_size = (steps + 2) / 3});
  if (recipe.schedule == "cosine")
    return std::make_unique<optim::CosineAnnealingLR>(
        optimizer, optim::CosineAnnealingLROptions{.T_max = steps});
  check(recipe.schedule == "constant", "there is no schedule '", recipe.schedule, "'");
  return nullptr;
}

/// What is done to the batches: the training images are changed at random before they are
/// normalised.
inline std::vector<data::Transform> make_transforms(const Images& images,
                                                    const Augmentation& augmentation) {
  std::vector<data::Transform> transforms;
  if (augmentation.degrees > 0)
    transforms.push_back(
        data::RandomAffine({.degrees = augmentation.degrees,
                            .translate = augmentation.pixels / 28,
                            .scale = {1 - augmentation.scale, 1 + augmentation.scale},
                            .shear = augmentation.shear}));
  transforms.push_back(data::Normalize(images.mean, images.deviation));
  return transforms;
}

/// How many batches a thread of its own prepares ahead. None where all cores train: the threads of
/// a loop wait for each other, so one that has to share its core slows down all.
inline Index prefetch() {
  return num_threads() < static_cast<int>(std::thread::hardware_concurrency()) ? 2 : 0;
}

/// Trains a network epoch by epoch. Which weights result depends on the network's, the recipe, the
/// seed and the default generator's state, and on nothing else: not on threads or time.
class Trainer {
 public:
  Trainer(nn::Module<float>& net, const Recipe& recipe, const Images& images, std::uint64_t seed)
      : net_(net),
        train_(images.train_images, images.train_labels,
               {.batch_size = recipe.batch_size,
                .shuffle = true,
                .seed = seed,
                .transforms = make_transforms(images, named(augmentations, recipe.augment)),
                .prefetch = prefetch()}),
        test_(images.test_images, images.test_labels,
              {.batch_size = 250,
               .transforms = make_transforms(images, augmentations[0]),
               .prefetch = prefetch()}),
        optimizer_(make_optimizer(recipe, net)),
        schedule_(make_schedule(recipe, *optimizer_, recipe.epochs * train_.size())) {}

  /// One epoch, shown as `label`. When `stop` becomes true, the training pass ends after the batch
  /// that runs; the record then says that it is incomplete.
  train::EpochRecord epoch(const std::string& label, const train::Terminal* terminal,
                           const std::atomic<bool>& stop) {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point start = Clock::now();
    train::EpochRecord record;
    const train::PassMetrics trained = train_pass(label, terminal, stop, record);
    record.train_loss = trained.loss();
    record.train_accuracy = 100 * trained.accuracy();
    record.complete = trained.samples() == train_.samples();
    record.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const train::PassMetrics tested = test_pass();
    record.test_loss = tested.loss();
    record.test_accuracy = 100 * tested.accuracy();
    return record;
  }

 private:
  train::PassMetrics train_pass(const std::string& label, const train::Terminal* terminal,
                                const std::atomic<bool>& stop, train::EpochRecord& record) {
    std::optional<train::ProgressBar> bar;
    if (terminal) bar.emplace(*terminal, label, train_.samples());
    train::PassMetrics metrics;
    net_.train();
    for (const auto& [x, labels] : train_) {
      const Variable<float> scores = flatten(net_(x), 1);
      const Variable<float> loss = cross_entropy(scores, labels);
      optimizer_->zero_grad();
      loss.backward();
      record.lr = optimizer_->lr();
      optimizer_->step();
      if (schedule_) schedule_->step();

      metrics.add(loss.item(), scores.value(), labels);
      if (bar) bar->update(metrics.samples(), text("loss ", fixed(metrics.loss(), 4)));
      if (stop) break;
    }
    return metrics;
  }

  train::PassMetrics test_pass() {
    const NoGrad no_grad;
    train::PassMetrics metrics;
    net_.eval();
    for (const auto& [x, labels] : test_) {
      const Variable<float> scores = flatten(net_(x), 1);
      metrics.add(cross_entropy(scores, labels).item(), scores.value(), labels);
    }
    return metrics;
  }

  nn::Module<float>& net_;
  data::DataLoader train_, test_;
  std::unique_ptr<optim::OptimizerBase> optimizer_;
  std::unique_ptr<optim::LRScheduler> schedule_;
};

}  // namespace mnist
