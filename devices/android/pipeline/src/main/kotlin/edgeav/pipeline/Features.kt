/**
 * What a model is fed, as data: `features` of bundle.json, read as strictly as edgeav/runtime/inputs.py does.
 */
package edgeav.pipeline

const val SAMPLE_RATE_HZ = 16_000
const val VIDEO_FPS = 25
const val MOUTH = 96 // pixels: side of the square mouth crop
const val MIN_STEPS = 2 // a model takes no less: relative positions need a neighbour

sealed interface Audio

/** (S,) samples -> (T, mels). What each field means: edgeav/runtime/inputs.py. */
data class LogMel(
    val mels: Int,
    val window: Int,
    val hop: Int,
    val nFft: Int,
    val windowFunction: String,
    val melScale: String,
    val melNorm: String,
    val melCorners: String,
    val lowHz: Double,
    val highHz: Double,
    val preEmphasis: Double,
    val padding: String,
    val logFloor: Double,
    val logGuard: String,
    val normalize: String,
) : Audio

/** (S,) samples -> (S,), mean 0 and deviation 1 over the utterance. */
object Samples : Audio

/** (T, 96, 96) gray mouth -> (T, crop, crop). */
data class Mouth(val crop: Int, val normalize: String, val mean: Double, val deviation: Double)

/** The inputs of one model. null: the model does not take that modality. */
data class Features(val stepMs: Int, val audio: Audio?, val video: Mouth?) {
    val stepsPerSecond: Double get() = 1000.0 / stepMs
    val samplesPerStep: Int get() = SAMPLE_RATE_HZ * stepMs / 1000

    /** Samples in one frame of audio. */
    val hop: Int get() = (audio as? LogMel)?.hop ?: 1

    /** Log-mel frames, or samples, in one step; 0 for a model that does not hear. */
    val audioFrames: Int get() = if (audio == null) 0 else samplesPerStep / hop

    /** Pictures in one step; 0 for a model that does not see. */
    val videoFrames: Int get() = if (video == null) 0 else VIDEO_FPS * stepMs / 1000

    /** The inputs of the exported model, in order. */
    val names: List<String>
        get() = listOfNotNull(
            when (audio) {
                is LogMel -> "mel"
                Samples -> "samples"
                null -> null
            },
            if (video == null) null else "video",
            "presence",
        )

    /** The sides of input `name` for one utterance of `steps` steps. */
    fun shape(name: String, steps: Int): IntArray = when (name) {
        "mel" -> intArrayOf(1, audioFrames * steps, (audio as LogMel).mels)
        "samples" -> intArrayOf(1, audioFrames * steps)
        "video" -> (video?.crop ?: 0).let { intArrayOf(1, videoFrames * steps, it, it) }
        "presence" -> intArrayOf(1, steps, 2)
        else -> throw IllegalArgumentException(name)
    }
}

/** `features` of bundle.json; null after appending to `problems` all that is wrong. */
internal fun featuresFromJson(data: Any?, problems: MutableList<String>): Features? {
    val before = problems.size
    val fields = Fields.of(data, "", problems) ?: return null
    for ((key, value) in mapOf("sample_rate_hz" to SAMPLE_RATE_HZ, "video_fps" to VIDEO_FPS, "mouth" to MOUTH)) {
        if (!same(fields[key], value.toLong())) problems += "$key: ${Json.brief(fields[key])}, must be $value"
    }
    fields.expect("sample_rate_hz", "video_fps", "mouth", "step_ms", "audio", "video", quiet = 3)
    val stepMs = fields.whole("step_ms")
    val features = Features(stepMs, audioFromJson(fields["audio"], problems), mouthFromJson(fields["video"], problems))
    if (problems.size == before) problems += contradictions(features)
    return features.takeIf { problems.size == before }
}

private fun audioFromJson(data: Any?, problems: MutableList<String>): Audio? {
    if (data == null) return null
    val kind = (data as? Map<*, *>)?.get("kind")
    val fields = Fields.of(data, "audio.", problems) ?: return null
    if (kind == "samples") return Samples.also { fields.expect("kind") }
    if (kind == "log-mel") return logMelFromJson(fields, problems)
    problems += "audio.kind: ${Json.brief(kind)}, must be 'log-mel' or 'samples'"
    return null
}

