#!/usr/bin/env bash
# Everything of this app that can be checked without Android Studio, Gradle or an Android SDK.
#
#   check.sh tools      install the Kotlin compiler (npm) into $EDGEAV_ANDROID_TOOLS (default: .cache/android of the repository)
#   check.sh test       compile pipeline/ and its tests where something changed, and run them on the JVM
#   check.sh app        compile the resources with aapt2, and app/ against the signatures in stubs/
#   check.sh probe F    let pipeline/ answer the requests in F (see Probe.kt)
#   check.sh            test and app
#
# Needs a JDK, JUnit 4 and, for `app`, aapt2 with Android's framework resources. Debian has them all:
#   apt-get install default-jdk-headless junit4 aapt android-framework-res npm
# Exit code 3: a tool is missing, and which.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${EDGEAV_ANDROID_TOOLS:-$here/../../.cache/android}
lib=$tools/node_modules/kotlin-compiler/lib
out=$tools/build
junit=${JUNIT_JARS:-/usr/share/java/junit4.jar:/usr/share/java/hamcrest.jar}
framework=${ANDROID_FRAMEWORK:-/usr/share/android-framework-res/framework-res.apk}
tests=$out/pipeline:$lib/kotlin-stdlib.jar:$lib/kotlin-test.jar:$lib/kotlin-test-junit.jar:$junit
KOTLIN=2.4.20

missing() { echo "check.sh: $1" >&2; exit 3; }

install_tools() {
  [ "$(cat "$tools/version" 2>/dev/null)" = "$KOTLIN" ] && return
  command -v npm >/dev/null || missing "npm is not installed (Debian: apt-get install npm)"
  mkdir -p "$tools"
  npm install --silent --no-audit --no-fund --prefix "$tools" "kotlin-compiler@$KOTLIN"
  echo "$KOTLIN" > "$tools/version"
}

need_jvm() {
  command -v java >/dev/null || missing "no JDK (Debian: apt-get install default-jdk-headless)"
  [ -f "$lib/kotlin-compiler.jar" ] || missing "no Kotlin compiler: run devices/android/check.sh tools"
  [ -f "${junit%%:*}" ] || missing "no JUnit 4 (Debian: apt-get install junit4), or name the jars in JUNIT_JARS"
}

# part NAME CLASSPATH SOURCE…: compiled when a source changed, or a part that it builds on
part() {
  local name=$1 path=$2 stamp jars
  shift 2
  stamp=$({ echo "$KOTLIN"; [ "$name" = pipeline ] || cat "$out/pipeline.stamp"; find "$@" -type f | sort | xargs cat; } | sha256sum)
  [ "$(cat "$out/$name.stamp" 2>/dev/null)" = "$stamp" ] && return
  rm -rf "${out:?}/$name" "$out/$name.stamp"
  jars=$(printf '%s:' "$lib"/{kotlin-compiler,kotlin-stdlib,kotlin-script-runtime,kotlin-reflect,kotlinx-coroutines-core-jvm,annotations-13.0}.jar)
  java -Xmx1g -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars" org.jetbrains.kotlin.cli.jvm.K2JVMCompiler \
    -no-stdlib -no-reflect -jvm-target 17 -Werror "-Xfriend-paths=$out/pipeline" -cp "$lib/kotlin-stdlib.jar:$path" -d "$out/$name" "$@"
  echo "$stamp" > "$out/$name.stamp"
}

build_pipeline() {
  need_jvm
  mkdir -p "$out"
  exec 9> "$out/lock" # tests run in parallel
  flock 9
  part pipeline "" "$here/pipeline/src/main/kotlin"
}

build_tests() {
  build_pipeline
  part tests "$tests" "$here/pipeline/src/test/kotlin"
}

# What the tests unpack goes with them: the JVM removes no folder that has files in it.
jvm() {
  local scratch code=0
  scratch=$(mktemp -d)
  java "-Djava.io.tmpdir=$scratch" "$@" || code=$?
  rm -rf "$scratch"
  return "$code"
}

run_tests() {
  build_tests
  local classes=()
  for file in "$here"/pipeline/src/test/kotlin/edgeav/pipeline/*Test.kt; do
    classes+=("edgeav.pipeline.$(basename "$file" .kt)")
  done
  jvm -cp "$out/tests:$tests" org.junit.runner.JUnitCore "${classes[@]}"
}

# aapt2 reads what Gradle would have filled in as it stands, so the application id is put in first.
resources() {
  command -v aapt2 >/dev/null || missing "no aapt2 (Debian: apt-get install aapt)"
  [ -f "$framework" ] || missing "no framework resources (Debian: apt-get install android-framework-res)"
  local res=$here/app/src/main
  rm -rf "$out/resources"
  mkdir -p "$out/resources"
  sed 's/${applicationId}/edgeav.captions/; s/<manifest /<manifest package="edgeav.captions" /' "$res/AndroidManifest.xml" > "$out/resources/AndroidManifest.xml"
  aapt2 compile --dir "$res/res" -o "$out/resources/compiled.zip"
  aapt2 link -I "$framework" --manifest "$out/resources/AndroidManifest.xml" --min-sdk-version 26 --target-sdk-version 35 \
    --java "$out/resources/java" -o "$out/resources/resources.apk" "$out/resources/compiled.zip"
}

stubs() {
  rm -rf "$out/stubs"
  awk -v to="$out/stubs" '/^== /{ close(file); file = to "/" $2; folder = file; sub(/\/[^\/]*$/, "", folder); system("mkdir -p " folder); next } file { print > file }' "$here/stubs/android.txt"
}

check_app() {
  build_pipeline
  resources
  stubs
  part app "$out/pipeline" "$here/app/src/main/kotlin" "$out/stubs" "$out/resources/java"
  echo "app/ fits its resources and the signatures in stubs/; it was not built by Gradle and not run"
}

case ${1:-all} in
  tools) install_tools ;;
  test) run_tests ;;
  app) check_app ;;
  probe) build_tests >&2; jvm -cp "$out/tests:$tests" edgeav.pipeline.ProbeKt "$2" ;;
  all) run_tests; check_app ;;
  *) sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | head -12; exit 2 ;;
esac
