/**
 * What outlives a rotation: the opened model, the microphone, and what was said so far.
 *
 * Three threads: the microphone's and the camera's hand over samples and mouths, and `worker` alone touches the
 * captioner. Sound gives the clock; pictures are placed on it by their timestamps.
 */
package edgeav.captions

import android.app.Application
import android.content.Context
import android.os.Handler
import android.os.Looper
import androidx.camera.view.PreviewView
import androidx.lifecycle.AndroidViewModel
import androidx.lifecycle.LifecycleOwner
import edgeav.pipeline.Caption
import edgeav.pipeline.Captioner
import edgeav.pipeline.EdgeavError
import edgeav.pipeline.Engine
import edgeav.pipeline.EvenPictures
import edgeav.pipeline.FaceFinder
import edgeav.pipeline.Gray
import edgeav.pipeline.MouthTracker
import edgeav.pipeline.Transcriber
import java.util.concurrent.Executors
import java.util.concurrent.atomic.AtomicInteger

private const val LINES = 20 // final captions that are kept
private const val THREADS = 2 // the benchmark uses one, to compare; captions may have another

/** Which senses work; null: it does, or is not known not to. */
data class Senses(
    val faceSeen: Boolean = false,
    val noSound: Int? = null,
    val noLips: Int? = null,
)

class CaptionsModel(application: Application) : AndroidViewModel(application) {
    private val context: Context = application
    private val main = Handler(Looper.getMainLooper())
    private val worker = Executors.newSingleThreadExecutor()
    private val waiting = AtomicInteger()
    private val cameraWorker = Executors.newSingleThreadExecutor()
    private var engine: Engine? = null // this, the captioner and the transcriber: on `worker` only
    private var transcriber: Transcriber? = null
    private var captioner: Captioner? = null
    @Volatile private var finder: FaceFinder? = null
    @Volatile private var stream: Stream? = null

    // Of the main thread, for the screen.
    val finals = ArrayDeque<String>()
    var partial = ""
        private set
    var timings: Map<String, Double> = emptyMap()
        private set
    @Volatile var senses = Senses() // read by the camera's thread too
        private set
    var opened = false
        private set
    var problem: String? = null
        private set

    /** Called on the main thread whenever one of the above changed, and once the model is opened. */
    var changed: (() -> Unit)? = null
    var whenOpened: (() -> Unit)? = null

    init {
        work { open() }
    }

    /** The screen is there, and the model is opened. Hears if it may; a stream that runs already goes on. */
    fun listen(mayHear: Boolean) {
        tell { senses = senses.copy(noSound = if (mayHear) null else R.string.lips_alone_permission) }
        val now = stream
        if (now == null || (mayHear && !now.hears)) begin(mayHear)
    }

    /** Sees if it may. After a rotation the camera is bound to the new screen; the stream of pictures goes on. */
    fun watch(owner: LifecycleOwner, view: PreviewView, maySee: Boolean) {
        tell { senses = senses.copy(noLips = if (maySee) null else R.string.sound_alone_permission) }
        val broken = { tell { senses = senses.copy(noLips = R.string.sound_alone_camera) } }
        if (maySee) Camera(context, cameraWorker) { atNs, picture -> stream?.saw(atNs, picture) }.start(owner, view) { broken() }
    }

    /** The screen is gone, and not for a rotation: no sound is recorded unseen. */
    fun pause() {
        stream?.stop()
        stream = null
        work {
            captioner?.finish()?.forEach { caption -> tell { show(caption) } }
            captioner = null
        }
    }

    override fun onCleared() {
        pause()
        changed = null
        worker.execute { engine?.close() }
        worker.shutdown()
        cameraWorker.shutdown()
    }

    private fun open() {
        val bundle = carriedBundle(context)
        finder = carriedFaceFinder(context)
        val ready = Engines(bundle).open(bundle, THREADS)
        engine = ready
        transcriber = Transcriber(bundle, ready)
        tell {
            opened = true
            whenOpened?.invoke()
        }
    }

    /** A new stream and a captioner for it, in this order on the worker: a captioner's time 0 is its stream's. */
    private fun begin(hear: Boolean) {
        stream?.stop()
        work { captioner = transcriber?.let { Captioner(it) } }
        stream = Stream(hear).also { it.start() }
    }

    /** One run of microphone and camera, with its own time 0 and its own counts of pictures. */
    private inner class Stream(hear: Boolean) {
        private val microphone = if (hear) Microphone(::heard) { deaf() } else null
        private var startNs = 0L
        private val tracker by lazy { MouthTracker(finder!!, ::seen) } // opened by now
        private val even = EvenPictures { frame, picture -> tracker.push(frame, picture) }

        val hears: Boolean get() = microphone != null

        fun start() = microphone?.start()

        fun stop() = microphone?.stop()

        /** On the camera's thread. Sound gives the clock where there is any, the first picture where there is none. */
        fun saw(atNs: Long, picture: Gray) {
            if (startNs == 0L) startNs = if (microphone == null) atNs else microphone.startNs
            if (startNs == 0L || atNs < startNs) return
            even.push((atNs - startNs) / 1e9, picture)
            val sees = tracker.sees
            if (sees != senses.faceSeen) tell { senses = senses.copy(faceSeen = sees) }
        }

        private fun seen(frame: Int, mouth: Gray?) {
            if (this === stream) work { captioner?.see(frame, mouth) }
        }

        private fun heard(samples: FloatArray) {
            if (this === stream) work { captioner?.hear(samples) }
        }

        /** Captions wait for sound that was promised: without it they go on with a stream of lips alone. */
        private fun deaf() = tell {
            senses = senses.copy(noSound = R.string.lips_alone_microphone)
            if (this === stream) begin(hear = false)
        }
    }

    /** On the worker; when nothing else waits there, the model is asked for what is being said. */
    private fun work(task: () -> Unit) {
        waiting.incrementAndGet()
        worker.execute {
            try {
                task()
                if (waiting.decrementAndGet() == 0) captioner?.next()?.let { tell { show(it) } }
            } catch (error: EdgeavError) {
                captioner = null
                transcriber = null
                tell { problem = error.message }
            }
        }
    }

    private fun show(caption: Caption) {
        timings = caption.timingsMs
        partial = if (caption.final) "" else caption.text
        if (caption.final && caption.text.isNotEmpty()) finals.addLast(caption.text)
        while (finals.size > LINES) finals.removeFirst()
    }

    private fun tell(change: () -> Unit) {
        main.post {
            change()
            changed?.invoke()
        }
    }
}
