/**
 * How fast is this bundle on this device? Makes the profile that `edgeav profile` makes (edgeav/profiling.py: Profile).
 *
 * Before a number is reported the golden vectors are replayed: the speed of a wrong answer is of no interest.
 */
package edgeav.pipeline

import java.util.Random
import kotlin.math.abs
import kotlin.math.ceil

const val PROFILE_SCHEMA = "edgeav-profile/1"

/** What is timed: one utterance of `seconds`, `iterations` times after `warmup` untimed runs. */
data class Workload(
    val seconds: Double = 4.0,
    val iterations: Int = 50,
    val warmup: Int = 5,
    val seed: Long = 0,
    val threads: Int = 1,
)

/** Where it is timed. `cpuNs`: process CPU time; `device`: the name of a file in devices/. */
class Place(val device: String, val emulated: Boolean, val machine: Machine, val cpuNs: () -> Long)

/** An engine that can be opened; `load` brings in its library, which costs the same for every model. */
interface EngineOpener {
    fun load()

    fun open(bundle: Bundle, threads: Int): Engine
}

/** Plain data for Json.write. Throws EdgeavError where an answer is wrong. `progress` is told what is being done. */
fun measure(
    bundle: Bundle,
    opener: EngineOpener,
    place: Place,
    workload: Workload,
    progress: (String) -> Unit = {},
): Map<String, Any?> {
    val inputs = randomInputs(bundle, workload)
    progress("loading")
    val importMs = timedMs { opener.load() }
    val runtimeMb = memoryMb("VmRSS")
    lateinit var engine: Engine
    val loadMs = timedMs { engine = opener.open(bundle, workload.threads) }
    return engine.use {
        val firstMs = timedMs { engine.run(inputs) }
        progress("checking the golden vectors")
        val golden = checkGolden(engine, bundle)
        val times = timeRuns(engine, inputs, workload, place.cpuNs, progress)
        identity(bundle) + where(place) + mapOf(
            "schema" to PROFILE_SCHEMA,
            "runtime" to "${engine.name} ${engine.version}",
            "threads" to workload.threads,
            "seconds" to workload.seconds,
            "steps" to inputs.steps,
            "n" to workload.iterations,
            "warmup" to workload.warmup,
            "import_ms" to importMs,
            "load_ms" to loadMs,
            "first_ms" to firstMs,
            "wall_ms" to summary(times.first),
            "cpu_ms" to summary(times.second),
            "rtf" to percentile(times.first, 50.0) / (1000 * workload.seconds),
            "peak_rss_mb" to memoryMb("VmHWM"),
            "runtime_rss_mb" to runtimeMb,
            "golden" to golden,
            "operators" to null,
            "integer_share" to null,
            "not_measured" to NOT_MEASURED,
        )
    }
}

/** What a serious profile has and this one lacks: nobody should take silence for zero. */
private val NOT_MEASURED = mapOf(
    "energy" to "needs a meter",
    "temperature and throttling" to "needs 10 minutes on the hardware",
    "chunks of a stream" to "the model takes whole utterances",
    "operators" to "the app does not ask the engine for them",
)

/** Replays the golden vectors. Throws EdgeavError when an answer differs by more than the bundle allows. */
fun checkGolden(engine: Engine, bundle: Bundle): Map<String, Any> {
    var worst = 0.0
    for (case in bundle.golden) {
        val inputs = Inputs(bundle.features.names.associateWith { case.array(it) })
        val expected = case.array("log_probs")
        val found = engine.run(inputs)
        var off = if (found.shape.contentEquals(expected.shape)) 0.0 else Double.POSITIVE_INFINITY
        if (off == 0.0) for (i in found.data.indices) off =
            largest(off, abs(found.data[i].toDouble() - expected.data[i]))
        if (!(off <= case.tolerance)) throw wrong(engine, bundle, case, found, off) // written so that NaN fails too
        worst = maxOf(worst, off)
    }
    return mapOf("cases" to bundle.golden.size, "max_abs" to worst)
}

private fun largest(one: Double, other: Double) = if (one.isNaN() || other.isNaN()) Double.NaN else maxOf(one, other)

