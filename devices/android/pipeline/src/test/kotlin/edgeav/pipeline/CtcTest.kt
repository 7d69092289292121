package edgeav.pipeline

import kotlin.test.Test
import kotlin.test.assertEquals

class CtcTest {
    private val bundle = readBundle(exampleFolder())

    private fun text(vararg best: Int, present: (Int) -> Boolean = { true }) =
        decode(logProbs(best.toList()), bundle, present).text

    @Test
    fun `repeats merge, blanks part, pieces join to words`() {
        assertEquals("ab cat", text(1, 1, 2, BLANK, 3, 3))
        assertEquals("abb", text(1, 2, BLANK, 2))
    }

    @Test
    fun `absent steps say nothing and part two equal labels`() = assertEquals("a a", text(1, 3, 1) { it != 1 })

    @Test
    fun `a lone word mark is no word`() = assertEquals("", text(4, BLANK))

    @Test
    fun `words have their times and the mean of their confidence`() {
        val word = decode(logProbs(listOf(BLANK, 1, 2, 2)), bundle).words.single()
        assertEquals(Word("ab", 0.08, 0.32, rounded(Math.exp(-0.1), 4)), word)
    }
}
