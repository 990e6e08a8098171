#include "harness.hpp"

#include <benchmark/benchmark.h>
#include <dlfcn.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <regex>

#include "machine.hpp"
#include "minnow/core/format.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow_build_info.hpp"

namespace bench {

using Json = nlohmann::ordered_json;

void Outputs::expect(const Tensor<float>& actual, const Tensor<double>& expected) {
  pairs_.emplace_back(actual, expected);
}

void Outputs::poison() {
  for (auto& [actual, expected] : pairs_) actual.fill(std::numeric_limits<float>::quiet_NaN());
}

double Outputs::error() const {
  double worst = 0;
  for (const auto& [actual, expected] : pairs_) {
    double squares = 0, differences = 0;
    for (Index i = 0; i < expected.size(); ++i) {
      const double d = static_cast<double>(actual[i]) - expected[i];
      squares += expected[i] * expected[i];
      differences += d * d;
    }
    const double mean = std::sqrt(squares / static_cast<double>(expected.size()));
    if (std::isnan(differences)) return std::numeric_limits<double>::infinity();
    if (measure_ == Measure::root_mean_square) {
      if (differences > 0) worst = std::max(worst, std::sqrt(differences / squares));
      continue;
    }
    for (Index i = 0; i < expected.size(); ++i) {
      const double d = std::abs(static_cast<double>(actual[i]) - expected[i]);
      if (d > 0) worst = std::max(worst, d / std::max(std::abs(expected[i]), mean));
    }
  }
  return worst;
}

std::string shape_text(std::initializer_list<Index> sizes) {
  std::string result;
  for (const Index size : sizes) result += (result.empty() ? "" : "x") + std::to_string(size);
  return result;
}

Peer* load_peer(const std::string& file) {
  void* const module = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* const make = module ? dlsym(module, "minnow_bench_peer") : nullptr;
  if (!make) {
    std::fprintf(stderr, "peer %s: %s\n", file.c_str(), dlerror());
    return nullptr;
  }
  return reinterpret_cast<Peer* (*)()>(make)();
}

namespace {

double quantile(std::vector<double> values, double q) {
  std::ranges::sort(values);
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

double seconds_of(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Takes the samples of each way, in seconds a call, from Google Benchmark.
class Collector : public benchmark::BenchmarkReporter {
 public:
  explicit Collector(std::size_t ways) : samples(ways) {}

  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs)
      if (run.run_type == Run::RT_Iteration)
        samples[static_cast<std::size_t>(run.family_index)].push_back(
            run.real_accumulated_time / static_cast<double>(run.iterations));
  }

  std::vector<std::vector<double>> samples;
};

struct Options {
  bool quick = false, verify = false;
  std::vector<int> threads{1, 2};
  std::string filter, out;
  std::vector<std::string> peers;
  int rounds = 0;
  double seconds = 0;
};

class Run final : public Suite {
 public:
  Run(std::string stem, const Options& options)
      : options_(options),
        filter_(options.filter),
        rounds_(options.rounds > 0 ? options.rounds
                : options.quick    ? 3
                                   : 9),
        seconds_(options.seconds > 0 ? options.seconds
                 : options.quick     ? 0.003
                                     : 0.015) {
    Json versions = Json::array();
    for (const std::string& file : options.peers)
      if (Peer* peer = load_peer(file)) {
        peers_.push_back(peer);
        versions.push_back(peer->version());
      }
    const auto environment = [](const char* name) {
      const char* value = std::getenv(name);
      return std::string(value ? value : "unset");
    };
    char date[32];
    const std::time_t time = std::time(nullptr);
    std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&time));
    Json caches;
    for (const Level& level : memory_levels())
      if (std::isfinite(level.bytes)) caches[level.name] = level.bytes;
    json_ = {{"stem", stem},
             {"context",
              {{"cpu", cpu_name()},
               {"cores", benchmark::CPUInfo::Get().num_cpus},
               {"caches", caches},
               {"compiler", MINNOW_BUILD_COMPILER},
               {"flags", MINNOW_BUILD_FLAGS},
               {"instruction_set", instruction_set()},
               {"commit", MINNOW_BUILD_COMMIT},
               {"date", date},
               {"omp_wait_policy", environment("OMP_WAIT_POLICY")},
               {"omp_proc_bind", environment("OMP_PROC_BIND")},
               {"tuned_malloc", std::getenv("MALLOC_MMAP_THRESHOLD_") != nullptr},
               {"peers", versions},
               {"quick", options.quick},
               {"rounds", rounds_},
               {"seconds", seconds_}}},
             {"about", Json::array()},
             {"notes", Json::array()},
             {"peaks", Json::array()},
             {"rows", Json::array()}};
    print_context();
    if (!options.verify) measure_peaks();
  }

