/** From sound and mouth pictures to the arrays a model takes, as edgeav/runtime/features.py and clip.py pack them. */
package edgeav.pipeline

import kotlin.math.pow
import kotlin.math.sqrt

/** One utterance as a model takes it; zeros where a modality is absent. Only the inputs that the model has, in order. */
class Inputs(val arrays: Map<String, Tensor>) {
    /** All zeros: what the model is told when nothing is there. */
    constructor(features: Features, steps: Int) : this(
        features.names.associateWith { name ->
            val shape = features.shape(name, steps)
            Tensor(shape, FloatArray(shape.fold(1) { product, side -> product * side }))
        },
    )

    val steps: Int get() = presence.shape[1]

    operator fun get(name: String): Tensor = arrays.getValue(name)

    val audio: Tensor? get() = arrays["mel"] ?: arrays["samples"]
    val video: Tensor? get() = arrays["video"]
    val presence: Tensor get() = arrays.getValue("presence")

    fun present(step: Int): Boolean = presence.data[2 * step] != 0f || presence.data[2 * step + 1] != 0f

    val anything: Boolean get() = presence.data.any { it != 0f }

    /** Marks `steps` as heard (modality 0) or seen (1). */
    fun mark(steps: Iterable<Int>, modality: Int) = steps.forEach { presence.data[2 * it + modality] = 1f }
}

/** Gray levels in rows; bytes are 0..255. */
class Gray(val width: Int, val height: Int, val pixels: ByteArray) {
    init {
        require(pixels.size == width * height) { "${pixels.size} pixels are not $width x $height" }
    }

    operator fun get(x: Int, y: Int): Int = pixels[y * width + x].toInt() and 0xff
}

/**
 * `waveform` (S,) at 16 kHz from [-1, 1]; `mouth`: 96x96 pictures at 25 fps, null in frames without a face. Both null
 * where there is none; what the model does not take is left aside.
 */
class Clip(private val frontEnd: FrontEnd, waveform: FloatArray?, mouth: List<Gray?>?) {
    private val takes = frontEnd.features
    private val waveform =
        waveform?.takeIf { takes.audio != null && it.size >= takes.hop && it.any { value -> value != 0f } }
    private val mouth = mouth?.takeIf { takes.video != null && it.any { picture -> picture != null } }

    val isEmpty: Boolean get() = waveform == null && mouth == null

    val steps: Int
        get() {
            val heard = waveform?.let { up(it.size / takes.hop, takes.audioFrames) } ?: 0
            val seen = mouth?.let { up(it.size, takes.videoFrames) } ?: 0
            return maxOf(heard, seen, MIN_STEPS)
        }

    val durationS: Double
        get() = maxOf((waveform?.size ?: 0) / SAMPLE_RATE_HZ.toDouble(), (mouth?.size ?: 0) / VIDEO_FPS.toDouble())

    val sound: FloatArray? get() = waveform

    /** What the model gets for the steps [start, stop). */
    fun inputs(start: Int, stop: Int): Inputs {
        val out = Inputs(takes, stop - start)
        waveform?.let { hear(out, cut(it, start, stop)) }
        mouth?.let { see(out, it.subList(minOf(start * takes.videoFrames, it.size), minOf(stop * takes.videoFrames, it.size))) }
        return out
    }

    private fun cut(wave: FloatArray, start: Int, stop: Int): FloatArray {
        val per = takes.samplesPerStep
        return wave.copyOfRange(minOf(start * per, wave.size), minOf(stop * per, wave.size))
    }

    private fun hear(out: Inputs, wave: FloatArray) {
        val frames = frontEnd.hear(wave) ?: return
        frames.copyInto(out.audio!!.data)
        out.mark(0 until up(wave.size / takes.hop, takes.audioFrames), 0)
    }

    /** A step counts as seen when every picture in it shows a face; the rest is zero, and not in the mean. */
    private fun see(out: Inputs, pictures: List<Gray?>) {
        val seen = pictures.chunked(takes.videoFrames).map { step -> step.all { it != null } }
        val used = pictures.indices.filter { seen[it / takes.videoFrames] }
        val pixels = frontEnd.see(used.map { pictures[it]!! }) ?: return
        val side = takes.video!!.crop
        val size = side * side
        used.forEachIndexed { i, frame -> pixels.copyInto(out.video!!.data, frame * size, i * size, (i + 1) * size) }
        out.mark(seen.indices.filter { seen[it] }, 1)
    }
}

/** How one model's inputs are computed from sound and pixels. Holds the log-mel tables: make it once. */
class FrontEnd(val features: Features) {
    private val logMel = (features.audio as? LogMel)?.let { LogMelFrontEnd(it) }

    /** (S,) -> (T * mels) or (S,), normalized; null where there is too little to hear. */
    fun hear(waveform: FloatArray): FloatArray? = when {
        features.audio == null || waveform.size < features.hop -> null
        logMel != null -> logMel.normalize(logMel.logMel(waveform))
        else -> normalizeSamples(waveform)
    }

    /** 96x96 mouths -> (T * crop * crop), normalized; null where there are none. */
    fun see(mouth: List<Gray>): FloatArray? {
        val settings = features.video ?: return null
        if (mouth.isEmpty()) return null
        val side = settings.crop
        val pixels = FloatArray(mouth.size * side * side)
        var at = 0
        for (picture in mouth) {
            val left = (picture.width - side) / 2
            val top = (picture.height - side) / 2
            for (y in top until top + side) for (x in left until left + side) pixels[at++] = picture[x, y].toFloat()
        }
        return normalizePixels(pixels, settings)
    }
}

private fun normalizePixels(pixels: FloatArray, settings: Mouth): FloatArray {
    var shift = 255 * settings.mean
    var scale = 255 * settings.deviation
    if (settings.normalize == "per-clip") {
        val (mean, variance) = moments(pixels)
        shift = mean
        scale = sqrt(variance) + 1e-3
    }
    for (i in pixels.indices) pixels[i] = ((pixels[i] - shift) / scale).toFloat()
    return pixels
}

private fun normalizeSamples(waveform: FloatArray): FloatArray {
    val (mean, variance) = moments(waveform)
    val scale = sqrt(variance + 1e-8)
    return FloatArray(waveform.size) { ((waveform[it] - mean) / scale).toFloat() }
}

private fun moments(values: FloatArray): Pair<Double, Double> {
    var sum = 0.0
    for (value in values) sum += value
    val mean = sum / values.size
    var squares = 0.0
    for (value in values) squares += (value - mean).pow(2)
    return mean to squares / values.size
}

/** Division rounded up. */
internal fun up(count: Int, by: Int): Int = (count + by - 1) / by
