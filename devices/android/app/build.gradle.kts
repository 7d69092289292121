// The model is not in the source tree: ./assets.sh puts a bundle and the face cascade into src/main/assets.
plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "edgeav.captions"
    compileSdk = 35

    defaultConfig {
        applicationId = "edgeav.captions"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "0.1"
        ndk { abiFilters += "arm64-v8a" }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
    androidResources { noCompress += listOf("onnx", "pte") } // compressed twice is only slower to unpack
    sourceSets["main"].kotlin.srcDir("src/main/kotlin")
}

tasks.named("preBuild") {
    doFirst {
        val bundle = file("src/main/assets/bundle/bundle.json")
        require(bundle.isFile) { "no model: run devices/android/assets.sh BUNDLE first" }
    }
}

dependencies {
    implementation(project(":pipeline"))
    implementation("androidx.activity:activity:1.9.3")
    implementation("androidx.core:core:1.15.0")
    implementation("androidx.lifecycle:lifecycle-viewmodel:2.8.7")
    implementation("androidx.camera:camera-core:1.4.1")
    implementation("androidx.camera:camera-camera2:1.4.1")
    implementation("androidx.camera:camera-lifecycle:1.4.1")
    implementation("androidx.camera:camera-view:1.4.1")
    // The versions whose exports the bundles are made for: see `exported` in bundle.json.
    implementation("com.microsoft.onnxruntime:onnxruntime-android:1.29.0")
    implementation("org.pytorch:executorch-android:1.4.0")
}