private fun logMelFromJson(fields: Fields, problems: MutableList<String>): LogMel? {
    val before = problems.size
    fields.expect(
        "kind", "mels", "window", "hop", "n_fft", "window_function", "mel_scale", "mel_norm", "mel_corners",
        "low_hz", "high_hz", "pre_emphasis", "padding", "log_floor", "log_guard", "normalize",
    )
    val found = LogMel(
        mels = fields.whole("mels"),
        window = fields.whole("window"),
        hop = fields.whole("hop"),
        nFft = fields.whole("n_fft"),
        windowFunction = fields.choice("window_function", "hann-symmetric", "hann-periodic"),
        melScale = fields.choice("mel_scale", "slaney", "htk"),
        melNorm = fields.choice("mel_norm", "area", "none"),
        melCorners = fields.choice("mel_corners", "exact", "bins"),
        lowHz = fields.number("low_hz"),
        highHz = fields.number("high_hz"),
        preEmphasis = fields.number("pre_emphasis"),
        padding = fields.choice("padding", "zeros", "reflect"),
        logFloor = fields.number("log_floor"),
        logGuard = fields.choice("log_guard", "add", "clamp"),
        normalize = fields.choice("normalize", "per-band", "none"),
    )
    if (problems.size > before) return null
    demand(
        "audio.", problems,
        (minOf(found.mels, found.hop, found.window) < 1) to "mels, hop and window must be at least 1",
        (found.window > found.nFft) to "window: ${found.window} samples are more than n_fft ${found.nFft}",
        (found.preEmphasis !in 0.0..<1.0) to "pre_emphasis: ${found.preEmphasis} must be in 0..1",
        (found.logFloor <= 0) to "log_floor: ${found.logFloor} must be above 0",
        !(0 <= found.lowHz && found.lowHz < found.highHz && found.highHz <= SAMPLE_RATE_HZ / 2)
            to "low_hz < high_hz must be in 0..8000",
    )
    return found
}

private fun mouthFromJson(data: Any?, problems: MutableList<String>): Mouth? {
    if (data == null) return null
    val before = problems.size
    val fields = Fields.of(data, "video.", problems) ?: return null
    fields.expect("crop", "normalize", "mean", "deviation")
    val crop = fields.whole("crop")
    val normalize = fields.choice("normalize", "per-clip", "fixed")
    val found = Mouth(crop, normalize, fields.number("mean"), fields.number("deviation"))
    if (problems.size > before) return null
    demand(
        "video.", problems,
        (crop !in 1..MOUTH) to "crop: $crop must be in 1..$MOUTH",
        (found.deviation <= 0) to "deviation: ${found.deviation} must be above 0",
    )
    return found
}

private fun demand(where: String, problems: MutableList<String>, vararg checks: Pair<Boolean, String>) {
    val wrong = checks.filter { it.first }
    if (wrong.isNotEmpty()) problems += where + wrong.joinToString("; ") { it.second }
}

private fun contradictions(features: Features): List<String> {
    val hears = features.audio != null
    val sees = features.video != null
    val clock = features.stepMs
    val perStep = VIDEO_FPS * clock
    return listOf(
        (features.audioFrames > 0 && features.samplesPerStep % features.hop != 0)
            to "audio.hop: a step of $clock ms is no whole number",
        (!hears && !sees) to "audio and video are both null: nothing to recognize from",
        (hears && features.audioFrames < 1) to "step_ms: $clock is shorter than a frame of audio",
        (sees && (perStep % 1000 != 0 || clock < 1)) to "step_ms: $clock is no whole number of pictures",
    ).filter { it.first }.map { it.second }
}

/** The keys of one JSON object, each read with its type; what is wrong is said and a stand-in returned. */
internal class Fields(private val data: Map<*, *>, private val where: String, private val problems: MutableList<String>) {
    operator fun get(name: String): Any? = data[name]

    /** Says which of `names` are missing (but for the first `quiet`) and which keys are unknown. */
    fun expect(vararg names: String, quiet: Int = 0) {
        problems += names.drop(quiet).filter { it !in data }.map { "$where$it: missing" }
        problems += data.keys.filter { it !in names }.map { "$where$it: unknown key; allowed: ${names.joinToString()}" }
    }

    fun whole(name: String): Int {
        val value = data[name]
        if (value is Long && value in Int.MIN_VALUE..Int.MAX_VALUE) return value.toInt()
        if (name in data) problems += "$where$name: ${Json.brief(value)}, must be a whole number"
        return 0
    }

    fun number(name: String): Double {
        val value = data[name]
        if (value is Number) return value.toDouble()
        if (name in data) problems += "$where$name: ${Json.brief(value)}, must be a number"
        return 0.0
    }

    fun choice(name: String, vararg allowed: String): String {
        val value = data[name]
        if (value is String && value in allowed) return value
        if (name in data) problems += "$where$name: ${Json.brief(value)}, must be ${allowed.joinToString(" or ") { "'$it'" }}"
        return allowed[0]
    }

    companion object {
        fun of(data: Any?, where: String, problems: MutableList<String>): Fields? {
            if (data is Map<*, *>) return Fields(data, where, problems)
            problems += "${where.removeSuffix(".").ifEmpty { "features" }}: ${Json.brief(data)}, must be an object"
            return null
        }
    }
}

/** Equal as Python compares what it read from JSON: 25 is 25.0, and true is no number. */
internal fun same(one: Any?, other: Any?): Boolean = when {
    one is Number && other is Number -> one.toDouble() == other.toDouble()
    one is List<*> && other is List<*> -> one.size == other.size && one.indices.all { same(one[it], other[it]) }
    one is Map<*, *> && other is Map<*, *> -> one.keys == other.keys && one.keys.all { same(one[it], other[it]) }
    else -> one == other
}
