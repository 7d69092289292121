// Writes JSON: objects and lists of texts that are JSON already.
#pragma once

#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>

inline std::string number(double value) {
  if (!std::isfinite(value)) throw std::runtime_error("a measured number is not finite");
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

inline std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') out += '\\';
    if (static_cast<unsigned char>(letter) >= 0x20) {
      out += letter;
      continue;
    }
    char code[8];
    std::snprintf(code, sizeof code, "\\u%04x", letter);
    out += code;
  }
  return out + '"';
}

class JsonObject {
 public:
  JsonObject& add(const std::string& key, const std::string& json) {
    text_ += (text_.empty() ? "" : ", ") + json_text(key) + ": " + json;
    return *this;
  }
  std::string text() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

class JsonList {
 public:
  JsonList& add(const std::string& json) {
    text_ += (text_.empty() ? "" : ", ") + json;
    return *this;
  }
  std::string text() const { return "[" + text_ + "]"; }

 private:
  std::string text_;
};
