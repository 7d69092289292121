// Where the time goes: one row for every type of operator, as edgeav/runtime/operators.py has them for other engines.
//
// ExecuTorch tells an EventTracer what it does. Its own, ETDump, writes a file for the Inspector in Python; this one adds
// up on the spot, so that nothing has to be pulled and read elsewhere. XNNPACK tells its operators after a run, in whole
// microseconds, as "Fully Connected (NC, QS8, QC8W) GEMM #3". The tracing slows the model down: these times rank.
#pragma once

#include <executorch/runtime/core/event_tracer.h>
#include <executorch/runtime/platform/clock.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "write_json.h"

namespace tracing = executorch::runtime;

class Operators : public tracing::EventTracer {
 public:
  static constexpr int runs = 10, warmup = 3;  // as in Python

  void forget() { rows_.clear(); }  // what the warm-up told

  // Adds "operators", the slowest first, and "integer_share"; of one run.
  void add_to(JsonObject& out) const {
    double total = 0, integer_time = 0, multiplying = 0, integer_nodes = 0;
    for (const auto& [type, row] : rows_) total += row.ms;
    std::vector<std::pair<std::string, Row>> sorted(rows_.begin(), rows_.end());
    std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second.ms > b.second.ms; });
    JsonList list;
    for (const auto& [type, row] : sorted) {
      const double share = total > 0 ? row.ms / total : 0, nodes = static_cast<double>(row.calls) / runs;
      JsonObject now;
      now.add("type", json_text(type)).add("nodes", number(nodes)).add("ms", number(row.ms / runs));
      list.add(now.add("share", number(share)).add("integer", integer(type) ? "true" : "false").text());
      integer_time += integer(type) ? share : 0;
      if (!has(type, {"Convolution", "Fully Connected", "Matrix Multiply"})) continue;
      multiplying += nodes;
      integer_nodes += integer(type) ? nodes : 0;
    }
    JsonObject share;
    share.add("time", number(std::min(1.0, integer_time)));
    share.add("nodes", number(multiplying > 0 ? integer_nodes / multiplying : 0));
    out.add("operators", list.text()).add("integer_share", share.text());
  }

  // Of kernels outside of a delegate. OPERATOR_CALL, DELEGATE_CALL and Method::… enclose what is told apart.
  tracing::EventTracerEntry start_profiling(const char* name, tracing::ChainID, tracing::DebugHandle) override {
    const std::string text = name, mark = "native_call_";
    const bool kernel = text.rfind(mark, 0) == 0;
    return started(kernel ? text.substr(mark.size()) : "");
  }
  void end_profiling(tracing::EventTracerEntry entry) override { ended(entry); }
  tracing::EventTracerEntry start_profiling_delegate(const char* name, tracing::DelegateDebugIntId) override {
    return started(name == nullptr ? "" : name);
  }
  void end_profiling_delegate(tracing::EventTracerEntry entry, const void*, size_t) override { ended(entry); }
  void log_profiling_delegate(const char* name, tracing::DelegateDebugIntId, et_timestamp_t start, et_timestamp_t end,
                              const void*, size_t) override {
    const std::string text = name == nullptr ? "" : name;
    if (!text.empty()) add(text.substr(0, text.rfind(" #")), start, end);
  }

  // What it does not ask for.
  using Answer = tracing::Result<bool>;
  using Tensor = executorch::aten::Tensor;
  void create_event_block(const char*) override {}
  void track_allocation(tracing::AllocatorID, size_t) override {}
  tracing::AllocatorID track_allocator(const char*) override { return 0; }
  Answer log_evalue(const tracing::EValue&, tracing::LoggedEValueType) override { return false; }
  Answer log_intermediate_output_delegate(const char*, tracing::DelegateDebugIntId, const Tensor&) override { return false; }
  Answer log_intermediate_output_delegate(const char*, tracing::DelegateDebugIntId,
                                          const tracing::ArrayRef<Tensor>) override { return false; }
  Answer log_intermediate_output_delegate(const char*, tracing::DelegateDebugIntId, const int&) override { return false; }
  Answer log_intermediate_output_delegate(const char*, tracing::DelegateDebugIntId, const bool&) override { return false; }
  Answer log_intermediate_output_delegate(const char*, tracing::DelegateDebugIntId, const double&) override { return false; }
  void set_delegation_intermediate_output_filter(tracing::EventTracerFilterBase*) override {}

 private:
  struct Row {
    double ms = 0;
    long calls = 0;
  };

  static bool has(const std::string& type, const std::vector<std::string>& words) {
    return std::any_of(words.begin(), words.end(),
                       [&](const std::string& word) { return type.find(word) != std::string::npos; });
  }

  // Computes in 8 bits: "(NHWC, QC8)" does, "(NC, F32, QC8W)" has weights of 8 bits alone. Converting to them is the price,
  // not the arithmetic.
  static bool integer(const std::string& type) {
    return has(type, {"QS8", "QU8", "QD8", "QC8)"}) && !has(type, {"Convert"});
  }

  tracing::EventTracerEntry started(const std::string& type) {
    tracing::EventTracerEntry entry{};
    entry.event_id = static_cast<int64_t>(open_.size());
    open_.push_back(type);
    entry.start_time = executorch::runtime::pal_current_ticks();
    return entry;
  }

  void ended(const tracing::EventTracerEntry& entry) {  // they nest: the last to start is the first to end
    const size_t index = static_cast<size_t>(entry.event_id);
    if (index >= open_.size()) return;  // what enclosed it has ended already, with an error
    const std::string type = open_[index];
    open_.resize(index);
    if (!type.empty()) add(type, entry.start_time, executorch::runtime::pal_current_ticks());
  }

  void add(const std::string& type, et_timestamp_t start, et_timestamp_t end) {
    rows_[type].ms += static_cast<double>(tracing::ticks_to_ns(end - start)) / 1e6;
    ++rows_[type].calls;
  }

  std::map<std::string, Row> rows_;
  std::vector<std::string> open_;
};
