// Log-mel energies from samples, by the settings of bundle.json: edgeav/runtime/log_mel.py in C++, with the same roundings.
#pragma once

#include <cmath>
#include <complex>
#include <stdexcept>
#include <string>
#include <vector>

#include "json.h"

class LogMel {
 public:
  LogMel(const Json& audio, double rate_hz) : audio_(audio), rate_(rate_hz) {
    if (audio["kind"].string != "log-mel") throw std::runtime_error("this model takes no log-mel");
    fft_ = whole("n_fft"), mels_ = whole("mels"), hop_ = whole("hop");
    for (size_t k = 0; k < fft_; ++k) turns_.push_back(std::polar(1.0, -2 * pi * static_cast<double>(k) / fft_));
    set_window();
    set_filters();
  }

  // (S,) samples -> (S // hop, mels), row by row, normalized over the utterance if the settings ask for it.
  std::vector<float> operator()(const std::vector<float>& samples) const {
    const std::vector<double> padded = emphasized(samples);
    const size_t frames = samples.size() / hop_, bins = fft_ / 2 + 1;
    const bool adds = word("log_guard") == "add";
    const float floor = static_cast<float>(audio_["log_floor"].number);
    std::vector<float> out(frames * mels_), power(bins);
    std::vector<std::complex<double>> frame(fft_), spectrum(fft_);
    for (size_t t = 0; t < frames; ++t) {
      for (size_t i = 0; i < fft_; ++i) frame[i] = padded[t * hop_ + i] * window_[i];
      transform(frame.data(), 1, spectrum.data(), fft_);
      for (size_t k = 0; k < bins; ++k) power[k] = static_cast<float>(std::norm(spectrum[k]));
      for (size_t m = 0; m < mels_; ++m) {
        double energy = 0;
        for (size_t k = begins_[m]; k < ends_[m]; ++k) energy += double{power[k]} * filters_[m * bins + k];
        const float now = static_cast<float>(energy);
        out[t * mels_ + m] = std::log(adds ? now + floor : std::max(now, floor));
      }
    }
    if (word("normalize") == "per-band") normalize(out, frames);
    return out;
  }

 private:
  static constexpr double pi = 3.14159265358979323846, epsilon = 1e-5;

  const std::string& word(const char* key) const { return audio_[key].string; }
  size_t whole(const char* key) const { return static_cast<size_t>(audio_[key].number); }

  std::vector<double> emphasized(const std::vector<float>& samples) const {
    const size_t side = fft_ / 2, count = samples.size();
    const double keep = audio_["pre_emphasis"].number;
    std::vector<double> out(count + 2 * side);
    for (size_t i = 0; i < count; ++i) out[side + i] = samples[i] - (i ? keep * samples[i - 1] : 0.0);
    if (word("padding") != "reflect") return out;
    if (count <= side) throw std::runtime_error("the sound is too short to be reflected");
    for (size_t i = 1; i <= side; ++i) {
      out[side - i] = out[side + i];
      out[side + count - 1 + i] = out[side + count - 1 - i];
    }
    return out;
  }

  // Cooley and Tukey's, halving while the length is even: n_fft is 512 in our models and 400 in others.
  void transform(const std::complex<double>* in, size_t stride, std::complex<double>* out, size_t count) const {
    const size_t turn = fft_ / count;
    if (count % 2) {
      for (size_t k = 0; k < count; ++k) {
        out[k] = 0;
        for (size_t i = 0; i < count; ++i) out[k] += in[i * stride] * turns_[i * k % count * turn];
      }
      return;
    }
    const size_t half = count / 2;
    transform(in, 2 * stride, out, half);
    transform(in + stride, 2 * stride, out + half, half);
    for (size_t k = 0; k < half; ++k) {
      const std::complex<double> even = out[k], odd = turns_[k * turn] * out[half + k];
      out[k] = even + odd, out[half + k] = even - odd;
    }
  }

