#include "../examples/mnist/report.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace minnow;
using namespace mnist;

namespace {

RunRecord run(std::string name, double train_accuracy, std::vector<double> test_accuracies) {
  RunRecord record{.name = std::move(name), .parameters = 7652, .settings = {}, .epochs = {}};
  double seconds = 1;
  for (const double accuracy : test_accuracies)
    record.epochs.push_back(
        {.train_accuracy = train_accuracy, .test_accuracy = accuracy, .seconds = seconds++});
  return record;
}

std::string sentence(const std::vector<RunRecord>& runs, std::size_t which = 0,
                     bool regularised = true) {
  return inferences(runs, std::vector<bool>(runs.size(), regularised), 60000, 10000).at(which);
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != text.npos;
}

}  // namespace

TEST_CASE("the sampling error is that of a share, and never zero") {
  CHECK(sampling_error(99.4, 10000) == doctest::Approx(0.0772).epsilon(0.001));
  CHECK(sampling_error(50, 100) == doctest::Approx(5));
  CHECK(sampling_error(100, 10000) > 0);
}

TEST_CASE("the table compares what the runs came to") {
  std::vector<RunRecord> runs{run("batch", 99.21, {98, 99.5, 99.46}), run("layer", 99.5, {99.1})};
  runs.push_back(run("group", 0, {}));
  CHECK(comparison_table(runs, 60000, 10000) ==
        "norm    parameters   train %   test %    best %  (epoch)       gap   s/epoch\n"
        "----------------------------------------------------------------------------\n"
        "batch        7,652     99.21    99.46     99.50      (2)     -0.25       2.0\n"
        "layer        7,652     99.50    99.10     99.10      (1)     +0.40       1.0\n"
        "train and test: after the last epoch; train is the accuracy of its training passes, so "
        "with\n"
        "dropout and augmentation. gap: train - test. s/epoch: median of the training passes.\n");
}

TEST_CASE("over-fitting is read off the gap, where it is more than chance") {
  CHECK(contains(sentence({run("batch", 99.9, {99.4})}),
                 "training accuracy is 0.50 points higher: it over-fits"));
  CHECK(contains(sentence({run("batch", 99.9, {99.4})}, 0, false),
                 "it over-fits; dropout or augmentation"));
  CHECK(contains(sentence({run("batch", 99.5, {99.4})}),
                 "differs by 0.10 points, which may be chance: no over-fitting"));
  const std::string lower = sentence({run("batch", 98.9, {99.4})});
  CHECK(contains(
      lower,
      "0.50 points lower, being an average over the epoch with dropout and augmentation: no "
      "over-fitting"));
  CHECK_FALSE(contains(lower, "under-fitting"));
  CHECK(contains(sentence({run("batch", 98.9, {99.4})}, 0, false),
                 "being an average over the epoch: no over-fitting"));
  CHECK(contains(sentence({run("batch", 96, {97})}), "no over-fitting, rather under-fitting"));
  CHECK(contains(sentence({run("batch", 97, {97})}), "no over-fitting, rather under-fitting"));
}

TEST_CASE("an interrupted epoch is told") {
  RunRecord partial = run("batch", 99, {98, 98.5});
  partial.epochs.back().complete = false;
  CHECK(contains(sentence({partial}),
                 " after 2 epochs, the last interrupted; an epoch that was not "
                 "finished does not tell whether it over-fits; "));
}

TEST_CASE("a run that diverged is called so, and is nobody's rival") {
  RunRecord lost = run("batch", 9, {98, 9.8});
  lost.epochs.back().train_loss = std::numeric_limits<double>::quiet_NaN();
  const auto sentences = inferences({lost, run("group", 99, {99, 99})}, {true, true}, 60000, 10000);
  CHECK(sentences[0] ==
        "batch: diverged in epoch 2, where the loss was no finite number; a smaller learning rate "
        "is the first remedy.");
  CHECK_FALSE(contains(sentences[1], "batch"));
}

TEST_CASE("the trend compares the last epochs with those before") {
  CHECK(contains(sentence({run("batch", 99, {98})}), "after 1 epoch; "));
  CHECK(contains(sentence({run("batch", 99, {98})}), "one epoch shows no trend"));
  CHECK(contains(sentence({run("batch", 99, {97, 98})}),
                 "still improving (+1.00 points over the last epoch)"));
  CHECK(contains(sentence({run("batch", 99, {10, 97, 98, 98.5, 98.6, 98.7, 98.8})}),
                 "after 7 epochs; "));
  CHECK(contains(sentence({run("batch", 99, {10, 97, 98, 98.5, 98.6, 98.7, 98.8})}),
                 "still improving (+0.87 points over the last 3 epochs)"));
  CHECK(contains(sentence({run("batch", 99, {99.4, 99.4, 99.4, 99.42, 99.41, 99.4})}),
                 "levelled off (+0.01 points over the last 3 epochs)"));
  CHECK(contains(sentence({run("batch", 99, {97, 98})}), "last epoch), so more epochs may help"));
  RunRecord settling = run("batch", 99, {97, 98});
  settling.epochs[0].lr = 0.1;
  CHECK(contains(sentence({settling}), "last epoch), as the learning rate fell"));
  CHECK(contains(sentence({run("batch", 99, {99.4, 99})}), "getting worse (-0.40 points"));
}

TEST_CASE("norms are told apart only beyond twice the error of their difference") {
  const std::vector<RunRecord> runs{run("batch", 99, {99.46}), run("group", 99, {99.40}),
                                    run("layer", 99, {99})};
  CHECK(contains(
      sentence(runs, 0),
      "; 0.06 points above group, within chance: the standard error of the difference is 0.11."));
  CHECK(contains(sentence(runs, 1), "; 0.06 points below batch, within chance"));
  CHECK(contains(sentence(runs, 2),
                 "; 0.46 points below batch, more than chance: the standard error of the "
                 "difference is 0.12."));
  CHECK(contains(sentence({run("batch", 99, {99.46}), run("group", 99, {99.46})}),
                 "; the same as group, with a standard error of the difference of 0.10."));
  CHECK_FALSE(contains(sentence({runs[0]}), "chance: the standard error"));
}

TEST_CASE("runs without an epoch have no sentence") {
  const std::vector<RunRecord> runs{run("batch", 99, {}), run("group", 99, {99.40})};
  const auto sentences = inferences(runs, {true, true}, 60000, 10000);
  REQUIRE(sentences.size() == 1);
  CHECK(sentences[0].starts_with(
      "group: 99.40 % of the test images (standard error 0.08) after 1 epoch; "));
}

TEST_CASE("paragraphs are wrapped between words") {
  CHECK(wrapped("one two three", 80) == "one two three\n");
  CHECK(wrapped("one two three", 7) == "one two\n  three\n");
  CHECK(wrapped("one unbreakable", 5) == "one\n  unbreakable\n");
  CHECK(wrapped("", 5) == "\n");
}
