// A bundle for ExecuTorch: every file verified, the model loaded, inputs in, log-probabilities and text out.
#pragma once

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "json.h"
#include "log_mel.h"
#include "machine.h"
#include "operators.h"
#include "sha256.h"

namespace fs = std::filesystem;
using executorch::aten::SizesType;
using executorch::extension::Module;

struct Array {
  std::vector<float> values;
  std::vector<SizesType> shape;
};

struct Output {
  std::vector<float> log_probs;  // (steps, labels), row by row
  size_t labels;
  double ms;  // of the model alone
};

// bundle.json and its folder, all files of it present and unchanged.
struct Bundle {
  fs::path folder;
  Json json;

  explicit Bundle(const fs::path& place) : folder(place) {
    const std::string text = read_or_empty(folder / "bundle.json");
    if (text.empty()) throw std::runtime_error((folder / "bundle.json").string() + " is missing");
    json = JsonReader(text).read();
    if (json["schema"].string != "edgeav-bundle/2") throw std::runtime_error("unknown bundle schema");
    if (json["engine"].string != "executorch") throw std::runtime_error("not a bundle for executorch");
    std::string wrong;
    for (const auto& [name, file] : json["files"].members)
      if (!fs::exists(folder / name) || sha256_of((folder / name).string()) != file["sha256"].string)
        wrong += "\n  " + name + ": missing or changed";
    if (!wrong.empty()) throw std::runtime_error(folder.string() + " is not a usable bundle:" + wrong);
  }

  // A raw little-endian float32 file, as bundle.json describes it.
  Array array(const Json& entry) const {
    Array out;
    for (const Json& side : entry["shape"].items) out.shape.push_back(static_cast<SizesType>(side.number));
    out.values = floats(folder / entry["file"].string);
    const size_t count = std::accumulate(out.shape.begin(), out.shape.end(), size_t{1}, std::multiplies<>());
    if (out.values.size() != count) throw std::runtime_error(entry["file"].string + " is damaged: wrong size");
    return out;
  }

  // Shapes of the inputs for so many steps: ["1", "8N", 80] -> (1, 8 steps, 80).
  std::vector<Array> inputs(int steps) const {
    std::vector<Array> out;
    for (const Json& input : json["inputs"].items) {
      Array now;
      for (const Json& side : input["shape"].items) {
        const std::string& text = side.string;
        if (text.empty()) now.shape.push_back(static_cast<SizesType>(side.number));
        else if (text.back() != 'N') now.shape.push_back(std::stoi(text));
        else now.shape.push_back((text.size() > 1 ? std::stoi(text) : 1) * steps);
      }
      now.values.resize(std::accumulate(now.shape.begin(), now.shape.end(), size_t{1}, std::multiplies<>()));
      out.push_back(std::move(now));
    }
    return out;
  }

  // What log-mel computed here from the sound of a golden vector is off by; nothing where the vector begins later.
  std::optional<double> mel_difference(const Json& golden) const {
    const auto& files = golden["files"].members;
    if (!files.count("waveform") || !files.count("mel")) return {};
    const std::vector<float> found = log_mel()(array(files.at("waveform")).values);
    const std::vector<float> expected = array(files.at("mel")).values;  // with zeros up to the end of the last step
    double largest = found.size() > expected.size() ? INFINITY : 0;
    for (size_t i = 0; i < std::min(found.size(), expected.size()); ++i) {
      const double off = std::abs(found[i] - expected[i]);
      largest = std::isnan(off) ? INFINITY : std::max(largest, off);
    }
    return largest;
  }

  LogMel log_mel() const { return {json["features"]["audio"], json["features"]["sample_rate_hz"].number}; }

  // Noise of the right shape and scale, every step present: no kernel's time depends on what is said.
  std::vector<Array> noise(double seconds, unsigned seed) const {
    const Json& clock = json["steps"];
    const int steps = static_cast<int>(std::ceil(clock["per_second"].number * seconds));
    if (steps < clock["min"].number || steps > clock["max"].number)
      throw std::runtime_error("--seconds: longer or shorter than the model takes at once");
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<Array> out = inputs(steps);
    for (size_t i = 0; i < out.size(); ++i) {
      if (json["inputs"].items[i]["name"].string == "presence") {
        for (size_t k = 0; k < out[i].values.size(); ++k)
          out[i].values[k] = json["features"][k % 2 ? "video" : "audio"].kind != Json::Null;
      } else {
        for (float& value : out[i].values) value = normal(random);
      }
    }
    return out;
  }

  // Straight into place: by way of a string that grows, pixels of 2 MB would take 8.
  static std::vector<float> floats(const fs::path& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    std::vector<float> out(file ? static_cast<size_t>(file.tellg()) / sizeof(float) : 0);
    file.seekg(0);
    file.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size() * sizeof(float)));
    return out;
  }
};

