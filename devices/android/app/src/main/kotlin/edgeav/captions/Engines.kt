/** The two runtimes behind the pipeline's Engine. Each runs a bundle as it was exported; none stands in for another. */
package edgeav.captions

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtSession
import edgeav.pipeline.Bundle
import edgeav.pipeline.EdgeavError
import edgeav.pipeline.Engine
import edgeav.pipeline.EngineOpener
import edgeav.pipeline.Inputs
import edgeav.pipeline.Tensor
import java.nio.FloatBuffer
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor as TorchTensor

/** Opens the engine that a bundle was exported for. Throws EdgeavError for one that the app does not have. */
class Engines(private val bundle: Bundle) : EngineOpener {
    override fun load() {
        when (bundle.engine) {
            "onnxruntime" -> OrtEnvironment.getEnvironment()
            "executorch" -> Class.forName("org.pytorch.executorch.Module")
            else -> throw EdgeavError("This bundle needs ${bundle.engine}; the app has onnxruntime and executorch.")
        }
    }

    override fun open(bundle: Bundle, threads: Int): Engine {
        load()
        return if (bundle.engine == "onnxruntime") OnnxRuntime(bundle, threads) else ExecuTorch(bundle, threads)
    }
}

private class OnnxRuntime(bundle: Bundle, threads: Int) : Engine {
    override val name = "onnxruntime"
    private val environment = OrtEnvironment.getEnvironment()
    override val version: String = environment.version
    private val session = refusing(bundle, this) {
        OrtSession.SessionOptions().use { options ->
            options.setIntraOpNumThreads(threads)
            options.setInterOpNumThreads(1)
            environment.createSession(bundle.modelFile.path, options)
        }
    }

    override fun run(inputs: Inputs): Tensor {
        val fed = inputs.arrays.mapValues { (_, array) ->
            OnnxTensor.createTensor(environment, FloatBuffer.wrap(array.data), longs(array.shape))
        }
        try {
            session.run(fed).use { result ->
                val found = result.get("log_probs").orElseThrow { EdgeavError("the model has no output log_probs") } as OnnxTensor
                val values = found.floatBuffer
                return Tensor(ints(found.info.shape), FloatArray(values.remaining()).also { values.get(it) })
            }
        } catch (error: OrtException) {
            throw EdgeavError("$name $version: ${error.message}", error)
        } finally {
            fed.values.forEach { it.close() }
        }
    }

    override fun close() = session.close()
}

/** XNNPACK through ExecuTorch. Its classes do not tell their version: it is that of the AAR in build.gradle.kts. */
private class ExecuTorch(bundle: Bundle, threads: Int) : Engine {
    override val name = "executorch"
    override val version = "1.4.0"
    private val module = refusing(bundle, this) { Module.load(bundle.modelFile.path, Module.LOAD_MODE_MMAP, threads) }

    override fun run(inputs: Inputs): Tensor {
        val fed = inputs.arrays.values.map { EValue.from(TorchTensor.fromBlob(it.data, longs(it.shape))) }
        val found = try {
            module.forward(*fed.toTypedArray())[0].toTensor()
        } catch (error: RuntimeException) { // ExecuTorch's own exceptions share no other base
            throw EdgeavError("$name $version: ${error.message}", error)
        }
        return Tensor(ints(found.shape()), found.dataAsFloatArray)
    }

    override fun close() = module.destroy()
}

private fun <T> refusing(bundle: Bundle, engine: Engine, open: () -> T): T = try {
    open()
} catch (error: Exception) { // the two runtimes' exceptions share no other base
    val made = bundle.exported.entries.joinToString { "${it.key} ${it.value}" }
    val what = "${engine.name} ${engine.version} cannot load ${bundle.model}: ${error.message}"
    throw EdgeavError("$what\nThe bundle was made with $made.", error)
}

private fun longs(shape: IntArray) = LongArray(shape.size) { shape[it].toLong() }

private fun ints(shape: LongArray) = IntArray(shape.size) { shape[it].toInt() }
