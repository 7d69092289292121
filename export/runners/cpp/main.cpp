// Runs an edgeav bundle for ExecuTorch without Python: checks it against its golden vectors and prints the text.
//
//   pip install executorch cmake
//   cmake -B build -DCMAKE_PREFIX_PATH=$(python -c 'import executorch; print(executorch.__path__[0])')
//   cmake --build build && build/run_bundle runs/int8/bundles/executorch-xnnpack-int8
//
// Exit code 0 if every golden vector lies within its tolerance, 1 if not, 2 for a bundle that cannot be run.

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/extension/threadpool/threadpool_guard.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>

#include "json.h"

using executorch::aten::SizesType;
using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;
namespace fs = std::filesystem;

struct Array {
  std::vector<float> values;
  std::vector<SizesType> shape;
};

struct Output {
  std::vector<float> log_probs;  // (steps, labels), row by row
  size_t labels;
  double ms;
};

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + " is missing");
  return {std::istreambuf_iterator<char>(file), {}};
}

// A raw little-endian float32 file, as bundle.json describes it.
Array read_array(const fs::path& folder, const Json& entry) {
  Array out;
  for (const Json& side : entry["shape"].items) out.shape.push_back(static_cast<SizesType>(side.number));
  const size_t count = std::accumulate(out.shape.begin(), out.shape.end(), size_t{1}, std::multiplies<>());
  const fs::path path = folder / entry["file"].string;
  const std::string bytes = read_text(path);
  if (bytes.size() != count * sizeof(float)) throw std::runtime_error(path.string() + " is damaged: wrong size");
  out.values.resize(count);
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(out.values.data()));
  return out;
}

Output run(Module& module, std::vector<Array>& inputs) {
  std::vector<executorch::extension::TensorPtr> tensors;
  std::vector<EValue> values;
  for (Array& input : inputs) {
    tensors.push_back(from_blob(input.values.data(), input.shape));
    values.emplace_back(tensors.back());
  }
  const auto start = std::chrono::steady_clock::now();
  const auto result = module.forward(values);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
  if (!result.ok()) throw std::runtime_error("the model fails with error " + std::to_string(int(result.error())));
  const auto tensor = result->at(0).toTensor();
  const float* data = tensor.const_data_ptr<float>();
  return {{data, data + tensor.numel()}, size_t(tensor.size(tensor.dim() - 1)), time.count()};
}

// Greedy CTC: the best token of every step that is not padding, repeats merged, blanks dropped.
std::string greedy_text(const Output& output, const Array& presence, const Json& bundle) {
  const size_t blank = size_t(bundle["blank"].number), steps = output.log_probs.size() / output.labels;
  const std::string mark = "▁";  // SentencePiece's start of a word
  std::string text;
  size_t last = blank;
  for (size_t step = 0; step < steps; ++step) {
    const float* row = output.log_probs.data() + step * output.labels;
    const bool present = presence.values[2 * step] != 0 || presence.values[2 * step + 1] != 0;
    const size_t best = present ? std::max_element(row, row + output.labels) - row : blank;
    if (best != last && best != blank) text += bundle["tokens"].items.at(best).string;
    last = best;
  }
  for (size_t at; (at = text.find(mark)) != std::string::npos;) text.replace(at, mark.size(), " ");
  return text.substr(std::min(text.find_first_not_of(' '), text.size()));
}

// Prints one line for a golden vector. Returns whether the model's output lies within its tolerance.
bool check(Module& module, const fs::path& folder, const Json& bundle, const Json& golden) {
  std::vector<Array> inputs;
  for (const Json& input : bundle["inputs"].items)
    inputs.push_back(read_array(folder, golden["files"][input["name"].string]));
  const Array expected = read_array(folder, golden["files"]["log_probs"]);
  const Array presence = read_array(folder, golden["files"]["presence"]);
  const Output output = run(module, inputs);
  if (output.log_probs.size() != expected.values.size()) throw std::runtime_error("the output has another length");
  float difference = 0;
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const float now = std::abs(output.log_probs[i] - expected.values[i]);
    difference = std::isnan(now) ? INFINITY : std::max(difference, now);
  }
  std::printf("%s: max abs diff %.2e (tolerance %g), %.2f ms: %s\n", golden["name"].string.c_str(), difference,
              golden["tolerance"].number, output.ms, greedy_text(output, presence, bundle).c_str());
  return difference <= golden["tolerance"].number;
}

int main(int count, char** arguments) try {
  if (count != 2) throw std::runtime_error("usage: run_bundle BUNDLE_FOLDER");
  const fs::path folder = arguments[1];
  const std::string text = read_text(folder / "bundle.json");
  const Json bundle = JsonReader(text).read();
  if (bundle["schema"].string != "edgeav-bundle/2") throw std::runtime_error("unknown bundle schema");
  if (bundle["engine"].string != "executorch") throw std::runtime_error("not a bundle for executorch");
  const executorch::extension::threadpool::NoThreadPoolGuard one_thread;  // as profiled
  Module module((folder / bundle["model"].string).string());
  if (module.load_forward() != Error::Ok) throw std::runtime_error("ExecuTorch cannot load the model");
  bool well = true;
  for (const Json& golden : bundle["golden"].items) well &= check(module, folder, bundle, golden);
  return well ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "run_bundle: %s\n", error.what());
  return 2;
}
