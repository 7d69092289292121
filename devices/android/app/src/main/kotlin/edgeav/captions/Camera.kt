/** The camera as upright gray pictures with their times, through CameraX. */
package edgeav.captions

import android.content.Context
import android.os.SystemClock
import android.util.Size
import androidx.camera.core.CameraInfoUnavailableException
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.Preview
import androidx.camera.core.resolutionselector.ResolutionSelector
import androidx.camera.core.resolutionselector.ResolutionStrategy
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import androidx.lifecycle.LifecycleOwner
import edgeav.pipeline.Gray
import edgeav.pipeline.Plane
import edgeav.pipeline.grayFromYuv
import edgeav.pipeline.onMonotonicClock
import java.util.concurrent.ExecutionException
import java.util.concurrent.Executor

private val WANTED = Size(640, 480) // the face search shrinks to 288 lines, the crop wants some 170 pixels of mouth

/** `saw` gets (System.nanoTime() of the picture, picture) on `worker`; pictures that come too fast are skipped. */
class Camera(private val context: Context, private val worker: Executor, private val saw: (Long, Gray) -> Unit) {
    /** Runs until `owner` stops. `failed` gets a reason on the main thread where there is no camera to use. */
    fun start(owner: LifecycleOwner, view: PreviewView, failed: (String) -> Unit) {
        val opening = ProcessCameraProvider.getInstance(context)
        opening.addListener({
            try {
                bind(opening.get(), owner, view)
            } catch (error: ExecutionException) {
                failed(error.cause?.message ?: "no camera")
            } catch (error: CameraInfoUnavailableException) {
                failed(error.message ?: "no camera")
            } catch (error: IllegalArgumentException) { // no camera of that kind after all
                failed(error.message ?: "no camera")
            } catch (error: IllegalStateException) { // the screen is gone meanwhile
                failed(error.message ?: "no camera")
            }
        }, ContextCompat.getMainExecutor(context))
    }

    private fun bind(provider: ProcessCameraProvider, owner: LifecycleOwner, view: PreviewView) {
        val front = CameraSelector.DEFAULT_FRONT_CAMERA
        val camera = if (provider.hasCamera(front)) front else CameraSelector.DEFAULT_BACK_CAMERA
        val preview = Preview.Builder().build()
        preview.setSurfaceProvider(view.surfaceProvider)
        val strategy = ResolutionStrategy(WANTED, ResolutionStrategy.FALLBACK_RULE_CLOSEST_HIGHER_THEN_LOWER)
        val analysis = ImageAnalysis.Builder()
            .setResolutionSelector(ResolutionSelector.Builder().setResolutionStrategy(strategy).build())
            .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
            .build()
        analysis.setAnalyzer(worker) { image -> image.use(::look) }
        provider.unbindAll() // those of the screen before a rotation
        provider.bindToLifecycle(owner, camera, preview, analysis)
    }

    private fun look(image: ImageProxy) {
        val luminance = image.planes[0]
        val plane = Plane(luminance.buffer, luminance.rowStride, luminance.pixelStride)
        val picture = grayFromYuv(plane, image.width, image.height, image.imageInfo.rotationDegrees)
        val at = onMonotonicClock(image.imageInfo.timestamp, System.nanoTime(), SystemClock.elapsedRealtimeNanos())
        saw(at, picture)
    }
}
