package edgeav.pipeline

import java.nio.ByteBuffer
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue

class PictureTest {
    /** Rows of 5 bytes for 3 pixels of every second byte; the last row is cut short, as Android's planes are. */
    private val plane = Plane(ByteBuffer.wrap(byteArrayOf(1, 0, 2, 0, 3, 0, 0, 4, 0, 5, 0, 6)), 7, 2)

    private fun upright(rotation: Int): Pair<List<Int>, List<Int>> {
        val picture = grayFromYuv(plane, 3, 2, rotation)
        return listOf(picture.width, picture.height) to picture.pixels.map { it.toInt() }
    }

    @Test
    fun `strides are stepped over and pictures set upright`() {
        assertEquals(listOf(3, 2) to listOf(1, 2, 3, 4, 5, 6), upright(0))
        assertEquals(listOf(2, 3) to listOf(4, 1, 5, 2, 6, 3), upright(90))
        assertEquals(listOf(3, 2) to listOf(6, 5, 4, 3, 2, 1), upright(180))
        assertEquals(listOf(2, 3) to listOf(3, 6, 2, 5, 1, 4), upright(270))
    }

    @Test
    fun `a picture too short for its size is an error`() {
        assertFailsWith<EdgeavError> { grayFromYuv(plane, 3, 3, 0) }
        assertFailsWith<EdgeavError> { grayFromYuv(plane, 3, 2, 45) }
    }

    @Test
    fun `any rate becomes 25 a second by the nearest picture`() {
        val seen = mutableListOf<Pair<Int, Int>>()
        val even = EvenPictures { frame, picture -> seen += frame to picture[0, 0] }
        for (i in 0 until 60) even.push(i / 30.0, picture(1, 1) { _, _ -> i })
        for ((frame, shown) in seen) assertTrue(Math.abs(shown / 30.0 - frame / 25.0) <= 1 / 60.0 + 1e-6)
        assertContentEquals(seen.indices.toList(), seen.map { it.first })
        even.push(0.5, picture(1, 1) { _, _ -> 99 })
        assertTrue(seen.none { it.second == 99 }, "a clock that runs back")
    }

    @Test
    fun `shrinking by a whole number is the mean of each block`() {
        val small = resizeArea(picture(8, 4) { x, y -> 10 * x + 40 * (y / 2) }, 4, 2)
        assertEquals(listOf(5, 25, 45, 65), (0..3).map { small[it, 0] })
        assertEquals(listOf(45, 65, 85, 105), (0..3).map { small[it, 1] })
    }

    @Test
    fun `a mouth is cut around its middle, the border repeated`() {
        val flat = cropMouth(picture(100, 100) { _, _ -> 77 }, 2.0, 98.0, 40.0)
        assertEquals(96 to 96, flat.width to flat.height)
        assertTrue(flat.pixels.all { it.toInt() == 77 })
        val half = squareAt(picture(10, 10) { x, _ -> 20 * x }, 4.5, 5.0, 1)
        assertEquals(90, half[0, 0])
    }

    @Test
    fun `a picture's time is put on the clock of sound, whichever clock the camera has`() {
        assertEquals(9_000, onMonotonicClock(9_000, 10_000, 5_000_010_000))
        assertEquals(9_000, onMonotonicClock(5_000_009_000, 10_000, 5_000_010_000))
        assertEquals(10_000, onMonotonicClock(77_000_000_000_000, 10_000, 5_000_010_000))
    }

    private class Tracked(finder: FaceFinder) {
        val out = mutableMapOf<Int, Gray?>()
        val tracker = MouthTracker(finder) { frame, mouth -> out[frame] = mouth }
    }

    private val scene = picture(200, 200) { x, y -> (x + y) % 256 }

    @Test
    fun `a face that stays is cut from its first picture on, none is black elsewhere`() {
        val run = Tracked { listOf(Face(100.0, 120.0, 40.0)) }
        for (frame in 0 until 30) run.tracker.push(frame, scene)
        assertEquals((0..23).toSet(), run.out.keys)
        run.tracker.flush()
        assertEquals((0..29).toSet(), run.out.keys)
        val right = cropMouth(scene, 100.0, 120.0, 40.0)
        for (mouth in run.out.values) assertContentEquals(right.pixels, assertNotNull(mouth).pixels)
    }

    @Test
    fun `a flash of a face is a false alarm, and no face is no mouth`() {
        var looks = 0
        val run = Tracked { if (looks++ in 3..4) listOf(Face(100.0, 120.0, 40.0)) else emptyList() }
        for (frame in 0 until 40) run.tracker.push(frame, scene)
        run.tracker.flush()
        assertEquals(40, run.out.size)
        assertTrue(run.out.values.all { it == null })
    }

    @Test
    fun `a lost face is held for half a second and then absent`() {
        var looks = 0
        val run = Tracked { if (looks++ < 10) listOf(Face(100.0, 120.0, 40.0)) else emptyList() }
        for (frame in 0 until 60) run.tracker.push(frame, scene)
        assertNotNull(run.out[27]) // the last sighting
        assertNotNull(run.out[27 + GAP - LAG])
        assertNull(run.out[27 + GAP + 1])
    }

    @Test
    fun `a face across the room is not followed`() {
        var looks = 0
        val run = Tracked { listOf(if (looks++ % 2 == 0) Face(100.0, 120.0, 40.0) else Face(30.0, 40.0, 41.0)) }
        for (frame in 0 until 30) run.tracker.push(frame, scene)
        val right = cropMouth(scene, 100.0, 120.0, 40.0)
        assertContentEquals(right.pixels, run.out[20]!!.pixels)
    }
}
