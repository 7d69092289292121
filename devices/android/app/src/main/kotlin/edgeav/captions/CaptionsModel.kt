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
    val heard: Boolean = false,
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
    private var microphone: Microphone? = null

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

    /** Called on the main thread whenever one of the above changed. */
    var changed: (() -> Unit)? = null

    init {
        work { open() }
    }

    /** The screen is there. Hears if it may; a microphone that runs already goes on. */
    fun listen(mayHear: Boolean) {
        if (stream == null) {
            stream = Stream()
            work { captioner = transcriber?.let { Captioner(it) } }
        }
        if (!mayHear) return tell { senses = senses.copy(noSound = R.string.lips_alone_permission) }
        if (microphone != null) return
        tell { senses = senses.copy(noSound = null) }
        val broken = { tell { senses = senses.copy(noSound = R.string.lips_alone_microphone) } }
        microphone = Microphone(::heard) { broken() }.also { it.start() }
    }

    /** Sees if it may. After a rotation the camera is bound to the new screen; the stream of pictures goes on. */
    fun watch(owner: LifecycleOwner, view: PreviewView, maySee: Boolean) {
        if (!maySee) return tell { senses = senses.copy(noLips = R.string.sound_alone_permission) }
        tell { senses = senses.copy(noLips = null) }
        val broken = { tell { senses = senses.copy(noLips = R.string.sound_alone_camera) } }
        Camera(context, cameraWorker, ::saw).start(owner, view) { broken() }
    }

    /** The screen is gone, and not for a rotation: no sound is recorded unseen. */
    fun pause() {
        microphone?.stop()
        microphone = null
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
        transcriber = Transcriber(bundle, ready).also { captioner = Captioner(it) }
        tell { opened = true }
    }

    /** One run of microphone and camera, with its own time 0 and its own counts of pictures. */
    private inner class Stream {
        private var startNs = 0L
        private val tracker = finder?.let { MouthTracker(it, ::seen) }
        private val even = EvenPictures { frame, picture -> tracker?.push(frame, picture) }

        /** On the camera's thread. Sound gives the clock where there is any, the first picture where there is none. */
        fun saw(atNs: Long, picture: Gray) {
            val sound = microphone
            if (startNs == 0L) startNs = if (sound == null || senses.noSound != null) atNs else sound.startNs
            if (startNs == 0L || atNs < startNs) return
            even.push((atNs - startNs) / 1e9, picture)
            val sees = tracker?.sees == true
            if (sees != senses.faceSeen) tell { senses = senses.copy(faceSeen = sees) }
        }

        private fun seen(frame: Int, mouth: Gray?) {
            if (this === stream) work { captioner?.see(frame, mouth) }
        }
    }

    private fun saw(atNs: Long, picture: Gray) {
        if (finder == null) return
        val now = stream ?: return
        now.saw(atNs, picture)
    }

    private fun heard(samples: FloatArray) {
        if (!senses.heard) tell { senses = senses.copy(heard = true) }
        work { captioner?.hear(samples) }
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
