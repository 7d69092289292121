/**
 * Camera pictures: the luminance plane as an upright gray picture, 25 of them a second, made smaller.
 *
 * A YUV_420_888 picture of a camera has full-range luminance (0..255), which is what "gray" means everywhere else here.
 */
package edgeav.pipeline

import java.nio.ByteBuffer
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min

/** One plane of an image: rows are `rowStride` bytes apart, pixels `pixelStride`; the last row may be cut short. */
class Plane(val bytes: ByteBuffer, val rowStride: Int, val pixelStride: Int)

/** The Y plane -> upright gray picture; `rotation`: degrees clockwise that make it upright, as CameraX says it. */
fun grayFromYuv(y: Plane, width: Int, height: Int, rotation: Int): Gray {
    val needed = (height - 1) * y.rowStride + (width - 1) * y.pixelStride + 1
    if (y.bytes.limit() < needed) throw EdgeavError("a picture of ${width}x$height has ${y.bytes.limit()} bytes, not $needed")
    val upright = Math.floorMod(rotation, 360)
    val sideways = upright == 90 || upright == 270
    val out = ByteArray(width * height)
    val outWidth = if (sideways) height else width
    for (row in 0 until height) {
        for (column in 0 until width) {
            val at = when (upright) {
                0 -> row * outWidth + column
                90 -> column * outWidth + (height - 1 - row)
                180 -> (height - 1 - row) * outWidth + (width - 1 - column)
                270 -> (width - 1 - column) * outWidth + row
                else -> throw EdgeavError("a rotation of $rotation degrees is none of 0, 90, 180, 270")
            }
            out[at] = y.bytes.get(row * y.rowStride + column * y.pixelStride)
        }
    }
    return Gray(outWidth, if (sideways) width else height, out)
}

/** Pictures with their times -> at every 1/25 s the picture nearest to it, as edgeav/runtime/media.py does. */
class EvenPictures(private val emit: (Int, Gray) -> Unit) {
    private var tick = 0
    private var before: Pair<Double, Gray>? = null

    /** `seconds` since time 0; a clock that stands still or runs back is ignored. */
    fun push(seconds: Double, picture: Gray) {
        val last = before
        if (last != null && seconds <= last.first) return
        if (last == null) tick = max(0, Math.ceil(seconds * VIDEO_FPS - 0.5).toInt()) // nothing is known of the time before
        if (last != null) {
            val middle = (last.first + seconds) / 2
            while (tick / VIDEO_FPS.toDouble() < middle - 1e-6) emit(tick++, last.second)
        }
        before = seconds to picture
    }
}

/** OpenCV's INTER_AREA: the mean of the pixels under each new one; bilinear of its kind where the picture grows. */
fun resizeArea(picture: Gray, width: Int, height: Int): Gray {
    val across = areaWeights(picture.width, width)
    val down = areaWeights(picture.height, height)
    val rows = FloatArray(width * picture.height)
    for (y in 0 until picture.height) {
        for (x in 0 until width) {
            var sum = 0f
            val taps = across[x]
            for (i in taps.weights.indices) sum += taps.weights[i] * picture[taps.first + i, y]
            rows[y * width + x] = sum
        }
    }
    val out = ByteArray(width * height)
    for (y in 0 until height) {
        for (x in 0 until width) {
            var sum = 0f
            val taps = down[y]
            for (i in taps.weights.indices) sum += taps.weights[i] * rows[(taps.first + i) * width + x]
            out[y * width + x] = Math.rint(sum.toDouble()).toInt().coerceIn(0, 255).toByte()
        }
    }
    return Gray(width, height, out)
}

private class Taps(val first: Int, val weights: FloatArray)

private fun areaWeights(from: Int, to: Int): List<Taps> {
    val scale = from / to.toDouble()
    return List(to) { if (scale >= 1) covered(it * scale, min((it + 1) * scale, from.toDouble())) else between(it, scale, from) }
}

/** Each pixel by how much of it lies in [start, stop). */
private fun covered(start: Double, stop: Double): Taps {
    val first = floor(start + 1e-9).toInt()
    val last = max(first, Math.ceil(stop - 1e-9).toInt() - 1)
    val shares = FloatArray(last - first + 1) {
        val pixel = (first + it).toDouble()
        ((min(stop, pixel + 1) - max(start, pixel)) / (stop - start)).toFloat()
    }
    return Taps(first, shares)
}

/** The two pixels beside it; only the new pixels that lie across an old border are mixed. */
private fun between(index: Int, scale: Double, from: Int): Taps {
    val first = min(floor(index * scale).toInt(), from - 1)
    val share = (index + 1) - (first + 1) / scale
    if (share <= 0 || first + 1 >= from) return Taps(first, floatArrayOf(1f))
    return Taps(first, floatArrayOf((1 - (share - floor(share))).toFloat(), (share - floor(share)).toFloat()))
}

/** Bilinear, pixel centers aligned: what the face search's pyramid is made with. */
fun resizeLinear(picture: Gray, width: Int, height: Int): Gray {
    val across = linear(picture.width, width)
    val down = linear(picture.height, height)
    val out = ByteArray(width * height)
    for (y in 0 until height) {
        val (top, below) = down[y]
        val bottom = min(top + 1, picture.height - 1)
        for (x in 0 until width) {
            val (left, beside) = across[x]
            val right = min(left + 1, picture.width - 1)
            val upper = picture[left, top] * (1 - beside) + picture[right, top] * beside
            val lower = picture[left, bottom] * (1 - beside) + picture[right, bottom] * beside
            out[y * width + x] = floor(upper * (1 - below) + lower * below + 0.5).toInt().toByte()
        }
    }
    return Gray(width, height, out)
}

private fun linear(from: Int, to: Int): List<Pair<Int, Double>> = List(to) {
    val place = ((it + 0.5) * from / to - 0.5).coerceIn(0.0, from - 1.0)
    floor(place).toInt() to place - floor(place)
}

/**
 * A picture's timestamp on the clock that sound is stamped with. Cameras count either from boot, sleep included, or from
 * boot without it, and some something else; all in ns. What lies up to two seconds back on a clock is of that clock.
 */
fun onMonotonicClock(timestamp: Long, monotonicNow: Long, boottimeNow: Long): Long = when {
    monotonicNow - timestamp in 0..2_000_000_000L -> timestamp
    boottimeNow - timestamp in 0..2_000_000_000L -> timestamp - (boottimeNow - monotonicNow)
    else -> monotonicNow // unknown: when it arrived, a little late
}
