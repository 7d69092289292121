/**
 * Sound of any rate -> 16 kHz, as it comes: a windowed sinc (Smith, https://ccrma.stanford.edu/~jos/resample/), its
 * values made once for every phase that the two rates meet in. Chunks of any length give the same samples.
 */
package edgeav.pipeline

import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.min
import kotlin.math.sin
import kotlin.math.sqrt

private const val CROSSINGS = 24 // zero crossings of the sinc on each side
private const val PASS = 0.94 // of the lower Nyquist rate: what is above is faded out
private const val KAISER_BETA = 9.0 // 90 dB

class Resampler(rateHz: Int) {
    private val up: Int
    private val down: Int
    private val reach: Int // input samples on each side
    private val phases: Array<FloatArray>
    private var pending = FloatArray(0) // input not yet done with; its first sample has number `offset`
    private var offset: Long
    private var total = 0L
    private var next = 0L // number of the next output sample

    init {
        if (rateHz !in 4_000..768_000) throw EdgeavError("a sample rate of $rateHz Hz is not supported")
        val divisor = greatestDivisor(rateHz, SAMPLE_RATE_HZ)
        up = SAMPLE_RATE_HZ / divisor
        down = rateHz / divisor
        val cutoff = PASS * min(1.0, up / down.toDouble()) // 1: the input's own Nyquist rate
        reach = ceil(CROSSINGS / cutoff).toInt()
        phases = Array(if (up == down) 0 else up) { phase -> taps(phase / up.toDouble(), cutoff) }
        offset = -reach.toLong()
        pending = FloatArray(reach)
    }

    /** The next samples in, what can be said of the output by now out. */
    fun push(samples: FloatArray): FloatArray {
        if (phases.isEmpty()) return samples
        total += samples.size
        return drain(samples)
    }

    /** The rest, with silence after the end; as many samples in all as the input was long. */
    fun finish(): FloatArray {
        if (phases.isEmpty()) return FloatArray(0)
        val rest = drain(FloatArray(2 * reach + 1))
        val surplus = next - Math.floorDiv(total * up + down - 1, down.toLong())
        return rest.copyOf((rest.size - surplus).toInt().coerceIn(0, rest.size))
    }

    private fun drain(samples: FloatArray): FloatArray {
        pending += samples
        val ready = offset + pending.size - reach // outputs before this input sample can be computed
        val count = maxOf(0L, Math.floorDiv((ready - 1) * up, down.toLong()) + 1 - next).toInt()
        val out = FloatArray(count) { value(next + it) }
        next += count
        val done = (Math.floorDiv(next * down, up.toLong()) - reach + 1 - offset).toInt().coerceIn(0, pending.size)
        pending = pending.copyOfRange(done, pending.size)
        offset += done
        return out
    }

    private fun value(index: Long): Float {
        val at = Math.floorDiv(index * down, up.toLong())
        val taps = phases[Math.floorMod(index * down, up.toLong()).toInt()]
        val first = (at - reach + 1 - offset).toInt()
        var sum = 0.0
        for (i in taps.indices) sum += taps[i].toDouble() * pending[first + i]
        return sum.toFloat()
    }

    /** Weights of the 2 * reach samples around an output that lies `fraction` behind a sample; they add up to 1. */
    private fun taps(fraction: Double, cutoff: Double): FloatArray {
        val weights = DoubleArray(2 * reach) { i ->
            val distance = i - reach + 1 - fraction
            val edge = min(1.0, abs(distance) / reach)
            sinc(cutoff * distance) * bessel(KAISER_BETA * sqrt(1 - edge * edge))
        }
        val sum = weights.sum()
        return FloatArray(weights.size) { (weights[it] / sum).toFloat() }
    }
}

private fun sinc(x: Double) = if (abs(x) < 1e-12) 1.0 else sin(PI * x) / (PI * x)

/** I0, the modified Bessel function of order zero, by its series. */
private fun bessel(x: Double): Double {
    var term = 1.0
    var sum = 1.0
    for (k in 1..40) {
        term *= (x / 2 / k) * (x / 2 / k)
        sum += term
    }
    return sum
}

private tailrec fun greatestDivisor(a: Int, b: Int): Int = if (b == 0) a else greatestDivisor(b, a % b)
