/**
 * Faces through time -> the 96x96 mouth crop the models were trained on, with the geometry of edgeav/runtime/mouth.py:
 * a square around the middle of the mouth, 1.75 eye distances wide, its path smoothed.
 *
 * A file is read twice there; a camera is not. So pictures wait LAG frames, and the path is smoothed over what is known
 * by then: the last two seconds and the next 0.24 s. A lost face is held for half a second, then absent.
 */
package edgeav.pipeline

import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.hypot
import kotlin.math.max
import kotlin.math.min
import kotlin.math.roundToInt

private const val SIDE = 1.75 // eye distances: width of the crop
const val STRIDE = 3 // frames: the face is searched every 120 ms and interpolated between
const val GAP = VIDEO_FPS / 2 // frames: a face lost for up to 0.48 s is waited for
private const val SIGHTINGS = 3 // a face seen less often is a false alarm
const val LAG = (SIGHTINGS - 1) * STRIDE // frames a picture waits: until its first frame's face is believed
private const val JUMP = 1.0 // eye distances: farther between two sightings is another face
private const val CENTER_SMOOTHING = 9 // frames
private const val SIZE_SMOOTHING = 51 // frames

/** Pixels of the picture searched: middle of the mouth, distance between the eyes. */
data class Face(val mouthX: Double, val mouthY: Double, val eyeDistance: Double)

/** Finds every face in a picture, in any order. The app may bring its own. */
fun interface FaceFinder {
    fun find(picture: Gray): List<Face>
}

/** Follows one face through pictures at 25 a second and hands out its mouth, LAG pictures later. Not for two threads. */
class MouthTracker(private val finder: FaceFinder, private val emit: (Int, Gray?) -> Unit) {
    private val waiting = ArrayDeque<Pair<Int, Gray>>()
    private val trail = ArrayDeque<Pair<Int, Face>>() // the believed face, or the one that may become it

    /** Whether a face is being followed now: for the screen. */
    val sees: Boolean get() = trail.size >= SIGHTINGS

    /** `frame` counts pictures at 25 a second; frames that were left out are absent. */
    fun push(frame: Int, picture: Gray) {
        if (frame % STRIDE == 0) look(frame, picture)
        waiting.addLast(frame to picture)
        while (waiting.first().first <= frame - LAG) waiting.removeFirst().let { (due, old) -> emit(due, cropAt(due, old)) }
    }

    /** The stream has ended: what still waits is cut with what is known. */
    fun flush() {
        while (waiting.isNotEmpty()) waiting.removeFirst().let { (due, old) -> emit(due, cropAt(due, old)) }
    }

    private fun look(frame: Int, picture: Gray) {
        val faces = finder.find(picture)
        val last = trail.lastOrNull()?.takeIf { frame - it.first <= GAP }
        if (last == null) trail.clear()
        val same = faces.filter { last == null || same(last.second, it) }
        val face =
            if (last == null) same.maxByOrNull { it.eyeDistance } else same.minByOrNull { distance(last.second, it) }
        if (face != null) trail.addLast(frame to face)
        while (trail.isNotEmpty() && trail.first().first < frame - SIZE_SMOOTHING - LAG) trail.removeFirst()
    }

    private fun cropAt(frame: Int, picture: Gray): Gray? {
        if (trail.size < SIGHTINGS || frame > trail.last().first + GAP || frame < trail.first().first - STRIDE) return null
        val first = trail.first().first
        val last = max(frame, trail.last().first)
        fun path(width: Int, of: (Face) -> Double): Double {
            val begin = max(first, frame - width)
            val known = DoubleArray(min(last, frame + width) - begin + 1) { interpolate((begin + it).toDouble(), of) }
            return smooth(known, width)[(frame - begin).coerceAtLeast(0)]
        }
        val size = path(SIZE_SMOOTHING) { it.eyeDistance }
        return cropMouth(picture, path(CENTER_SMOOTHING) { it.mouthX }, path(CENTER_SMOOTHING) { it.mouthY }, size)
    }

    /** Between two sightings straight, before the first and after the last as they were. */
    private fun interpolate(frame: Double, of: (Face) -> Double): Double {
        val after = trail.indexOfFirst { it.first >= frame }
        if (after == 0) return of(trail.first().second)
        if (after < 0) return of(trail.last().second)
        val (start, before) = trail[after - 1]
        val (stop, next) = trail[after]
        return of(before) + (of(next) - of(before)) * (frame - start) / (stop - start)
    }
}

private fun same(before: Face, now: Face): Boolean =
    distance(before, now) < JUMP * before.eyeDistance && now.eyeDistance / before.eyeDistance in 0.6..1.6

private fun distance(one: Face, other: Face): Double = hypot(one.mouthX - other.mouthX, one.mouthY - other.mouthY)

/** (T,) -> (T,): a median against outliers, a Hann window against steps, both `width` frames (odd), edges held. */
fun smooth(values: DoubleArray, width: Int): DoubleArray {
    val half = width / 2
    fun DoubleArray.held(i: Int) = this[i.coerceIn(0, size - 1)]
    val medians =
        DoubleArray(values.size) { i -> DoubleArray(width) { values.held(i + it - half) }.also { it.sort() }[half] }
    val window = DoubleArray(width) { 0.5 - 0.5 * cos(2 * PI * (it + 1) / (width + 1)) }
    val total = window.sum()
    return DoubleArray(values.size) { i -> (0 until width).sumOf { medians.held(i + it - half) * window[it] } / total }
}

/** The picture's mouth, 96x96. Cut at sub-pixel precision (whole pixels would tremble), then averaged. */
fun cropMouth(picture: Gray, centerX: Double, centerY: Double, eyeDistance: Double): Gray {
    val side = max(1, Math.rint(SIDE * eyeDistance).toInt())
    return resizeArea(squareAt(picture, centerX, centerY, side), MOUTH, MOUTH)
}

/** Bilinear, the border repeated, rounded: OpenCV's getRectSubPix. */
internal fun squareAt(picture: Gray, centerX: Double, centerY: Double, side: Int): Gray {
    val left = centerX - (side - 1) / 2.0
    val top = centerY - (side - 1) / 2.0
    val x0 = Math.floor(left).toInt()
    val y0 = Math.floor(top).toInt()
    val right = left - x0
    val down = top - y0
    fun at(x: Int, y: Int) = picture[x.coerceIn(0, picture.width - 1), y.coerceIn(0, picture.height - 1)]
    val out = ByteArray(side * side)
    for (y in 0 until side) {
        for (x in 0 until side) {
            val upper = at(x0 + x, y0 + y) * (1 - right) + at(x0 + x + 1, y0 + y) * right
            val lower = at(x0 + x, y0 + y + 1) * (1 - right) + at(x0 + x + 1, y0 + y + 1) * right
            out[y * side + x] = (upper * (1 - down) + lower * down).roundToInt().coerceIn(0, 255).toByte()
        }
    }
    return Gray(side, side, out)
}
