/** The microphone as 16 kHz samples with the time of the first one. */
package edgeav.captions

import android.annotation.SuppressLint
import android.media.AudioFormat
import android.media.AudioRecord
import android.media.AudioTimestamp
import android.media.MediaRecorder
import edgeav.pipeline.Resampler
import edgeav.pipeline.SAMPLE_RATE_HZ
import kotlin.concurrent.thread

private val RATES_HZ = intArrayOf(SAMPLE_RATE_HZ, 48_000, 44_100) // 44.1 kHz is what every device must have

/** `heard` gets the samples, `failed` a reason once; both on the microphone's own thread. */
class Microphone(private val heard: (FloatArray) -> Unit, private val failed: (String) -> Unit) {
    @Volatile private var running = false

    /** When the first sample was heard, System.nanoTime(); 0 until then. */
    @Volatile var startNs = 0L
        private set

    fun start() {
        running = true
        thread(name = "microphone") { record() }
    }

    /** Returns at once; the recording ends within a buffer's time. */
    fun stop() {
        running = false
    }

    private fun record() {
        val (recorder, rateHz) = open() ?: return failed("no recorder could be opened")
        try {
            recorder.startRecording()
            if (recorder.recordingState != AudioRecord.RECORDSTATE_RECORDING) return failed("in use by another app")
            read(recorder, rateHz)
        } catch (error: IllegalStateException) {
            failed(error.message ?: "the recorder stopped")
        } finally {
            recorder.release()
        }
    }

    private fun read(recorder: AudioRecord, rateHz: Int) {
        val resampler = Resampler(rateHz)
        val buffer = ShortArray(rateHz / 50) // 20 ms
        var total = 0L
        while (running) {
            val count = recorder.read(buffer, 0, buffer.size)
            if (count < 0) return failed("error $count while reading")
            total += count
            if (startNs == 0L && count > 0) startNs = firstSampleNs(recorder, total, rateHz)
            if (running && count > 0) heard(resampler.push(FloatArray(count) { buffer[it] / 32768f }))
        }
        recorder.stop()
    }

    private fun firstSampleNs(recorder: AudioRecord, total: Long, rateHz: Int): Long {
        val stamp = AudioTimestamp()
        if (recorder.getTimestamp(stamp, AudioTimestamp.TIMEBASE_MONOTONIC) == AudioRecord.SUCCESS) {
            return stamp.nanoTime - stamp.framePosition * 1_000_000_000L / rateHz
        }
        return System.nanoTime() - total * 1_000_000_000L / rateHz
    }

    /** Called with the permission only: CaptionsModel asks for it first. */
    @SuppressLint("MissingPermission")
    private fun open(): Pair<AudioRecord, Int>? {
        for (rateHz in RATES_HZ) {
            val least =
                AudioRecord.getMinBufferSize(rateHz, AudioFormat.CHANNEL_IN_MONO, AudioFormat.ENCODING_PCM_16BIT)
            if (least <= 0) continue
            val recorder = try {
                AudioRecord(
                    MediaRecorder.AudioSource.VOICE_RECOGNITION, rateHz, AudioFormat.CHANNEL_IN_MONO,
                    AudioFormat.ENCODING_PCM_16BIT, maxOf(least, rateHz), // half a second
                )
            } catch (_: IllegalArgumentException) {
                continue
            }
            if (recorder.state == AudioRecord.STATE_INITIALIZED) return recorder to rateHz
            recorder.release()
        }
        return null
    }
}
