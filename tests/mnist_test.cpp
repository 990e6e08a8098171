#include "minnow/data/mnist.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "datasets.hpp"
#include "temporary.hpp"

using namespace minnow;
using namespace minnow_test;
using data::Dataset;
using data::Split;

namespace {

/// A few pictures under the names of the training split.
void write_training(const std::string& directory, Index images = 5, Index labels = 5,
                    std::uint8_t largest = 9) {
  std::filesystem::create_directories(directory);
  data::write_idx(directory + "/train-images-idx3-ubyte",
                  Tensor<std::uint8_t>::full({images, 28, 28}, 7));
  Tensor<std::uint8_t> values(Shape{labels});
  for (Index i = 0; i < labels; ++i)
    values[i] = i == 3 ? largest : static_cast<std::uint8_t>(i % 10);
  data::write_idx(directory + "/train-labels-idx1-ubyte", values);
}

std::string error_in(const std::string& directory, Split split = Split::train,
                     Dataset dataset = Dataset::mnist) {
  return error_of<DataError>([&] { data::MNIST(split, {.dataset = dataset, .root = directory}); });
}

/// No place of the search holds anything but what the test puts there.
struct EmptyPlaces {
  TemporaryDirectory directory;
  std::filesystem::path before = std::filesystem::current_path();
  EnvironmentVariable data{"MINNOW_DATA_DIR", nullptr};
  EnvironmentVariable cache{"XDG_CACHE_HOME", (directory.path() + "/cache").c_str()};

  EmptyPlaces() { std::filesystem::current_path(directory.path()); }
  ~EmptyPlaces() { std::filesystem::current_path(before); }
};

const char* const four_names =
    "\n  train-images-idx3-ubyte\n  train-labels-idx1-ubyte\n  t10k-images-idx3-ubyte\n  "
    "t10k-labels-idx1-ubyte";

}  // namespace

TEST_CASE("the published data sets are recognised, where they lie on this machine") {
  for (const Dataset dataset : {Dataset::mnist, Dataset::fashion}) {
    const std::string directory = directory_of(dataset);
    if (directory.empty()) continue;
    for (const Split split : {Split::train, Split::test}) {
      const data::MNIST mnist(split, {.dataset = dataset, .root = directory});
      const bool train = split == Split::train;
      CHECK(mnist.canonical());
      CHECK(mnist.size() == (train ? 60000 : 10000));
      CHECK(mnist.images().shape() == Shape{mnist.size(), 28, 28});
      CHECK(mnist.labels().shape() == Shape{mnist.size()});
      CHECK(mnist.dataset() == dataset);
      CHECK(mnist.split() == split);
      CHECK(mnist.source() == directory);
      CHECK(mnist.str() == text(data::dataset_name(dataset),
                                train ? ", 60,000 training" : ", 10,000 test", " images from ",
                                directory));
    }
    const data::MNIST test(Split::test, {.dataset = dataset, .root = directory});
    CHECK(test.labels()[0] == (dataset == Dataset::mnist ? 7 : 9));
    CHECK(test.labels()[1] == 2);

    // The same names, but another data set: refused by the content.
    const Dataset other = dataset == Dataset::mnist ? Dataset::fashion : Dataset::mnist;
    const std::string error = error_in(directory, Split::test, other);
    CHECK(error.find(text("holds the test labels of ", data::dataset_name(dataset),
                          ", not the test labels of ", data::dataset_name(other))) !=
          std::string::npos);
  }
}

TEST_CASE(
    "a split under the other's names, and images that are the labels' strangers, are refused") {
  const std::string directory = directory_of(Dataset::fashion);
  if (directory.empty()) return;
  const std::string images = data::find_file(directory, "t10k-images-idx3-ubyte");
  const std::string labels = data::find_file(directory, "t10k-labels-idx1-ubyte");
  const TemporaryDirectory swapped;
  std::filesystem::copy(images, swapped / "train-images-idx3-ubyte");
  std::filesystem::copy(labels, swapped / "train-labels-idx1-ubyte");
  CHECK(error_in(swapped.path(), Split::train, Dataset::fashion)
            .find("train-labels-idx1-ubyte holds the test labels of Fashion-MNIST, not the "
                  "training labels of "
                  "Fashion-MNIST") != std::string::npos);

  const TemporaryDirectory mixed;
  std::filesystem::copy(images, mixed / "t10k-images-idx3-ubyte");
  data::write_idx(mixed / "t10k-labels-idx1-ubyte", Tensor<std::uint8_t>::zeros({10000}));
  CHECK(error_in(mixed.path(), Split::test)
            .find("t10k-images-idx3-ubyte holds the test images of Fashion-MNIST, not the test "
                  "images of MNIST") != std::string::npos);
  const data::MNIST used(Split::test, {.dataset = Dataset::fashion, .root = mixed.path()});
  CHECK_FALSE(used.canonical());
}

