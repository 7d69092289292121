/**
 * Live captions: sound and mouths as they come in, partial and final captions out.
 *
 * Holds what the segmenter may still ask for, and no more. One thread calls it; it never waits, and a slow engine only
 * makes partial captions rarer: a newer look replaces one that was not taken in time.
 */
package edgeav.pipeline

/** `startS` since the stream began. A partial caption replaces the partial one before it; so does a final one. */
data class Caption(
    val text: String,
    val words: List<Word>,
    val startS: Double,
    val endS: Double,
    val final: Boolean,
    val timingsMs: Map<String, Double>,
)

class Captioner(private val transcriber: Transcriber) {
    private val features = transcriber.bundle.features
    private val segmenter = Segmenter(features.stepsPerSecond, transcriber.bundle.steps.longest)
    private val mouths = ArrayDeque<Gray?>() // of the pictures from step `oldest` on
    private var samples = FloatArray(0) // from step `oldest` on, `kept` of them used
    private var kept = 0
    private var oldest = 0 // step
    private var pushed = 0 // steps that the segmenter knows
    private var hears = false
    private var sees = false

    val speaking: Boolean get() = segmenter.speaking

    /** 16 kHz, following what came before. A model that does not hear ignores it. */
    fun hear(more: FloatArray) {
        if (features.audio == null) return
        hears = true
        if (kept + more.size > samples.size) samples = samples.copyOf(maxOf(2 * samples.size, kept + more.size))
        more.copyInto(samples, kept)
        kept += more.size
        advance()
    }

    /** The mouth in picture `frame` (25 a second since the stream began), null without a face. Frames may be left out. */
    fun see(frame: Int, mouth: Gray?) {
        if (features.video == null) return
        sees = true
        val at = frame - oldest * features.videoFrames
        if (at < 0) return // too late: that time is past
        while (mouths.size <= at) mouths.addLast(null)
        mouths[at] = mouth
        advance()
    }

    /** Runs the model at most once; null where nothing is to be said yet. */
    fun next(): Caption? {
        while (true) {
            val span = segmenter.take() ?: return null
            caption(span)?.let { return it }
        }
    }

    /** The stream is over: every caption that is left, in order. */
    fun finish(): List<Caption> {
        while (pushed < maxOf(heard(), seen())) step()
        segmenter.finish()
        return generateSequence { next() }.toList()
    }

    private fun heard() = if (hears) oldest + kept / features.samplesPerStep else 0

    private fun seen() = if (sees) oldest + mouths.size / features.videoFrames else 0

    /** Steps whose sound and pictures are here. Pictures that stay away for half a second are not waited for. */
    private fun advance() {
        val ready = when {
            hears && sees -> minOf(heard(), maxOf(seen(), heard() - Math.rint(LATE_S * features.stepsPerSecond).toInt()))
            else -> maxOf(heard(), seen())
        }
        while (pushed < ready) step()
        forget()
    }

    private fun step() {
        val per = features.samplesPerStep
        val first = (pushed - oldest) * per
        val power = if (first + per > kept) null else (first until first + per).sumOf { samples[it].toDouble() * samples[it] } / per
        val frames = (pushed - oldest) * features.videoFrames until (pushed - oldest + 1) * features.videoFrames
        segmenter.push(power, !frames.isEmpty() && frames.all { mouths.getOrNull(it) != null })
        pushed++
    }

    private fun forget() {
        val drop = minOf(segmenter.needed, pushed) - oldest
        if (drop < FORGET_STEPS) return
        val first = minOf(drop * features.samplesPerStep, kept)
        samples.copyInto(samples, 0, first, kept)
        kept -= first
        repeat(minOf(drop * features.videoFrames, mouths.size)) { mouths.removeFirst() }
        oldest += drop
    }

    private fun caption(span: Span): Caption? {
        val (start, stop) = span.window.start - oldest to span.window.stop - oldest
        val per = features.samplesPerStep
        val sound = if (hears) samples.copyOfRange(minOf(start * per, kept), minOf(stop * per, kept)) else null
        val lips = if (sees) between(start * features.videoFrames, stop * features.videoFrames) else null
        val clip = transcriber.clip(sound, lips)
        if (clip.isEmpty) return null
        val window =
            Window(0, stop - start, span.window.keepStart - span.window.start, span.window.keepStop - span.window.start)
        val heard = transcriber.run(clip, window)
        val began = System.nanoTime()
        val decoded = decode(heard.logProbs, transcriber.bundle) { heard.present[it] }
        val timings = heard.timingsMs + ("ctc" to (System.nanoTime() - began) / 1e6)
        return said(span, decoded, timings)
    }

    private fun said(span: Span, decoded: Decoding, timingsMs: Map<String, Double>): Caption {
        val from = span.window.keepStart / features.stepsPerSecond
        val words =
            decoded.words.map { it.copy(startS = rounded(it.startS + from, 3), endS = rounded(it.endS + from, 3)) }
        return Caption(decoded.text, words, from, span.window.keepStop / features.stepsPerSecond, span.final, timingsMs)
    }

    private fun between(from: Int, until: Int): List<Gray?> =
        (minOf(from, mouths.size) until minOf(until, mouths.size)).map { mouths[it] }

    private companion object {
        const val LATE_S = 0.56 // more than the mouth tracker's lag
        const val FORGET_STEPS = 25 // forgetting moves what is kept: not for every step
    }
}
