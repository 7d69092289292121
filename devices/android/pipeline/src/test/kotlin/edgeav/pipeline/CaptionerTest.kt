package edgeav.pipeline

import java.util.Random
import kotlin.math.PI
import kotlin.math.sin
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class CaptionerTest {
    private val bundle = readBundle(exampleFolder())
    private val engine = TellingEngine()
    private val captioner = Captioner(Transcriber(bundle, engine))
    private val random = Random(4)
    private val mouth = picture(96, 96) { x, y -> x xor y }

    private fun hiss(seconds: Double) =
        FloatArray((seconds * SAMPLE_RATE_HZ).toInt()) { (1e-3 * random.nextGaussian()).toFloat() }

    /** Feeds sound in chunks of 20 ms and takes a caption after each, as the app does. */
    private fun live(vararg parts: FloatArray): List<Caption> = parts.flatMap { part ->
        part.indices.step(320).mapNotNull {
            captioner.hear(part.copyOfRange(it, minOf(it + 320, part.size)))
            captioner.next()
        }
    }

    /** Three syllables a second over the hiss. */
    private fun speech(seconds: Double) = hiss(seconds).also { wave ->
        tone(seconds).forEachIndexed { i, value -> wave[i] += value * sin(PI * 3 * i / SAMPLE_RATE_HZ).toFloat() }
    }

    @Test
    fun `hiss says nothing`() {
        assertEquals(emptyList(), live(hiss(6.0)) + captioner.finish())
        assertTrue(engine.asked.isEmpty())
    }

    @Test
    fun `an utterance grows in partial captions and ends with one final caption`() {
        val captions = live(hiss(2.0), speech(2.4), hiss(1.5))
        assertEquals(listOf(true), captions.filter { it.final }.map { it.final })
        assertTrue(captions.last().final && captions.size >= 4)
        assertTrue(captions.dropLast(1).zipWithNext { a, b -> a.endS < b.endS && a.startS == b.startS }.all { it })
        assertEquals(2.0, captions.last().startS, 0.5)
        assertEquals(4.4, captions.last().endS, 0.5)
        assertEquals(emptyList(), captioner.finish())
    }

    @Test
    fun `two utterances never share a step`() {
        val finals = live(hiss(2.0), speech(1.5), hiss(1.2), speech(1.5), hiss(1.5)).filter { it.final }
        assertEquals(2, finals.size)
        assertTrue(finals[0].endS <= finals[1].startS)
    }

    @Test
    fun `a long talk is cut where it is quiet, and no model input is longer than allowed`() {
        val softer = speech(0.4).map { it / 10 }.toFloatArray()
        val all = live(hiss(2.0), speech(9.0), softer, speech(12.0), hiss(1.5)) + captioner.finish()
        val finals = all.filter { it.final }
        assertTrue(finals.size >= 2)
        for ((one, next) in finals.zipWithNext()) assertEquals(one.endS, next.startS)
        assertEquals(11.2, finals[0].endS, 0.35)
        assertTrue(engine.asked.all { it.steps <= bundle.steps.longest })
    }

    @Test
    fun `what is being said at the end is final`() {
        live(hiss(2.0), speech(1.0))
        assertEquals(listOf(true), captioner.finish().map { it.final })
    }

    @Test
    fun `lips alone are captioned while a face is seen`() {
        val captions = mutableListOf<Caption>()
        for (frame in 0 until 150) {
            captioner.see(frame, if (frame in 50..99) mouth else null)
            captioner.next()?.let { captions += it }
        }
        val last = (captions + captioner.finish()).last { it.final }
        assertTrue("cat" in last.text, last.text)
        assertEquals(2.0, last.startS, 0.5)
        assertEquals(4.0, last.endS, 0.6)
    }

    @Test
    fun `pictures that stop do not stop the captions`() {
        for (frame in 0 until 20) {
            captioner.hear(hiss(0.04))
            captioner.see(frame, mouth)
        }
        val finals = live(hiss(2.0), speech(2.0), hiss(2.0)).filter { it.final }
        assertEquals(1, finals.size)
    }

    @Test
    fun `pictures and sound of one time reach the model together`() {
        val sound = hiss(2.0) + speech(2.0) + hiss(1.5)
        val captions = mutableListOf<Caption>()
        for (frame in 0 until 25 * 5) {
            captioner.hear(sound.copyOfRange(frame * 640, (frame + 1) * 640))
            if (frame >= LAG) captioner.see(frame - LAG, if (frame - LAG in 60..80) mouth else null)
            captioner.next()?.let { captions += it }
        }
        val first = Math.rint(captions.last().startS * 12.5).toInt()
        val asked = engine.asked.last()
        val seen = (0 until asked.steps).filter { asked.presence.data[2 * it + 1] != 0f }.map { it + first }
        assertEquals((30..39).toList(), seen) // frames 60 to 79; 80 has its step half
    }

    @Test
    fun `an hour leaves no hour behind in memory`() {
        repeat(200) { live(hiss(1.0), speech(1.0)) }
        val held = Captioner::class.java.getDeclaredField("samples").also { it.isAccessible = true }.get(captioner) as FloatArray
        assertTrue(held.size < 60 * SAMPLE_RATE_HZ, "${held.size}")
    }

    @Test
    fun `a whole clip longer than the model takes is read in windows that cover it once`() {
        val windows = planWindows(1000, FloatArray(1000) { if (it % 40 == 20) 0f else 1f }, 200, 12.5)
        assertEquals((0 until 1000).toList(), windows.flatMap { it.keepStart until it.keepStop })
        assertTrue(windows.all { it.stop - it.start <= 200 && it.start <= it.keepStart && it.keepStop <= it.stop })
        assertTrue(windows.dropLast(1).all { it.keepStop % 40 == 20 })
    }

    @Test
    fun `neither sound nor a face is an error, not an empty transcript`() {
        val transcriber = Transcriber(bundle, engine)
        assertFailsWith<EdgeavError> { transcriber.transcribe(FloatArray(16_000), null) }
        assertFailsWith<EdgeavError> { transcriber.transcribe(null, List(25) { null }) }
        assertTrue("a" in transcriber.transcribe(tone(1.0), List(25) { null }).text)
    }
}
