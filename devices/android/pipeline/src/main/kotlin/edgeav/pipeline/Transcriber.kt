/** A whole clip in, words out: windows -> features -> engine -> CTC, as edgeav/runtime/transcriber.py. */
package edgeav.pipeline

private const val IMPOSSIBLE = -1e4f // log-probability of every label but blank where there was nothing to hear or see

/** A loaded model. The app brings ONNX Runtime and ExecuTorch; tests bring their own. */
interface Engine : AutoCloseable {
    val name: String
    val version: String

    /** -> log_probs (1, N, V). Throws EdgeavError where the runtime refuses. */
    fun run(inputs: Inputs): Tensor
}

data class Transcript(val text: String, val words: List<Word>, val notes: List<String>, val durationS: Double)

/** What the engine said of the kept steps of one window, with the milliseconds of its parts. */
class Heard(val logProbs: FloatArray, val present: BooleanArray, val timingsMs: Map<String, Double>)

class Transcriber(val bundle: Bundle, private val engine: Engine) {
    private val frontEnd = FrontEnd(bundle.features)

    /** (S,) samples in [-1, 1] at 16 kHz and 96x96 mouths at 25 fps (null: no face); either may be null. */
    fun transcribe(waveform: FloatArray?, mouth: List<Gray?>?): Transcript {
        val clip = clip(waveform, mouth)
        if (clip.isEmpty) throw EdgeavError("nothing to transcribe: neither sound nor a face")
        val steps = bundle.steps
        val windows =
            planWindows(clip.steps, loudness(clip.sound, clip.steps, bundle.features), steps.longest, steps.perSecond)
        val notes = mutableListOf<String>()
        if (windows.size > 1) notes += "read in ${windows.size} overlapping windows"
        val parts = windows.map { run(clip, it) }
        val logProbs = FloatArray(parts.sumOf { it.logProbs.size })
        parts.fold(0) { at, part -> part.logProbs.copyInto(logProbs, at).let { at + part.logProbs.size } }
        val present = parts.flatMap { it.present.asIterable() }
        val decoded = decode(logProbs, bundle) { present[it] }
        return Transcript(decoded.text, decoded.words, notes, clip.durationS)
    }

    fun clip(waveform: FloatArray?, mouth: List<Gray?>?) = Clip(frontEnd, waveform, mouth)

    fun run(clip: Clip, window: Window): Heard {
        val began = System.nanoTime()
        val inputs = clip.inputs(window.start, window.stop)
        val fed = System.nanoTime()
        val labels = bundle.labels
        val from = window.keepStart - window.start
        val until = window.keepStop - window.start
        val logProbs = if (inputs.anything) checked(engine.run(inputs), inputs.steps) else blanks(inputs.steps)
        val done = System.nanoTime()
        return Heard(
            logProbs.copyOfRange(from * labels, until * labels),
            BooleanArray(until - from) { inputs.present(from + it) },
            mapOf("features" to (fed - began) / 1e6, "model" to (done - fed) / 1e6),
        )
    }

    private fun checked(logProbs: Tensor, steps: Int): FloatArray {
        val wanted = intArrayOf(1, steps, bundle.labels)
        if (!logProbs.shape.contentEquals(wanted)) {
            throw EdgeavError("${engine.name} gave ${logProbs.shape.joinToString("x")}, not ${wanted.joinToString("x")}")
        }
        if (logProbs.data.any { it.isNaN() }) throw EdgeavError("${engine.name} ${engine.version} computed NaN")
        return logProbs.data
    }

    private fun blanks(steps: Int) =
        FloatArray(steps * bundle.labels) { if (it % bundle.labels == bundle.blank) 0f else IMPOSSIBLE }
}
