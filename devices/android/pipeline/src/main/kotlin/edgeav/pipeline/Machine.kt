/** What a measurement ran on, from Linux's /proc and /sys, as edgeav/runtime/machine.py reads them. */
package edgeav.pipeline

import java.io.File
import java.io.IOException

private val ISA_FLAGS = listOf(
    "sse4_2" to "sse4_2", "avx" to "avx", "avx2" to "avx2", "fma" to "fma", "f16c" to "f16c", "avx_vnni" to "avx_vnni",
    "avx512f" to "avx512f", "avx512bw" to "avx512bw", "avx512vl" to "avx512vl", "avx512_vnni" to "avx512_vnni",
    "avx512_bf16" to "avx512_bf16", "avx512_fp16" to "avx512_fp16", "amx_int8" to "amx_int8", "amx_bf16" to "amx_bf16",
    "neon" to "neon", "asimd" to "neon", "asimdhp" to "fp16", "asimddp" to "dotprod", "i8mm" to "i8mm", "bf16" to "bf16",
    "sve" to "sve", "sve2" to "sve2",
)

/** `governor`: the processor's frequency policy, null where it is not readable. */
data class Machine(val arch: String, val cpu: String, val isa: List<String>, val governor: String?)

/** `cpu`: what to call a processor that does not name itself, as most phones' do not. */
fun thisMachine(cpu: String): Machine {
    val facts = facts(read("/proc/cpuinfo") ?: "")
    val arch = System.getProperty("os.arch").orEmpty().let { if (it == "amd64") "x86_64" else it }
    val named = facts["model name"] ?: facts["Model"] ?: facts["Hardware"]
    val governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")?.trim()
    return Machine(arch, named ?: cpu, isa(facts["flags"] ?: facts["Features"] ?: ""), governor)
}

/** The instruction sets that matter to engines, from the processor's flags. */
fun isa(flags: String): List<String> {
    val present = flags.split(" ").toSet()
    return ISA_FLAGS.filter { it.first in present }.map { it.second }.distinct()
}

/** /proc/cpuinfo as one map; of several processors the last one's values. */
internal fun facts(text: String): Map<String, String> = text.lines().filter { ":" in it }
    .associate { it.substringBefore(":").trim() to it.substringAfter(":").trim() }
    .filterValues { it.isNotEmpty() }

/** Resident memory of this process, 10^6 bytes: VmRSS now, VmHWM at most so far. */
fun memoryMb(field: String): Double {
    val line = read("/proc/self/status")?.lines()?.firstOrNull { it.startsWith("$field:") }
    val kib = line?.split(Regex("\\s+"))?.get(1)?.toLong() ?: throw EdgeavError("/proc/self/status has no $field")
    return kib * 1024 / 1e6
}

private fun read(path: String): String? = try {
    File(path).readText()
} catch (_: IOException) {
    null
}
