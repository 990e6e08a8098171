// Runs the example as a person does: MINNOW_MNIST_PROGRAM is the path of its executable.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "datasets.hpp"
#include "seed_summaries.hpp"
#include "temporary.hpp"

using namespace minnow;
using Json = nlohmann::json;
namespace fs = std::filesystem;

namespace {

struct Result {
  int status = -1;
  std::string output;  ///< of both streams
};

struct Call {
  std::vector<std::string> arguments;
  std::vector<std::string> environment = {};  ///< "NAME=value", beside a minimal one
  std::string directory = "/";
  bool terminal = false;
  /// Called with all output so far; true sends SIGINT, once.
  std::function<bool(const std::string&)> interrupt = nullptr;
};

Result run(const Call& call) {
  int in = -1, out = -1;
  if (call.terminal) {
    const winsize size{.ws_row = 24, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
    REQUIRE(openpty(&in, &out, nullptr, nullptr, &size) == 0);
  } else {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    in = ends[0];
    out = ends[1];
  }

  std::vector<std::string> environment{"PATH=/usr/bin:/bin", "HOME=" + call.directory, "TERM=xterm",
                                       "OMP_WAIT_POLICY=passive", "https_proxy=http://127.0.0.1:9"};
  environment.insert(environment.end(), call.environment.begin(), call.environment.end());
  std::vector<char*> variables, arguments;
  std::string program = MINNOW_MNIST_PROGRAM;
  arguments.push_back(program.data());
  std::vector<std::string> copies = call.arguments;
  for (std::string& argument : copies) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  for (std::string& variable : environment) variables.push_back(variable.data());
  variables.push_back(nullptr);

  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(120);  // survives exec: a program that hangs must not outlive its test
    dup2(out, 1);
    dup2(out, 2);
    close(in);
    close(out);
    if (chdir(call.directory.c_str()) == 0)
      execve(program.c_str(), arguments.data(), variables.data());
    _exit(127);
  }
  close(out);
  Result result;
  char buffer[4096];
  bool sent = false;
  // A terminal whose other end is closed gives an error instead of an end.
  for (ssize_t count = 0; (count = read(in, buffer, sizeof buffer)) > 0;) {
    result.output.append(buffer, static_cast<std::size_t>(count));
    if (call.interrupt && !sent && call.interrupt(result.output)) {
      kill(child, SIGINT);
      sent = true;
    }
  }
  close(in);
  int status = 0;
  waitpid(child, &status, 0);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != text.npos;
}

/// A directory with a small generated data set in "data".
struct Place {
  minnow_test::TemporaryDirectory directory;
  Place() {
    fs::create_directories(path() + "/data");
    minnow_test::generate_dataset(path() + "/data", 300, 100);
  }
  std::string path() const { return directory.path(); }
  Result train(std::vector<std::string> arguments, bool terminal = false,
               std::vector<std::string> environment = {}) const {
    for (const char* argument : {"--epochs", "2", "--batch-size", "50"})
      arguments.emplace_back(argument);
    return run({.arguments = std::move(arguments),
                .environment = std::move(environment),
                .directory = path(),
                .terminal = terminal});
  }
  Json history(const std::string& folder = "mnist-results") const {
    std::ifstream file(path() + "/" + folder + "/history.json");
    return Json::parse(file);
  }
};

}  // namespace

TEST_CASE("--help lists every option") {
  const Result result = run({{"--help"}});
  CHECK(result.status == 0);
  for (const char* option :
       {"--norm", "--groups", "--dropout", "--epochs", "--batch-size", "--lr", "--optimizer",
        "--schedule", "--augment", "--seed", "--threads", "--dataset", "--data", "--mirror",
        "--limit", "--out", "--summary", "--quiet", "--min-accuracy"})
    CHECK_MESSAGE(contains(result.output, option), option);
}

TEST_CASE("a mistake on the command line is named, and ends with status 1") {
  const std::vector<std::pair<std::vector<std::string>, std::string>> mistakes{
      {{"--norm", "instance"}, "--norm"},
      {{"--epochs", "0"}, "--epochs"},
      {{"--epochs", "many"}, "--epochs"},
      {{"--epochs", "1.5"}, "--epochs: '1.5' is not a positive whole number"},
      {{"--seed", "-1"}, "--seed: '-1' is not a whole number from 0 on"},
      {{"--seed", "99999999999999999999"}, "--seed: '99999999999999999999' is not a whole number"},
      {{"--dropout", "1.5"}, "--dropout"},
      {{"--lr", "-1"}, "--lr"},
      {{"--optimizer", "lbfgs"}, "--optimizer"},
      {{"--schedule", "x"}, "--schedule"},
      {{"--augment", "x"}, "--augment"},
      {{"--dataset", "cifar"}, "--dataset"},
      {{"--batch-size", "0"}, "--batch-size"},
      {{"--limit", "0"}, "--limit"},
      {{"--threads", "-1"}, "--threads"},
      {{"--min-accuracy", "200"}, "--min-accuracy"},
      {{"--wrong"}, "--wrong"},
      {{"stray"}, "stray"},
  };
  for (const auto& mistake : mistakes) {
    const std::string& named = mistake.second;
    const Result result = run({mistake.first});
    CHECK_MESSAGE(result.status == 1, named);
    CHECK_MESSAGE(contains(result.output, named), result.output);
  }
  const Result groups = run({{"--norm", "group", "--groups", "4", "--summary"}});
  CHECK(groups.status == 1);
  CHECK(contains(groups.output, "'4' is not 1 or 2"));
}

