#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <vector>

#include "../examples/mnist/trainer.hpp"
#include "datasets.hpp"
#include "minnow/testing/compare.hpp"
#include "sanitized.hpp"

using namespace minnow;
using namespace mnist;

namespace {

const std::atomic<bool> never = false;

/// The first images of real MNIST, or of Fashion-MNIST, or generated ones.
struct Subset {
  data::MNIST train{minnow_test::some_dataset(data::Split::train)};
  data::MNIST test{minnow_test::some_dataset(data::Split::test)};

  bool digits() const { return train.dataset() == data::Dataset::mnist; }
  Images images(Index training, Index testing) const {
    return {.train_images = train.images().slice(0, training),
            .test_images = test.images().slice(0, testing),
            .train_labels = train.labels().slice(0, training),
            .test_labels = test.labels().slice(0, testing),
            .mean = digits() ? 0.1307 : 0.2860,
            .deviation = digits() ? 0.3081 : 0.3530};
  }
};

const Subset& subset() {
  static const Subset once;
  return once;
}

/// The weights after a short training.
StateDict trained(Norm norm, const Recipe& recipe, Index images, std::uint64_t seed = 5) {
  manual_seed(seed);
  auto net = make_net(norm, {.dropout = recipe.dropout});
  const Images some = subset().images(images, 100);
  Trainer trainer(net, recipe, some, seed);
  for (Index epoch = 0; epoch < recipe.epochs; ++epoch) trainer.epoch("", nullptr, never);
  return net.state_dict();
}

bool same_bits(const StateDict& a, const StateDict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, tensor] : a) {
    const bool same = std::visit(
        [&, &other = b.at(key)](const auto& mine) {
          const auto* theirs = std::get_if<std::remove_cvref_t<decltype(mine)>>(&other);
          return theirs && testing::same_bits(mine, *theirs);
        },
        tensor);
    if (!same) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("every norm learns real images") {
  set_num_threads(1);
  const bool slow = minnow_test::sanitized;
  const Images images = subset().images(slow ? 400 : 8000, slow ? 100 : 1000);
  for (const Norm norm : all_norms) {
    CAPTURE(name(norm));
    Recipe recipe = default_recipe(norm);
    recipe.epochs = 3;
    recipe.batch_size = 16;
    recipe.augment = "none";
    manual_seed(1);
    auto net = make_net(norm, {.dropout = recipe.dropout});
    Trainer trainer(net, recipe, images, 1);
    train::EpochRecord first, last;
    for (Index epoch = 0; epoch < recipe.epochs; ++epoch) {
      last = trainer.epoch("", nullptr, never);
      CHECK(last.complete);
      if (epoch == 0) first = last;
    }
    if (!slow) CHECK(last.test_accuracy > (subset().digits() ? 90 : 65));
    CHECK(last.train_loss < first.train_loss);
    if (!slow) CHECK(last.test_loss < first.test_loss);
    CHECK(last.seconds > 0);
    CHECK(last.lr < first.lr);
  }
  set_num_threads(0);
}

TEST_CASE("the same seed gives the same weights, bit for bit, with one, two and four threads") {
  for (const Norm norm : all_norms) {
    CAPTURE(name(norm));
    Recipe recipe = default_recipe(norm);
    recipe.epochs = 2;
    recipe.batch_size = 40;
    recipe.dropout = 0.1;
    const Index images = minnow_test::sanitized ? 60 : 200;
    std::vector<StateDict> states;
    for (const int threads : {1, 2, 4}) {
      set_num_threads(threads);
      states.push_back(trained(norm, recipe, images));
    }
    set_num_threads(0);
    CHECK(same_bits(states[0], states[1]));
    CHECK(same_bits(states[0], states[2]));
    CHECK_FALSE(same_bits(states[0], trained(norm, recipe, images, 6)));
  }
}

TEST_CASE("an interrupted epoch ends after its batch, is tested, and says that it is incomplete") {
  manual_seed(1);
  auto net = make_net(Norm::group);
  const Images images = subset().images(300, 100);
  Recipe recipe = default_recipe(Norm::group);
  recipe.batch_size = 100;
  Trainer trainer(net, recipe, images, 1);
  const std::atomic<bool> stop = true;
  const auto interrupted = trainer.epoch("", nullptr, stop);
  CHECK_FALSE(interrupted.complete);
  CHECK(interrupted.test_loss > 0);
  CHECK(trainer.epoch("", nullptr, never).complete);
}

TEST_CASE("every optimiser and schedule of the command line trains") {
  set_num_threads(1);
  const Images images = subset().images(90, 10);
  for (const OptimizerChoice& optimizer : optimizers)
    for (const std::string_view schedule : schedules) {
      CAPTURE(optimizer.name);
      CAPTURE(schedule);
      const Recipe recipe{
          3, 30, std::string(optimizer.name), optimizer.lr, std::string(schedule), "none", 0};
      manual_seed(1);
      auto net = make_net(Norm::batch, {.dropout = 0});
      Trainer trainer(net, recipe, images, 1);
      std::vector<double> lrs, losses;
      for (int epoch = 0; epoch < 3; ++epoch) {
        const auto record = trainer.epoch("", nullptr, never);
        lrs.push_back(record.lr / optimizer.lr);
        losses.push_back(record.train_loss);
      }
      CHECK(losses[2] < losses[0]);
      if (schedule == "constant") CHECK(lrs == std::vector<double>{1, 1, 1});
      if (schedule == "step") {
        CHECK(lrs[0] == doctest::Approx(1));
        CHECK(lrs[1] == doctest::Approx(0.1));
        CHECK(lrs[2] == doctest::Approx(0.01));
      }
      if (schedule == "cosine" || schedule == "onecycle") CHECK(lrs[2] < 0.1);
      if (schedule == "onecycle") CHECK(lrs[2] == doctest::Approx(1e-4));
    }
  set_num_threads(0);
}

TEST_CASE("augmentation changes the training images only, and there is one of each name") {
  const Images images = subset().images(60, 60);
  for (const Augmentation& augmentation : augmentations) {
    const auto transforms = make_transforms(images, augmentation);
    CHECK(transforms.size() == (augmentation.name == "none" ? 1 : 2));
    CHECK(&named(augmentations, augmentation.name) == &augmentation);
  }
  CHECK_THROWS_WITH_AS(named(augmentations, "heavy"),
                       "'heavy' is not known; there are none, gentle, light, strong", Error);
}

TEST_CASE("a number of groups that does not fit is refused with the ones that do") {
  CHECK_THROWS_AS(make_net(Norm::group, {.groups = 4}), ShapeError);
  CHECK_NOTHROW(make_net(Norm::group, {.groups = 1}));
}
