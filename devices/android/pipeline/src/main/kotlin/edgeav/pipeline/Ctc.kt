/**
 * Greedy CTC decoding as edgeav/runtime/ctc.py: the best output of every step, repeats merged, blanks dropped.
 *
 * Connectionist Temporal Classification: Graves et al. 2006, https://dl.acm.org/doi/10.1145/1143844.1143891.
 */
package edgeav.pipeline

import java.math.BigDecimal
import java.math.RoundingMode
import kotlin.math.exp

const val WORD_START = "▁" // SentencePiece marks with it the piece that begins a word

/** `confidence` in 0..1 is the geometric mean of the probabilities of the word's pieces. */
data class Word(val word: String, val startS: Double, val endS: Double, val confidence: Double)

data class Decoding(val text: String, val words: List<Word>)

private class Piece(val text: String, val start: Int, val end: Int, val logProb: Float)

/** (N, V) log-probabilities in rows; `present(step)`: whether there was anything to hear or see in it. */
fun decode(logProbs: FloatArray, bundle: Bundle, present: (Int) -> Boolean = { true }): Decoding {
    val labels = bundle.labels
    val best = IntArray(logProbs.size / labels) { step ->
        if (present(step)) argmax(logProbs, step * labels, labels) else bundle.blank
    }
    val words =
        byWord(pieces(best, logProbs, bundle)).map { word(it, bundle.steps.perSecond) }.filter { it.word.isNotEmpty() }
    return Decoding(words.joinToString(" ") { it.word }, words)
}

private fun argmax(values: FloatArray, from: Int, count: Int): Int {
    var best = 0
    for (i in 1 until count) if (values[from + i] > values[from + best]) best = i
    return best
}

private fun pieces(best: IntArray, logProbs: FloatArray, bundle: Bundle): List<Piece> {
    val out = mutableListOf<Piece>()
    var start = 0
    while (start < best.size) {
        val label = best[start]
        var end = start + 1
        while (end < best.size && best[end] == label) end++
        if (label != bundle.blank) {
            out += Piece(bundle.tokens[label], start, end, (start until end).maxOf { logProbs[it * bundle.labels + label] })
        }
        start = end
    }
    return out
}

private fun byWord(pieces: List<Piece>): List<List<Piece>> {
    val words = mutableListOf<MutableList<Piece>>()
    for (piece in pieces) {
        if (words.isEmpty() || piece.text.startsWith(WORD_START)) words += mutableListOf<Piece>()
        words.last() += piece
    }
    return words
}

private fun word(pieces: List<Piece>, stepsPerSecond: Double) = Word(
    word = pieces.joinToString("") { it.text }.replace(WORD_START, ""),
    startS = rounded(pieces.first().start / stepsPerSecond, 3),
    endS = rounded(pieces.last().end / stepsPerSecond, 3),
    confidence = rounded(exp(pieces.sumOf { it.logProb.toDouble() } / pieces.size), 4),
)

/** As Python's round(): of the exact binary value, half to even. */
internal fun rounded(value: Double, digits: Int): Double =
    if (!value.isFinite()) value else BigDecimal(value).setScale(digits, RoundingMode.HALF_EVEN).toDouble()
