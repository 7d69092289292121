/**
 * Faces by a cascade of boosted trees over rectangle sums: Viola & Jones 2001, https://doi.org/10.1109/CVPR.2001.990517.
 *
 * Why our own: `edgeav transcribe` finds faces with OpenCV's frontal cascade, and what leads from that cascade's box to
 * the mouth was measured for it. The same cascade file evaluated by the same rules gives the same boxes on a phone,
 * without OpenCV's 20 MB and without Google Play services; and it runs, tested against OpenCV, on any JVM.
 */
package edgeav.pipeline

import java.io.InputStream
import javax.xml.parsers.DocumentBuilderFactory
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt
import org.w3c.dom.Element

private const val SCALE_STEP = 1.1
private const val MIN_NEIGHBORS = 5
private const val SIMILAR = 0.2
private const val THRESHOLD_EPSILON = 1e-5

data class Box(val x: Int, val y: Int, val width: Int, val height: Int)

/** A cascade of OpenCV's "opencv-cascade-classifier" format with upright Haar features, such as frontalface_alt2. */
class Haar private constructor(private val side: Int, private val stages: List<Stage>) {
    private class Stage(val threshold: Double, val trees: List<Tree>)

    /** Nodes in fours: left, right, feature, threshold; a child of 0 or less is the leaf of that number, negated. */
    private class Tree(val nodes: DoubleArray, val leaves: DoubleArray, val features: List<DoubleArray>)

    /** What detectMultiScale(scaleFactor=1.1, minNeighbors=5) finds, windows of at least `smallest` pixels. */
    fun detect(picture: Gray, smallest: Int): List<Box> {
        val found = mutableListOf<Box>()
        var scale = 1.0
        while (Math.rint(side * scale) <= min(picture.width, picture.height)) {
            if (Math.rint(side * scale) >= smallest) found += windows(picture, scale.toFloat())
            scale *= SCALE_STEP
        }
        return group(found)
    }

    private fun windows(picture: Gray, scale: Float): List<Box> {
        val width = Math.rint((picture.width / scale).toDouble()).toInt()
        val height = Math.rint((picture.height / scale).toDouble()).toInt()
        val sums = Sums(resizeLinear(picture, width, height))
        val window = Math.rint((side * scale).toDouble()).toInt()
        val stride = if (scale >= 2) 1 else 2
        val found = mutableListOf<Box>()
        for (y in 0 until height - side step stride) {
            var x = 0
            while (x < width - side) {
                val passed = passed(sums, x, y)
                if (passed == stages.size) found += Box(rint(x * scale), rint(y * scale), window, window)
                x += if (passed == 0) 2 * stride else stride // refused at once: so is its neighbour, mostly
            }
        }
        return found
    }

    /** How many stages take the window for a face; -1 for a window without contrast. */
    private fun passed(sums: Sums, x: Int, y: Int): Int {
        val inner = side - 2
        val area = (inner * inner).toDouble()
        val sum = sums.of(x + 1, y + 1, inner, inner).toDouble()
        val deviation = sqrt(max(0.0, area * sums.squaresOf(x + 1, y + 1, inner, inner) - sum * sum))
        if (deviation <= 0 || area / deviation >= 0.1) return -1
        stages.forEachIndexed { index, stage ->
            var votes = 0.0
            for (tree in stage.trees) votes += vote(tree, sums, x, y, 1 / deviation)
            if (votes < stage.threshold) return index
        }
        return stages.size
    }

    private fun vote(tree: Tree, sums: Sums, x: Int, y: Int, scale: Double): Double {
        var node = 0
        do {
            var value = 0.0
            val rects = tree.features[node]
            for (at in rects.indices step 5) {
                val sum = sums.of(x + rects[at].toInt(), y + rects[at + 1].toInt(), rects[at + 2].toInt(), rects[at + 3].toInt())
                value += sum * rects[at + 4]
            }
            node = tree.nodes[4 * node + if (value * scale < tree.nodes[4 * node + 3]) 0 else 1].toInt()
        } while (node > 0)
        return tree.leaves[-node]
    }

    companion object {
        /** Throws EdgeavError for a file of another kind. */
        fun read(xml: InputStream): Haar {
            val root = DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(xml).documentElement
            val cascade = root.child("cascade")
            if (cascade?.child("featureType")?.text() != "HAAR") throw EdgeavError("not a Haar cascade of OpenCV's present format")
            val features = cascade.child("features")!!.children().map(::rectangles)
            val stages = cascade.child("stages")!!.children().map { stage ->
                val trees = stage.child("weakClassifiers")!!.children().map { tree(it, features) }
                Stage(stage.child("stageThreshold")!!.text().toDouble() - THRESHOLD_EPSILON, trees)
            }
            return Haar(cascade.child("width")!!.text().toInt(), stages)
        }

        private fun rectangles(feature: Element): DoubleArray {
            if (feature.child("tilted")?.text() == "1") throw EdgeavError("a cascade with tilted features is not supported")
            return feature.child("rects")!!.children().flatMap { it.numbers().asIterable() }.toDoubleArray()
        }

        private fun tree(weak: Element, features: List<DoubleArray>): Tree {
            val nodes = weak.child("internalNodes")!!.numbers()
            val used = (2 until nodes.size step 4).map { features[nodes[it].toInt()] }
            return Tree(nodes, weak.child("leafValues")!!.numbers(), used)
        }
    }
}