private fun wrong(engine: Engine, bundle: Bundle, case: GoldenCase, found: Tensor, off: Double): EdgeavError {
    val inputs = Inputs(mapOf("presence" to case.array("presence")))
    val complete = found.shape.contentEquals(case.array("log_probs").shape)
    val here = if (complete) decode(found.data, bundle, inputs::present).text else "(another shape)"
    return EdgeavError(
        "${bundle.name}: golden vector '${case.name}' comes out wrong here, ${engine.name} ${engine.version}: " +
            "log-probabilities differ by ${"%.3g".format(java.util.Locale.ROOT, off)}, allowed ${case.tolerance}; " +
            "transcript '$here', expected '${case.transcript}'. Nothing was timed.",
    )
}

/** Noise of the right shapes and scale: no kernel's time depends on what is said. */
private fun randomInputs(bundle: Bundle, workload: Workload): Inputs {
    val rules = bundle.steps
    val steps = ceil(rules.perSecond * workload.seconds).toInt()
    if (steps !in rules.shortest..rules.longest) {
        val limits = "${rules.shortest / rules.perSecond} to ${rules.longest / rules.perSecond} s"
        throw EdgeavError("${workload.seconds} s: this bundle takes $limits at once")
    }
    val random = Random(workload.seed)
    val inputs = Inputs(bundle.features, steps)
    for (array in listOfNotNull(inputs.audio, inputs.video)) for (i in array.data.indices) array.data[i] =
        random.nextGaussian().toFloat()
    if (inputs.audio != null) inputs.mark(0 until steps, 0)
    if (inputs.video != null) inputs.mark(0 until steps, 1)
    return inputs
}

/** Wall and process CPU milliseconds of each run, after the warm-up. */
private fun timeRuns(
    engine: Engine,
    inputs: Inputs,
    workload: Workload,
    cpuNs: () -> Long,
    progress: (String) -> Unit,
): Pair<DoubleArray, DoubleArray> {
    progress("warming up")
    repeat(workload.warmup) { engine.run(inputs) }
    val wall = DoubleArray(workload.iterations)
    val cpu = DoubleArray(workload.iterations)
    for (i in wall.indices) {
        if (i % 10 == 0) progress("run ${i + 1} of ${workload.iterations}")
        val cpuBefore = cpuNs()
        wall[i] = timedMs { engine.run(inputs) }
        cpu[i] = (cpuNs() - cpuBefore) / 1e6
    }
    return wall to cpu
}

private inline fun timedMs(work: () -> Unit): Double {
    val start = System.nanoTime()
    work()
    return (System.nanoTime() - start) / 1e6
}

fun summary(timesMs: DoubleArray): Map<String, Double> = mapOf(
    "p50" to percentile(timesMs, 50.0),
    "p90" to percentile(timesMs, 90.0),
    "p99" to percentile(timesMs, 99.0),
    "mean" to timesMs.average(),
    "min" to timesMs.min(),
)

/** numpy's: linear between the two values around it. */
fun percentile(values: DoubleArray, percent: Double): Double {
    val sorted = values.sortedArray()
    val place = percent / 100 * (sorted.size - 1)
    val below = place.toInt()
    val above = minOf(below + 1, sorted.size - 1)
    return sorted[below] + (sorted[above] - sorted[below]) * (place - below)
}

/** Which bundle this was, to the byte. */
private fun identity(bundle: Bundle): Map<String, Any?> = mapOf(
    "bundle" to bundle.name,
    "engine" to bundle.engine,
    "precision" to bundle.precision,
    "model_sha256" to bundle.files.filterKeys { !it.startsWith("golden/") }.mapValues { it.value.sha256 },
    "model_bytes" to bundle.sizeBytes,
)

private fun where(place: Place): Map<String, Any?> = mapOf(
    "device" to place.device,
    "emulated" to place.emulated,
    "arch" to place.machine.arch,
    "cpu" to place.machine.cpu,
    "isa" to place.machine.isa,
    "governor" to place.machine.governor,
)
