"""From graph-level IR to a fixed-point layer, by the structure of its row programs."""

from moec.backends.hls.read.layer import Read as Read
from moec.backends.hls.read.layer import read as read
