/** The live captions screen: what is said, what is missing, and how long the model takes. */
package edgeav.captions

import android.Manifest
import android.content.Intent
import android.content.pm.PackageManager
import android.net.Uri
import android.os.Bundle
import android.provider.Settings
import android.view.View
import android.widget.Button
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import androidx.lifecycle.ViewModelProvider

private val PERMISSIONS = arrayOf(Manifest.permission.CAMERA, Manifest.permission.RECORD_AUDIO)

class CaptionsActivity : ComponentActivity() {
    private lateinit var model: CaptionsModel
    private var asked = false
    private val asking = registerForActivityResult(ActivityResultContracts.RequestMultiplePermissions()) { use() }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.captions)
        asked = savedInstanceState?.getBoolean(ASKED) ?: false
        model = ViewModelProvider(this)[CaptionsModel::class.java]
        findViewById<Button>(R.id.allow).setOnClickListener { allow() }
        findViewById<Button>(R.id.benchmark).setOnClickListener { startActivity(Intent(this, BenchmarkActivity::class.java)) }
    }

    override fun onStart() {
        super.onStart()
        model.changed = ::show
        show()
        if (asked || PERMISSIONS.all(::may)) use() else ask()
    }

    override fun onStop() {
        super.onStop()
        model.changed = null
        model.whenOpened = null
        if (!isChangingConfigurations) model.pause()
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putBoolean(ASKED, asked)
    }

    private fun ask() {
        asked = true
        asking.launch(PERMISSIONS)
    }

    /** Android shows its question twice at most; after that only the settings can change the answer. */
    private fun allow() {
        if (PERMISSIONS.any(::shouldShowRequestPermissionRationale)) return ask()
        startActivity(Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS, Uri.fromParts("package", packageName, null)))
    }

    private fun use() {
        if (!model.opened) {
            model.whenOpened = ::use
            return
        }
        model.listen(may(Manifest.permission.RECORD_AUDIO))
        model.watch(this, findViewById<PreviewView>(R.id.preview), may(Manifest.permission.CAMERA))
        show()
    }

    private fun may(permission: String) =
        ContextCompat.checkSelfPermission(this, permission) == PackageManager.PERMISSION_GRANTED

    private fun show() {
        val missing = PERMISSIONS.filterNot(::may)
        findViewById<View>(R.id.allow).visibility = if (asked && missing.isNotEmpty()) View.VISIBLE else View.GONE
        findViewById<TextView>(R.id.status).text = status(missing.size == PERMISSIONS.size && asked)
        val lines = model.finals.toList().takeLast(3) + model.partial
        findViewById<TextView>(R.id.captions).text = lines.joinToString("\n")
    }

    private fun status(nothingAllowed: Boolean): String {
        val senses = model.senses
        model.problem?.let { return it }
        if (nothingAllowed) return getString(R.string.nothing_allowed)
        if (!model.opened) return getString(R.string.opening)
        if (senses.noSound != null && senses.noLips != null) return getString(R.string.nothing_works)
        val what =
            senses.noSound ?: senses.noLips ?: if (senses.faceSeen) R.string.listening else R.string.sound_alone_face
        val ms = model.timings
        if (ms.isEmpty()) return getString(what)
        return getString(R.string.timings, getString(what), ms["model"] ?: 0.0, ms["features"] ?: 0.0)
    }

    private companion object {
        const val ASKED = "asked"
    }
}
