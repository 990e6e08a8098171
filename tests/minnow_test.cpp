#include <minnow/minnow.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <set>
#include <string>

#include "temporary.hpp"

TEST_CASE(
    "the umbrella holds every public header, but what few programs need and all would pay for") {
  namespace fs = std::filesystem;
  const std::string include = MINNOW_SOURCE_DIR "/include/";
  const std::string umbrella = minnow_test::read_file(include + "minnow/minnow.hpp");
  const std::set<std::string> left_out{"minnow/data/download.hpp", "minnow/data/folder_lock.hpp",
                                       "minnow/data/mirrors.hpp",  "minnow/io/checkpoint.hpp",
                                       "minnow/io/half.hpp",       "minnow/io/safetensors.hpp",
                                       "minnow/train/history.hpp", "minnow/train/progress.hpp"};
  int headers = 0;
  for (const char* folder : {"ops", "nn", "optim", "data", "io", "train"})
    for (const auto& entry : fs::directory_iterator(include + "minnow/" + folder)) {
      const std::string header =
          "minnow/" + std::string(folder) + "/" + entry.path().filename().string();
      const bool held = umbrella.find("#include \"" + header + "\"\n") != std::string::npos;
      CHECK_MESSAGE(held != left_out.contains(header), header);
      ++headers;
    }
  CHECK(headers > 30);
}
