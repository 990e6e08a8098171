#pragma once
/// @file
/// How each network is trained unless the command line says otherwise.

#include <array>
#include <string>
#include <string_view>

#include "model.hpp"

namespace mnist {

/// Random changes of the training images: turns, shifts, changes of size and shear up to these
/// amounts.
struct Augmentation {
  std::string_view name;
  double degrees = 0, pixels = 0, scale = 0, shear = 0;
};

inline constexpr std::array augmentations{
    Augmentation{"none"},
    Augmentation{"gentle", 5, 1.0, 0.05},
    Augmentation{"light", 8, 1.5, 0.08},
    Augmentation{"strong", 12, 2.5, 0.12, 8},
};

/// The optimisers and the learning rate that suits each, the largest of its schedule.
struct OptimizerChoice {
  std::string_view name;
  double lr;
};

inline constexpr std::array optimizers{
    OptimizerChoice{"sgd", 0.1},  // with momentum 0.9
    OptimizerChoice{"adam", 0.01},
    OptimizerChoice{"adamw", 0.01},
    OptimizerChoice{"rmsprop", 0.003},
};

/// How the learning rate runs: `onecycle` rises from a tenth over a fifth of the steps and falls
/// along a cosine; `step` divides by ten after one and two thirds of the epochs; `cosine` only
/// falls.
inline constexpr std::array<std::string_view, 4> schedules{"onecycle", "step", "cosine",
                                                           "constant"};

struct Recipe {
  Index epochs;
  Index batch_size;
  std::string optimizer;
  double lr;
  std::string schedule;
  std::string augment;
  double dropout;
};

/// The defaults, found by trying: batch and group norm like a large step of plain gradient descent;
/// layer norm, which here sees rows of 5 to 26 numbers, wants many small adaptive ones.
inline Recipe default_recipe(Norm norm) {
  switch (norm) {
    case Norm::batch:
      return {15, 128, "sgd", 0.1, "onecycle", "light", 0.01};
    case Norm::group:
      return {15, 128, "sgd", 0.1, "onecycle", "light", 0.01};
    case Norm::layer:
      return {20, 64, "adam", 0.01, "onecycle", "light", 0.01};
  }
  throw Error("default_recipe: no such norm");
}

/// The entry of that name. Errors: Error, with the names that there are, if there is none.
template <class Table>
const auto& named(const Table& table, std::string_view name) {
  std::string names;
  for (const auto& entry : table) {
    if (entry.name == name) return entry;
    names += text(names.empty() ? "" : ", ", entry.name);
  }
  throw Error(text("'", name, "' is not known; there are ", names));
}

}  // namespace mnist
