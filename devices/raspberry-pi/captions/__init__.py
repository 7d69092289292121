"""Live captions on a Raspberry Pi, from a camera and a microphone or from a file: python -m captions --help"""