TEST_CASE("one's own data of the same form are used, and told from the published ones") {
  const TemporaryDirectory directory;
  write_training(directory.path());
  const data::MNIST mnist(Split::train, {.root = directory.path()});
  CHECK_FALSE(mnist.canonical());
  CHECK(mnist.images()(4, 27, 27) == 7);
  CHECK(mnist.labels()[3] == 9);
  CHECK(mnist.labels()[4] == 4);
  CHECK(mnist.str() == text("MNIST, 5 training images from ", directory.path(),
                            " (not the published ones: their checksums differ)"));
  const data::MNIST kmnist(Split::train, {.dataset = Dataset::kmnist, .root = directory.path()});
  CHECK_FALSE(kmnist.canonical());
  CHECK(kmnist.str() == text("KMNIST, 5 training images from ", directory.path(),
                             " (not verified: minnow knows no checksums of KMNIST)"));
}

TEST_CASE(
    "files are found with a dash or a dot, plain or compressed, in the folders where they usually "
    "lie") {
  for (const char* folder : {"", "raw/", "MNIST/raw/", "mnist/"}) {
    for (const char* images : {"train-images-idx3-ubyte", "train-images.idx3-ubyte",
                               "train-images-idx3-ubyte.gz", "train-images.idx3-ubyte.gz"}) {
      const TemporaryDirectory directory;
      data::write_idx(directory / text(folder, images), Tensor<std::uint8_t>::zeros({2, 28, 28}));
      data::write_idx(directory / text(folder, "train-labels.idx1-ubyte.gz"),
                      Tensor<std::uint8_t>::zeros({2}));
      const data::MNIST mnist(Split::train, {.root = directory.path()});
      CHECK(mnist.size() == 2);
      CHECK(mnist.source() == (directory.path() + "/" + folder).substr(0, mnist.source().size()));
    }
  }
  const TemporaryDirectory directory;
  // A folder of a file's name, as some archives have it, is no file.
  std::filesystem::create_directory(directory / "train-images-idx3-ubyte");
  std::filesystem::create_directory(directory / "train-labels-idx1-ubyte");
  data::write_idx(directory / "train-images.idx3-ubyte", Tensor<std::uint8_t>::zeros({3, 28, 28}));
  data::write_idx(directory / "train-labels.idx1-ubyte", Tensor<std::uint8_t>::zeros({3}));
  CHECK(data::MNIST(Split::train, {.root = directory.path()}).size() == 3);
  data::write_idx(directory / "train-images.idx3-ubyte", Tensor<std::uint8_t>::zeros({0, 28, 28}));
  data::write_idx(directory / "train-labels.idx1-ubyte", Tensor<std::uint8_t>::zeros({0}));
  CHECK(error_in(directory.path()).ends_with("train-labels.idx1-ubyte: holds no labels"));
}

TEST_CASE("torchvision's folders are looked into, each for its own data set") {
  const TemporaryDirectory directory;
  write_training(directory / "FashionMNIST/raw");
  CHECK(data::MNIST(Split::train, {.dataset = Dataset::fashion, .root = directory.path()}).size() ==
        5);
  CHECK(error_in(directory.path()).find("no such files") != std::string::npos);
}

TEST_CASE("a directory with the other half of a data set is told what it lacks") {
  const TemporaryDirectory directory;
  write_training(directory.path());
  const std::string error =
      error_of<DataError>([&] { data::MNIST(Split::test, {.root = directory.path()}); });
  CHECK(error.find(directory.path() +
                   ": has no t10k-images-idx3-ubyte and no t10k-labels-idx1-ubyte\n") !=
        std::string::npos);
}

TEST_CASE("a directory that was given is used or refused, never replaced") {
  const EmptyPlaces places;
  write_training(places.directory / "data");
  CHECK(data::MNIST(Split::train).source() == "data");
  bool called = false;
  const std::string error = error_of<DataError>([&] {
    data::MNIST(Split::train, {.root = "elsewhere",
                               .download = [&](Dataset, const std::string&) { called = true; }});
  });
  CHECK_FALSE(called);
  CHECK(
      error ==
      text("MNIST: not in elsewhere\n  elsewhere: no such files\n  elsewhere/raw: no such files\n"
           "  elsewhere/MNIST/raw: no such files\n  elsewhere/mnist: no such files\n"
           "Put MNIST's four files there, or into the directory that MINNOW_DATA_DIR names (a dot "
           "before idx, and .gz at the end, are fine):",
           four_names,
           "\nA directory that is given is never replaced by another source; without one, minnow "
           "looks for the data where it usually lies."));
}

