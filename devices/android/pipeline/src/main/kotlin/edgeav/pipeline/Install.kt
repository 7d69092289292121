/**
 * The bundle inside the app -> a folder that an engine can open, verified.
 *
 * Engines open files, and what an app carries is not a file. A copy is made once per bundle, in a folder of its own that
 * gets its name only when every hash was right: a copy that was interrupted is never taken for a bundle.
 */
package edgeav.pipeline

import java.io.File
import java.io.FileNotFoundException
import java.io.InputStream

/** What the app carries. `list`: names in a folder, empty for a file. */
interface Assets {
    fun list(path: String): List<String>

    /** Throws FileNotFoundException. */
    fun open(path: String): InputStream
}

/** The bundle `path` of `assets`, unpacked below `place`. Throws EdgeavError where it is missing or its hashes are wrong. */
fun installBundle(assets: Assets, path: String, place: File): Bundle {
    val spec = try {
        assets.open("$path/$BUNDLE_FILE").use { it.readBytes() }
    } catch (error: FileNotFoundException) {
        throw EdgeavError("The app carries no model. Run devices/android/assets.sh BUNDLE and build it again.", error)
    }
    val folder = File(place, "bundle-${hex(spec)}")
    if (folder.isDirectory) readable(folder)?.let { return it }
    place.listFiles().orEmpty().filter { it.name.startsWith("bundle-") }.forEach { it.deleteRecursively() }
    val partial = File(place, "bundle-partial")
    copy(assets, path, partial)
    try {
        readBundle(partial)
    } catch (error: EdgeavError) {
        partial.deleteRecursively()
        throw EdgeavError("The model in the app is damaged: ${error.message}", error)
    }
    if (!partial.renameTo(folder)) throw EdgeavError("$partial cannot be renamed to $folder: is the storage full?")
    return readBundle(folder)
}

/** null: the copy was damaged since; the app's own is taken again. */
private fun readable(folder: File): Bundle? = try {
    readBundle(folder)
} catch (_: EdgeavError) {
    null
}

private fun copy(assets: Assets, path: String, to: File) {
    val inside = assets.list(path)
    if (inside.isEmpty()) {
        assets.open(path).use { from -> to.outputStream().use { from.copyTo(it) } }
    } else {
        to.mkdirs()
        inside.forEach { copy(assets, "$path/$it", File(to, it)) }
    }
}

private fun hex(bytes: ByteArray): String =
    java.security.MessageDigest.getInstance("SHA-256").digest(bytes).take(8).joinToString("") { "%02x".format(it) }
