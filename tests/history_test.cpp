#include "minnow/train/history.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "temporary.hpp"

using namespace minnow;
using minnow_test::read_file, minnow_test::TemporaryDirectory;
namespace fs = std::filesystem;

namespace {

train::History example() {
  train::History history;
  history.dataset = "MNIST";
  history.train_images = 60000;
  history.test_images = 10000;
  history.seed = 18446744073709551615u;
  history.command = "mnist --norm batch";
  history.commit = "0123abc";
  history.compiler = "GNU 12.2.0";
  history.machine = {.cpu = "Some CPU \"fast\"", .cores = 2, .isa = "avx512", .threads = 1};
  history.runs.push_back(
      {.name = "batch",
       .parameters = 7652,
       .settings = {{"batch_size", Index{128}}, {"lr", 0.1}, {"optimizer", "sgd"}},
       .epochs = {{0.25, 92.5, 0.125, 96.25, 1.5, 0.01}}});
  return history;
}

}  // namespace

TEST_CASE("a history is JSON with a name for everything") {
  CHECK(example().json() == R"({
  "dataset": "MNIST",
  "train_images": 60000,
  "test_images": 10000,
  "accuracy_unit": "percent",
  "seed": 18446744073709551615,
  "command": "mnist --norm batch",
  "commit": "0123abc",
  "compiler": "GNU 12.2.0",
  "machine": {
    "cpu": "Some CPU \"fast\"",
    "cores": 2,
    "isa": "avx512",
    "threads": 1
  },
  "interrupted": false,
  "runs": [
    {
      "name": "batch",
      "parameters": 7652,
      "settings": {
        "batch_size": 128,
        "lr": 0.1,
        "optimizer": "sgd"
      },
      "epochs": [
        {
          "train_loss": 0.25,
          "train_accuracy": 92.5,
          "test_loss": 0.125,
          "test_accuracy": 96.25,
          "seconds": 1.5,
          "lr": 0.01,
          "complete": true
        }
      ]
    }
  ]
}
)");
}

TEST_CASE("a history without runs has an empty list, a lost loss is null, odd bytes are replaced") {
  train::History history = example();
  history.runs.clear();
  CHECK(history.json().find("\"runs\": []") != std::string::npos);
  history = example();
  history.runs[0].epochs[0].train_loss = std::numeric_limits<double>::quiet_NaN();
  CHECK(history.json().find("\"train_loss\": null") != std::string::npos);
  history.command = "mnist \xff";
  CHECK(history.json().find("\"command\": \"mnist \xef\xbf\xbd\"") != std::string::npos);
}

TEST_CASE("saving makes the folders, replaces an older file and leaves nothing else") {
  const TemporaryDirectory directory;
  const fs::path path = fs::path(directory.path()) / "a" / "b" / "history.json";
  train::History history = example();
  history.save(path);
  CHECK(read_file(path) == history.json());
  history.seed = 1;
  history.save(path);
  CHECK(read_file(path) == history.json());
  CHECK(std::distance(fs::directory_iterator(path.parent_path()), {}) == 1);
}

TEST_CASE("a history that cannot be saved says where, and leaves the old file alone") {
  const TemporaryDirectory directory;
  std::ofstream(fs::path(directory.path()) / "file") << "not a folder";
  const fs::path path = fs::path(directory.path()) / "file" / "history.json";
  const std::string message = path.parent_path().string() + ": cannot be created: Not a directory";
  CHECK_THROWS_WITH_AS(example().save(path), message.c_str(), DataError);
  CHECK(read_file(fs::path(directory.path()) / "file") == "not a folder");
}

TEST_CASE("the machine knows itself") {
  set_num_threads(2);
  const train::Machine machine = train::Machine::detect();
  set_num_threads(0);
  CHECK_FALSE(machine.cpu.empty());
  CHECK(machine.cores >= 1);
  CHECK(machine.isa == instruction_set());
#if defined(_OPENMP)
  CHECK(machine.threads == 2);
#else
  CHECK(machine.threads == 1);
#endif
}