TEST_CASE("the places are searched in their order") {
  const EmptyPlaces places;
  const std::string& here = places.directory.path();
  write_training(here + "/cache/minnow/kmnist");
  const auto source = [] {
    return data::MNIST(Split::train, {.dataset = Dataset::kmnist}).source();
  };
  CHECK(source() == here + "/cache/minnow/kmnist");
  write_training(here + "/data/KMNIST/raw");
  CHECK(source() == "data/KMNIST/raw");
  write_training(here + "/data");
  CHECK(source() == "data");
  const EnvironmentVariable variable("MINNOW_DATA_DIR", (here + "/mine").c_str());
  CHECK(source() == "data");
  write_training(here + "/mine");
  CHECK(source() == here + "/mine");

  CHECK(data::search_directories(Dataset::mnist) ==
        std::vector<std::string>{here + "/mine", here + "/mine/raw", here + "/mine/MNIST/raw",
                                 here + "/mine/mnist", "data", "data/raw", "data/MNIST/raw",
                                 "data/mnist", here + "/cache/minnow/mnist",
                                 "/usr/local/share/datasets/mnist", "/usr/share/datasets/mnist"});
}

TEST_CASE("the cache directory follows the environment") {
  const EnvironmentVariable home("HOME", "/home/me");
  const EnvironmentVariable relative("XDG_CACHE_HOME", "relative");
#if defined(__APPLE__)
  CHECK(data::cache_directory() == "/home/me/Library/Caches/minnow");
#else
  CHECK(data::cache_directory() == "/home/me/.cache/minnow");
#endif
  const EnvironmentVariable absolute("XDG_CACHE_HOME", "/cache");
  CHECK(data::cache_directory() == "/cache/minnow");
  const EnvironmentVariable unset("XDG_CACHE_HOME", nullptr), homeless("HOME", nullptr);
  CHECK(data::cache_directory().empty());
}

TEST_CASE(
    "another data set in a place of the search is passed over, and named if nothing else is "
    "found") {
  const std::string fashion = directory_of(Dataset::fashion);
  if (fashion.empty()) return;
  const EmptyPlaces places;
  const EnvironmentVariable variable("MINNOW_DATA_DIR", fashion.c_str());
  write_training(places.directory / "data");
  CHECK(data::MNIST(Split::train).source() == "data");
  std::filesystem::remove_all("data");
  const std::string error = error_of<data::DatasetNotFound>(
      [] { data::MNIST(Split::train, {.dataset = Dataset::kmnist}); });
  CHECK(error.find(text("\n  ", fashion, ": ")) != std::string::npos);
  CHECK(error.find(
            " holds the training labels of Fashion-MNIST, not the training labels of KMNIST") !=
        std::string::npos);
}

TEST_CASE("when nothing is found, the error lists every place and the four names") {
  const EmptyPlaces places;
  write_training("data/raw");
  std::filesystem::remove("data/raw/train-labels-idx1-ubyte");
  write_training("data/kmnist");
  std::filesystem::remove("data/kmnist/train-images-idx3-ubyte");
  std::string expected = "KMNIST: not found\nTried:";
  for (const std::string& place : data::search_directories(Dataset::kmnist))
    expected += text("\n  ", place, ": ",
                     place == "data/raw"      ? "has no train-labels-idx1-ubyte"
                     : place == "data/kmnist" ? "has no train-images-idx3-ubyte"
                                              : "no such files");
  expected += text(
      "\nPut KMNIST's four files there, or into the directory that MINNOW_DATA_DIR names (a dot "
      "before idx, and .gz at the end, are fine):",
      four_names);
  CHECK(error_of<data::DatasetNotFound>(
            [] { data::MNIST(Split::train, {.dataset = Dataset::kmnist}); }) == expected);
}