  void set_window() {
    const size_t length = whole("window"), left = (fft_ - length) / 2;
    const double last = static_cast<double>(length) - (word("window_function") == "hann-periodic" ? 0 : 1);
    window_.assign(fft_, 0.0);
    for (size_t i = 0; i < length; ++i) {
      const double hann = length > 1 ? 0.5 - 0.5 * std::cos(2 * pi * static_cast<double>(i) / last) : 1.0;
      window_[left + i] = static_cast<float>(hann);
    }
  }

  // Triangles on HTK's scale, or on Slaney's: 200/3 Hz a mel below 1 kHz, then 27 mels for a factor of 6.4.
  void set_filters() {
    const bool htk = word("mel_scale") == "htk", exact = word("mel_corners") == "exact";
    const double step = std::log(6.4) / 27, low = audio_["low_hz"].number, high = audio_["high_hz"].number;
    const auto to_mel = [&](double hz) {
      if (htk) return 2595 * std::log10(1 + hz / 700);
      return hz < 1000 ? hz * 3 / 200 : 15 + std::log(hz / 1000) / step;
    };
    const auto to_hz = [&](double mel) {
      if (htk) return 700 * (std::pow(10.0, mel / 2595) - 1);
      return mel < 15 ? mel * 200 / 3 : 1000 * std::exp((mel - 15) * step);
    };
    std::vector<double> edges;
    const double span = to_mel(high) - to_mel(low);
    for (size_t i = 0; i < mels_ + 2; ++i)
      edges.push_back(to_hz(to_mel(low) + span * static_cast<double>(i) / static_cast<double>(mels_ + 1)));
    const size_t bins = fft_ / 2 + 1;
    filters_.assign(mels_ * bins, 0.0F), begins_.assign(mels_, bins), ends_.assign(mels_, 0);
    for (size_t m = 0; m < mels_; ++m) {
      double corner[3];
      for (size_t i = 0; i < 3; ++i)
        corner[i] = exact ? edges[m + i] * static_cast<double>(fft_) / rate_
                          : std::floor(edges[m + i] * static_cast<double>(fft_ + 1) / rate_);
      if (!exact) corner[1] = std::max(corner[1], corner[0] + 1), corner[2] = std::max(corner[2], corner[1] + 1);
      const double scale = word("mel_norm") == "area" ? 2 / (edges[m + 2] - edges[m]) : 1;
      for (size_t k = 0; k < bins; ++k) {
        const double at = static_cast<double>(k), rising = (at - corner[0]) / (corner[1] - corner[0]);
        const double value = std::min(rising, (corner[2] - at) / (corner[2] - corner[1]));
        if (value <= 0) continue;
        filters_[m * bins + k] = static_cast<float>(value * scale);
        begins_[m] = std::min(begins_[m], k), ends_[m] = k + 1;
      }
    }
  }

  void normalize(std::vector<float>& mel, size_t frames) const {
    for (size_t m = 0; m < mels_; ++m) {
      double sum = 0, squares = 0;
      for (size_t t = 0; t < frames; ++t) sum += mel[t * mels_ + m];
      const double mean = sum / static_cast<double>(frames);
      for (size_t t = 0; t < frames; ++t) squares += (mel[t * mels_ + m] - mean) * (mel[t * mels_ + m] - mean);
      const double deviation = frames > 1 ? std::sqrt(squares / static_cast<double>(frames - 1)) + epsilon : 1;
      for (size_t t = 0; t < frames; ++t)
        mel[t * mels_ + m] = frames > 1 ? static_cast<float>((mel[t * mels_ + m] - mean) / deviation) : 0.0F;
    }
  }

  const Json& audio_;  // of a bundle that outlives this
  double rate_;
  size_t fft_ = 0, mels_ = 0, hop_ = 0;
  std::vector<std::complex<double>> turns_;  // of the whole circle, n_fft of them
  std::vector<double> window_;
  std::vector<float> filters_;                // (mels, n_fft / 2 + 1)
  std::vector<size_t> begins_, ends_;         // where each triangle is above zero
};
