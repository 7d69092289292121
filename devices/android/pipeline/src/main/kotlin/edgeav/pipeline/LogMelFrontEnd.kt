/**
 * Log-mel energies as edgeav/runtime/log_mel.py computes them, in double precision, from the bundle's settings.
 *
 * Window, filters and power are rounded to float32 where Python rounds them: the two agree to about 1e-6.
 */
package edgeav.pipeline

import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.exp
import kotlin.math.floor
import kotlin.math.ln
import kotlin.math.log10
import kotlin.math.max
import kotlin.math.min
import kotlin.math.pow
import kotlin.math.sin
import kotlin.math.sqrt

private const val NORMALIZE_EPSILON = 1e-5

/** One model's front end; its tables are made once. Not for two threads at a time. */
class LogMelFrontEnd(private val settings: LogMel) {
    private val window = hann()
    private val spectrum = PowerSpectrum(settings.nFft)
    private val filters = Array(settings.mels) { FloatArray(0) }
    private val firstBin = IntArray(settings.mels)

    init {
        melFilters(settings).forEachIndexed { band, weights ->
            val used = weights.indices.filter { weights[it] > 0 }
            firstBin[band] = used.firstOrNull() ?: 0
            if (used.isNotEmpty()) filters[band] = weights.copyOfRange(used.first(), used.last() + 1)
        }
    }

    /** (S,) samples in [-1, 1] at 16 kHz -> (S / hop * mels) energies, not yet normalized. */
    fun logMel(waveform: FloatArray): FloatArray {
        val rows = waveform.size / settings.hop
        val padded = padded(waveform)
        val frame = DoubleArray(settings.nFft)
        val power = FloatArray(settings.nFft / 2 + 1)
        val out = FloatArray(rows * settings.mels)
        for (row in 0 until rows) {
            for (i in frame.indices) frame[i] = padded[row * settings.hop + i] * window[i]
            spectrum.of(frame, power)
            for (band in 0 until settings.mels) out[row * settings.mels + band] = logEnergy(band, power)
        }
        return out
    }

    /** In place, (T * mels): mean 0 and deviation 1 in every band over the utterance (ddof 1), if asked. */
    fun normalize(mel: FloatArray): FloatArray {
        val rows = mel.size / settings.mels
        if (settings.normalize == "none") return mel
        if (rows < 2) return mel.also { it.fill(0f) }
        for (band in 0 until settings.mels) {
            var sum = 0.0
            for (row in 0 until rows) sum += mel[row * settings.mels + band]
            val mean = sum / rows
            var squares = 0.0
            for (row in 0 until rows) squares += (mel[row * settings.mels + band] - mean).pow(2)
            val scale = sqrt(squares / (rows - 1)) + NORMALIZE_EPSILON
            for (row in 0 until rows) {
                val at = row * settings.mels + band
                mel[at] = ((mel[at] - mean) / scale).toFloat()
            }
        }
        return mel
    }

    private fun logEnergy(band: Int, power: FloatArray): Float {
        var energy = 0.0
        val weights = filters[band]
        for (i in weights.indices) energy += power[firstBin[band] + i].toDouble() * weights[i]
        val floor = settings.logFloor.toFloat()
        val guarded = if (settings.logGuard == "add") energy.toFloat() + floor else max(energy.toFloat(), floor)
        return ln(guarded.toDouble()).toFloat()
    }

    /** Pre-emphasized, with n_fft / 2 samples on both sides. */
    private fun padded(waveform: FloatArray): DoubleArray {
        val side = settings.nFft / 2
        val length = waveform.size
        fun emphasized(i: Int): Double =
            if (i == 0) waveform[0].toDouble() else waveform[i] - settings.preEmphasis * waveform[i - 1]
        return DoubleArray(length + 2 * side) { at ->
            val i = at - side
            when {
                i in 0 until length -> emphasized(i)
                settings.padding == "reflect" -> emphasized(reflected(i, length))
                else -> 0.0
            }
        }
    }

    /** Hann with zeros on both sides, as torch.stft centers a window shorter than the transform. */
    private fun hann(): FloatArray {
        val points = settings.window + if (settings.windowFunction == "hann-periodic") 1 else 0
        val left = (settings.nFft - settings.window) / 2
        val out = FloatArray(settings.nFft)
        for (i in 0 until settings.window) {
            out[left + i] = if (points == 1) 1f else (0.5 - 0.5 * cos(2 * PI * i / (points - 1))).toFloat()
        }
        return out
    }
}

/** The index that numpy's "reflect" reads for `index` outside 0 until length; it bounces as often as needed. */
internal fun reflected(index: Int, length: Int): Int {
    if (length == 1) return 0
    val period = 2 * (length - 1)
    val folded = Math.floorMod(index, period)
    return if (folded < length) folded else period - folded
}

