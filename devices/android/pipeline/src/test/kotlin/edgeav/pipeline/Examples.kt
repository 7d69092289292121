/** Small bundles, clips and engines for the tests: made here, nothing recorded. */
package edgeav.pipeline

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Files
import kotlin.math.PI
import kotlin.math.sin

internal val LOG_MEL = LogMel(
    8, 400, 160, 512, "hann-symmetric", "slaney", "area", "exact", 0.0, 8000.0, 0.97, "zeros", 5.960464477539063e-08, "add", "per-band",
)
internal val FEATURES = Features(80, LOG_MEL, Mouth(88, "per-clip", 0.0, 1.0))
internal val TOKENS = listOf("<unk>", "▁a", "b", "▁cat", "▁")
internal val BLANK = TOKENS.size

/** A bundle of three steps whose golden answer spells "ab cat"; `change` edits bundle.json before it is written. */
internal fun exampleFolder(change: (MutableMap<String, Any?>) -> Unit = {}): File {
    val folder = Files.createTempDirectory("bundle").toFile().also { it.deleteOnExit() }
    File(folder, "golden").mkdir()
    val steps = 6
    File(folder, "model.onnx").writeText("not a model: no engine opens it")
    val said = logProbs(listOf(1, 2, 2, BLANK, 3, BLANK))
    val arrays = mapOf(
        "mel" to intArrayOf(1, 8 * steps, 8) to FloatArray(8 * steps * 8),
        "video" to intArrayOf(1, 2 * steps, 88, 88) to FloatArray(2 * steps * 88 * 88),
        "presence" to intArrayOf(1, steps, 2) to FloatArray(2 * steps) { 1f },
        "log_probs" to intArrayOf(1, steps, TOKENS.size + 1) to said,
    )
    val golden = arrays.map { (about, values) ->
        val (name, shape) = about
        writeFloats(File(folder, "golden/x.$name.f32"), values)
        name to mapOf("file" to "golden/x.$name.f32", "shape" to shape.toList(), "dtype" to "float32")
    }.toMap()
    val files = folder.walk().filter { it.isFile }.associate {
        it.relativeTo(folder).path to mapOf("sha256" to sha256(it), "bytes" to it.length())
    }
    val spec = specification(golden, files).also(change)
    File(folder, BUNDLE_FILE).writeText(Json.write(spec))
    return folder
}

private fun specification(golden: Map<String, Any?>, files: Map<String, Any?>): MutableMap<String, Any?> = linkedMapOf(
    "schema" to SCHEMA, "name" to "example", "engine" to "onnxruntime", "precision" to "fp32", "model" to "model.onnx",
    "inputs" to listOf(
        mapOf("name" to "mel", "dtype" to "float32", "shape" to listOf("1", "8N", 8)),
        mapOf("name" to "video", "dtype" to "float32", "shape" to listOf("1", "2N", 88, 88)),
        mapOf("name" to "presence", "dtype" to "float32", "shape" to listOf("1", "N", 2)),
    ),
    "outputs" to listOf(mapOf("name" to "log_probs", "dtype" to "float32", "shape" to listOf("1", "N", TOKENS.size + 1))),
    "steps" to mapOf("per_second" to 12.5, "audio_frames" to 8, "video_frames" to 2, "min" to 2, "max" to 200),
    "features" to mapOf(
        "sample_rate_hz" to 16000, "video_fps" to 25, "mouth" to 96, "step_ms" to 80,
        "audio" to mapOf(
            "kind" to "log-mel", "mels" to 8, "window" to 400, "hop" to 160, "n_fft" to 512,
            "window_function" to "hann-symmetric", "mel_scale" to "slaney", "mel_norm" to "area", "mel_corners" to "exact",
            "low_hz" to 0.0, "high_hz" to 8000.0, "pre_emphasis" to 0.97, "padding" to "zeros",
            "log_floor" to LOG_MEL.logFloor, "log_guard" to "add", "normalize" to "per-band",
        ),
        "video" to mapOf("crop" to 88, "normalize" to "per-clip", "mean" to 0.0, "deviation" to 1.0),
    ),
    "tokens" to TOKENS, "blank" to BLANK,
    "golden" to listOf(mapOf("name" to "x", "files" to golden, "transcript" to "ab cat", "tolerance" to 0.001)),
    "quality" to emptyMap<String, Any?>(), "exported" to emptyMap<String, Any?>(), "files" to files,
)

internal fun writeFloats(file: File, values: FloatArray) {
    val bytes = ByteBuffer.allocate(4 * values.size).order(ByteOrder.LITTLE_ENDIAN)
    values.forEach { bytes.putFloat(it) }
    file.writeBytes(bytes.array())
}

/** Rows that are certain of the labels. */
internal fun logProbs(best: List<Int>): FloatArray {
    val labels = TOKENS.size + 1
    return FloatArray(best.size * labels) { if (it % labels == best[it / labels]) -0.1f else -9f }
}

/** Says "a" in every step that is heard and "cat" in every one that is only seen; counts what it was asked. */
internal class TellingEngine : Engine {
    override val name = "telling"
    override val version = "1"
    val asked = mutableListOf<Inputs>()

    override fun run(inputs: Inputs): Tensor {
        asked += inputs
        val best = (0 until inputs.steps).map {
            val loud = inputs.presence.data[2 * it] != 0f
            if (it % 2 == 1) BLANK else if (loud) 1 else 3
        }
        return Tensor(intArrayOf(1, inputs.steps, TOKENS.size + 1), logProbs(best))
    }

    override fun close() = Unit
}

internal fun tone(seconds: Double, hz: Double = 440.0, rate: Int = SAMPLE_RATE_HZ, loud: Double = 0.3) =
    FloatArray((seconds * rate).toInt()) { (loud * sin(2 * PI * hz * it / rate)).toFloat() }

internal fun picture(width: Int, height: Int, level: (Int, Int) -> Int) =
    Gray(width, height, ByteArray(width * height) { level(it % width, it / width).toByte() })