TEST_CASE("--summary prints the three tables and nothing is trained") {
  const Place place;
  const Result all = run({.arguments = {"--summary"}, .directory = place.path()});
  CHECK(all.status == 0);
  CHECK(all.output == text("batch norm\n", batch_norm_summary, "\ngroup norm\n", group_norm_summary,
                           "\nlayer norm\n", layer_norm_summary));
  CHECK(run({{"--summary", "--norm", "layer"}}).output == text("layer norm\n", layer_norm_summary));
  CHECK_FALSE(fs::exists(place.path() + "/mnist-results"));
}

TEST_CASE(
    "training shows an epoch a line, the comparison and the inference, and writes history.json") {
  const Place place;
  const Result result = place.train({"--data", "data", "--threads", "1", "--seed", "7"});
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK_FALSE(contains(result.output, "\r"));
  CHECK_FALSE(contains(result.output, "\x1b"));
  CHECK(contains(result.output, "MNIST, 300 training images from data (not the published ones"));
  for (const char* norm : {"batch", "group", "layer"}) {
    CHECK(contains(result.output, text('\n', norm, " norm: 7,")));
    CHECK(contains(result.output, text('\n', norm, "        7,")));
    CHECK(contains(result.output, text('\n', norm, ": ")));
  }
  CHECK(contains(result.output, "\n   2/2 "));
  CHECK(contains(result.output, "1 thread on "));

  const Json history = place.history();
  CHECK(history["dataset"] == "MNIST");
  CHECK(history["seed"] == 7);
  CHECK(history["train_images"] == 300);
  CHECK(history["machine"]["threads"] == 1);
  CHECK(history["commit"].get<std::string>().size() >= 7);
  CHECK(contains(history["command"], "--data data --threads 1 --seed 7"));
  REQUIRE(history["runs"].size() == 3);
  CHECK(history["runs"][0]["name"] == "batch");
  CHECK(history["runs"][0]["parameters"] == 7652);
  CHECK(history["runs"][2]["parameters"] == 7594);
  for (const Json& norm : history["runs"]) {
    REQUIRE(norm["epochs"].size() == 2);
    for (const Json& epoch : norm["epochs"])
      for (const char* key :
           {"train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds", "lr"})
        CHECK_MESSAGE(epoch[key].is_number(), key);
  }

  Json again = (place.train({"--data", "data", "--threads", "2", "--seed", "7", "--out", "b/c"}),
                place.history("b/c"));
  for (std::size_t n = 0; n < 3; ++n)
    for (std::size_t e = 0; e < 2; ++e)
      again["runs"][n]["epochs"][e]["seconds"] = history["runs"][n]["epochs"][e]["seconds"];
  CHECK(again["runs"] == history["runs"]);
}

TEST_CASE("options reach the training") {
  const Place place;
  const Result result =
      place.train({"--data", "data", "--norm", "group", "--groups", "1", "--dropout", "0.25",
                   "--lr", "0.02", "--optimizer", "adamw", "--schedule", "constant", "--augment",
                   "none", "--limit", "100", "--quiet"});
  CHECK(result.status == 0);
  CHECK(result.output.starts_with("MNIST, 100 training and 100 test images\n"));
  const Json history = place.history();
  REQUIRE(history["runs"].size() == 1);
  CHECK(history["train_images"] == 100);
  const Json expected = {{"epochs", 2},
                         {"batch_size", 50},
                         {"optimizer", "adamw"},
                         {"lr", 0.02},
                         {"schedule", "constant"},
                         {"augment", "none"},
                         {"dropout", 0.25},
                         {"groups", 1}};
  CHECK(history["runs"][0]["settings"] == expected);
  CHECK(history["runs"][0]["epochs"][1]["lr"] == 0.02);
}

TEST_CASE("--min-accuracy decides the exit status") {
  const Place place;
  CHECK(place.train({"--data", "data", "--norm", "batch", "--min-accuracy", "1"}).status == 0);
  const Result result =
      place.train({"--data", "data", "--norm", "batch", "--limit", "50", "--min-accuracy", "99.9"});
  CHECK(result.status == 1);
  CHECK(contains(result.output, "below --min-accuracy 99.9"));
}