  bool quick() const override { return options_.quick; }
  bool wants(const std::string& set, const std::string& shape, bool quick_too) override {
    if (options_.quick && set != "seed" && !quick_too) return false;
    return options_.filter.empty() || std::regex_search(set + " " + shape, filter_);
  }
  void about(const std::string& title, const std::string& lines) override {
    json_["about"].push_back({{"title", title}, {"lines", lines}});
  }
  void note(const std::string& name, double value, const std::string& unit) override {
    json_["notes"].push_back({{"name", name}, {"value", value}, {"unit", unit}});
    std::printf("%s: %.4g %s\n", name.c_str(), value, unit.c_str());
  }
  const std::vector<std::string>& peer_files() const override { return options_.peers; }

  void measure(const Row& row, Outputs& outputs, const std::vector<Way>& ways,
               const Work& work) override {
    std::optional<PlainCopy> copy;
    if (!row.computes && !options_.verify) copy.emplace(row.bytes);
    for (const int threads : options_.threads) {
      set_num_threads(threads);
      std::vector<Timed> timed;
      for (const Way& way : ways)
        if (threads == 1 || !way.serial) verify(row, outputs, way, threads, timed);
      if (options_.verify) continue;
      const auto add = [&](const std::string& name, const std::function<void()>& f) {
        f();
        timed.push_back({name, f, seconds_of(f), std::nullopt});
      };
      if (copy) {
        add("copy", [&] { copy->by_loop(); });
        add("copy by memcpy", [&] { copy->by_memcpy(); });
      }
      if (!work.layer.empty())
        for (Peer* peer : peers_) {
          peer->set_num_threads(threads);
          for (const PeerWay& way : peer->ways(work)) add(way.name, way.run);
        }
      write(row, threads, timed, time(timed));
    }
  }

  int finish() {
    if (!options_.out.empty()) std::ofstream(options_.out) << json_.dump(1) << '\n';
    if (wrong_ > 0) std::fprintf(stderr, "%d results were wrong and not timed\n", wrong_);
    return wrong_ > 0 ? 1 : 0;
  }

 private:
  struct Timed {
    std::string name;
    std::function<void()> run;
    double once;  ///< seconds of the run that was checked
    std::optional<double> error;
  };

  void print_context() const {
    const Json& c = json_["context"];
    const auto value = [&](const char* key) { return c[key].get<std::string>(); };
    std::printf("%s, %d cores; %s, %s; %s; commit %s\n", value("cpu").c_str(),
                c["cores"].get<int>(), value("compiler").c_str(), value("flags").c_str(),
                value("instruction_set").c_str(), value("commit").c_str());
    std::printf("OMP_WAIT_POLICY %s, OMP_PROC_BIND %s", value("omp_wait_policy").c_str(),
                value("omp_proc_bind").c_str());
    for (const Json& peer : c["peers"]) std::printf("; %s", peer.get<std::string>().c_str());
    std::puts("");
  }

  void measure_peaks() {
    for (const int threads : options_.threads) {
      const Peak peak = measure_peak(threads, options_.quick ? 0.004 : 0.03);
      Json levels = Json::array();
      std::printf("%d thread%s: %.0f GFLOP/s, copies", threads, threads > 1 ? "s" : "",
                  peak.gflops);
      for (const Bandwidth& level : peak.levels) {
        levels.push_back({{"level", level.level},
                          {"read", level.read},
                          {"write", level.write},
                          {"copy", level.copy},
                          {"memcpy", level.memcpy}});
        std::printf(" %s %.0f", level.level.c_str(), level.best_copy());
      }
      std::printf(" GB/s, fork and join %.2f us\n", 1e6 * peak.fork_join);
      json_["peaks"].push_back({{"threads", threads},
                                {"gflops", peak.gflops},
                                {"fork_join", peak.fork_join},
                                {"levels", levels}});
      peaks_.push_back(peak);
    }
  }

  void verify(const Row& row, Outputs& outputs, const Way& way, int threads,
              std::vector<Timed>& timed) {
    outputs.poison();
    if (way.prepare) way.prepare();
    const double once = seconds_of(way.run);
    if (way.finish) way.finish();
    const double error = outputs.error();
    if (error <= way.tolerance) {
      timed.push_back({way.name, way.run, once, error});
      return;
    }
    ++wrong_;
    std::fprintf(stderr, "WRONG: %s %s %s, %s, %d threads: error %g, at most %g is right\n",
                 row.layer.c_str(), row.direction.c_str(), row.shape.c_str(), way.name.c_str(),
                 threads, error, way.tolerance);
  }

