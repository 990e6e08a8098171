// What it costs to compile with minnow: time and peak memory of the compiler, preprocessed lines.
//   bench_compile_cost --root <source> [--out file.json] [--quick] -- <compiler> <options...>
// Fails above the budget on memory and lines.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Arguments = std::vector<std::string>;

struct Cost {
  double seconds, megabytes;
  int status;
};

/// Runs a command and waits for it. The memory is that of the largest process below it.
Cost run(const Arguments& command, const std::string& output) {
  const auto begin = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child == 0) {
    if (!output.empty() && !std::freopen(output.c_str(), "w", stdout)) _exit(127);
    std::vector<char*> arguments;
    for (const auto& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
  return {time.count(), static_cast<double>(usage.ru_maxrss) / 1024, status};
}

struct Program {
  Arguments compiler;
  fs::path root, scratch;

  Cost compile(const fs::path& source, const Arguments& options) const {
    Arguments command = compiler;
    command.insert(command.end(), options.begin(), options.end());
    command.insert(command.end(), {"-O2", "-c", source, "-o", scratch / "compiled.o"});
    return run(command, "");
  }
  /// Lines that are neither empty nor the preprocessor's own.
  long lines(const fs::path& source) const {
    Arguments command = compiler;
    command.insert(command.end(), {"-E", "-P", source});
    run(command, scratch / "preprocessed");
    std::ifstream file(scratch / "preprocessed");
    long count = 0;
    for (std::string line; std::getline(file, line);)
      count += line.find_first_not_of(" \t") != std::string::npos;
    return count;
  }
  fs::path include(const std::string& header) const {
    const fs::path source = scratch / "include.cpp";
    std::ofstream(source) << "#include \"" << header << "\"\n";
    return source;
  }
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Measures what it costs to compile with minnow."};
  std::string root, out;
  bool quick = false;
  double max_megabytes = 600;
  long max_lines = 140'000;
  Arguments compiler;
  app.add_option("--root", root, "minnow's source tree")->required();
  app.add_option("--out", out, "write the table to this JSON file");
  app.add_flag("--quick", quick, "only minnow.hpp and the quick start");
  app.add_option("--max-megabytes", max_megabytes, "of the compiler, for the quick start");
  app.add_option("--max-lines", max_lines, "of minnow.hpp, preprocessed");
  app.add_option("compiler", compiler, "compiler and its options, behind --")->required();
  CLI11_PARSE(app, argc, argv);

  char name[] = "/tmp/minnow-compile-XXXXXX";
  if (!mkdtemp(name)) return 1;
  const Program program{compiler, root, name};
  Json rows = Json::array();
  int failed = 0;
  const auto measure = [&](const std::string& what, const fs::path& source,
                           const Arguments& options = {}) {
    const Cost cost = program.compile(source, options);
    failed += cost.status != 0;
    rows.push_back({{"name", what}, {"seconds", cost.seconds}, {"megabytes", cost.megabytes}});
    rows.back()["lines"] = program.lines(source);
    std::printf("%-34s %6.2f s %6.0f MB", what.c_str(), cost.seconds, cost.megabytes);
    std::printf(" %9ld lines", rows.back()["lines"].get<long>());
    std::puts(cost.status == 0 ? "" : "  FAILED");
    std::fflush(stdout);
    return rows.back();
  };
  const fs::path quickstart = program.root / "examples/quickstart.cpp";
  const Json start = measure("examples/quickstart.cpp", quickstart);
  measure("the same with MINNOW_COMPILED", quickstart, {"-DMINNOW_COMPILED"});
  const Json whole = measure("minnow/minnow.hpp", program.include("minnow/minnow.hpp"));
  if (!quick) {
    std::vector<std::string> headers;
    for (const auto& entry : fs::recursive_directory_iterator(program.root / "include/minnow"))
      if (entry.path().extension() == ".hpp" && entry.path().filename() != "minnow.hpp")
        headers.push_back(fs::relative(entry.path(), program.root / "include"));
    std::ranges::sort(headers);
    for (const auto& header : headers) measure(header, program.include(header));
  }
  fs::remove_all(program.scratch);
  std::string line;
  for (const auto& word : compiler) line += (line.empty() ? "" : " ") + word;
  // The report is for other machines: paths as from the source's root.
  const std::string here = (fs::absolute(root) / "").lexically_normal().string();
  if (const auto at = line.find(here); at != line.npos) line.erase(at, here.size());
  if (!out.empty())
    std::ofstream(out) << Json{{"compiler", line + " -O2"}, {"rows", rows}}.dump(1) << '\n';
  const double megabytes = start["megabytes"];
  const long lines = whole["lines"];
  std::printf("quick start: %.0f MB of at most %.0f; minnow.hpp: %ld lines of at most %ld\n",
              megabytes, max_megabytes, lines, max_lines);
  failed += megabytes > max_megabytes || lines > max_lines;
  return failed > 0 ? 1 : 0;
}
