"""The compiler's driver: from a file to an artifact, stage by stage."""

from moec.pipeline.driver import Compilation, Observer, compile

__all__ = ["Compilation", "Observer", "compile"]
