// Everything that is not Android: no Android class, no library but Kotlin's own. check.sh compiles and tests it without Gradle.
plugins {
    id("org.jetbrains.kotlin.jvm")
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    testImplementation(kotlin("test-junit"))
}
