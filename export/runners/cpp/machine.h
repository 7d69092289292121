// What this machine says of itself, and clocks: as edgeav/runtime/{machine,health,instructions}.py, in C++.
#pragma once

#include <linux/perf_event.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#endif

#include "write_json.h"

inline std::string read_or_empty(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Neither clock jumps when somebody sets the time.
inline double wall_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

inline double cpu_ms() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

// The value of a line "key: value"; of several the last. Empty when there is none.
inline std::string field(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  std::string found;
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::string name = line.substr(0, colon), value = line.substr(colon + 1);
    name.erase(name.find_last_not_of(" \t") + 1);
    if (name == key) found = value.erase(0, std::min(value.find_first_not_of(" \t"), value.size()));
  }
  return found;
}

// 10^6 bytes; the files say kB and mean KiB.
inline double memory_mb(const std::string& path, const std::string& key) {
  return std::atof(field(read_or_empty(path), key).c_str()) * 1024 / 1e6;
}

// The instruction sets that matter to engines. On Arm from the auxiliary vector: Android hides cpuinfo's line, and an
// emulator shows the host's.
inline std::string isa() {
  JsonList out;
#if defined(__aarch64__)
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  const std::vector<std::pair<bool, std::string>> found = {
      {first & HWCAP_ASIMD, "neon"}, {first & HWCAP_ASIMDHP, "fp16"}, {first & HWCAP_ASIMDDP, "dotprod"},
      {second & HWCAP2_I8MM, "i8mm"}, {second & HWCAP2_BF16, "bf16"}, {first & HWCAP_SVE, "sve"},
      {second & HWCAP2_SVE2, "sve2"}};
  for (const auto& [has, name] : found)
    if (has) out.add(json_text(name));
#else
  std::istringstream words(field(read_or_empty("/proc/cpuinfo"), "flags"));
  const std::vector<std::string> present{std::istream_iterator<std::string>(words), {}};
  for (const char* name : {"sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl",
                           "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16"})
    if (std::find(present.begin(), present.end(), name) != present.end()) out.add(json_text(name));
#endif
  return out.text();
}

inline std::string temperature() {
  std::optional<double> warmest;
  std::error_code none;  // a device without /sys has no thermal zones
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/thermal", none)) {
    const std::string text = read_or_empty(entry.path().string() + "/temp");
    if (!text.empty() && std::isdigit(text[0])) warmest = std::max(warmest.value_or(-273.0), std::atof(text.c_str()) / 1000);
  }
  return warmest ? number(*warmest) : "null";
}

inline std::string condition() {
  const std::string clock = read_or_empty("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq");
  JsonObject out;
  out.add("temperature_c", temperature());
  out.add("frequency_mhz", clock.empty() ? "null" : number(std::atof(clock.c_str()) / 1000));
  return out.add("throttling", "null").text();
}

// The kernel says what it was built for; an emulator answers uname with what it imitates.
inline bool emulated(const std::string& machine) {
  std::string kernel = read_or_empty("/proc/sys/kernel/arch");
  kernel.erase(kernel.find_last_not_of(" \n") + 1);
  return !kernel.empty() && kernel != machine && !(kernel == "aarch64" && machine.rfind("armv", 0) == 0);
}

inline void add_machine(JsonObject& out) {
  utsname name{};
  uname(&name);
  const std::string cpuinfo = read_or_empty("/proc/cpuinfo"), machine = name.machine;
  std::string cpu = field(cpuinfo, "model name"), governor, board;
  if (cpu.empty()) cpu = field(cpuinfo, "Model");
  if (cpu.empty()) cpu = field(cpuinfo, "Hardware");
  governor = read_or_empty("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  governor.erase(governor.find_last_not_of(" \n") + 1);
  board = read_or_empty("/proc/device-tree/model").c_str();
  cpu_set_t cores;
  CPU_ZERO(&cores);
  sched_getaffinity(0, sizeof cores, &cores);
  out.add("arch", json_text(machine)).add("cpu", json_text(cpu.empty() ? "unknown" : cpu)).add("isa", isa());
  out.add("governor", governor.empty() ? "null" : json_text(governor));
  out.add("board", board.empty() ? "null" : json_text(board)).add("cores", number(CPU_COUNT(&cores)));
  out.add("memory_mb", number(memory_mb("/proc/meminfo", "MemTotal")));
  out.add("emulated_here", emulated(machine) ? "true" : "false");
}

// User instructions of `work`, or an empty number and why there is none.
inline std::pair<std::optional<double>, std::string> instructions(const std::function<void()>& work) {
  perf_event_attr wanted{};
  wanted.type = PERF_TYPE_HARDWARE;
  wanted.size = sizeof wanted;
  wanted.config = PERF_COUNT_HW_INSTRUCTIONS;
  wanted.disabled = wanted.inherit = wanted.exclude_kernel = wanted.exclude_hv = 1;
  const int counter = static_cast<int>(syscall(SYS_perf_event_open, &wanted, 0, -1, -1, 0));
  if (counter < 0) return {{}, std::string("the kernel gives no instruction counter (") + std::strerror(errno) + ")"};
  ioctl(counter, PERF_EVENT_IOC_ENABLE, 0);
  work();
  ioctl(counter, PERF_EVENT_IOC_DISABLE, 0);
  uint64_t count = 0;
  const bool whole = read(counter, &count, sizeof count) == sizeof count;
  close(counter);
  if (!whole) return {{}, "the instruction counter could not be read"};
  return {static_cast<double>(count), ""};
}
