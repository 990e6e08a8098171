// Makes of the benchmarks' JSON a report: report.html, report.md and report.csv.
//   bench_report <folder of JSON files> <folder of the report>
#include <cstdio>
#include <set>

#include "data.hpp"
#include "document.hpp"
#include "plot.hpp"

namespace report {

namespace {

const std::map<std::string, std::string> names{{"batch_norm", "batch norm"},
                                               {"group_norm", "group norm"},
                                               {"layer_norm", "layer norm"},
                                               {"instance_norm", "instance norm"},
                                               {"rms_norm", "RMS norm"},
                                               {"conv2d", "convolution"},
                                               {"max_pool2d", "max pool"},
                                               {"avg_pool2d", "average pool"},
                                               {"dropout", "dropout"},
                                               {"relu", "ReLU"},
                                               {"cross_entropy", "cross entropy"},
                                               {"sgd", "SGD step"},
                                               {"adam", "Adam step"},
                                               {"train_step", "training step"}};
std::string name_of(const std::string& layer) {
  const auto found = names.find(layer);
  return found == names.end() ? layer : found->second;
}

const std::map<std::string, std::string> sets{
    {"seed", "the shapes of the MNIST networks, batch 128"},
    {"wide", "wide shapes"},
    {"depthwise", "a kernel for each channel"},
    {"rows", "long and many rows"},
    {"tiny", "tiny rows"},
    {"odd", "odd sizes"},
    {"one", "a batch of one"},
    {"sweep", "over sizes"}};

namespace colour {
constexpr const char *minnow = "#0b5c9e", *minnow_1 = "#5aa9e6", *layer = "#8064a2",
                     *naive = "#9aa1ad", *vectorised = "#c9a227", *torch = "#d1495b",
                     *onednn = "#2e8b57", *lanes = "#0a8f8f";
}  // namespace colour

bool is_norm(const std::string& stem) { return stem.ends_with("_norm"); }

std::string microseconds(double seconds) {
  const double us = 1e6 * seconds;
  return us < 9.95 ? fixed(us, 2) : us < 99.5 ? fixed(us, 1) : minnow::thousands(std::lround(us));
}
std::string times(double ratio) {
  return fixed(ratio, ratio < 9.95 ? 2 : ratio < 99.5 ? 1 : 0) + "×";
}
/// Bold where we are faster by 5 % or more.
std::string versus(double ratio) { return (ratio >= 1.05 ? "*" : "") + times(ratio); }
std::string percent(double share) { return fixed(100 * share, 0) + " %"; }

/// Half the distance from the tenth to the ninetieth percentile, as a share of the median.
double spread_of(const Way& way) { return (way.high - way.low) / 2 / way.median; }
/// A larger spread than that: something else was running.
constexpr double disturbed = 0.2;
void make_faint(std::vector<std::string>& cells) {
  for (std::string& cell : cells) {
    if (cell.empty()) continue;
    if (cell.front() == '*') cell.erase(0, 1);
    cell.insert(0, "~");
  }
}

/// A user of libtorch pays for its engine and its allocations, so it is compared with a layer that
/// pays for ours; the kernels of oneDNN with our kernels, and the faster of ours where there are
/// two.
double against_torch(const Row& row, const Way& torch) {
  const Way* layer = row.way("layer");
  return layer ? torch.median / layer->median : torch.ratio;
}
double against_onednn(const Row& row, const Way& onednn) {
  double best = row.way("minnow")->median;
  if (const Way* lanes = row.way("lanes")) best = std::min(best, lanes->median);
  return onednn.median / best;
}

struct Totals {
  /// By way; "oneDNN" is the best layout of each shape, "copy" the faster copy.
  std::map<std::string, double> seconds;
  int rows = 0;
};
/// The sum over the rows of a set that fit.
template <class Fits>
Totals sum_of(const std::vector<Row>& rows, const Fits& fits) {
  Totals totals;
  std::map<std::string, int> counts;
  for (const Row& row : rows) {
    if (!fits(row)) continue;
    ++totals.rows;
    const auto add = [&](const std::string& name, double seconds) {
      totals.seconds[name] += seconds;
      ++counts[name];
    };
    for (const Way& way : row.ways)
      if (way.name != "oneDNN" && way.name != "copy") add(way.name, way.median);
    for (const char* kind : {"oneDNN", "copy"})
      if (const Way* best = row.fastest(kind)) add(kind, best->median);
  }
  std::erase_if(totals.seconds,
                [&](const auto& entry) { return counts[entry.first] < totals.rows; });
  return totals;
}

/// The columns that a set of rows needs.
struct Columns {
  bool naive = false, vectorised = false, lanes = false, layered = false, model = false,
       layer = false, torch = false, tuned = false, onednn = false, compute = false;

