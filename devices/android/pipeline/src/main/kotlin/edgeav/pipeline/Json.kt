/**
 * JSON in and out, in the few lines that a bundle and a profile need: Android's org.json is not on a JVM, and it
 * forgives what must be an error here (comments, bare words, duplicate keys).
 *
 * Values are plain: Map (in order), List, String, Long, Double, Boolean, null. 8 and 8.0 stay different, as in Python.
 */
package edgeav.pipeline

private const val DEEPEST = 64

object Json {
    /** Throws EdgeavError with line and column for anything that RFC 8259 does not allow. */
    fun parse(text: String): Any? = Parser(text).document()

    /** One space a level, as Python's json.dumps(indent=1). Throws EdgeavError for NaN and infinity. */
    fun write(value: Any?): String = StringBuilder().also { put(it, value, 0) }.append('\n').toString()

    /** The value in one line, at most `longest` characters: for error messages. */
    fun brief(value: Any?, longest: Int = 80): String {
        val text = StringBuilder().also { put(it, value, -1) }.toString()
        return if (text.length <= longest) text else text.take(longest) + "…"
    }

    private fun put(out: StringBuilder, value: Any?, level: Int) {
        when (value) {
            null, is Boolean, is Int, is Long -> out.append(value)
            is Double -> out.append(finite(value))
            is Float -> out.append(finite(value.toDouble()))
            is String -> quote(out, value)
            is Map<*, *> -> items(out, "{}", value.entries, level) { (key, item) ->
                quote(out, key as String)
                out.append(": ")
                put(out, item, below(level))
            }
            is List<*> -> items(out, "[]", value, level) { put(out, it, below(level)) }
            else -> throw EdgeavError("JSON cannot hold a ${value::class.simpleName}")
        }
    }

    private fun below(level: Int) = if (level < 0) level else level + 1

    private fun <T> items(out: StringBuilder, brackets: String, all: Collection<T>, level: Int, one: (T) -> Unit) {
        val spread = level >= 0 && all.isNotEmpty()
        out.append(brackets[0])
        all.forEachIndexed { index, item ->
            if (index > 0) out.append(if (spread) "," else ", ")
            if (spread) out.append('\n').append(" ".repeat(level + 1))
            one(item)
        }
        if (spread) out.append('\n').append(" ".repeat(level))
        out.append(brackets[1])
    }

    private fun finite(value: Double): Double {
        if (!value.isFinite()) throw EdgeavError("JSON cannot hold $value")
        return value
    }

    private fun quote(out: StringBuilder, text: String) {
        out.append('"')
        for (char in text) {
            when {
                char == '"' || char == '\\' -> out.append('\\').append(char)
                char == '\n' -> out.append("\\n")
                char < ' ' -> out.append("\\u%04x".format(char.code))
                else -> out.append(char)
            }
        }
        out.append('"')
    }
}

private class Parser(private val text: String) {
    private var at = 0
    private var depth = 0

    fun document(): Any? {
        val value = value()
        blanks()
        if (at < text.length) fail("something follows the end")
        return value
    }

    private fun value(): Any? {
        blanks()
        return when (peek()) {
            '{' -> nested { map() }
            '[' -> nested { list() }
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> number()
        }
    }

    private fun <T> nested(read: () -> T): T {
        if (++depth > DEEPEST) fail("nested deeper than $DEEPEST")
        at++
        return read().also { depth-- }
    }

    private fun map(): Map<String, Any?> {
        val out = LinkedHashMap<String, Any?>()
        separated('}') {
            blanks()
            if (peek() != '"') fail("a key must be a string")
            val key = string()
            blanks()
            take(':')
            if (key in out) fail("the key \"$key\" stands twice")
            out[key] = value()
        }
        return out
    }

    private fun list(): List<Any?> = ArrayList<Any?>().also { out -> separated(']') { out.add(value()) } }

    private fun separated(end: Char, one: () -> Unit) {
        blanks()
        if (peek() == end) {
            at++
            return
        }
        while (true) {
            one()
            blanks()
            if (peek() == end) break
            take(',')
        }
        at++
    }

    private fun string(): String {
        val out = StringBuilder()
        at++
        while (peek() != '"') {
            val char = text[at++]
            if (char < ' ') fail("a control character in a string")
            out.append(if (char == '\\') escaped() else char)
        }
        at++
        return out.toString()
    }

    private fun escaped(): Char {
        val char = peek()
        at++
        return when (char) {
            '"', '\\', '/' -> char
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> {
                val digits = text.substring(at, minOf(at + 4, text.length))
                if (!HEX.matches(digits)) fail("\\u needs four hexadecimal digits")
                at += 4
                digits.toInt(16).toChar()
            }
            else -> fail("\\$char is no escape")
        }
    }

    private fun number(): Any {
        val found = NUMBER.find(text, at)?.takeIf { it.range.first == at }?.value ?: fail("no JSON value")
        at += found.length
        if (found.any { it in ".eE" }) return found.toDouble()
        return found.toLongOrNull() ?: fail("$found is too large")
    }

    private fun <T> word(word: String, value: T): T {
        if (!text.startsWith(word, at)) fail("no JSON value")
        at += word.length
        return value
    }

    private fun take(char: Char) {
        if (peek() != char) fail("expected '$char'")
        at++
    }

    private fun peek(): Char = if (at < text.length) text[at] else fail("the text ends too early")

    private fun blanks() {
        while (at < text.length && text[at] in " \t\r\n") at++
    }

    private fun fail(why: String): Nothing {
        val before = text.take(at)
        val line = before.count { it == '\n' } + 1
        throw EdgeavError("$why (line $line, column ${at - before.lastIndexOf('\n')})")
    }

    private companion object {
        val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
        val HEX = Regex("[0-9a-fA-F]{4}")
    }
}