// Memory for activations, planned for the longest input a model takes. Module would fill it with zeros, and so make all of
// it resident (170 MB for 16 s of lips); pages from the kernel cost nothing until an input is long enough to touch them.
class Arena {
 public:
  explicit Arena(size_t bytes) : bytes_(bytes) {
    if (bytes_ == 0) return;
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("no memory for " + std::to_string(bytes_) + " bytes");
    start_ = static_cast<uint8_t*>(memory);
  }
  ~Arena() {
    if (start_ != nullptr) munmap(start_, bytes_);
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  executorch::runtime::Span<uint8_t> span() const { return {start_, bytes_}; }

 private:
  size_t bytes_;
  uint8_t* start_ = nullptr;
};

class Model {
 public:
  // `tracer`, if any, is told what runs, and outlives the model.
  explicit Model(const Bundle& bundle, Operators* tracer = nullptr)
      : bundle_(bundle), module_((bundle.folder / bundle.json["model"].string).string(), Module::LoadMode::Mmap) {
    const auto meta = module_.method_meta("forward");
    if (!meta.ok()) throw std::runtime_error("ExecuTorch cannot read the model");
    for (size_t i = 0; i < meta->num_memory_planned_buffers(); ++i)
      spans_.push_back(arenas_.emplace_back(meta->memory_planned_buffer_size(i).get()).span());
    memory_.emplace(executorch::runtime::Span<executorch::runtime::Span<uint8_t>>(spans_.data(), spans_.size()));
    if (module_.load_forward(&*memory_, tracer) != executorch::runtime::Error::Ok)
      throw std::runtime_error("ExecuTorch cannot load the model");
  }

  Output run(std::vector<Array>& inputs) {
    std::vector<executorch::extension::TensorPtr> tensors;
    std::vector<executorch::runtime::EValue> values;
    for (Array& input : inputs) {
      tensors.push_back(executorch::extension::from_blob(input.values.data(), input.shape));
      values.emplace_back(tensors.back());
    }
    const double start = wall_ms();
    const auto result = module_.forward(values);
    const double ms = wall_ms() - start;
    if (!result.ok())
      throw std::runtime_error("the model fails with error " + std::to_string(static_cast<int>(result.error())));
    const auto tensor = result->at(0).toTensor();
    const float* data = tensor.const_data_ptr<float>();
    return {{data, data + tensor.numel()}, static_cast<size_t>(tensor.size(tensor.dim() - 1)), ms};
  }

  // Greedy CTC: the best token of every step that is not padding, repeats merged, blanks dropped.
  std::string text(const Output& output, const std::vector<float>& presence) const {
    const size_t blank = static_cast<size_t>(bundle_.json["blank"].number);
    const size_t steps = output.log_probs.size() / output.labels;
    const std::string mark = "▁";  // SentencePiece's start of a word
    std::string text;
    size_t last = blank;
    for (size_t step = 0; step < steps; ++step) {
      const float* row = output.log_probs.data() + step * output.labels;
      const bool present = presence[2 * step] != 0 || presence[2 * step + 1] != 0;
      const size_t best = present ? std::max_element(row, row + output.labels) - row : blank;
      if (best != last && best != blank) text += bundle_.json["tokens"].items.at(best).string;
      last = best;
    }
    for (size_t at; (at = text.find(mark)) != std::string::npos;) text.replace(at, mark.size(), " ");
    return text.substr(std::min(text.find_first_not_of(' '), text.size()));
  }

  // The largest difference of a log-probability from a golden vector; `said` gets the transcript.
  double difference(const Json& golden, Output* found, std::string* said) {
    std::vector<Array> inputs;
    for (const Json& input : bundle_.json["inputs"].items)
      inputs.push_back(bundle_.array(golden["files"][input["name"].string]));
    const Array expected = bundle_.array(golden["files"]["log_probs"]);
    *found = run(inputs);
    *said = text(*found, bundle_.array(golden["files"]["presence"]).values);
    if (found->log_probs.size() != expected.values.size()) return INFINITY;
    double largest = 0;
    for (size_t i = 0; i < expected.values.size(); ++i) {
      const double now = std::abs(found->log_probs[i] - expected.values[i]);
      largest = std::isnan(now) ? INFINITY : std::max(largest, now);
    }
    return largest;
  }

 private:
  const Bundle& bundle_;
  std::deque<Arena> arenas_;  // these four outlive the module, which points into them
  std::vector<executorch::runtime::Span<uint8_t>> spans_;
  std::optional<executorch::runtime::HierarchicalAllocator> memory_;
  Module module_;
};
