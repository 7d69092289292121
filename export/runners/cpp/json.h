// Reads JSON: enough for bundle.json, in one page, so that a device needs no library for it.
#pragma once

#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct Json {
  enum Kind { Null, Bool, Number, String, Array, Object } kind = Null;
  double number = 0;  // also 0 or 1 for a Bool
  std::string string;
  std::vector<Json> items;
  std::map<std::string, Json> members;

  const Json& operator[](const std::string& key) const {
    auto found = members.find(key);
    if (found == members.end()) throw std::runtime_error("bundle.json has no \"" + key + "\"");
    return found->second;
  }
};

class JsonReader {
 public:
  explicit JsonReader(const std::string& text) : text_(text) {}

  Json read() {
    Json value = value_at();
    skip_space();
    if (at_ != text_.size()) fail("something after the end");
    return value;
  }

 private:
  Json value_at() {
    skip_space();
    Json out;
    switch (peek()) {
      case '{': return object();
      case '[': return array();
      case '"': out.kind = Json::String; out.string = string(); return out;
      case 't': out.kind = Json::Bool; out.number = 1; word("true"); return out;
      case 'f': out.kind = Json::Bool; word("false"); return out;
      case 'n': word("null"); return out;
      default: return number();
    }
  }

  Json object() {
    Json out;
    out.kind = Json::Object;
    for (open('{'); !close('}', out.members.size());) {
      skip_space();
      std::string key = string();
      skip_space();
      open(':');
      out.members[key] = value_at();
    }
    return out;
  }

  Json array() {
    Json out;
    out.kind = Json::Array;
    for (open('['); !close(']', out.items.size());) out.items.push_back(value_at());
    return out;
  }

  Json number() {
    Json out;
    out.kind = Json::Number;
    char* end = nullptr;
    out.number = std::strtod(text_.c_str() + at_, &end);
    size_t stop = end - text_.c_str();
    if (stop == at_) fail("no value");
    at_ = stop;
    return out;
  }

  std::string string() {
    std::string out;
    for (open('"'); peek() != '"'; ++at_) {
      if (text_[at_] != '\\') { out += text_[at_]; continue; }
      ++at_;
      switch (peek()) {
        case 'n': out += '\n'; break;
        case 't': out += '\t'; break;
        case 'r': out += '\r'; break;
        case 'b': out += '\b'; break;
        case 'f': out += '\f'; break;
        case 'u': append_utf8(out); break;
        default: out += text_[at_];
      }
    }
    ++at_;
    return out;
  }

  void append_utf8(std::string& out) {  // \uXXXX of the basic plane; the writer leaves the others as UTF-8
    unsigned code = std::stoul(text_.substr(at_ + 1, 4), nullptr, 16);
    at_ += 4;
    if (code < 0x80) { out += char(code); return; }
    if (code < 0x800) { out += char(0xC0 | code >> 6); out += char(0x80 | (code & 0x3F)); return; }
    out += char(0xE0 | code >> 12);
    out += char(0x80 | (code >> 6 & 0x3F));
    out += char(0x80 | (code & 0x3F));
  }

  bool close(char bracket, size_t count) {  // at the end of a list? else steps over the comma between members
    skip_space();
    if (peek() == bracket) { ++at_; return true; }
    if (count) open(',');
    return false;
  }

  void open(char wanted) {
    if (peek() != wanted) fail(std::string("wanted ") + wanted);
    ++at_;
  }

  void word(const std::string& wanted) {
    if (text_.compare(at_, wanted.size(), wanted)) fail("wanted " + wanted);
    at_ += wanted.size();
  }

  char peek() const {
    if (at_ >= text_.size()) fail("ends too early");
    return text_[at_];
  }

  void skip_space() {
    while (at_ < text_.size() && std::string(" \t\r\n").find(text_[at_]) != std::string::npos) ++at_;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error("bundle.json is damaged at byte " + std::to_string(at_) + ": " + what);
  }

  const std::string& text_;
  size_t at_ = 0;
};
