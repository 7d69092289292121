/**
 * The benchmark screen: the profile of the app's bundle on this phone, as JSON in the app's storage, and to share.
 *
 * From a computer: adb shell am start -n edgeav.captions/.BenchmarkActivity --ez run true, and when
 * files/profiles/<bundle>.json is there, adb pull it (docs/android.md).
 */
package edgeav.captions

import android.app.Application
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.os.Handler
import android.os.Looper
import android.os.Process
import android.widget.Button
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.core.content.FileProvider
import androidx.lifecycle.AndroidViewModel
import androidx.lifecycle.ViewModelProvider
import edgeav.pipeline.EdgeavError
import edgeav.pipeline.Json
import edgeav.pipeline.Place
import edgeav.pipeline.Workload
import edgeav.pipeline.measure
import edgeav.pipeline.thisMachine
import java.io.File
import kotlin.concurrent.thread

class BenchmarkActivity : ComponentActivity() {
    private lateinit var model: BenchmarkModel

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.benchmark)
        model = ViewModelProvider(this)[BenchmarkModel::class.java]
        findViewById<Button>(R.id.run).setOnClickListener { model.run() }
        findViewById<Button>(R.id.share).setOnClickListener { share() }
        if (savedInstanceState == null && intent.getBooleanExtra("run", false)) model.run()
    }

    override fun onStart() {
        super.onStart()
        model.changed = ::show
        show()
    }

    override fun onStop() {
        super.onStop()
        model.changed = null
    }

    private fun show() {
        if (model.text.isNotEmpty()) findViewById<TextView>(R.id.result).text = model.text
        findViewById<Button>(R.id.run).isEnabled = !model.running
        findViewById<Button>(R.id.share).isEnabled = model.written != null
    }

    private fun share() {
        val file = model.written ?: return
        val send = Intent(Intent.ACTION_SEND)
            .setType("application/json")
            .putExtra(Intent.EXTRA_STREAM, FileProvider.getUriForFile(this, "$packageName.profiles", file))
            .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
        startActivity(Intent.createChooser(send, getString(R.string.share)))
    }
}

/** Outlives a rotation: a measurement goes on. */
class BenchmarkModel(application: Application) : AndroidViewModel(application) {
    private val main = Handler(Looper.getMainLooper())
    var text = ""
        private set
    var running = false
        private set
    var written: File? = null
        private set
    var changed: (() -> Unit)? = null

    fun run() {
        if (running) return
        running = true
        written = null
        tell("…")
        thread(name = "benchmark", priority = Thread.MAX_PRIORITY) {
            try {
                profile()
            } catch (error: EdgeavError) {
                done(error.message ?: "failed", null)
            } catch (error: java.io.IOException) {
                done("The profile cannot be written: ${error.message}", null)
            }
        }
    }

    private fun profile() {
        val context = getApplication<Application>()
        val bundle = carriedBundle(context)
        val emulated = Build.HARDWARE in listOf("goldfish", "ranchu", "cutf_cvm") // the SDK's emulators and Cuttlefish
        val place = Place("android-arm64", emulated, thisMachine(phone())) { Process.getElapsedCpuTime() * 1_000_000L }
        val found = measure(bundle, Engines(bundle), place, Workload()) { tell(it) }
        val folder = File(context.getExternalFilesDir(null), "profiles").also { it.mkdirs() }
        val file = File(folder, "${bundle.name}.json")
        val partial = File(folder, "${bundle.name}.json.partial") // whoever waits for the file sees a whole one
        partial.writeText(Json.write(found))
        if (!partial.renameTo(file)) throw EdgeavError("$partial cannot be renamed: is the storage full?")
        done(summary(found, file), file)
    }

    private fun summary(profile: Map<String, Any?>, file: File): String {
        val wall = profile["wall_ms"] as Map<*, *>
        val memory = profile["peak_rss_mb"]
        return getApplication<Application>().getString(
            R.string.benchmark_done, "${profile["runtime"]}, ${profile["cpu"]}", wall["p50"], wall["p90"], wall["p99"],
            profile["rtf"], memory, file.path,
        )
    }

    private fun phone(): String {
        val chip = if (Build.VERSION.SDK_INT >= 31) "${Build.SOC_MANUFACTURER} ${Build.SOC_MODEL}" else Build.HARDWARE
        return "$chip (${Build.MANUFACTURER} ${Build.MODEL}, Android ${Build.VERSION.RELEASE})"
    }

    private fun done(what: String, file: File?) = main.post {
        running = false
        written = file
        text = what
        changed?.invoke()
    }

    private fun tell(what: String) = main.post {
        text = what
        changed?.invoke()
    }
}
