#pragma once
/// @file
/// What a training program did, in a file that other programs read: history.json. The only door to
/// the JSON library of train/.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "minnow/core/file.hpp"
#include "minnow/core/parallel.hpp"

namespace minnow::inline MINNOW_ABI::train {

/// One pass over the training images, and what the network was worth after it. Accuracies in
/// percent.
struct EpochRecord {
  double train_loss = 0;
  double train_accuracy = 0;  ///< of the training passes themselves: with dropout and augmentation
  double test_loss = 0;
  double test_accuracy = 0;
  double seconds = 0;    ///< of the training pass, without the test
  double lr = 0;         ///< the learning rate of the last step
  bool complete = true;  ///< false if it was interrupted
};

using Setting = std::variant<Index, double, std::string>;

/// The training of one network.
struct RunRecord {
  std::string name;  ///< of the network
  Index parameters = 0;
  std::vector<std::pair<std::string, Setting>> settings;
  std::vector<EpochRecord> epochs;
};

/// What the program ran on.
struct Machine {
  std::string cpu = "unknown";
  Index cores = 0;
  std::string isa;  ///< the instruction set compiled for
  Index threads = 0;

  static Machine detect() {
    Machine machine;
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
      if (!line.starts_with("model name") || line.find(": ") == line.npos) continue;
      machine.cpu = line.substr(line.find(": ") + 2);
      break;
    }
    machine.cores = std::thread::hardware_concurrency();
    machine.isa = instruction_set();
    machine.threads = num_threads();
    return machine;
  }
};

/// Everything about one call of a training program. Two that differ in nothing but times differ in
/// no number of `runs`.
struct History {
  std::string dataset;
  Index train_images = 0, test_images = 0;
  std::uint64_t seed = 0;
  std::string command;
  std::string commit;
  std::string compiler;
  Machine machine;
  bool interrupted = false;
  std::vector<RunRecord> runs;

  /// As JSON text, with the members' names and order. Numbers that JSON has no word for become
  /// null.
  std::string json() const {
    using Json = nlohmann::ordered_json;
    Json networks = Json::array();
    for (const RunRecord& run : runs) {
      Json epochs = Json::array();
      for (const EpochRecord& epoch : run.epochs)
        epochs.push_back({{"train_loss", epoch.train_loss},
                          {"train_accuracy", epoch.train_accuracy},
                          {"test_loss", epoch.test_loss},
                          {"test_accuracy", epoch.test_accuracy},
                          {"seconds", epoch.seconds},
                          {"lr", epoch.lr},
                          {"complete", epoch.complete}});
      Json settings = Json::object();
      for (const auto& [name, setting] : run.settings)
        std::visit([&, &key = name](const auto& value) { settings[key] = value; }, setting);
      networks.push_back({{"name", run.name},
                          {"parameters", run.parameters},
                          {"settings", settings},
                          {"epochs", epochs}});
    }
    const Json all = {{"dataset", dataset},
                      {"train_images", train_images},
                      {"test_images", test_images},
                      {"accuracy_unit", "percent"},
                      {"seed", seed},
                      {"command", command},
                      {"commit", commit},
                      {"compiler", compiler},
                      {"machine",
                       {{"cpu", machine.cpu},
                        {"cores", machine.cores},
                        {"isa", machine.isa},
                        {"threads", machine.threads}}},
                      {"interrupted", interrupted},
                      {"runs", networks}};
    // A command line may hold any bytes.
    return all.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
  }

  /// Writes it to `path`, making the folders above. Readers see the old file or the new one, never
  /// a part. Errors: DataError.
  void save(const std::filesystem::path& path) const {
    std::error_code failure;
    if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), failure);
    check<DataError>(!failure, path.parent_path().string(),
                     ": cannot be created: ", failure.message());
    const std::string content = json();
    minnow::detail::PendingFile file(path.string());
    file.write(content.data(), content.size());
    file.commit();
  }
};

}  // namespace minnow::inline MINNOW_ABI::train
