/**
 * What can be wrong with bundle.json and the files it lists: everything is checked, and all of it is said at once,
 * as edgeav/runtime/bundle_check.py does. A test compares the two on the same broken bundles.
 */
package edgeav.pipeline

import java.io.File
import java.security.MessageDigest

private val ENGINES = listOf("onnxruntime", "openvino", "executorch")
private val KEYS = mapOf(
    "schema" to "a string", "name" to "a string", "engine" to "a string", "precision" to "a string",
    "model" to "a string", "inputs" to "a list", "outputs" to "a list", "steps" to "an object",
    "features" to "an object", "tokens" to "a list", "blank" to "a whole number", "golden" to "a list",
    "quality" to "an object", "exported" to "an object", "files" to "an object",
)
private val GOLDEN = setOf("name", "files", "transcript", "tolerance")
private const val OUTPUT = "log_probs"

private class Check(val key: String, val value: Any?, val must: String, val right: Boolean)

internal fun keyProblems(spec: Map<*, *>): List<String> {
    val missing = KEYS.keys.filter { it !in spec }.map { "$it: missing" }
    val unknown = spec.keys.filter { it !in KEYS }.map { "$it: unknown key; allowed: ${KEYS.keys.joinToString()}" }
    val wrong = KEYS.filter { (key, kind) -> key in spec && kindOf(spec[key]) != kind }
        .map { (key, kind) -> "$key: ${kindOf(spec[key])}, must be $kind" }
    return missing + unknown + wrong
}

private fun kindOf(value: Any?): String = when (value) {
    is String -> "a string"
    is List<*> -> "a list"
    is Map<*, *> -> "an object"
    is Long -> "a whole number"
    is Double -> "a number"
    is Boolean -> "true or false"
    else -> "null"
}

/** What is wrong inside the right keys. Precisions are the export's to name: any plain word will do. */
internal fun valueProblems(spec: Map<*, *>): List<String> {
    val files = spec["files"] as Map<*, *>
    val found = mutableListOf<String>()
    val features = featuresFromJson(spec["features"], found)
    val problems = found.map { "features.$it" }.toMutableList()
    val checks = mutableListOf(
        Check("engine", spec["engine"], "one of ${ENGINES.joinToString()}", spec["engine"] in ENGINES),
        Check("precision", spec["precision"], "a word", Regex("[a-z0-9][a-z0-9.-]*").matches(spec["precision"] as String)),
        Check("model", spec["model"], "listed in files", spec["model"] in files),
    )
    checks += labelChecks(spec["tokens"] as List<*>, spec["blank"] as Long, spec["outputs"])
    if (features != null) checks += featureChecks(features, spec["inputs"], spec["steps"] as Map<*, *>)
    problems += checks.filter { !it.right }.map { "${it.key}: ${Json.brief(it.value)}; must be ${it.must}" }
    val inputs = features?.names ?: emptyList()
    return problems + (spec["golden"] as List<*>).flatMap { goldenProblems(it, files, inputs) }
}

/** How many outputs a model has: the tokens, and the blank unless one of them stands for it. */
internal fun labels(tokens: Int, blank: Int): Int = maxOf(tokens, blank + 1)

private fun labelChecks(tokens: List<*>, blank: Long, outputs: Any?): List<Check> {
    val blanks = blank in 0..tokens.size.toLong()
    val right = listOf(tensor(OUTPUT, intArrayOf(1, 1, if (blanks) labels(tokens.size, blank.toInt()) else 0)))
    return listOf(
        Check("tokens", "…", "strings", tokens.all { it is String }),
        Check("blank", blank, "0..${tokens.size}: one of the ${tokens.size} tokens, or the output after them", blanks),
        Check("outputs", outputs, Json.brief(right, 400), !blanks || same(outputs, right)),
    )
}

