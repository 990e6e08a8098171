#pragma once
/// @file
/// What the benchmarks wrote down, read back.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace report {

using Json = nlohmann::json;

inline double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

/// One way to compute a row: seconds a call.
struct Way {
  std::string name;
  double median = 0, low = 0, high = 0;  ///< low and high: the tenth and the ninetieth percentile
  double error = -1;                     ///< against double; negative: not compared
  double ratio = 0;                      ///< to "minnow" of the same run
};

struct Row {
  std::string layer, direction, shape, set, level;
  int threads = 1;
  double elements = 0, bytes = 0, flops = 0;
  bool computes = false;  ///< held against the multiply-add peak, not against a copy
  std::vector<Way> ways;

  const Way* way(const std::string& name) const {
    const auto found = std::ranges::find(ways, name, &Way::name);
    return found == ways.end() ? nullptr : &*found;
  }
  /// The fastest of the ways whose names begin so.
  const Way* fastest(const std::string& begin) const {
    const Way* best = nullptr;
    for (const Way& w : ways)
      if (w.name.starts_with(begin) && (!best || w.median < best->median)) best = &w;
    return best;
  }
};

struct Peak {
  double gflops = 0, fork_join = 0;
  std::vector<std::string> levels;                                 ///< in order of size
  std::map<std::string, std::map<std::string, double>> bandwidth;  ///< [level][kind], GB/s

  double copy(const std::string& level) const {
    const auto& of = bandwidth.at(level);
    return std::max(of.at("copy"), of.at("memcpy"));
  }
};

/// What one program measured.
struct File {
  std::string stem;
  bool tuned = false;  ///< a second run, with libtorch's allocator tuned
  Json context, about, notes;
  std::map<int, Peak> peaks;  ///< by threads
  std::vector<Row> rows;
};

inline File read_file(const std::filesystem::path& path) {
  const Json json = Json::parse(std::ifstream(path));
  File file{.stem = json["stem"],
            .tuned = path.stem().string().ends_with("_tuned"),
            .context = json["context"],
            .about = json["about"],
            .notes = json["notes"],
            .peaks = {},
            .rows = {}};
  for (const Json& p : json["peaks"]) {
    Peak peak{.gflops = p["gflops"], .fork_join = p["fork_join"], .levels = {}, .bandwidth = {}};
    for (const Json& level : p["levels"]) {
      peak.levels.push_back(level["level"]);
      for (const char* kind : {"read", "write", "copy", "memcpy"})
        peak.bandwidth[level["level"]][kind] = level[kind];
    }
    file.peaks[p["threads"]] = peak;
  }
  for (const Json& r : json["rows"]) {
    Row row{.layer = r["layer"],
            .direction = r["direction"],
            .shape = r["shape"],
            .set = r["set"],
            .level = r["level"],
            .threads = r["threads"],
            .elements = r["elements"],
            .bytes = r["bytes"],
            .flops = r["flops"],
            .computes = r["computes"],
            .ways = {}};
    for (const Json& w : r["ways"]) {
      const std::vector<double> seconds = w["seconds"];
      row.ways.push_back({w["name"], quantile(seconds, 0.5), quantile(seconds, 0.1),
                          quantile(seconds, 0.9), w.value("error", -1.0), 0});
    }
    if (const Way* own = row.way("minnow")) {
      const double median = own->median;
      for (Way& way : row.ways) way.ratio = way.median / median;
    }
    file.rows.push_back(row);
  }
  return file;
}

/// Each measured what the machine can do; all are held against the medians, which no disturbance of
/// one program moves.
inline void share_peaks(std::vector<File>& files) {
  if (files.empty()) return;
  std::map<int, Peak> shared = files.front().peaks;
  for (auto& [threads, peak] : shared) {
    const auto median = [&, t = threads](const auto& of) {
      std::vector<double> values;
      for (const File& file : files)
        if (const auto found = file.peaks.find(t); found != file.peaks.end())
          values.push_back(of(found->second));
      return quantile(values, 0.5);
    };
    peak.gflops = median([](const Peak& p) { return p.gflops; });
    peak.fork_join = median([](const Peak& p) { return p.fork_join; });
    for (auto& [level, kinds] : peak.bandwidth)
      for (auto& [kind, speed] : kinds)
        speed = median([&](const Peak& p) { return p.bandwidth.at(level).at(kind); });
  }
  for (File& file : files) file.peaks = shared;
}

/// All files of a folder. Of a second run with libtorch tuned only its libtorch is kept, as one
/// more way of the first run's rows: its times in proportion to minnow's, which both runs measured.
inline std::vector<File> read_folder(const std::filesystem::path& folder) {
  std::vector<File> files, tuned;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".json" && entry.path().stem() != "compile_cost")
      paths.push_back(entry.path());
  std::ranges::sort(paths);
  for (const auto& path : paths) {
    File file = read_file(path);
    (file.tuned ? tuned : files).push_back(std::move(file));
  }
  share_peaks(files);
  for (const File& second : tuned)
    for (File& file : files)
      for (Row& row : file.rows)
        for (const Row& other : second.rows)
          if (file.stem == second.stem && other.layer == row.layer && other.shape == row.shape &&
              other.direction == row.direction && other.threads == row.threads)
            if (const Way* torch = other.way("libtorch"), *own = row.way("minnow"); torch && own) {
              const double clock = torch->ratio * own->median / torch->median;
              Way tuned_torch = *torch;
              tuned_torch.name = "tuned libtorch";
              for (double* time : {&tuned_torch.median, &tuned_torch.low, &tuned_torch.high})
                *time *= clock;
              row.ways.push_back(std::move(tuned_torch));
            }
  // Normalisations first, then the rest of a network, then networks.
  const std::vector<std::string> order{"batch_norm", "group_norm",  "layer_norm", "instance_norm",
                                       "rms_norm",   "stage",       "conv2d",     "pool2d",
                                       "dropout",    "activations", "softmax",    "linear",
                                       "optimizer",  "train_step",  "predictor"};
  std::ranges::stable_sort(files, {}, [&](const File& file) {
    return std::ranges::find(order, file.stem) - order.begin();
  });
  return files;
}

}  // namespace report
