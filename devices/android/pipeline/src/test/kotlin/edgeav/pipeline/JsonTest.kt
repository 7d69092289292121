package edgeav.pipeline

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class JsonTest {
    @Test
    fun `what is written is read again`() {
        val value =
            mapOf("a" to listOf(1L, 2.5, -3e-9, null, true), "ä\n\"\\" to mapOf("" to "▁x"), "none" to emptyList<Any>())
        assertEquals<Any?>(value, Json.parse(Json.write(value)))
    }

    @Test
    fun `whole numbers stay whole`() = assertEquals<Any?>(listOf(8L, 8.0, 80.0), Json.parse("[8, 8.0, 8e1]"))

    @Test
    fun `escapes are those of the standard`() =
        assertEquals<Any?>("a/\b\u000c\n\r\t▁\"", Json.parse("\"a\\/\\b\\f\\n\\r\\t\\u2581\\\"\""))

    @Test
    fun `what is not JSON is refused`() {
        val wrong = listOf(
            "", "{", "[1,]", "{\"a\":1,}", "{a:1}", "[1 2]", "01", "1.", "+1", "NaN", "Infinity", "'a'", "\"a", "\"\\x\"",
            "\"\\u12\"", "tru", "[1]]", "{\"a\":1,\"a\":2}", "\"\u0001\"", "99999999999999999999", "// no", "[".repeat(100),
        )
        for (text in wrong) assertFailsWith<EdgeavError>(text) { Json.parse(text) }
    }

    @Test
    fun `not a number cannot be written`() {
        assertFailsWith<EdgeavError> { Json.write(mapOf("x" to Double.NaN)) }
    }
}
