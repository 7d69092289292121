package edgeav.pipeline

import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class BundleTest {
    private fun refusal(change: (MutableMap<String, Any?>) -> Unit) =
        assertFailsWith<EdgeavError> { readBundle(exampleFolder(change)) }.message!!

    @Test
    fun `a good bundle is read with its clock, features and golden vectors`() {
        val bundle = readBundle(exampleFolder())
        assertEquals(Steps(12.5, 8, 2, 2, 200), bundle.steps)
        assertEquals(FEATURES, bundle.features)
        assertEquals(TOKENS.size + 1, bundle.labels)
        assertEquals(File(bundle.folder, "model.onnx").length(), bundle.sizeBytes)
        assertEquals("ab cat", bundle.golden.single().transcript)
    }

    @Test
    fun `a changed file is named with both hashes`() {
        val folder = exampleFolder()
        File(folder, "model.onnx").appendText("!")
        val message = assertFailsWith<EdgeavError> { readBundle(folder) }.message!!
        assertTrue("model.onnx: changed or truncated" in message && sha256(File(folder, "model.onnx")) in message, message)
    }

    @Test
    fun `a missing file is named`() {
        val folder = exampleFolder()
        File(folder, "golden/x.mel.f32").delete()
        assertTrue("golden/x.mel.f32: missing" in assertFailsWith<EdgeavError> { readBundle(folder) }.message!!)
    }

    @Test
    fun `everything wrong is said at once`() {
        val message = refusal {
            it["engine"] = "tflite"
            it["blank"] = 99L
            it["steps"] =
                mapOf("per_second" to 10.0, "audio_frames" to 8, "video_frames" to 2, "min" to 2, "max" to 200)
            it["features"] = (it["features"] as Map<*, *>) + mapOf("step_ms" to "80", "surprise" to 1)
        }
        for (part in listOf("engine:", "blank:", "features.step_ms:", "features.surprise:")) assertTrue(part in message, message)
    }

    @Test
    fun `missing, unknown and mistyped keys are said at once`() {
        val message = refusal {
            it.remove("golden")
            it["extra"] = 1
            it["tokens"] = "a b"
        }
        for (part in listOf("golden: missing", "extra: unknown", "tokens: a string")) assertTrue(part in message, message)
    }

    @Test
    fun `a file outside the folder is refused before it is read`() {
        val message =
            refusal { it["files"] = (it["files"] as Map<*, *>) + ("../secret" to mapOf("sha256" to "0", "bytes" to 1)) }
        assertTrue("../secret points outside" in message, message)
    }

    @Test
    fun `another schema is the only thing said`() {
        val message = refusal { it["schema"] = "edgeav-bundle/9" }
        assertTrue("edgeav-bundle/9" in message && SCHEMA in message && "engine" !in message, message)
    }

    @Test
    fun `half a bundle json is an error with its place`() {
        val folder = exampleFolder()
        val file = File(folder, BUNDLE_FILE)
        file.writeText(file.readText().take(200))
        assertTrue("truncated or not JSON" in assertFailsWith<EdgeavError> { readBundle(folder) }.message!!)
    }

    @Test
    fun `a folder without bundle json is no bundle`() {
        val folder = exampleFolder()
        File(folder, BUNDLE_FILE).delete()
        assertTrue("has no bundle.json" in assertFailsWith<EdgeavError> { readBundle(folder) }.message!!)
        assertTrue("does not exist" in assertFailsWith<EdgeavError> { readBundle(File("/nowhere")) }.message!!)
    }
}
