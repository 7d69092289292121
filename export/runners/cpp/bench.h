// The measurements of edgeav/runtime/bench.py, in the same JSON: golden vectors first, then times.
#pragma once

#include <optional>

#include "model.h"

struct Workload {
  double seconds = 4, at_least_s = 0, sustained_s = 0;
  int iterations = 50, warmup = 5, rounds = 5;
  unsigned seed = 0;
  bool parts = true, operators = false;
};

struct Times {
  std::vector<double> wall, cpu;  // ms
};

inline double percentile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q / 100 * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(at), above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

inline std::string summary(const std::vector<double>& values) {
  JsonObject out;
  for (const int q : {50, 90, 99}) out.add("p" + std::to_string(q), number(percentile(values, q)));
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  out.add("mean", number(sum / static_cast<double>(values.size())));
  return out.add("min", number(*std::min_element(values.begin(), values.end()))).text();
}

inline Times time_runs(Model& model, std::vector<Array>& inputs, const Workload& load) {
  for (int i = 0; i < load.warmup; ++i) model.run(inputs);
  Times out;
  const double start = wall_ms();
  while (static_cast<int>(out.wall.size()) < load.iterations || wall_ms() - start < 1000 * load.at_least_s) {
    const double wall = wall_ms(), cpu = cpu_ms();
    model.run(inputs);
    out.wall.push_back(wall_ms() - wall);
    out.cpu.push_back(cpu_ms() - cpu);
  }
  return out;
}

// Replays the golden vectors; throws when an answer is wrong: the speed of a wrong answer is of no interest.
inline std::string check_golden(const Bundle& bundle, Model& model) {
  double largest = 0;
  for (const Json& golden : bundle.json["golden"].items) {
    Output output;
    std::string said;
    const double off = model.difference(golden, &output, &said);
    if (!(off <= golden["tolerance"].number))
      throw std::runtime_error("golden vector '" + golden["name"].string + "' comes out wrong here: off by " +
                               std::to_string(off) + ", transcript '" + said + "', expected '" +
                               golden["transcript"].string + "'. Nothing was timed.");
    largest = std::max(largest, off);
  }
  return JsonObject()
      .add("cases", number(static_cast<double>(bundle.json["golden"].items.size())))
      .add("max_abs", number(largest))
      .text();
}

// Once more, traced: after whatever is timed, and after the peak of memory was read.
inline void add_operators(JsonObject& out, const Bundle& bundle, std::vector<Array>& inputs) {
  Operators operators;
  Model model(bundle, &operators);
  for (int i = 0; i < Operators::warmup; ++i) model.run(inputs);
  operators.forget();
  for (int i = 0; i < Operators::runs; ++i) model.run(inputs);
  operators.add_to(out);
}

// Medians of the stages that are computed here, in ms.
inline std::string parts(const Bundle& bundle, Model& model, std::vector<Array>& inputs, double seconds) {
  const auto median = [](const std::function<void()>& work) {
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) {
      const double start = wall_ms();
      work();
      times.push_back(wall_ms() - start);
    }
    return number(percentile(times, 50));
  };
  JsonObject out;
  const Json& features = bundle.json["features"];
  if (features["audio"].kind != Json::Null && features["audio"]["kind"].string == "log-mel") {
    std::mt19937 random(0);
    std::normal_distribution<float> normal(0, 0.1F);
    std::vector<float> sound(static_cast<size_t>(features["sample_rate_hz"].number * seconds));
    for (float& sample : sound) sample = normal(random);
    const LogMel log_mel = bundle.log_mel();
    out.add("mel", median([&] { log_mel(sound); }));
  }
  const Output output = model.run(inputs);
  const std::vector<float>& presence = inputs.back().values;
  out.add("encode", median([&] { model.run(inputs); }));
  return out.add("decode", median([&] { model.text(output, presence); })).text();
}

inline void add_identity(JsonObject& out, const Bundle& bundle) {
  JsonObject hashes;
  double bytes = 0;
  const std::string model = bundle.json["model"].string, stem = model.substr(0, model.find('.')) + ".";
  for (const auto& [name, file] : bundle.json["files"].members) {
    if (name.rfind("golden/", 0) != 0) hashes.add(name, json_text(file["sha256"].string));
    if (name.rfind(stem, 0) == 0) bytes += file["bytes"].number;
  }
  for (const char* key : {"name", "engine", "precision"})
    out.add(std::string(key) == "name" ? "bundle" : key, json_text(bundle.json[key].string));
  out.add("model_sha256", hashes.text()).add("model_bytes", number(bytes));
}

