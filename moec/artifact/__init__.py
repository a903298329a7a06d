"""The file that `moec compile` writes: a shared library with an archive of its description behind it.

Nothing here loads or runs the library; that is `moec.runtime`'s part.
"""