TEST_CASE("a directory that is given is used or refused") {
  const Place place;
  const Result missing = place.train({"--data", "nowhere"});
  CHECK(missing.status == 1);
  CHECK(contains(missing.output, "nowhere"));
  fs::remove(place.path() + "/data/t10k-labels-idx1-ubyte");
  const Result incomplete = place.train({"--data", "data"});
  CHECK(incomplete.status == 1);
  CHECK(contains(incomplete.output, "t10k-labels-idx1-ubyte"));
  CHECK_FALSE(fs::exists(place.path() + "/mnist-results"));
}

TEST_CASE(
    "without MNIST and network, Fashion-MNIST takes its place and says so, or there is status 3") {
  const minnow_test::TemporaryDirectory empty;
  const Result result = run({.arguments = {"--norm", "batch", "--epochs", "1", "--limit", "100"},
                             .directory = empty.path()});
  INFO(result.output);
  if (fs::exists("/usr/share/datasets/mnist") || fs::exists("/usr/local/share/datasets/mnist"))
    return;
  if (fs::exists("/usr/share/datasets/fashion-mnist")) {
    CHECK(result.status == 0);
    CHECK(contains(result.output, "so this trains on Fashion-MNIST"));
    CHECK(contains(result.output, "\nFashion-MNIST, 100 training and 10,000 test images\n"));
    std::ifstream file(empty.path() + "/mnist-results/history.json");
    CHECK(Json::parse(file)["dataset"] == "Fashion-MNIST");
  } else {
    CHECK(result.status == 3);
    CHECK(contains(result.output, "dataset-fashion-mnist"));
    CHECK(contains(result.output, "--data DIR"));
  }
  const Result asked = run({.arguments = {"--dataset", "mnist"}, .directory = empty.path()});
  CHECK(asked.status == 1);
}

TEST_CASE("a download shows a bar for each file, and tells which mirror fails") {
  const minnow_test::TemporaryDirectory home;
  const auto from = [&](const std::string& mirror) {
    return run({.arguments = {"--dataset", "mnist", "--mirror", mirror, "--norm", "batch",
                              "--epochs", "1", "--limit", "100"},
                .directory = home.path(),
                .terminal = true});
  };
  if (fs::exists("/usr/share/datasets/mnist") || fs::exists("/usr/local/share/datasets/mnist"))
    return;  // then nothing is downloaded
  const Result nothing = from("file://" + home.path() + "/none/");
  CHECK(nothing.status == 1);
  CHECK(contains(nothing.output, "mnist: file://" + home.path() + "/none/train-images"));
  const std::string published = minnow_test::directory_of(data::Dataset::mnist);
  if (published.empty() || !fs::exists(published + "/train-images-idx3-ubyte.gz")) return;
  const Result all = from("file://" + fs::canonical(published).string());
  INFO(all.output);
  CHECK(all.status == 0);
  for (const char* file : {"train-images", "train-labels", "t10k-images", "t10k-labels"})
    CHECK(contains(all.output, file));
  CHECK(contains(all.output, "KB/s"));
  CHECK(std::distance(fs::directory_iterator(home.path() + "/.cache/minnow/" +
                                             data::dataset_folder(data::Dataset::mnist)),
                      fs::directory_iterator()) == 4);
}

TEST_CASE("Ctrl-C ends after the batch with the results so far") {
  const Place place;
  const Result result =
      run({.arguments = {"--data", "data", "--norm", "batch", "--epochs", "1000000"},
           .directory = place.path(),
           .interrupt = [](const std::string& output) { return contains(output, "2/1000000 "); }});
  CHECK(result.status == 130);
  CHECK(contains(result.output, "Interrupted: these are the results so far."));
  CHECK(contains(result.output, "\nbatch        7,652 "));
  CHECK(place.history()["interrupted"] == true);
  CHECK(place.history()["runs"][0]["epochs"].size() >= 2);
}

TEST_CASE("a terminal sees a bar that is redrawn, in colour unless NO_COLOR is set") {
  const Place place;
  const Result colour = place.train({"--data", "data", "--norm", "batch"}, true);
  CHECK(colour.status == 0);
  CHECK(contains(colour.output, "images/s"));
  CHECK(contains(colour.output, "ETA"));
  CHECK(contains(colour.output, "\x1b[36m"));
  const Result plain = place.train({"--data", "data", "--norm", "batch"}, true, {"NO_COLOR=1"});
  CHECK(contains(plain.output, "images/s"));
  CHECK_FALSE(contains(plain.output, "\x1b"));
  const Result quiet = place.train({"--data", "data", "--norm", "batch", "--quiet"}, true);
  CHECK_FALSE(contains(quiet.output, "images/s"));
}
