/** How input longer than a model takes at once is cut, as edgeav/runtime/windows.py does: where it is quiet. */
package edgeav.pipeline

import kotlin.math.max
import kotlin.math.min

const val WINDOW_S = 14.0 // seen at once, if the model takes as much
const val CONTEXT_S = 1.0 // seen but not used, on each side
const val SEARCH_S = 4.0 // in which the quietest place is looked for
const val PAUSE_S = 0.4 // a cut wants that much quiet around it

/** Steps [start, stop) go into the model; the outputs of [keepStart, keepStop) are used. */
data class Window(val start: Int, val stop: Int, val keepStart: Int, val keepStop: Int)

/** How a model's longest input is shared between what is kept and its surroundings, in steps. */
class WindowSizes(longest: Int, stepsPerSecond: Double) {
    private val window = min((WINDOW_S * stepsPerSecond).toInt(), longest)
    val context = min((CONTEXT_S * stepsPerSecond).toInt(), window / 3)
    val core = window - 2 * context
    private val search = max(1, min((SEARCH_S * stepsPerSecond).toInt(), core / 2))

    /** The quietest of the last steps that a kept part beginning at `from` may end at; of equals the latest. */
    fun quietestCut(from: Int, loudness: (Int) -> Float): Int {
        val latest = from + core
        return (latest downTo latest - search + 1).minBy(loudness)
    }
}

/** Windows of at most `longest` steps whose kept parts cover `steps` once, cut at the least `loudness`. */
fun planWindows(steps: Int, loudness: FloatArray, longest: Int, stepsPerSecond: Double): List<Window> {
    if (steps <= longest) return listOf(Window(0, steps, 0, steps))
    val sizes = WindowSizes(longest, stepsPerSecond)
    val cuts = mutableListOf(0)
    while (steps - cuts.last() > sizes.core) cuts += sizes.quietestCut(cuts.last()) { loudness[it] }
    cuts += steps
    return cuts.zipWithNext { a, b -> Window(max(0, a - sizes.context), min(steps, b + sizes.context), a, b) }
}

/** (S,) -> (steps,) mean power of the 0.4 s around each step; zeros without sound. */
fun loudness(waveform: FloatArray?, steps: Int, features: Features): FloatArray {
    val per = features.samplesPerStep
    val power = DoubleArray(steps) { step ->
        var sum = 0.0
        val wave = waveform ?: return@DoubleArray 0.0
        for (i in step * per until min((step + 1) * per, wave.size)) sum += wave[i].toDouble() * wave[i]
        sum / per
    }
    val pause = Math.rint(PAUSE_S * features.stepsPerSecond).toInt() // 5 steps of 80 ms
    return FloatArray(steps) { step ->
        val first = step - pause / 2 + (pause + 1) % 2 // numpy's "same" looks one further back where the width is even
        var sum = 0.0
        for (i in max(0, first) until min(steps, first + pause)) sum += power[i]
        (sum / pause).toFloat()
    }
}