TEST_CASE("a download is the last resort, and goes to the cache") {
  const EmptyPlaces places;
  int calls = 0;
  const data::MNISTOptions options{.dataset = Dataset::kmnist,
                                   .download = [&](Dataset dataset, const std::string& directory) {
                                     ++calls;
                                     CHECK(dataset == Dataset::kmnist);
                                     write_training(directory);
                                   }};
  const data::MNIST first(Split::train, options), second(Split::train, options);
  CHECK(calls == 1);
  CHECK(first.source() == places.directory.path() + "/cache/minnow/kmnist");
  CHECK(second.source() == first.source());

  std::filesystem::remove_all("cache");
  const auto failure = [](std::function<void(Dataset, const std::string&)> download) {
    return error_of<data::DatasetNotFound>([&] {
      data::MNIST(Split::train, {.dataset = Dataset::kmnist, .download = std::move(download)});
    });
  };
  CHECK(failure([](Dataset, const std::string&) { throw DataError("No network."); })
            .starts_with("KMNIST: not found, and not to be downloaded. No network.\nTried:\n  "
                         "data: no such files"));
  CHECK(failure([](Dataset, const std::string&) {
        }).find("cache/minnow/kmnist: no such files\nTried:") != std::string::npos);
  // What is no DataError, such as an interruption, passes through.
  CHECK(error_of<ShapeError>([] {
          data::MNIST(Split::train,
                      {.dataset = Dataset::kmnist,
                       .download = [](Dataset, const std::string&) { throw ShapeError("stop"); }});
        }) == "stop");

  const EnvironmentVariable unset("XDG_CACHE_HOME", nullptr), homeless("HOME", nullptr);
  CHECK(failure([](Dataset, const std::string&) {})
            .starts_with("KMNIST: not found, and there is no place for a download: set HOME or "
                         "XDG_CACHE_HOME\n"));
}

TEST_CASE("files that are there but wrong are an error, also in a place of the search") {
  const EmptyPlaces places;
  const auto error = [] { return error_of<DataError>([] { data::MNIST{Split::train}; }); };
  write_training("data", 5, 4);
  CHECK(error() ==
        "data: 5 images in data/train-images-idx3-ubyte, but 4 labels in "
        "data/train-labels-idx1-ubyte; "
        "they do not belong together");
  write_training("data", 5, 5, 10);
  CHECK(error() == "data/train-labels-idx1-ubyte: label 10 at position 3, labels are 0 to 9");
  write_training("data");
  data::write_idx("data/train-images-idx3-ubyte", Tensor<std::uint8_t>::zeros({5, 28, 27}));
  CHECK(error() ==
        "data/train-images-idx3-ubyte: images of shape [5, 28, 27], expected [N, 28, 28]");
  data::write_idx("data/train-images-idx3-ubyte", Tensor<std::uint8_t>::zeros({5, 784}));
  CHECK(error() == "data/train-images-idx3-ubyte: images of shape [5, 784], expected [N, 28, 28]");
  data::write_idx("data/train-images-idx3-ubyte", Tensor<float>::zeros({5, 28, 28}));
  CHECK(error().starts_with(
      "data/train-images-idx3-ubyte: holds [5, 28, 28] of float, not of uint8"));
  data::write_idx("data/train-images-idx3-ubyte", Tensor<std::uint8_t>::zeros({5, 28, 28}));
  data::write_idx("data/train-labels-idx1-ubyte", Tensor<std::uint8_t>::zeros({5, 1}));
  CHECK(error() == "data/train-labels-idx1-ubyte: labels of shape [5, 1], expected [N]");
  write_file("data/train-labels-idx1-ubyte", "junk");
  CHECK(error().starts_with(
      "data/train-labels-idx1-ubyte: not an IDX file: it begins with 6A 75 6E 6B"));
  std::filesystem::remove("data/train-labels-idx1-ubyte");
  std::filesystem::create_directory("data/train-labels-idx1-ubyte");
  CHECK(error().find("data: has no train-labels-idx1-ubyte") != std::string::npos);
}

TEST_CASE("every published file is known by its length and checksum") {
  for (const data::DatasetFile& file : data::dataset_files) {
    CHECK(&data::dataset_file(file.dataset, file.split, file.labels) == &file);
    CHECK(file.bytes == (file.labels ? 8u : 16u) + (file.split == Split::train ? 60000u : 10000u) *
                                                       (file.labels ? 1u : 784u));
    CHECK(data::identify(file.bytes, file.crc) == (file.crc == 0 ? nullptr : &file));
    CHECK(data::identify(file.bytes + 1, file.crc) == nullptr);
  }
}

TEST_CASE("generated data sets are whole") {
  const TemporaryDirectory directory;
  generate_dataset(directory.path(), 30, 20);
  CHECK(data::MNIST(Split::train, {.root = directory.path()}).size() == 30);
  CHECK(data::MNIST(Split::test, {.root = directory.path()}).size() == 20);
  CHECK(some_dataset(Split::test).size() >= 1000);
}
