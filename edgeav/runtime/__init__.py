"""What runs on the device: file -> frames -> mouth -> features -> engine -> CTC -> text. numpy and one
engine, no torch.

Read in that order: media, mouth, features, engines, ctc, transcriber; `bundle` is the folder they all get
their settings from, `bench` measures it. Nothing is imported here, so that a Pi loads only what it uses.
"""
