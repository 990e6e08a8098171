#pragma once
/// @file
/// The command line of the example.

#include <CLI/CLI.hpp>
#include <array>
#include <charconv>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "recipe.hpp"

namespace mnist {

struct Options {
  std::vector<Norm> norms;
  Index groups = NetOptions{}.groups;
  std::optional<Index> epochs, batch_size, limit;
  std::optional<double> lr, dropout, min_accuracy;
  std::optional<std::string> optimizer, schedule, augment;
  std::uint64_t seed = 1;
  int threads = 0;
  std::string dataset;  ///< "mnist", "fashion" or empty: MNIST, or what there is instead
  std::string data, mirror;
  std::string out = "mnist-results";
  bool summary = false, quiet = false;
  std::string command;  ///< the whole line, for the record

  /// The norm's own recipe with what the command line changes.
  Recipe recipe(Norm norm) const {
    Recipe result = default_recipe(norm);
    if (optimizer && *optimizer != result.optimizer) {
      result.optimizer = *optimizer;
      result.lr = named(optimizers, *optimizer).lr;
    }
    result.epochs = epochs.value_or(result.epochs);
    result.batch_size = batch_size.value_or(result.batch_size);
    result.lr = lr.value_or(result.lr);
    result.schedule = schedule.value_or(result.schedule);
    result.augment = augment.value_or(result.augment);
    result.dropout = dropout.value_or(result.dropout);
    return result;
  }
};

namespace detail {

template <class Table>
std::vector<std::string> names(const Table& table) {
  std::vector<std::string> result;
  for (const auto& entry : table)
    if constexpr (requires { entry.name; })
      result.emplace_back(entry.name);
    else
      result.emplace_back(entry);
  return result;
}

/// "[15, 15, 20]": what the recipes have in that place, or "[onecycle]" if they agree.
template <class Member>
std::string defaults(Member Recipe::*member) {
  std::string each;
  bool same = true;
  for (const Norm norm : all_norms) {
    each += text(each.empty() ? "" : ", ", default_recipe(norm).*member);
    same = same && default_recipe(norm).*member == default_recipe(all_norms[0]).*member;
  }
  return same ? text('[', default_recipe(all_norms[0]).*member, ']') : text('[', each, ']');
}

}  // namespace detail

/// Reads the command line. Returns nothing where the program is to end with `status` instead: after
/// --help, or a mistake that has been told on the standard error stream.
inline std::optional<Options> parse(int argc, const char* const* argv, int& status) {
  Options options;
  for (int i = 0; i < argc; ++i) options.command += text(i > 0 ? " " : "", argv[i]);

  CLI::App app(
      "Trains a small convolutional network on MNIST, once with each way to normalise its layers,\n"
      "and compares them. Defaults stand in brackets: one, or those of batch, group and layer "
      "norm.\n",
      "mnist");
  app.footer(
      "\nExit status: 0; 1 after an error, or below --min-accuracy; 3 if there is nothing to train "
      "on;\n130 after Ctrl-C, with the results so far.");
  app.get_formatter()->column_width(20);

  const auto add = [&](const char* flag, auto& target, const char* value, const std::string& what) {
    return app.add_option(flag, target, what)->option_text(value);
  };
  const auto one_of = [](const auto& table) { return CLI::IsMember(detail::names(table)); };
  // A number of the bounds' type between them.
  const auto number = []<class N>(N least, N most, const char* what) {
    return [=](const std::string& word) {
      N value = 0;
      const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), value);
      const bool fits = failure == std::errc() && end == word.data() + word.size() &&
                        value >= least && value <= most;
      return fits ? std::string() : text("'", word, "' is not ", what);
    };
  };
  const auto positive = number(Index{1}, Index{1'000'000'000'000}, "a positive whole number");

  std::string norm = "all";
  add("--norm", norm, "NAME", "batch, group, layer or all [all]")
      ->check(one_of(std::array{"batch", "group", "layer", "all"}));
  add("--groups", options.groups, "N",
      text("Groups of the group norm, 1 or 2 [", options.groups, ']'))
      ->check(number(Index{1}, Index{2}, "1 or 2"));
  add("--dropout", options.dropout, "P",
      text("Share of the activations dropped in training ", detail::defaults(&Recipe::dropout)))
      ->check(number(0.0, 1.0, "a share from 0 to 1"));
  add("--epochs", options.epochs, "N",
      text("Passes over the training images ", detail::defaults(&Recipe::epochs)))
      ->check(positive);
  add("--batch-size", options.batch_size, "N",
      text("Images a step ", detail::defaults(&Recipe::batch_size)))
      ->check(positive);
  add("--optimizer", options.optimizer, "NAME",
      text("sgd, adam, adamw or rmsprop ", detail::defaults(&Recipe::optimizer)))
      ->check(one_of(optimizers));
  add("--lr", options.lr, "RATE",
      text("Learning rate, the highest of its schedule ", detail::defaults(&Recipe::lr),
           ";\nanother optimizer brings its own"))
      ->check(number(1e-12, 1e12, "a positive number"));
  add("--schedule", options.schedule, "NAME",
      text("onecycle, step, cosine or constant ", detail::defaults(&Recipe::schedule)))
      ->check(one_of(schedules));
  add("--augment", options.augment, "NAME",
      text("Random turns, shifts and changes of size of the training images:\n"
           "none, gentle, light or strong ",
           detail::defaults(&Recipe::augment)))
      ->check(one_of(augmentations));
  add("--seed", options.seed, "N",
      text("The same seed gives the same weights, with any number of threads [", options.seed, ']'))
      ->check(number(Index{0}, std::numeric_limits<Index>::max(), "a whole number from 0 on"));
  add("--threads", options.threads, "N",
      "0: as many as MINNOW_NUM_THREADS says, or one for each core [0]")
      ->check(number(Index{0}, Index{1024}, "a number of threads"));
  add("--dataset", options.dataset, "NAME", "mnist or fashion [mnist, or what there is instead]")
      ->check(one_of(std::array{"mnist", "fashion"}));
  add("--data", options.data, "DIR",
      "Directory of the data set's four files; used or refused, never replaced");
  add("--mirror", options.mirror, "URL",
      "Folder to download the four files from, if they are not on this machine");
  add("--limit", options.limit, "N", "Train on the first N images only")->check(positive);
  add("--out", options.out, "DIR",
      text("Directory for history.json and the weights [", options.out, ']'));
  app.add_flag("--summary", options.summary, "Print the networks' layers and parameters, and end");
  app.add_flag("--quiet", options.quiet, "Print the comparison only");
  add("--min-accuracy", options.min_accuracy, "X",
      "End with status 1 if a norm's test accuracy after the last epoch is below X percent")
      ->check(number(0.0, 100.0, "a percentage"));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    status = app.exit(error) == 0 ? 0 : 1;
    return {};
  }
  for (const Norm each : all_norms)
    if (norm == "all" || norm == name(each)) options.norms.push_back(each);
  return options;
}

}  // namespace mnist
