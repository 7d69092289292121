package edgeav.pipeline

import java.util.Random
import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.cos
import kotlin.math.ln
import kotlin.math.pow
import kotlin.math.sin
import kotlin.math.sqrt
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** Resampler, spectrum, log-mel, smoothing: against their formulas. */
class SignalTest {
    @Test
    fun `the power spectrum is the sum it stands for, at any length`() {
        val random = Random(1)
        for (length in listOf(8, 512, 400, 15)) {
            val frame = DoubleArray(length) { random.nextGaussian() }
            val power = FloatArray(length / 2 + 1).also { PowerSpectrum(length).of(frame, it) }
            for (bin in power.indices) {
                val re = frame.indices.sumOf { frame[it] * cos(2 * PI * bin * it / length) }
                val im = frame.indices.sumOf { frame[it] * sin(2 * PI * bin * it / length) }
                assertEquals(re * re + im * im, power[bin].toDouble(), 1e-4 * (1 + re * re + im * im))
            }
        }
    }

    @Test
    fun `silence is the logarithm of the floor`() {
        val mel = LogMelFrontEnd(LOG_MEL).logMel(FloatArray(1600))
        assertEquals(10 * 8, mel.size)
        assertTrue(mel.all { abs(it - ln(LOG_MEL.logFloor)) < 1e-5 })
    }

    @Test
    fun `a normalized band has mean 0 and deviation 1`() {
        val random = Random(2)
        val frontEnd = LogMelFrontEnd(LOG_MEL)
        val mel = frontEnd.normalize(frontEnd.logMel(FloatArray(16_000) { random.nextGaussian().toFloat() }))
        for (band in 0 until 8) {
            val column = (0 until 100).map { mel[it * 8 + band].toDouble() }
            val deviation = sqrt(column.sumOf { (it - column.average()).pow(2) } / 99)
            assertEquals(0.0, column.average(), 1e-5)
            assertEquals(1.0, deviation, 1e-4)
        }
    }

    @Test
    fun `reflection bounces as often as the padding needs`() =
        assertEquals(listOf(1, 0, 1, 2, 1, 0, 1, 2, 1), (-5..3).map { reflected(it, 3) })

    @Test
    fun `a tone keeps its shape at every rate`() {
        for (rate in listOf(8_000, 22_050, 44_100, 48_000)) {
            val out = resampled(tone(0.5, 1000.0, rate), rate, 1 shl 20)
            val right = tone(0.5, 1000.0)
            assertEquals(right.size.toDouble(), out.size.toDouble(), 1.0, "$rate")
            for (i in 1000 until 7000) assertEquals(right[i], out[i], 1e-3f, "$rate, sample $i")
        }
    }

    @Test
    fun `what 16 kHz cannot hold is gone, not folded down`() {
        val out = resampled(tone(0.5, 11_000.0, 48_000), 48_000, 480)
        assertTrue(out.slice(1000..7000).maxOf { abs(it) } < 1e-4)
    }

    @Test
    fun `chunks of any length give the same samples`() {
        val random = Random(3)
        val wave = FloatArray(9_000) { random.nextGaussian().toFloat() }
        for (rate in listOf(44_100, 48_000, 8_000)) {
            val whole = resampled(wave, rate, wave.size)
            for (piece in listOf(1, 7, 441)) assertEquals(whole.toList(), resampled(wave, rate, piece).toList(), "$rate by $piece")
        }
    }

    @Test
    fun `16 kHz passes as it is, and nonsense is refused`() {
        val wave = tone(0.1)
        assertEquals(wave.toList(), resampled(wave, SAMPLE_RATE_HZ, 100).toList())
        assertFailsWith<EdgeavError> { Resampler(0) }
    }

    private fun resampled(wave: FloatArray, rate: Int, piece: Int): FloatArray {
        val resampler = Resampler(rate)
        val parts = wave.indices.step(piece).map { resampler.push(wave.copyOfRange(it, minOf(it + piece, wave.size))) }
        return (parts + listOf(resampler.finish())).fold(FloatArray(0)) { all, part -> all + part }
    }

    @Test
    fun `percentiles lie between the values around them`() {
        val values = doubleArrayOf(4.0, 1.0, 3.0, 2.0)
        assertEquals(2.5, percentile(values, 50.0))
        assertEquals(3.7, percentile(values, 90.0), 1e-12)
        assertEquals(7.0, percentile(doubleArrayOf(7.0), 99.0))
    }

    @Test
    fun `smoothing keeps a line and drops an outlier`() {
        val line = DoubleArray(40) { it.toDouble() }
        val smoothed = smooth(line, 9)
        for (i in 8 until 32) assertEquals(line[i], smoothed[i], 1e-9)
        val spike = DoubleArray(40) { if (it == 20) 100.0 else 5.0 }
        assertTrue(smooth(spike, 9).all { abs(it - 5) < 1e-9 })
    }
}
