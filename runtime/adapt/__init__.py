"""A layer that follows its load: variants are compiled, validated and swapped while calls run.

Nothing here is imported before `moec.load(..., adapt=True)`, `layer.adapt()` or `layer.statistics` asks for it.
"""