inline std::string sustained(Model& model, std::vector<Array>& inputs, double seconds) {
  constexpr int windows = 20;
  JsonList rows;
  std::vector<double> medians;
  const double start = wall_ms();
  for (double at = 0; at < 1000 * seconds; at = wall_ms() - start) {
    Workload window;
    window.warmup = 0, window.iterations = 1;
    window.at_least_s = std::min(seconds / windows, seconds - at / 1000);
    const std::vector<double> times = time_runs(model, inputs, window).wall;
    medians.push_back(percentile(times, 50));
    JsonObject row;
    row.add("at_s", number(at / 1000)).add("n", number(static_cast<double>(times.size())));
    row.add("p50_ms", number(medians.back())).add("p90_ms", number(percentile(times, 90)));
    const std::string now = condition();  // its members belong to the window
    rows.add(row.text().substr(0, row.text().size() - 1) + ", " + now.substr(1));
  }
  const auto quarter = static_cast<std::ptrdiff_t>(std::max<size_t>(1, medians.size() / 4));
  const double first = percentile({medians.begin(), medians.begin() + quarter}, 50);
  const double last = percentile({medians.end() - quarter, medians.end()}, 50);
  return JsonObject()
      .add("seconds", number((wall_ms() - start) / 1000))
      .add("windows", rows.text())
      .add("slowdown", number(last / first))
      .text();
}

inline std::string measure(const fs::path& folder, const Workload& load) {
  const Bundle bundle(folder);
  std::vector<Array> inputs = bundle.noise(load.seconds, load.seed);
  const double runtime_mb = memory_mb("/proc/self/status", "VmRSS"), begin = wall_ms();
  Model model(bundle);
  const double load_ms = wall_ms() - begin;
  const double first_ms = model.run(inputs).ms;
  JsonObject out;
  add_identity(out, bundle);
  add_machine(out);
  out.add("golden", check_golden(bundle, model));
  const std::string before = condition();
  const Times times = time_runs(model, inputs, load);
  out.add("condition", JsonObject().add("before", before).add("after", condition()).text());
  out.add("runtime", json_text("executorch " EXECUTORCH_VERSION " (C++)")).add("threads", "1");
  out.add("seconds", number(load.seconds));
  out.add("steps", number(std::ceil(bundle.json["steps"]["per_second"].number * load.seconds)));
  out.add("n", number(static_cast<double>(times.wall.size()))).add("warmup", number(load.warmup));
  out.add("import_ms", "0").add("load_ms", number(load_ms)).add("first_ms", number(first_ms));
  out.add("wall_ms", summary(times.wall)).add("cpu_ms", summary(times.cpu));
  out.add("rtf", number(percentile(times.wall, 50) / 1000 / load.seconds));
  out.add("peak_rss_mb", number(memory_mb("/proc/self/status", "VmHWM"))).add("runtime_rss_mb", number(runtime_mb));
  const auto [count, why] = instructions([&] { model.run(inputs); });
  if (count)
    out.add("instructions", JsonObject()
                                .add("per_second", number(*count / load.seconds))
                                .add("how", json_text("perf_event_open, user code"))
                                .text());
  else
    out.add("no_instructions", json_text(why));
  if (load.sustained_s > 0) out.add("sustained", sustained(model, inputs, load.sustained_s));
  JsonObject missing;
  missing.add("crop", json_text("the C++ runner takes ready pictures"));
  if (load.parts) out.add("parts_ms", parts(bundle, model, inputs, load.seconds));
  if (load.operators) add_operators(out, bundle, inputs);
  return out.add("not_measured", missing.text()).text();
}

// Two bundles in turn in one process. A ratio above 1: the second is faster.
inline std::string race(const std::vector<fs::path>& folders, const Workload& load) {
  const Bundle first(folders[0]), second(folders[1]);
  Model models[] = {Model(first), Model(second)};
  const Bundle* bundles[] = {&first, &second};
  std::vector<Array> inputs[2];
  JsonList identities, runtimes;
  for (int i = 0; i < 2; ++i) {
    check_golden(*bundles[i], models[i]);
    inputs[i] = bundles[i]->noise(load.seconds, load.seed);
    JsonObject identity;
    add_identity(identity, *bundles[i]);
    identities.add(identity.text());
    runtimes.add(json_text("executorch " EXECUTORCH_VERSION " (C++)"));
  }
  std::vector<double> wall[2], cpu[2], wall_ratios, cpu_ratios;
  for (int round = 0; round < load.rounds; ++round) {
    for (int i = 0; i < 2; ++i) {
      const Times times = time_runs(models[i], inputs[i], load);
      wall[i].push_back(percentile(times.wall, 50));
      cpu[i].push_back(percentile(times.cpu, 50));
    }
    wall_ratios.push_back(wall[0].back() / wall[1].back());
    cpu_ratios.push_back(cpu[0].back() / cpu[1].back());
  }
  JsonObject out;
  out.add("bundles", identities.text()).add("runtime", runtimes.text()).add("threads", "1");
  add_machine(out);
  out.add("seconds", number(load.seconds)).add("rounds", number(load.rounds));
  out.add("n", number(load.iterations)).add("warmup", number(load.warmup));
  for (const auto& [name, ratios] : {std::pair{"wall", wall_ratios}, std::pair{"cpu", cpu_ratios}}) {
    const std::string key = std::string(name) + "_ratio";
    out.add(key, number(percentile(ratios, 50)));
    out.add(key + "_min", number(percentile(ratios, 0))).add(key + "_max", number(percentile(ratios, 100)));
  }
  out.add("wall_ms", JsonList().add(number(percentile(wall[0], 50))).add(number(percentile(wall[1], 50))).text());
  out.add("cpu_ms", JsonList().add(number(percentile(cpu[0], 50))).add(number(percentile(cpu[1], 50))).text());
  return out.text();
}
