/**
 * Lets another program ask this module what it computes: java … edgeav.pipeline.ProbeKt REQUEST.json, answers to stdout.
 *
 * tests/test_android.py compares the answers with Python's, OpenCV's and the recorded golden vectors. A request is a
 * list of {"do": …}; an answer is {"error": …} where the module refused. Arrays travel as raw files, so nothing is rounded.
 */
package edgeav.pipeline

import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs

fun main(arguments: Array<String>) {
    val requests = Json.parse(File(arguments[0]).readText()) as List<*>
    print(Json.write(requests.map { answer(it as Map<*, *>) }))
}

private fun answer(ask: Map<*, *>): Any? = try {
    when (ask["do"]) {
        "read" -> readBundle(file(ask, "bundle")).let { mapOf("name" to it.name, "tokens" to it.tokens, "size_bytes" to it.sizeBytes) }
        "golden" -> readBundle(file(ask, "bundle")).let { bundle -> bundle.golden.map { golden(bundle, it) } }
        "inputs" -> inputs(ask)
        "faces" -> faces(ask)
        "crop" -> crop(ask)
        "track" -> track(ask)
        "even" -> even(ask)
        "windows" -> windows(ask)
        "transcribe" -> transcribe(ask)
        "profile" -> profile(ask)
        else -> throw EdgeavError("cannot do ${ask["do"]}")
    }
} catch (error: EdgeavError) {
    mapOf("error" to error.message)
}

/** How far the log-mel of the golden waveform is from the recorded one, and what the recorded answer says. */
private fun golden(bundle: Bundle, case: GoldenCase): Map<String, Any?> {
    val right = case.array("mel").data
    val mel = FrontEnd(bundle.features).hear(case.array("waveform").data)!!
    val presence = Inputs(mapOf("presence" to case.array("presence")))
    return mapOf(
        "name" to case.name,
        "mel_off" to mel.indices.maxOf { abs(mel[it] - right[it]) }.toDouble(),
        "mel_rest" to (mel.size until right.size).maxOfOrNull { abs(right[it]).toDouble() },
        "text" to decode(case.array("log_probs").data, bundle, presence::present).text,
    )
}

private fun inputs(ask: Map<*, *>): Any {
    val problems = mutableListOf<String>()
    val features = featuresFromJson(ask["features"], problems) ?: throw EdgeavError(problems.joinToString("\n"))
    val sound = ask["waveform"]?.let { floats(File(it as String)) }
    val clip = Clip(FrontEnd(features), sound, mouths(ask))
    val inputs = clip.inputs(0, clip.steps)
    inputs.arrays.forEach { (name, array) -> writeFloats(File(ask["out"] as String, "$name.f32"), array.data) }
    return inputs.arrays.mapValues { it.value.shape.toList() }
}

private fun faces(ask: Map<*, *>): Any {
    val cascade = Haar.read(file(ask, "cascade").inputStream())
    return cascade.detect(pictures(ask).single(), whole(ask, "smallest")).map { listOf(it.x, it.y, it.width, it.height) }
}

private fun windows(ask: Map<*, *>): Any {
    val planned = planWindows(whole(ask, "steps"), floats(file(ask, "loudness")), whole(ask, "longest"), 12.5)
    return planned.map { listOf(it.start, it.stop, it.keepStart, it.keepStop) }
}

private fun crop(ask: Map<*, *>): Any {
    val (x, y, eyes) = (ask["face"] as List<*>).map { (it as Number).toDouble() }
    File(ask["out"] as String).writeBytes(cropMouth(pictures(ask).single(), x, y, eyes).pixels)
    return true
}

private fun track(ask: Map<*, *>): Any {
    val found = sortedMapOf<Int, Gray?>()
    val tracker =
        MouthTracker(HaarFaces(Haar.read(file(ask, "cascade").inputStream()))) { frame, mouth -> found[frame] = mouth }
    pictures(ask).forEachIndexed { frame, picture -> tracker.push(frame, picture) }
    tracker.flush()
    File(ask["out"] as String).outputStream().use { out -> found.values.forEach { out.write(it?.pixels ?: ByteArray(MOUTH * MOUTH)) } }
    return found.values.map { it != null }
}

private fun even(ask: Map<*, *>): Any {
    val out = mutableListOf<Int>()
    val even = EvenPictures { _, picture -> out += picture.width }
    (ask["times"] as List<*>).forEachIndexed { i, time -> even.push((time as Number).toDouble(), Gray(i + 1, 1, ByteArray(i + 1))) }
    return out.map { it - 1 }
}

