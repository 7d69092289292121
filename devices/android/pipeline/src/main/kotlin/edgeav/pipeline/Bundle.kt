/**
 * A bundle: the folder a device gets. Model file, golden vectors, and bundle.json, which explains and hashes them all.
 *
 * The Kotlin reader of what edgeav/runtime/bundle.py writes, and as strict: no engine sees a byte before every key,
 * every file and every hash was checked.
 */
package edgeav.pipeline

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

const val SCHEMA = "edgeav-bundle/2"
const val BUNDLE_FILE = "bundle.json"
private const val AGAIN = "Export it again (edgeav export), or copy the whole folder again."

/** float32, row-major. */
class Tensor(val shape: IntArray, val data: FloatArray) {
    init {
        require(shape.fold(1L) { product, side -> product * side } == data.size.toLong()) {
            "${data.size} values do not fill ${shape.joinToString("x")}"
        }
    }
}

/** The clock of the model; `longest` is how many steps it takes at once. */
data class Steps(val perSecond: Double, val audioFrames: Int, val videoFrames: Int, val shortest: Int, val longest: Int)

/** One recorded run of the eager model. `files`: its inputs by name, log_probs, and waveform where there was sound. */
class GoldenCase(
    private val folder: File,
    val name: String,
    val files: Map<String, Pair<String, IntArray>>,
    val transcript: String,
    val tolerance: Double,
) {
    /** Raw little-endian float32. Throws EdgeavError where the case has no such array. */
    fun array(key: String): Tensor {
        val (file, shape) = files[key] ?: throw EdgeavError("golden vector $name has no $key")
        val values = ByteBuffer.wrap(File(folder, file).readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return Tensor(shape, FloatArray(values.remaining()).also { values.get(it) })
    }
}

/** A verified bundle folder; fields as in bundle.json. */
class Bundle(
    val folder: File,
    val name: String,
    val engine: String,
    val precision: String,
    val model: String,
    val steps: Steps,
    val features: Features,
    val tokens: List<String>,
    val blank: Int,
    val golden: List<GoldenCase>,
    val exported: Map<String, Any?>,
    val files: Map<String, FileEntry>,
) {
    val modelFile: File get() = File(folder, model)

    /** V, the number of the model's outputs. */
    val labels: Int get() = labels(tokens.size, blank)

    /** Bytes of the model alone; golden vectors do not count. */
    val sizeBytes: Long
        get() = model.substringBefore(".").let { stem ->
            files.filterKeys { it.startsWith("$stem.") }.values.sumOf { it.bytes }
        }
}

data class FileEntry(val sha256: String, val bytes: Long)

/** The bundle in `folder`, every file of it verified. Throws EdgeavError naming all that is wrong. */
fun readBundle(folder: File): Bundle {
    val spec = readSpec(folder)
    var problems = keyProblems(spec)
    if (problems.isEmpty()) problems = valueProblems(spec) + fileProblems(folder, spec["files"] as Map<*, *>)
    if (problems.isNotEmpty()) {
        val lines = listOf("${File(folder, BUNDLE_FILE)} is not a usable bundle:") + problems
        throw EdgeavError(lines.joinToString("\n  ") + "\n$AGAIN")
    }
    return typed(folder, spec)
}

private fun readSpec(folder: File): Map<*, *> {
    val file = File(folder, BUNDLE_FILE)
    if (!file.isFile) {
        val what = if (folder.isDirectory) "has no bundle.json: not a bundle, or its export was interrupted" else "does not exist"
        throw EdgeavError("$folder $what. $AGAIN")
    }
    val spec = try {
        Json.parse(Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(file.readBytes())).toString())
    } catch (error: EdgeavError) {
        throw EdgeavError("$file is truncated or not JSON: ${error.message}. $AGAIN", error)
    } catch (error: java.nio.charset.CharacterCodingException) {
        throw EdgeavError("$file is truncated or not JSON: not UTF-8. $AGAIN", error)
    }
    val found = (spec as? Map<*, *>)?.get("schema")
    if (found != SCHEMA) throw EdgeavError("$file: schema is ${Json.brief(found)}; this app reads \"$SCHEMA\". $AGAIN")
    return spec
}

private fun typed(folder: File, spec: Map<*, *>): Bundle {
    val features = featuresFromJson(spec["features"], mutableListOf())!!
    val longest = ((spec["steps"] as Map<*, *>)["max"] as Long).toInt()
    return Bundle(
        folder = folder,
        name = spec["name"] as String,
        engine = spec["engine"] as String,
        precision = spec["precision"] as String,
        model = spec["model"] as String,
        steps = Steps(features.stepsPerSecond, features.audioFrames, features.videoFrames, MIN_STEPS, longest),
        features = features,
        tokens = (spec["tokens"] as List<*>).map { it as String },
        blank = (spec["blank"] as Long).toInt(),
        golden = (spec["golden"] as List<*>).map { golden(folder, it as Map<*, *>) },
        exported = (spec["exported"] as Map<*, *>).entries.associate { (key, value) -> key as String to value },
        files = (spec["files"] as Map<*, *>).entries.associate { (name, entry) -> name as String to described(entry) },
    )
}

private fun golden(folder: File, case: Map<*, *>): GoldenCase {
    val files = (case["files"] as Map<*, *>).entries.associate { (key, entry) ->
        val shape = ((entry as Map<*, *>)["shape"] as List<*>).map { (it as Long).toInt() }.toIntArray()
        key as String to (entry["file"] as String to shape)
    }
    val tolerance = (case["tolerance"] as Number).toDouble()
    return GoldenCase(folder, case["name"].toString(), files, case["transcript"] as String, tolerance)
}

private fun described(entry: Any?): FileEntry =
    (entry as Map<*, *>).let { FileEntry(it["sha256"] as String, (it["bytes"] as Number).toLong()) }
