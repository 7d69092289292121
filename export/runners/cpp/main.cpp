// Runs an edgeav bundle for ExecuTorch without Python. Built by build.sh, for this machine or for aarch64.
//
//   run_bundle BUNDLE                     check it against its golden vectors, from their sound on, and print their text
//   run_bundle facts                      what this machine is
//   run_bundle bench BUNDLE [BUNDLE2] …   measure it; options as in edgeav.runtime.bench
//   run_bundle recognize BUNDLE CASES     texts of ready inputs: CASES/0.mel, CASES/0.video, CASES/0.presence, CASES/1.…
//   run_bundle mel BUNDLE SOUND OUT       log-mel of a file of float32 samples, as the bundle's model takes it
//
// --json OUT writes the result there. Exit code 0: done; 1: a golden vector is wrong; 2: it cannot be run.

#include <executorch/extension/threadpool/threadpool_guard.h>

#include <cstdio>

#include "bench.h"

using Words = std::vector<std::string>;
constexpr double mel_tolerance = 1e-4;  // as in the page and the Android app

// The value behind an option, which is taken out of `words`.
std::string option(Words& words, const std::string& name, const std::string& usual) {
  const auto at = std::find(words.begin(), words.end(), name);
  if (at == words.end()) return usual;
  if (at + 1 == words.end()) throw std::runtime_error(name + " needs a value");
  const std::string value = *(at + 1);
  words.erase(at, at + 2);
  return value;
}

// Whether `name` stands there, which is taken out of `words`.
bool flag(Words& words, const std::string& name) {
  const auto end = std::remove(words.begin(), words.end(), name);
  const bool found = end != words.end();
  words.erase(end, words.end());
  return found;
}

Workload workload(Words& words) {
  Workload load;
  load.seconds = std::stod(option(words, "--seconds", "4"));
  load.iterations = std::stoi(option(words, "--iterations", "50"));
  load.warmup = std::stoi(option(words, "--warmup", "5"));
  load.rounds = std::stoi(option(words, "--rounds", "5"));
  load.seed = static_cast<unsigned>(std::stoul(option(words, "--seed", "0")));
  load.at_least_s = std::stod(option(words, "--at-least-s", "0"));
  load.sustained_s = std::stod(option(words, "--sustained-s", "0"));
  if (option(words, "--threads", "1") != "1") throw std::runtime_error("the C++ runner measures with one thread");
  load.parts = !flag(words, "--no-parts");
  load.operators = flag(words, "--operators");
  if (load.iterations < 1 || load.warmup < 0 || load.rounds < 1)
    throw std::runtime_error("--iterations and --rounds must be at least 1, --warmup at least 0");
  return load;
}

std::string facts() {
  JsonObject out;
  add_machine(out);
  return out.add("versions", JsonObject().add("executorch", json_text(EXECUTORCH_VERSION)).text()).text();
}

std::string recognize(const fs::path& folder, const fs::path& cases) {
  const Bundle bundle(folder);
  Model model(bundle);
  check_golden(bundle, model);
  JsonList texts;
  for (int index = 0; fs::exists(cases / (std::to_string(index) + ".presence")); ++index) {
    const std::vector<float> presence = Bundle::floats(cases / (std::to_string(index) + ".presence"));
    std::vector<Array> inputs = bundle.inputs(static_cast<int>(presence.size() / 2));
    for (size_t i = 0; i < inputs.size(); ++i) {
      const fs::path path = cases / (std::to_string(index) + "." + bundle.json["inputs"].items[i]["name"].string);
      std::vector<float> values = Bundle::floats(path);
      if (values.size() != inputs[i].values.size()) throw std::runtime_error(path.string() + " has another length");
      inputs[i].values = std::move(values);
    }
    texts.add(json_text(model.text(model.run(inputs), presence)));
  }
  return JsonObject().add("runtime", json_text("executorch " EXECUTORCH_VERSION " (C++)")).add("texts", texts.text()).text();
}

// Log-mel of a file of float32 samples at the model's rate, as one. -> a summary
std::string mel(const fs::path& folder, const fs::path& sound, const fs::path& out) {
  const std::vector<float> found = Bundle(folder).log_mel()(Bundle::floats(sound));
  std::ofstream file(out, std::ios::binary);
  file.write(reinterpret_cast<const char*>(found.data()), static_cast<std::streamsize>(found.size() * sizeof(float)));
  if (!file.flush()) throw std::runtime_error("cannot write " + out.string());
  return JsonObject().add("values", number(static_cast<double>(found.size()))).text();
}

// A line for every golden vector, and one for its log-mel where the vector begins with sound. -> the exit code
int check(const fs::path& folder) {
  const Bundle bundle(folder);
  Model model(bundle);
  bool well = true;
  for (const Json& golden : bundle.json["golden"].items) {
    Output output;
    std::string said;
    const double off = model.difference(golden, &output, &said);
    std::printf("%s: max abs diff %.2e (tolerance %g), %.2f ms: %s\n", golden["name"].string.c_str(), off,
                golden["tolerance"].number, output.ms, said.c_str());
    well &= off <= golden["tolerance"].number;
    const std::optional<double> mel_off = bundle.mel_difference(golden);
    if (!mel_off) continue;
    std::printf("%s: log-mel of its sound: max abs diff %.2e (tolerance %g)\n", golden["name"].string.c_str(), *mel_off,
                mel_tolerance);
    well &= *mel_off <= mel_tolerance;
  }
  return well ? 0 : 1;
}

int main(int count, char** arguments) try {
  const executorch::extension::threadpool::NoThreadPoolGuard one_thread;  // fair to compare, and what is left on a phone
  Words words(arguments + 1, arguments + count);
  const std::string out = option(words, "--json", "");
  const std::string command = words.empty() ? "" : words[0];
  std::string result;
  if (command == "facts" && words.size() == 1) result = facts();
  else if (command == "recognize" && words.size() == 3) result = recognize(words[1], words[2]);
  else if (command == "mel" && words.size() == 4) result = mel(words[1], words[2], words[3]);
  else if (command == "bench") {
    const Workload load = workload(words);
    if (words.size() == 2) result = measure(words[1], load);
    else if (words.size() == 3) result = race({words[1], words[2]}, load);
  } else if (words.size() == 1) return check(command);
  if (result.empty())
    throw std::runtime_error(
        "usage: run_bundle BUNDLE | facts | bench BUNDLE [BUNDLE2] … | recognize BUNDLE CASES | mel BUNDLE SOUND OUT");
  std::FILE* file = out.empty() ? stdout : std::fopen(out.c_str(), "w");
  if (file == nullptr) throw std::runtime_error("cannot write " + out);
  const bool written = std::fprintf(file, "%s\n", result.c_str()) > 0;
  if ((file != stdout && std::fclose(file) != 0) || !written) throw std::runtime_error("cannot write " + out);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "run_bundle: %s\n", error.what());
  return 2;
}