private fun transcribe(ask: Map<*, *>): Any {
    val bundle = readBundle(file(ask, "bundle"))
    PipeEngine(bundle, command(ask)).use { engine ->
        val transcriber = Transcriber(bundle, engine)
        return (ask["clips"] as List<*>).map { clip ->
            clip as Map<*, *>
            val sound = clip["waveform"]?.let { floats(File(it as String)) }
            val whole = transcriber.transcribe(sound, mouths(clip))
            val words = whole.words.map { listOf(it.word, it.startS, it.endS, it.confidence) }
            mapOf("text" to whole.text, "words" to words, "live" to live(transcriber, sound, mouths(clip)))
        }
    }
}

/** The same clip as a stream of 40 ms, a second of its own quietest 80 ms around it: the final captions. */
private fun live(transcriber: Transcriber, sound: FloatArray?, lips: List<Gray?>?): List<String> {
    val captioner = Captioner(transcriber)
    val said = mutableListOf<Caption>()
    val padded = sound?.let { quiet(it) + it + quiet(it) }
    val frames = maxOf((padded?.size ?: 0) / 640, (lips?.size ?: 0) + 50)
    for (frame in 0 until frames) {
        val (from, until) = listOf(frame, frame + 1).map { minOf(it * 640, padded?.size ?: 0) }
        if (padded != null) captioner.hear(padded.copyOfRange(from, until))
        if (lips != null) captioner.see(frame, lips.getOrNull(frame - VIDEO_FPS))
        captioner.next()?.let { said += it }
    }
    return (said + captioner.finish()).filter { it.final }.map { it.text }
}

/** A second of it: zeros would be a microphone switched off. */
private fun quiet(sound: FloatArray): FloatArray {
    val size = SAMPLE_RATE_HZ * 80 / 1000
    val starts = 0..sound.size - size step size
    val best = starts.minBy { start -> (start until start + size).sumOf { sound[it].toDouble() * sound[it] } }
    return FloatArray(SAMPLE_RATE_HZ) { sound[best + it % size] }
}

private fun profile(ask: Map<*, *>): Any {
    val opener = object : EngineOpener {
        override fun load() = Unit

        override fun open(bundle: Bundle, threads: Int) = PipeEngine(bundle, command(ask))
    }
    val place = Place("android-arm64", false, thisMachine("a JVM")) { System.nanoTime() }
    return measure(readBundle(file(ask, "bundle")), opener, place, Workload(seconds = 2.0, iterations = 3, warmup = 1))
}

/** A model behind a pipe: no ONNX Runtime for the JVM is to be had, but another process has one. */
private class PipeEngine(private val bundle: Bundle, command: List<String>) : Engine {
    override val name = bundle.engine
    override val version = "through a pipe"
    private val process = ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start()
    private val to = DataOutputStream(process.outputStream.buffered())
    private val from = DataInputStream(process.inputStream.buffered())

    override fun run(inputs: Inputs): Tensor {
        to.writeInt(inputs.steps)
        for (array in inputs.arrays.values) {
            val bytes = ByteBuffer.allocate(4 * array.data.size).order(ByteOrder.LITTLE_ENDIAN)
            bytes.asFloatBuffer().put(array.data)
            to.write(bytes.array())
        }
        to.flush()
        val bytes = ByteArray(4 * inputs.steps * bundle.labels).also { from.readFully(it) }
        val out = FloatArray(bytes.size / 4).also { ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(it) }
        return Tensor(intArrayOf(1, inputs.steps, bundle.labels), out)
    }

    override fun close() {
        to.close()
        process.waitFor()
    }
}

private fun file(ask: Map<*, *>, key: String) = File(ask[key] as String)

private fun whole(ask: Map<*, *>, key: String) = (ask[key] as Long).toInt()

private fun command(ask: Map<*, *>) = (ask["command"] as List<*>).map { it as String }

private fun floats(file: File): FloatArray {
    val buffer = ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    return FloatArray(buffer.remaining()).also { buffer.get(it) }
}

/** {"pictures": file of (T, H, W) bytes, "width", "height"} */
private fun pictures(ask: Map<*, *>): List<Gray> {
    val (width, height) = whole(ask, "width") to whole(ask, "height")
    val bytes = file(ask, "pictures").readBytes()
    return bytes.indices.step(width * height).map { Gray(width, height, bytes.copyOfRange(it, it + width * height)) }
}

/** {"mouth": file of (T, 96, 96) bytes, "present": [true, …]} -> pictures, null where absent; null without a file. */
private fun mouths(ask: Map<*, *>): List<Gray?>? {
    if (ask["mouth"] == null) return null
    val all = pictures(mapOf("pictures" to ask["mouth"], "width" to MOUTH.toLong(), "height" to MOUTH.toLong()))
    return all.mapIndexed { i, picture -> picture.takeIf { (ask["present"] as List<*>)[i] == true } }
}