/** Faces by a cascade; proportions as in edgeav/runtime/face.py, measured for haarcascade_frontalface_alt2. */
class HaarFaces(private val cascade: Haar) : FaceFinder {
    override fun find(picture: Gray): List<Face> {
        val scale = min(1.0, SHORT_SIDE / min(picture.width, picture.height).toDouble())
        val small = if (scale == 1.0) picture else resizeArea(picture, rint(picture.width * scale), rint(picture.height * scale))
        return cascade.detect(small, SHORT_SIDE / 4).map {
            Face((it.x + MOUTH_X * it.width) / scale, (it.y + MOUTH_Y * it.height) / scale, EYE_DISTANCE * it.width / scale)
        }
    }

    private companion object {
        const val SHORT_SIDE = 288 // pixels: larger pictures are shrunk to this before the search
        const val MOUTH_X = 0.5 // these three in box widths
        const val MOUTH_Y = 0.76
        const val EYE_DISTANCE = 0.355
    }
}

/** Sums over any rectangle in four look-ups. */
private class Sums(picture: Gray) {
    private val columns = picture.width + 1
    private val sums = IntArray(columns * (picture.height + 1))
    private val squares = LongArray(sums.size)

    init {
        for (y in 0 until picture.height) {
            for (x in 0 until picture.width) {
                val at = (y + 1) * columns + x + 1
                val value = picture[x, y]
                sums[at] = value + sums[at - 1] + sums[at - columns] - sums[at - columns - 1]
                squares[at] = value * value + squares[at - 1] + squares[at - columns] - squares[at - columns - 1]
            }
        }
    }

    fun of(x: Int, y: Int, width: Int, height: Int): Int {
        val top = y * columns + x
        val bottom = top + height * columns
        return sums[bottom + width] - sums[bottom] - sums[top + width] + sums[top]
    }

    fun squaresOf(x: Int, y: Int, width: Int, height: Int): Long {
        val top = y * columns + x
        val bottom = top + height * columns
        return squares[bottom + width] - squares[bottom] - squares[top + width] + squares[top]
    }
}

/** Alike boxes become their mean; groups of five or fewer, and small ones inside larger ones, are dropped. */
private fun group(boxes: List<Box>): List<Box> {
    val label = IntArray(boxes.size) { it }
    for (i in boxes.indices) for (j in 0 until i) {
        if (alike(boxes[i], boxes[j])) label.indices.filter { label[it] == label[i] }.forEach { label[it] = label[j] }
    }
    val groups = boxes.indices.groupBy { label[it] }.values.filter { it.size > MIN_NEIGHBORS }
    val means = groups.map { members ->
        fun mean(of: (Box) -> Int) = rint(members.sumOf { of(boxes[it]) } * (1f / members.size))
        Box(mean { it.x }, mean { it.y }, mean { it.width }, mean { it.height }) to members.size
    }
    fun hidden(box: Box, n: Int) = means.any { (other, m) -> other !== box && m > max(3, n) && inside(box, other) }
    return means.filterNot { (box, n) -> hidden(box, n) }.map { it.first }
}

private fun alike(one: Box, other: Box): Boolean {
    val near = SIMILAR * (min(one.width, other.width) + min(one.height, other.height)) * 0.5
    fun close(a: Int, b: Int) = kotlin.math.abs(a - b) <= near
    return close(one.x, other.x) && close(one.y, other.y) &&
        close(one.x + one.width, other.x + other.width) && close(one.y + one.height, other.y + other.height)
}

private fun inside(box: Box, other: Box): Boolean {
    val dx = rint(other.width * SIMILAR)
    val dy = rint(other.height * SIMILAR)
    return box.x >= other.x - dx && box.y >= other.y - dy &&
        box.x + box.width <= other.x + other.width + dx && box.y + box.height <= other.y + other.height + dy
}

private fun rint(value: Number): Int = Math.rint(value.toDouble()).toInt()

private fun Element.children(): List<Element> =
    (0 until childNodes.length).mapNotNull { childNodes.item(it) as? Element }

private fun Element.child(name: String): Element? = children().firstOrNull { it.tagName == name }

private fun Element.text(): String = textContent.trim()

private fun Element.numbers(): DoubleArray = text().split(Regex("\\s+")).map { it.toDouble() }.toDoubleArray()
