package edgeav.pipeline

import java.io.File
import java.nio.file.Files
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class InstallTest {
    private val place = Files.createTempDirectory("app").toFile()
    private val carried =
        Files.createTempDirectory("apk").toFile().also { exampleFolder().copyRecursively(File(it, "bundle")) }
    private var opened = 0
    private val assets = object : Assets {
        override fun list(path: String) = File(carried, path).list().orEmpty().toList()

        override fun open(path: String) = File(carried, path).inputStream().also { opened++ }
    }

    private fun install() = installBundle(assets, "bundle", place)

    @Test
    fun `a bundle is unpacked once and then only verified`() {
        val first = install()
        opened = 0
        assertEquals(first.folder, install().folder)
        assertEquals(1, opened, "bundle.json alone tells whether it is there")
    }

    @Test
    fun `an asset whose hash does not match is an error and leaves nothing behind`() {
        File(carried, "bundle/model.onnx").appendText("!")
        assertTrue("model.onnx: changed" in assertFailsWith<EdgeavError> { install() }.message!!)
        assertEquals(emptyList(), place.list()!!.toList())
    }

    @Test
    fun `a copy that was damaged or interrupted is made again`() {
        val folder = install().folder
        File(folder, "model.onnx").writeText("rot")
        File(place, "bundle-partial").mkdir()
        assertEquals(folder, install().folder)
        assertEquals(listOf(folder.name), place.list()!!.toList())
    }

    @Test
    fun `another model replaces the one before`() {
        val old = install().folder
        val file = File(carried, "bundle/bundle.json")
        file.writeText(file.readText().replace("\"example\"", "\"newer\""))
        assertEquals("newer", install().name)
        assertTrue(!old.exists())
    }

    @Test
    fun `an app without a model says what to do`() {
        File(carried, "bundle").deleteRecursively()
        assertTrue("assets.sh" in assertFailsWith<EdgeavError> { install() }.message!!)
    }
}
