/** What the APK carries beside code, put there by assets.sh: the bundle, and the face cascade. */
package edgeav.captions

import android.content.Context
import edgeav.pipeline.Assets
import edgeav.pipeline.Bundle
import edgeav.pipeline.EdgeavError
import edgeav.pipeline.FaceFinder
import edgeav.pipeline.Haar
import edgeav.pipeline.HaarFaces
import edgeav.pipeline.installBundle
import java.io.FileNotFoundException

/** The verified bundle, unpacked. Throws EdgeavError where it is missing or damaged. Not for the main thread. */
fun carriedBundle(context: Context): Bundle {
    val assets = object : Assets {
        override fun list(path: String) = context.assets.list(path).orEmpty().toList()

        override fun open(path: String) = context.assets.open(path)
    }
    return installBundle(assets, "bundle", context.noBackupFilesDir)
}

/** OpenCV's frontal cascade, as `edgeav transcribe` uses it. */
fun carriedFaceFinder(context: Context): FaceFinder = try {
    context.assets.open("face.xml").use { HaarFaces(Haar.read(it)) }
} catch (error: FileNotFoundException) {
    throw EdgeavError("The app carries no face.xml. Run devices/android/assets.sh BUNDLE and build it again.", error)
}