  /// Several short runs of each way, in random order, so that a slow spell of the machine meets
  /// all.
  std::vector<std::vector<double>> time(const std::vector<Timed>& timed) const {
    benchmark::ClearRegisteredBenchmarks();
    for (const Timed& way : timed) {
      auto* registered =
          benchmark::RegisterBenchmark(way.name.c_str(), [run = way.run](benchmark::State& state) {
            for (auto _ : state) run();
          });
      registered->UseRealTime();
      if (way.once > 20 * seconds_)
        registered->Iterations(1)->Repetitions(way.once > 0.2 ? 1 : rounds_);
      else
        registered->MinTime(seconds_)->Repetitions(rounds_);
    }
    Collector collector(timed.size());
    if (!timed.empty()) benchmark::RunSpecifiedBenchmarks(&collector, "all");
    return collector.samples;
  }

  void write(const Row& row, int threads, const std::vector<Timed>& timed,
             const std::vector<std::vector<double>>& samples) {
    Json json{{"layer", row.layer},   {"direction", row.direction}, {"shape", row.shape},
              {"set", row.set},       {"threads", threads},         {"elements", row.elements},
              {"bytes", row.bytes},   {"flops", row.flops},         {"computes", row.computes},
              {"ways", Json::array()}};
    json["level"] = memory_levels()[level_of(row.bytes, threads)].name;
    double copied = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < timed.size(); ++i) {
      Json way{{"name", timed[i].name}, {"seconds", samples[i]}};
      if (timed[i].error) way["error"] = *timed[i].error;
      json["ways"].push_back(way);
      if (timed[i].name.starts_with("copy")) copied = std::min(copied, quantile(samples[i], 0.5));
    }
    json_["rows"].push_back(json);

    std::printf("%-16s %-16s %-20s t%d ", row.layer.c_str(), row.direction.c_str(),
                row.shape.c_str(), threads);
    for (std::size_t i = 0; i < timed.size(); ++i) {
      const double median = quantile(samples[i], 0.5);
      std::printf(" %s %.4g us", timed[i].name.c_str(), 1e6 * median);
      if (timed[i].name != "minnow") continue;
      const double spread = (quantile(samples[i], 0.9) - quantile(samples[i], 0.1)) / median;
      std::printf(" (spread %.0f %%, ", 100 * spread);
      if (std::isfinite(copied))
        std::printf("%.0f GB/s, %.0f %% of a copy", 1e-9 * row.bytes / median,
                    100 * copied / median);
      else
        std::printf("%.0f GFLOP/s, %.0f %% of the peak", 1e-9 * row.flops / median,
                    1e-7 * row.flops / median / peak_of(threads).gflops);
      std::printf(", error %.1e)", timed[i].error.value_or(0));
    }
    std::puts("");
    std::fflush(stdout);
  }

  const Peak& peak_of(int threads) const {
    return *std::ranges::find(peaks_, threads, &Peak::threads);
  }

  Options options_;
  std::regex filter_;
  int rounds_;
  double seconds_;
  std::vector<Peer*> peers_;
  std::vector<Peak> peaks_;
  Json json_;
  int wrong_ = 0;
};

}  // namespace

int run(const std::string& stem, int argc, char** argv, const std::function<void(Suite&)>& body) {
  Options options;
  CLI::App app{"Verifies and times minnow's " + stem + "."};
  app.add_flag("--quick", options.quick, "few shapes, short samples");
  app.add_flag("--verify", options.verify, "compare with the oracle only");
  app.add_option("--threads", options.threads, "numbers of threads")->delimiter(',');
  app.add_option("--filter", options.filter, "only rows whose \"set shape\" has a match");
  app.add_option("--peer", options.peers, "modules of other libraries")->delimiter(',');
  app.add_option("--out", options.out, "write all samples to this JSON file");
  app.add_option("--rounds", options.rounds, "samples of each figure");
  app.add_option("--seconds", options.seconds, "length of a sample");
  CLI11_PARSE(app, argc, argv);

  char program[] = "bench", interleave[] = "--benchmark_enable_random_interleaving=true";
  char* arguments[] = {program, interleave, nullptr};
  int count = 2;
  benchmark::Initialize(&count, arguments);
  Run suite(stem, options);
  body(suite);
  return suite.finish();
}

}  // namespace bench