  explicit Columns(const std::vector<const Row*>& rows) {
    for (const Row* row : rows) {
      const auto has = [&](const char* name) { return row->way(name) != nullptr; };
      naive |= has("naive"), vectorised |= has("vectorised"), lanes |= has("lanes");
      layered |= has("layer by layer"), model |= has("model"), layer |= has("layer");
      torch |= has("libtorch"), tuned |= has("tuned libtorch");
      onednn |= row->fastest("oneDNN") != nullptr;
      compute |= row->computes;
    }
  }
};

Table table_of(const std::string& title, const std::vector<const Row*>& rows,
               const std::map<int, Peak>& peaks) {
  const Columns columns(rows);
  Table table{title, {"", "threads", "µs", "spread"}, {}};
  const auto head = [&](bool wanted, const char* text) {
    if (wanted) table.head.push_back(text);
  };
  head(columns.compute, "GFLOP/s");
  head(columns.compute, "of peak");
  head(!columns.compute, "GB/s");
  head(!columns.compute, "level");
  head(!columns.compute, "of a copy");
  head(columns.lanes, "one image a lane, µs");
  head(columns.layered, "layer by layer, µs");
  head(columns.model, "model in eval, µs");
  head(columns.layer, "as a layer, µs");
  head(columns.naive, "naive");
  head(columns.vectorised, "vectorised");
  head(columns.torch, "libtorch");
  head(columns.tuned, "tuned libtorch");
  head(columns.onednn, "oneDNN");
  table.head.push_back("error");

  const Row* first_of_row = nullptr;
  for (const Row* row : rows) {
    const Way* own = row->way("minnow");
    if (!own) continue;
    const bool again = first_of_row && first_of_row->shape == row->shape &&
                       first_of_row->direction == row->direction;
    first_of_row = row;
    std::vector<std::string> cells{
        again ? "" : row->shape + (row->direction == "step" ? "" : ", " + row->direction),
        std::to_string(row->threads), microseconds(own->median), "±" + percent(spread_of(*own))};
    const Peak& peak = peaks.at(row->threads);
    const double best = columns.lanes && row->way("lanes")
                            ? std::min(own->median, row->way("lanes")->median)
                            : own->median;
    if (columns.compute) {
      const double rate = 1e-9 * row->flops / best;
      cells.push_back(fixed(rate, 0));
      cells.push_back(percent(rate / peak.gflops));
    } else {
      const double rate = 1e-9 * row->bytes / own->median;
      cells.push_back(fixed(rate, rate < 10 ? 1 : 0));
      cells.push_back(row->level);
      cells.push_back(percent(row->fastest("copy")->median / own->median));
    }
    const auto time = [&](bool wanted, const char* name) {
      const Way* way = row->way(name);
      if (wanted) cells.push_back(way ? microseconds(way->median) : "");
    };
    time(columns.lanes, "lanes");
    time(columns.layered, "layer by layer");
    time(columns.model, "model");
    time(columns.layer, "layer");
    // They run on one thread, and are compared with that.
    for (const auto& [wanted, name] :
         {std::pair(columns.naive, "naive"), std::pair(columns.vectorised, "vectorised")})
      if (wanted) {
        const Way* way = row->threads == 1 ? row->way(name) : nullptr;
        cells.push_back(way ? times(way->median / best) : "");
      }
    const auto torch = [&](bool wanted, const char* name) {
      const Way* way = row->way(name);
      if (wanted) cells.push_back(way ? versus(against_torch(*row, *way)) : "");
    };
    torch(columns.torch, "libtorch");
    torch(columns.tuned, "tuned libtorch");
    if (columns.onednn) {
      const Way* way = row->fastest("oneDNN");
      cells.push_back(way ? versus(against_onednn(*row, *way)) : "");
    }
    char error[32];
    std::snprintf(error, sizeof error, "%.0e", own->error);
    cells.push_back(error);
    if (spread_of(*own) > disturbed) make_faint(cells);
    table.rows.push_back(cells);
  }
  return table;
}

std::string roofline(const File& file) {
  const auto& [threads, peak] = *file.peaks.rbegin();
  LogPlot plot(text("Roofline, ", threads, threads > 1 ? " threads" : " thread"),
               "operations a byte, by the minimal byte model", "GFLOP/s");
  double low = 1e300, high = 0;
  Points forward, backward, naive;
  for (const Row& row : file.rows) {
    if (row.flops <= 0 || row.bytes <= 0) continue;
    const double intensity = row.flops / row.bytes;
    low = std::min(low, intensity), high = std::max(high, intensity);
    const auto add = [&](Points& points, const Way* way) {
      if (way) points.emplace_back(intensity, 1e-9 * row.flops / way->median);
    };
    if (row.threads == 1) add(naive, row.way("naive"));
    const Way* own = row.way("lanes") ? row.way("lanes") : row.way("minnow");
    if (row.threads == threads) add(row.direction == "forward" ? forward : backward, own);
  }
  if (high <= 0) return "";
  low /= 3, high *= 3;
  const char* greys[] = {"#7d8798", "#98a1b0", "#b1b8c4", "#c9ced7", "#dde1e7"};
  std::size_t shade = 0;
  for (const std::string& level : peak.levels) {
    const double speed = peak.copy(level), ridge = std::clamp(peak.gflops / speed, low, high);
    Points roof{{low, std::min(peak.gflops, low * speed)},
                {ridge, std::min(peak.gflops, ridge * speed)}};
    if (ridge < high) roof.emplace_back(high, peak.gflops);
    plot.add({text(level, " ", fixed(speed, 0), " GB/s"), greys[std::min<std::size_t>(shade++, 4)],
              roof, true, false});
  }
  plot.add({text("peak ", fixed(peak.gflops, 0), " GFLOP/s"),
            "#3d4557",
            {{low, peak.gflops}, {high, peak.gflops}},
            true,
            false,
            false,
            true});
  plot.add({"naive, 1 thread", colour::naive, naive, false, true, true});
  plot.add({"minnow, forward", colour::minnow, forward, false});
  plot.add({file.rows.front().direction == "step" ? "minnow" : "minnow, backward", colour::torch,
            backward, false});
  return plot.svg();
}

/// Nanoseconds an element against size: the number of elements, or the length of a row.
std::string sweep(const File& file, const std::string& direction) {
  const bool rows = file.stem == "layer_norm" || file.stem == "rms_norm";
  LogPlot plot("Time per element, " + direction,
               rows ? "length of a row (2^20 elements in all)" : "elements", "ns an element");
  const auto add = [&](const std::string& label, const char* color, int threads, auto pick,
                       bool dashed = false) {
    Points points;
    for (const Row& row : file.rows) {
      if (row.set != "sweep" || row.direction != direction || row.threads != threads) continue;
      const std::size_t x = row.shape.find('x');
      const double size = rows ? std::stod(row.shape.substr(x + 1)) : row.elements;
      if (const Way* way = pick(row)) points.emplace_back(size, 1e9 * way->median / row.elements);
    }
    if (!points.empty()) plot.add({label, color, points, true, true, false, dashed});
  };
  const auto named = [](const char* name) { return [=](const Row& row) { return row.way(name); }; };
  const int most = file.peaks.rbegin()->first;
  const char* many = most > 1 ? " threads" : " thread";
  add("naive, 1 thread", colour::naive, 1, named("naive"));
  add("vectorised, 1 thread", colour::vectorised, 1, named("vectorised"));
  add("minnow, 1 thread", colour::minnow_1, 1, named("minnow"));
  if (most > 1) add(text("minnow, ", most, " threads"), colour::minnow, most, named("minnow"));
  add(text("libtorch, ", most, many), colour::torch, most, named("libtorch"), true);
  add(
      text("best oneDNN, ", most, many), colour::onednn, most,
      [](const Row& row) { return row.fastest("oneDNN"); }, true);
  return plot.svg();
}

std::string ladder(const File& file, const std::string& direction) {
  std::vector<Bar> all;
  for (const auto& [threads, peak] : file.peaks) {
    const Totals totals = sum_of(file.rows, [&, t = threads](const Row& row) {
      return row.set == "seed" && row.direction == direction && row.threads == t;
    });
    const auto add = [&](const char* way, const std::string& label, const char* color) {
      const auto found = totals.seconds.find(way);
      if (found == totals.seconds.end()) return;
      all.push_back(
          {label, color, 1e6 * found->second,
           std::string(way) == "minnow" ? "" : times(found->second / totals.seconds.at("minnow"))});
    };
    const std::string t = text(", ", threads, threads > 1 ? " threads" : " thread");
    if (threads == 1) {
      add("naive", "naive, 1 thread", colour::naive);
      add("vectorised", "vectorised, 1 thread", colour::vectorised);
    }
    add("libtorch", "libtorch" + t, colour::torch);
    add("oneDNN", "oneDNN" + t, colour::onednn);
    add("minnow", "minnow" + t, colour::minnow);
  }
  return all.empty() ? "" : bars("Sum over the networks' eight shapes, " + direction, "µs", all);
}

/// What norm, dropout and relu cost beyond the convolution alone.
Table fusion_table(const File& file) {
  Table table{"Norm + dropout + ReLU beyond the convolution, µs",
              {"", "threads", "layer by layer", "fused", "", "libtorch", ""},
              {}};
  for (const Row& row : file.rows) {
    const std::size_t comma = row.shape.find(": convolution");
    if (row.shape.ends_with("alone")) continue;
    const auto alone = std::ranges::find_if(file.rows, [&](const Row& other) {
      return other.shape == row.shape.substr(0, comma) + ": convolution alone" &&
             other.direction == row.direction && other.threads == row.threads;
    });
    if (alone == file.rows.end()) continue;
    const auto extra = [&](const char* name) {
      const Way *with = row.way(name), *without = alone->way(name);
      return with && without ? with->median - without->median : 0;
    };
    const double fused = extra("minnow"), layered = extra("layer by layer"),
                 torch = extra("libtorch");
    const auto ratio = [&](double of) { return of > 0 && fused > 0 ? versus(of / fused) : ""; };
    table.rows.push_back({row.shape + ", " + row.direction, std::to_string(row.threads),
                          microseconds(layered), microseconds(fused), ratio(layered),
                          torch > 0 ? microseconds(torch) : "", ratio(torch)});
  }
  return table;
}

void add_section(Document& document, const File& file) {
  const std::string title =
      file.about.empty() ? file.stem : file.about[0]["title"].get<std::string>();
  document.push_back(Heading{2, title});
  for (const Json& about : file.about) {
    std::string lines = about["lines"];
    lines.erase(0, lines.find_first_not_of('\n'));
    document.push_back(Lines{lines});
  }
  if (is_norm(file.stem))
    document.push_back(Pictures{{ladder(file, "forward"), ladder(file, "backward"),
                                 sweep(file, "forward"), sweep(file, "backward"), roofline(file)}});
  else if (file.stem == "conv2d" || file.stem == "linear")
    document.push_back(Pictures{{roofline(file)}});
  if (file.stem == "stage") document.push_back(fusion_table(file));

  std::vector<std::pair<std::string, std::string>> tables;  // layer and set, as they come
  for (const Row& row : file.rows)
    if (std::pair key(row.layer, row.set); std::ranges::find(tables, key) == tables.end())
      tables.push_back(key);
  for (const auto& [layer, set] : tables) {
    std::vector<const Row*> rows;
    for (const Row& row : file.rows)
      if (row.layer == layer && row.set == set) rows.push_back(&row);
    const bool nets = layer == "train_step" || layer == "inference" || layer == "sgd" ||
                      layer == "adam" || layer == "stage";
    const std::string what = name_of(layer);
    document.push_back(table_of(nets ? what : what + ": " + sets.at(set), rows, file.peaks));
  }
  if (!file.notes.empty()) {
    Table notes{"Memory", {"", ""}, {}};
    for (const Json& note : file.notes)
      notes.rows.push_back(
          {note["name"], short_number(note["value"]) + " " + note["unit"].get<std::string>()});
    document.push_back(notes);
  }
}

/// The commit and day of the measurements; where programs ran at different ones, which at which.
std::string commits_of(const std::vector<File>& files) {
  std::map<std::string, std::set<std::string>> stems;
  for (const File& file : files) {
    const auto value = [&](const char* key) { return file.context[key].get<std::string>(); };
    stems[value("date") + ", " + value("commit")].insert(file.stem);
  }
  std::string all;
  for (const auto& [day_commit, programs] : stems) {
    if (!all.empty()) all += "; ";
    all += day_commit;
    if (stems.size() == 1) break;
    for (const std::string& name : programs)
      all += (name == *programs.begin() ? ": " : ", ") + name;
  }
  return all;
}

void add_machine(Document& document, const std::vector<File>& files) {
  const Json& c = files.front().context;
  std::set<std::string> peers;
  for (const File& file : files)
    for (const Json& peer : file.context["peers"]) peers.insert(peer.get<std::string>());
  std::string caches, others;
  for (const auto& [name, bytes] : c["caches"].items())
    caches += (caches.empty() ? "" : ", ") + name + " " +
              minnow::thousands(bytes.get<long>() / 1024) + " KiB";
  for (const auto& peer : peers) others += (others.empty() ? "" : "; ") + peer;
  const auto value = [&](const char* key) { return c[key].get<std::string>(); };
  document.push_back(Table{
      "",
      {"", ""},
      {{"machine",
        value("cpu") + ", " + std::to_string(c["cores"].get<int>()) + " cores; " + caches},
       {"compiler", value("compiler") + ", " + value("flags") + "; " + value("instruction_set")},
       {"day, commit", commits_of(files)},
       {"OpenMP, for all libraries",
        "OMP_WAIT_POLICY=" + value("omp_wait_policy") + " OMP_PROC_BIND=" + value("omp_proc_bind")},
       {"compared with", others.empty() ? "nothing" : others},
       {"samples",
        text("medians of ", c["rounds"].get<int>(), " rounds of ",
             fixed(1e3 * c["seconds"].get<double>(), 0), " ms, all ways of a row in random order",
             c["quick"].get<bool>() ? "; a quick run, not to be quoted" : "")}},
      true});

  Table peaks{
      "What the machine can do, medians over the programs of this run; reading, writing and "
      "copying in GB/s",
      {"threads", "GFLOP/s", "fork and join, µs"},
      {}};
  const Peak& any = files.front().peaks.begin()->second;
  for (const auto& level : any.levels)
    for (const char* kind : {"read", "write", "copy"}) peaks.head.push_back(level + " " + kind);
  for (const auto& [threads, peak] : files.front().peaks) {
    std::vector<std::string> cells{std::to_string(threads), fixed(peak.gflops, 0),
                                   fixed(1e6 * peak.fork_join, 2)};
    for (const auto& level : peak.levels) {
      for (const char* kind : {"read", "write"})
        cells.push_back(fixed(peak.bandwidth.at(level).at(kind), 0));
      cells.push_back(fixed(peak.copy(level), 0));
    }
    peaks.rows.push_back(cells);
  }
  document.push_back(peaks);
}

/// Without columns in which there is nothing.
Table without_empty_columns(Table table) {
  for (std::size_t i = table.head.size(); i-- > 0;) {
    const auto at = static_cast<std::ptrdiff_t>(i);
    if (std::ranges::any_of(table.rows, [&](const auto& row) { return !row[i].empty(); })) continue;
    table.head.erase(table.head.begin() + at);
    for (auto& row : table.rows) row.erase(row.begin() + at);
  }
  return table;
}

/// The sums that a reader looks for first: the norms, what networks take, the rest.
void add_glance(Document& document, std::vector<File> files) {
  std::ranges::stable_sort(files, {}, [](const File& file) {
    const bool net = file.stem == "train_step" || file.stem == "predictor";
    return is_norm(file.stem) ? 0 : net ? 1 : 2;
  });
  Table table{"",
              {"", "threads", "minnow, µs", "speed-up", "of a copy", "libtorch", "tuned libtorch",
               "oneDNN"},
              {}};
  const auto scaling = [](double one, double own) { return own > 0 ? times(one / own) : ""; };
  for (const File& file : files) {
    if (file.stem == "stage") continue;
    std::vector<std::pair<std::string, std::string>>
        keys;  // what is summed: layer, direction or shape
    for (const Row& row : file.rows) {
      if (row.set != "seed" && row.layer != "inference" && row.layer != "linear") continue;
      const bool net =
          row.layer == "train_step" || row.layer == "inference" || row.layer == "linear";
      std::pair key(row.layer, net ? row.shape + (row.layer == "linear" ? ", " + row.direction : "")
                                   : row.direction);
      if (std::ranges::find(keys, key) == keys.end()) keys.push_back(key);
    }
    for (const auto& key : keys) {
      double one = 0;
      for (const auto& [threads, peak] : file.peaks) {
        const Totals totals = sum_of(file.rows, [&, t = threads](const Row& row) {
          if (row.layer != key.first || row.threads != t) return false;
          if (row.layer == "linear") return row.shape + ", " + row.direction == key.second;
          if (row.layer == "train_step" || row.layer == "inference") return row.shape == key.second;
          return row.set == "seed" && row.direction == key.second;
        });
        const auto of = [&](const char* name) {
          const auto found = totals.seconds.find(name);
          return found == totals.seconds.end() ? 0 : found->second;
        };
        double own = of("minnow");
        if (of("lanes") > 0) own = std::min(own, of("lanes"));
        if (own == 0) continue;
        if (threads == 1) one = own;
        const double layer = of("layer") > 0 ? of("layer") : own;
        const auto ratio = [&](const char* name, double to) {
          return of(name) > 0 ? versus(of(name) / to) : "";
        };
        table.rows.push_back(
            {threads == files.front().peaks.begin()->first
                 ? name_of(key.first) + ", " + key.second +
                       (totals.rows > 1 ? text(", sum of ", totals.rows, " shapes") : "")
                 : "",
             std::to_string(threads), microseconds(own), threads > 1 ? scaling(one, own) : "",
             of("copy") > 0 ? percent(of("copy") / own) : "", ratio("libtorch", layer),
             ratio("tuned libtorch", layer), ratio("oneDNN", own)});
      }
    }
  }
  document.push_back(without_empty_columns(table));
}

void add_compile_cost(Document& document, const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return;
  const Json json = Json::parse(std::ifstream(file));
  document.push_back(Heading{2, "Compile time"});
  std::vector<Json> programs, headers;
  for (const Json& row : json["rows"])
    (row["name"].get<std::string>().ends_with(".hpp") ? headers : programs).push_back(row);
  std::ranges::sort(headers, std::greater{},
                    [](const Json& row) { return row["seconds"].get<double>(); });
  constexpr std::size_t shown = 8;
  Table table{json["compiler"].get<std::string>() + ", one core; the slowest headers, each alone",
              {"", "seconds", "peak memory, MB", "preprocessed lines"},
              {}};
  const auto add = [&](const std::string& name, const Json& row) {
    table.rows.push_back(
        {name, fixed(row["seconds"].get<double>(), 2), fixed(row["megabytes"].get<double>(), 0),
         row.contains("lines") ? minnow::thousands(row["lines"].get<long>()) : ""});
  };
  for (const Json& row : programs) add(row["name"], row);
  for (std::size_t i = 0; i < std::min(shown, headers.size()); ++i)
    add(headers[i]["name"], headers[i]);
  if (headers.size() > shown)
    add(text("each of the other ", headers.size() - shown, " headers, at most"), headers[shown]);
  document.push_back(table);
}

Table how_to_read() {
  return {
      "",
      {"", "means"},
      {{"µs",
        "median time of a call of the kernel; \"spread\" is half the distance from the 10th to the "
        "90th percentile: above 20 % something else was running, and the row, in grey (in Markdown "
        "in italics), is to be taken with care"},
       {"GB/s",
        "bytes by the minimal byte model (each tensor once) per second: a lower bound of what "
        "really moved"},
       {"level",
        "the smallest level of memory that holds these bytes, of two threads in the caches of both "
        "cores. Warm: the same arrays again and again"},
       {"of a copy",
        "the time of a plain copy of just as many bytes, half of them read and half written (a "
        "loop "
        "or memcpy, whichever is faster), timed in turns with the row, over the row's time. A "
        "backward writes a third of its bytes, not half, so it can pass 100 %"},
       {"of peak", "share of the multiply-add rate that was measured in the same run"},
       {"as a layer",
        "the differentiable function as a user calls it: checked, recorded, its result newly "
        "allocated"},
       {"naive",
        "how many times longer plain loops take, one number at a time, on one thread; "
        "\"vectorised\": the same loops on registers"},
       {"libtorch",
        "how many times longer libtorch takes than our layer, both recorded and through their "
        "engines; \"tuned\": with an allocator that gives nothing back (MALLOC_MMAP_THRESHOLD_, "
        "MALLOC_TRIM_THRESHOLD_)"},
       {"oneDNN",
        "how many times longer the best layout of oneDNN's primitive takes than our kernel; "
        "reorders not counted"},
       {"error",
        "the largest difference from the same in double, over max(abs(value), root mean square of "
        "all "
        "values); for networks and stages the root mean square of the differences. What is wrong "
        "is not timed"}},
      true};
}

Document make_document(const std::vector<File>& files, const std::filesystem::path& folder) {
  const bool peers = std::ranges::any_of(files, [](const File& file) {
    return std::ranges::any_of(
        file.rows, [](const Row& row) { return row.way("libtorch") || row.fastest("oneDNN"); });
  });
  Document document;
  document.push_back(Heading{1, "minnow: benchmarks"});
  document.push_back(
      Paragraph{"What the layers of small convolutional networks cost on a CPU, kernel by kernel, "
                "beside what the machine could do at best" +
                std::string(peers ? " and what other libraries need. Rows that minnow loses stay "
                                    "in. Written by `./run bench --peers`."
                                  : ". Written by `./run bench`; with `--peers` it measures "
                                    "libtorch and oneDNN, too.")});
  add_machine(document, files);
  document.push_back(Heading{2, "At a glance"});
  document.push_back(Paragraph{
      std::string(peers ? "How many times longer the others take; bold where minnow is "
                          "faster by 5 % or more. libtorch's layers are compared with our layers, "
                          "oneDNN's primitives, in their best layout, with our kernels. "
                        : "") +
      "Sums are over the shapes that occur in the three MNIST networks at batch 128. What only "
      "moves "
      "memory is held against a copy of as many bytes: no kernel can be faster than that by "
      "much."});
  add_glance(document, files);
  document.push_back(Heading{2, "How to read the tables"});
  document.push_back(how_to_read());
  for (const File& file : files) add_section(document, file);
  add_compile_cost(document, folder / "compile_cost.json");
  return document;
}

void write_csv(std::ostream& out, const std::vector<File>& files) {
  out << "layer,direction,shape,set,threads,way,median_us,p10_us,p90_us,elements,bytes,flops,gb_"
         "per_s,"
         "gflop_per_s,level,share_of_copy,share_of_peak,error\n";
  for (const File& file : files)
    for (const Row& row : file.rows)
      for (const Way& way : row.ways) {
        const Peak& peak = file.peaks.at(row.threads);
        const Way* copy = row.fastest("copy");
        const double bandwidth = 1e-9 * row.bytes / way.median,
                     rate = 1e-9 * row.flops / way.median;
        out << row.layer << ',' << row.direction << ",\"" << row.shape << "\"," << row.set << ','
            << row.threads << ',' << way.name << ',' << 1e6 * way.median << ',' << 1e6 * way.low
            << ',' << 1e6 * way.high << ',' << row.elements << ',' << row.bytes << ',' << row.flops
            << ',' << bandwidth << ',' << rate << ',' << row.level << ','
            << (copy ? copy->median / way.median : 0) << ',' << rate / peak.gflops << ',';
        if (way.error >= 0) out << way.error;
        out << '\n';
      }
}

}  // namespace

}  // namespace report

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s <folder of JSON files> <folder of the report>\n", argv[0]);
    return 2;
  }
  const std::filesystem::path from = argv[1], to = argv[2];
  const auto files = report::read_folder(from);
  if (files.empty()) {
    std::fprintf(stderr, "%s holds no measurements\n", argv[1]);
    return 1;
  }
  const auto document = report::make_document(files, from);
  std::filesystem::create_directories(to);
  std::ofstream(to / "report.html") << report::html(document, "minnow: benchmarks");
  std::ofstream(to / "report.md") << report::markdown(document);
  std::ofstream csv(to / "report.csv");
  report::write_csv(csv, files);
  return csv.good() ? 0 : 1;
}