private fun featureChecks(features: Features, inputs: Any?, steps: Map<*, *>): List<Check> {
    val right = features.names.map { tensor(it, features.shape(it, 1)) }
    val longest = steps["max"]
    val fits = longest is Long && longest in MIN_STEPS..Int.MAX_VALUE
    val clock = mapOf(
        "per_second" to features.stepsPerSecond, "audio_frames" to features.audioFrames,
        "video_frames" to features.videoFrames, "min" to MIN_STEPS, "max" to longest,
    )
    return listOf(
        Check("inputs", inputs, Json.brief(right, 400), same(inputs, right)),
        Check("steps.max", longest, "a whole number of at least $MIN_STEPS", fits),
        Check("steps", steps, if (fits) Json.brief(clock, 400) else "", !fits || same(steps, clock)),
    )
}

/** (1, frames in a step, …) -> {"name", "dtype", "shape": ["1", "8N", …]}. */
private fun tensor(name: String, sides: IntArray): Map<String, Any> {
    val frames = if (sides[1] == 1) "N" else "${sides[1]}N"
    return mapOf("name" to name, "dtype" to "float32", "shape" to listOf<Any>("1", frames) + sides.drop(2))
}

private fun goldenProblems(case: Any?, files: Map<*, *>, inputs: List<String>): List<String> {
    val arrays = (case as? Map<*, *>)?.get("files")
    if (case !is Map<*, *> || case.keys != GOLDEN || arrays !is Map<*, *>) {
        return listOf("golden: every case must have ${GOLDEN.joinToString()}; found ${Json.brief(case)}")
    }
    val where = "golden ${case["name"]}"
    val problems = (inputs + OUTPUT).filter { it !in arrays }.map { "$where: $it missing" }.toMutableList()
    if (case["tolerance"] !is Number) problems += "$where.tolerance: ${Json.brief(case["tolerance"])}, must be a number"
    if (case["transcript"] !is String) problems += "$where.transcript: ${Json.brief(case["transcript"])}, must be a string"
    for ((key, entry) in arrays) {
        val file = (entry as? Map<*, *>)?.get("file")
        if (entry !is Map<*, *> || file !in files || entry["dtype"] != "float32") {
            problems += "$where.$key: must name a listed float32 file; found ${Json.brief(entry)}"
        } else if (!holds(files[file], entry["shape"])) {
            problems += "$where.$key: $file does not hold shape ${Json.brief(entry["shape"])}"
        }
    }
    return problems
}

/** Whether a file of the list has the bytes of a float32 array of that shape. */
private fun holds(file: Any?, shape: Any?): Boolean {
    if (file !is Map<*, *> || shape !is List<*> || shape.any { it !is Long }) return false
    return same(file["bytes"], 4 * shape.fold(1L) { product, side -> product * side as Long })
}

internal fun fileProblems(folder: File, files: Map<*, *>): List<String> =
    files.mapNotNull { (name, entry) -> fileProblem(folder, name as String, entry) }

private fun fileProblem(folder: File, name: String, entry: Any?): String? {
    if (entry !is Map<*, *> || entry.keys != setOf("bytes", "sha256")) {
        return "files: $name must have sha256 and bytes; found ${Json.brief(entry)}"
    }
    if (name.startsWith("/") || ".." in name.split("/")) return "files: $name points outside the bundle"
    val file = File(folder, name)
    if (!file.isFile) return "$name: missing (expected ${entry["bytes"]} bytes)"
    val found = sha256(file)
    if (found == entry["sha256"]) return null
    return "$name: changed or truncated: sha256 is $found, expected ${entry["sha256"]}; " +
        "${file.length()} bytes, expected ${entry["bytes"]}"
}

/** Lower-case hexadecimal. The file is read in pieces: a phone need not hold a model twice. */
fun sha256(file: File): String {
    val digest = MessageDigest.getInstance("SHA-256")
    file.inputStream().use { stream ->
        val piece = ByteArray(1 shl 16)
        while (true) {
            val read = stream.read(piece)
            if (read < 0) break
            digest.update(piece, 0, read)
        }
    }
    return digest.digest().joinToString("") { "%02x".format(it) }
}
