"""Every recipe step; importing this module registers them. One line a step."""

from compress import binarize as binarize
from compress import blocks as blocks
from compress import channels as channels
from compress import clip as clip
from compress import cluster as cluster
from compress import factorize as factorize
from compress import fine_tune as fine_tune
from compress import fold as fold
from compress import imitate as imitate
from compress import quantize as quantize
from compress import round_floats as round_floats
from compress import sparsify as sparsify
