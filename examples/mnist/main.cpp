/// @file
/// Trains the three networks on MNIST and compares what their norms do.

#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <numeric>

#include "dataset.hpp"
#include "minnow/io/safetensors.hpp"
#include "minnow/nn/summary.hpp"
#include "minnow_build_info.hpp"
#include "options.hpp"
#include "report.hpp"
#include "trainer.hpp"

namespace mnist {

constexpr int exit_failure = 1, exit_no_data = 3, exit_interrupted = 130;

/// Set by Ctrl-C.
std::atomic<bool> stop = false;

extern "C" void on_interrupt(int) {
  stop = true;
  std::signal(SIGINT, SIG_DFL);  // a second Ctrl-C ends at once
}

std::filesystem::path history_file(const Options& options) {
  return std::filesystem::path(options.out) / "history.json";
}
std::filesystem::path weights_file(const Options& options, const std::string& norm) {
  return std::filesystem::path(options.out) / (norm + ".safetensors");
}

std::vector<std::pair<std::string, train::Setting>> settings(Norm norm, const Recipe& recipe,
                                                             const Options& options) {
  std::vector<std::pair<std::string, train::Setting>> result{
      {"epochs", recipe.epochs},       {"batch_size", recipe.batch_size},
      {"optimizer", recipe.optimizer}, {"lr", recipe.lr},
      {"schedule", recipe.schedule},   {"augment", recipe.augment},
      {"dropout", recipe.dropout}};
  if (norm == Norm::group) result.emplace_back("groups", options.groups);
  return result;
}

std::string headline(const train::RunRecord& run, const Recipe& recipe) {
  return text(run.name, " norm: ", thousands(run.parameters), " parameters\n",
              counted(recipe.epochs, "epoch"), ", batches of ", recipe.batch_size, ", ",
              recipe.optimizer, " with learning rate ", recipe.lr, " (", recipe.schedule,
              "), augmentation ", recipe.augment, ", dropout ", recipe.dropout,
              "\n epoch  train loss  accuracy  test loss  accuracy        lr  seconds\n");
}

std::string epoch_line(const train::EpochRecord& record, Index epoch, Index epochs) {
  return text(
      align_right(text(epoch, '/', epochs), 6), align_right(fixed(record.train_loss, 4), 12),
      align_right(fixed(record.train_accuracy, 2), 8), " %",
      align_right(fixed(record.test_loss, 4), 11), align_right(fixed(record.test_accuracy, 2), 8),
      " % ", align_right(fixed(record.lr, 6), 9), align_right(fixed(record.seconds, 1), 9),
      record.complete ? "" : "  (interrupted)", '\n');
}

void check_printed() {
  check(std::fflush(stdout) == 0 && std::ferror(stdout) == 0,
        "the results cannot be written to the standard output");
}

/// Trains one network, and appends its record to the history. History and weights are saved after
/// every epoch.
void run(Norm norm, const Options& options, const Images& images, train::History& history) {
  const Recipe recipe = options.recipe(norm);
  manual_seed(options.seed);
  auto net = make_net(norm, {.dropout = recipe.dropout, .groups = options.groups});
  train::RunRecord& record = history.runs.emplace_back();
  record.name = name(norm);
  for (const auto& parameter : net.parameters()) record.parameters += parameter.size();
  record.settings = settings(norm, recipe, options);
  if (!options.quiet) print(headline(record, recipe));

  const train::Terminal terminal = train::Terminal::detect();
  Trainer trainer(net, recipe, images, options.seed);
  for (Index epoch = 1; epoch <= recipe.epochs && !stop; ++epoch) {
    const std::string label = text(align_right(text(epoch, '/', recipe.epochs), 6));
    record.epochs.push_back(trainer.epoch(label, options.quiet ? nullptr : &terminal, stop));
    history.save(history_file(options));
    io::save_safetensors(weights_file(options, record.name).string(), net.state_dict(),
                         {{"format", "pt"},
                          {"dataset", history.dataset},
                          {"epochs", text(epoch)},
                          {"test_accuracy", text(record.epochs.back().test_accuracy)}});
    if (!options.quiet) print(epoch_line(record.epochs.back(), epoch, recipe.epochs));
  }
  if (!options.quiet) print("\n");
}

int main(const Options& options) {
  if (options.summary) {
    for (const Norm norm : options.norms) {
      auto net =
          make_net(norm, {.dropout = options.recipe(norm).dropout, .groups = options.groups});
      print(text(name(norm), " norm\n", nn::summary(net, {1, 28, 28}),
                 norm == options.norms.back() ? "" : "\n"));
    }
    check_printed();
    return 0;
  }

  if (options.threads > 0) set_num_threads(options.threads);
  std::signal(SIGINT, on_interrupt);
  const std::optional<Dataset> dataset = load(options, stop);
  if (!dataset) return exit_no_data;
  const Images images = dataset->images(options);

  train::History history;
  history.dataset = dataset->name();
  history.train_images = images.train_labels.size();
  history.test_images = images.test_labels.size();
  history.seed = options.seed;
  history.command = options.command;
  history.commit = MINNOW_BUILD_COMMIT;
  history.compiler = MINNOW_BUILD_COMPILER " " MINNOW_BUILD_FLAGS;
  history.machine = train::Machine::detect();
  if (!options.quiet) {
    const auto& [cpu, cores, isa, threads] = history.machine;
    print(text(dataset->train.str(), "\n", thousands(history.train_images),
               " are used for training, ", thousands(history.test_images), " for testing; seed ",
               options.seed, "; ", counted(threads, "thread"), " on ", cpu, " (", isa, ")\n\n"));
  }

  history.save(history_file(options));  // a folder that cannot be written to is told at once
  std::vector<bool> regularised;
  for (const Norm norm : options.norms) {
    if (stop) break;
    run(norm, options, images, history);
    const Recipe recipe = options.recipe(norm);
    regularised.push_back(recipe.dropout > 0 || recipe.augment != "none");
  }
  if (stop) {
    history.interrupted = true;
    history.save(history_file(options));
    print("Interrupted: these are the results so far.\n\n");
  }

  print(text(history.dataset, ", ", thousands(history.train_images), " training and ",
             thousands(history.test_images), " test images\n",
             comparison_table(history.runs, history.train_images, history.test_images), "\n"));
  for (const std::string& sentence :
       inferences(history.runs, regularised, history.train_images, history.test_images))
    print(wrapped(sentence, std::min(100, train::Terminal::detect().width())));
  print(text("\nAll numbers: ", history_file(options).string(),
             "\nWeights:     ", weights_file(options, "*").string(), "\n"));

  bool good_enough = !options.min_accuracy || history.runs.size() == options.norms.size();
  for (const train::RunRecord& record : history.runs) {
    if (!options.min_accuracy || record.epochs.empty() ||
        record.epochs.back().test_accuracy >= *options.min_accuracy)
      continue;
    std::fputs(
        text("mnist: ", record.name, " reached ", fixed(record.epochs.back().test_accuracy, 2),
             " %, below --min-accuracy ", *options.min_accuracy, "\n")
            .c_str(),
        stderr);
    good_enough = false;
  }
  check_printed();
  if (stop) return exit_interrupted;
  return good_enough ? 0 : exit_failure;
}

}  // namespace mnist

int main(int argc, char** argv) {
  try {
    int status = 0;
    const auto options = mnist::parse(argc, argv, status);
    return options ? mnist::main(*options) : status;
  } catch (const std::exception& error) {
    std::fputs(minnow::text("mnist: ", error.what(), '\n').c_str(), stderr);
    return mnist::exit_failure;
  }
}