/** (mels, n_fft / 2 + 1) triangles on the mel scale, each of unit area or of unit height. */
internal fun melFilters(settings: LogMel): Array<FloatArray> {
    val toMel: (Double) -> Double = if (settings.melScale == "htk") ::htkMel else ::slaneyMel
    val toHz: (Double) -> Double = if (settings.melScale == "htk") ::htkHz else ::slaneyHz
    val low = toMel(settings.lowHz)
    val step = (toMel(settings.highHz) - low) / (settings.mels + 1)
    val edgesHz = DoubleArray(settings.mels + 2) { toHz(low + it * step) }
    return Array(settings.mels) { band ->
        val (lower, tip, upper) = corners(edgesHz, band, settings)
        val area = if (settings.melNorm == "area") 2 / (edgesHz[band + 2] - edgesHz[band]) else 1.0
        FloatArray(settings.nFft / 2 + 1) { bin ->
            (max(0.0, min((bin - lower) / (tip - lower), (upper - bin) / (upper - tip))) * area).toFloat()
        }
    }
}

/** Lower corner, tip and upper corner of a triangle in bins of the transform. */
private fun corners(edgesHz: DoubleArray, band: Int, settings: LogMel): Triple<Double, Double, Double> {
    if (settings.melCorners == "exact") {
        val bins = settings.nFft / SAMPLE_RATE_HZ.toDouble()
        return Triple(edgesHz[band] * bins, edgesHz[band + 1] * bins, edgesHz[band + 2] * bins)
    }
    val bins = { hz: Double -> floor(hz * (settings.nFft + 1) / SAMPLE_RATE_HZ) }
    val lower = bins(edgesHz[band])
    val tip = max(bins(edgesHz[band + 1]), lower + 1)
    return Triple(lower, tip, max(bins(edgesHz[band + 2]), tip + 1))
}

// Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above.
private const val HZ_PER_MEL = 200.0 / 3
private const val BREAK_HZ = 1000.0
private const val BREAK_MEL = BREAK_HZ / HZ_PER_MEL
private val LOG_STEP = ln(6.4) / 27

private fun slaneyMel(hz: Double) = if (hz < BREAK_HZ) hz / HZ_PER_MEL else BREAK_MEL + ln(hz / BREAK_HZ) / LOG_STEP

private fun slaneyHz(mel: Double) =
    if (mel < BREAK_MEL) mel * HZ_PER_MEL else BREAK_HZ * exp(LOG_STEP * (mel - BREAK_MEL))

private fun htkMel(hz: Double) = 2595 * log10(1 + hz / 700)

private fun htkHz(mel: Double) = 700 * (10.0.pow(mel / 2595) - 1)

/** |FFT|² of real frames: by halves where the length is a power of two, by the sum itself where it is not. */
internal class PowerSpectrum(private val length: Int) {
    private val halves = length and (length - 1) == 0
    private val cosines = DoubleArray(length) { cos(2 * PI * it / length) }
    private val sines = DoubleArray(length) { sin(2 * PI * it / length) }
    private val real = DoubleArray(length)
    private val imaginary = DoubleArray(length)

    /** (length,) -> power (length / 2 + 1,) */
    fun of(frame: DoubleArray, power: FloatArray) {
        if (halves) transform(frame)
        for (bin in power.indices) {
            if (!halves) sum(frame, bin)
            power[bin] = (real[bin] * real[bin] + imaginary[bin] * imaginary[bin]).toFloat()
        }
    }

    private fun sum(frame: DoubleArray, bin: Int) {
        var re = 0.0
        var im = 0.0
        var turn = 0
        for (value in frame) {
            re += value * cosines[turn]
            im -= value * sines[turn]
            turn = (turn + bin) % length
        }
        real[bin] = re
        imaginary[bin] = im
    }

    /** Cooley & Tukey 1965, in place, decimation in time. */
    private fun transform(frame: DoubleArray) {
        val bits = Integer.numberOfTrailingZeros(length)
        for (i in 0 until length) {
            real[if (bits == 0) 0 else Integer.reverse(i) ushr (32 - bits)] = frame[i]
        }
        imaginary.fill(0.0)
        var span = 1
        while (span < length) {
            val stride = length / (2 * span)
            for (start in 0 until length step 2 * span) {
                for (k in 0 until span) butterfly(start + k, start + k + span, k * stride)
            }
            span *= 2
        }
    }

    private fun butterfly(one: Int, other: Int, turn: Int) {
        val re = real[other] * cosines[turn] + imaginary[other] * sines[turn]
        val im = imaginary[other] * cosines[turn] - real[other] * sines[turn]
        real[other] = real[one] - re
        imaginary[other] = imaginary[one] - im
        real[one] += re
        imaginary[one] += im
    }
}
