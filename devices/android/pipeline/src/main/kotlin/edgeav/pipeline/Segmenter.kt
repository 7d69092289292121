/**
 * When a caption begins, is worth another look, and is final: a stream of steps (80 ms) -> windows to recognize.
 *
 * The models take whole utterances, so a stream is cut at pauses. Sound above the quietest of the last five seconds is
 * speech; without sound a face is. While somebody speaks the utterance so far is recognized again and again (partial
 * captions); after a pause, or where it is quietest once the model's longest input is near, it is final.
 */
package edgeav.pipeline

private const val LEAD_S = 0.4 // before the first loud step belongs to the utterance
private const val END_S = 0.64 // of quiet ends an utterance
private const val TAIL_S = 0.32 // of that quiet still belongs to it
private const val PARTIAL_S = 0.64 // between two looks at an unfinished utterance
private const val NOISE_S = 5.0 // in which the quietest place is the noise
private const val LOUDER = 4.0 // 6 dB above the noise is speech
private const val QUIET = 1e-7 // power, -70 dB of full scale: below it nobody speaks

/** A window of the stream to recognize; `final`: it will not be shown again. */
data class Span(val window: Window, val final: Boolean)

class Segmenter(private val stepsPerSecond: Double, longest: Int) {
    private val sizes = WindowSizes(longest, stepsPerSecond)
    private val powers = ArrayDeque<Float>() // of the steps from `oldest` on; NaN without sound
    private var oldest = 0
    private var steps = 0
    private var recent = 0 // active steps in a row
    private var start = -1 // of the utterance; -1: nobody speaks
    private var context = 0 // first step that the model may see
    private var free = 0 // first step that no final caption has
    private var lastActive = 0
    private var lastLook = 0
    private val finals = ArrayDeque<Span>()
    private var partial: Span? = null

    val speaking: Boolean get() = start >= 0

    /** The first step that may still be asked for. */
    val needed: Int get() =
        minOf(finals.firstOrNull()?.window?.start ?: steps, if (speaking) context else steps - inSteps(LEAD_S) - 2)

    /** One more step: its mean power (null: no sound came) and whether a face was seen. */
    fun push(power: Double?, seen: Boolean) {
        powers.addLast(power?.toFloat() ?: Float.NaN)
        val spare = minOf(needed - inSteps(PAUSE_S), oldest + powers.size - inSteps(NOISE_S)) - oldest
        repeat(maxOf(0, spare)) { powers.removeFirst() }
        oldest += maxOf(0, spare)
        val now = steps++
        val silent = power == null || power == 0.0 // a microphone switched off gives zeros
        val active = if (silent) seen else power > maxOf(QUIET, LOUDER * noise())
        recent = if (active) recent + 1 else 0
        if (active) lastActive = now
        if (!speaking && recent >= 2) begin(now)
        if (speaking) judge()
    }

    /** What to recognize next: finals in order, then the newest look at what is being said. null: nothing new. */
    fun take(): Span? = finals.removeFirstOrNull() ?: partial.also { partial = null }

    /** The stream is over: what was being said is final. */
    fun finish() {
        if (speaking) end(steps)
    }

    private fun begin(now: Int) {
        start = maxOf(free, now - 1 - inSteps(LEAD_S), 0)
        context = start
        lastLook = start
    }

    private fun judge() {
        if (steps - 1 - lastActive >= inSteps(END_S)) return end(minOf(steps, lastActive + 1 + inSteps(TAIL_S)))
        if (steps - start >= sizes.core + sizes.context) cut(sizes.quietestCut(start) { around(it) })
        if (steps - lastLook >= inSteps(PARTIAL_S)) {
            lastLook = steps
            partial = Span(Window(context, steps, start, steps), final = false)
        }
    }

    private fun cut(at: Int) {
        finals.addLast(Span(Window(context, minOf(steps, at + sizes.context), start, at), final = true))
        partial = null
        context = maxOf(0, at - sizes.context)
        start = at
        free = at
    }

    private fun end(at: Int) {
        if (at - context >= MIN_STEPS) finals.addLast(Span(Window(context, at, start, at), final = true))
        partial = null
        free = at
        start = -1
        recent = 0
    }

    /** The quietest step of the last five seconds; what was heard first is taken for noise. */
    private fun noise(): Double {
        var least = Double.POSITIVE_INFINITY
        for (i in maxOf(0, powers.size - inSteps(NOISE_S)) until powers.size) {
            if (powers[i] < least) least = powers[i].toDouble() // false for NaN
        }
        return least
    }

    /** Mean power of the 0.4 s around a step. */
    private fun around(step: Int): Float {
        val reach = inSteps(PAUSE_S) / 2
        var sum = 0f
        for (i in step - reach..step + reach) sum += powers.getOrElse(i - oldest) { 0f }.let { if (it.isNaN()) 0f else it }
        return sum
    }

    private fun inSteps(seconds: Double): Int = Math.rint(seconds * stepsPerSecond).toInt()
}
