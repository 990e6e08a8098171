#pragma once
/// @file
/// Where tests get pictures from: real MNIST or Fashion-MNIST where it lies on the machine, else
/// generated.

#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "minnow/core/random.hpp"
#include "minnow/data/mnist.hpp"
#include "temporary.hpp"

namespace minnow_test {

/// The directory that holds the published files of the data set, "" if there is none on this
/// machine.
inline std::string directory_of(minnow::data::Dataset dataset) {
  const char* variable = std::getenv("MINNOW_DATA_DIR");
  std::vector<std::string> places;
  for (const std::string& root : {std::string(variable ? variable : ""),
                                  std::string(MINNOW_SOURCE_DIR) + "/../shared/data/mnist"})
    for (std::string& place : minnow::data::directories_below(root, dataset))
      places.push_back(std::move(place));
  places.push_back(std::string("/usr/share/datasets/") + minnow::data::dataset_folder(dataset));
  for (const std::string& place : places) {
    const auto& labels = minnow::data::dataset_file(dataset, minnow::data::Split::test, true);
    const std::string path = minnow::data::find_file(place, labels.name());
    if (path.empty()) continue;
    try {
      // The other three files lie beside it, or this is no directory for tests.
      minnow::data::GzipReader reader(path);
      std::vector<char> content(labels.bytes + 1);
      if (reader.read(content.data(), content.size()) == labels.bytes && reader.crc() == labels.crc)
        return place;
    } catch (const minnow::DataError&) {
    }
  }
  return "";
}

/// Writes a data set of four files: each picture is a bar whose place tells the class, in some
/// noise.
inline void generate_dataset(const std::string& directory, minnow::Index training,
                             minnow::Index test) {
  using namespace minnow;
  for (const data::Split split : {data::Split::train, data::Split::test}) {
    const Index count = split == data::Split::train ? training : test;
    const RandomKey key{static_cast<std::uint64_t>(split), 0, 0};
    Tensor<std::uint8_t> images(Shape{count, 28, 28}), labels(Shape{count});
    for (Index i = 0; i < images.size(); ++i) {
      const Index number = i / 784, row = i % 784 / 28, column = i % 28;
      labels[number] =
          static_cast<std::uint8_t>(random_integer(key, static_cast<std::uint64_t>(number), 10));
      const bool bar = row / 2 == labels[number] + 2 && column >= 4 && column < 24;
      images[i] = static_cast<std::uint8_t>(
          (bar ? 150 : 0) + random_integer(key, static_cast<std::uint64_t>(count + i), 100));
    }
    data::write_idx(directory + "/" + data::dataset_file(data::Dataset::mnist, split, false).name(),
                    images);
    data::write_idx(directory + "/" + data::dataset_file(data::Dataset::mnist, split, true).name(),
                    labels);
  }
}

/// Real pictures, MNIST's rather than Fashion-MNIST's, else generated ones: ten classes that can be
/// learned.
inline minnow::data::MNIST some_dataset(minnow::data::Split split) {
  using minnow::data::Dataset;
  for (const Dataset dataset : {Dataset::mnist, Dataset::fashion})
    if (const std::string directory = directory_of(dataset); !directory.empty())
      return minnow::data::MNIST(split, {.dataset = dataset, .root = directory});
  const TemporaryDirectory generated;
  generate_dataset(generated.path(), 8000, 1000);
  return minnow::data::MNIST(split, {.root = generated.path()});
}

}  // namespace minnow_test
