package edgeav.pipeline

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class BenchTest {
    private val bundle = readBundle(exampleFolder())

    /** Answers the golden vectors as recorded, off by `error`. */
    private inner class Replay(private val error: Float) : Engine {
        override val name = "replay"
        override val version = "1"
        var runs = 0

        override fun run(inputs: Inputs): Tensor {
            runs++
            val golden = bundle.golden.single().array("log_probs")
            val labels = bundle.labels
            if (inputs.steps != golden.shape[1]) return Tensor(intArrayOf(1, inputs.steps, labels), FloatArray(inputs.steps * labels))
            return Tensor(golden.shape, golden.data.also { it[0] += error })
        }

        override fun close() = Unit
    }

    private class Opener(private val engine: Engine) : EngineOpener {
        override fun load() = Unit

        override fun open(bundle: Bundle, threads: Int) = engine
    }

    private val place = Place("test", false, thisMachine("a phone")) { System.nanoTime() }

    @Test
    fun `the profile counts its runs and adds up`() {
        val engine = Replay(0f)
        val profile = measure(bundle, Opener(engine), place, Workload(seconds = 1.0, iterations = 7, warmup = 2))
        assertEquals(1 + 1 + 2 + 7, engine.runs)
        assertEquals(13, profile["steps"])
        assertEquals(mapOf("cases" to 1, "max_abs" to 0.0), profile["golden"])
        assertEquals((profile["wall_ms"] as Map<*, *>)["p50"] as Double / 1000, profile["rtf"] as Double, 1e-12)
    }

    @Test
    fun `a wrong answer is not timed`() {
        for (error in listOf(0.01f, Float.NaN)) {
            val engine = Replay(error)
            val message =
                assertFailsWith<EdgeavError> { measure(bundle, Opener(engine), place, Workload(1.0, 7, 2)) }.message!!
            assertTrue("'ab cat'" in message && "Nothing was timed" in message, message)
            assertEquals(2, engine.runs)
        }
    }

    @Test
    fun `a length that the model does not take is refused`() {
        assertFailsWith<EdgeavError> { measure(bundle, Opener(Replay(0f)), place, Workload(seconds = 60.0)) }
    }

    @Test
    fun `instruction sets are named as everywhere else`() =
        assertEquals(listOf("neon", "fp16", "dotprod"), isa("fp asimd evtstrm asimdhp asimddp"))
}
