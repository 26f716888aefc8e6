"""Every recipe step; importing this module registers them. One line a step."""

from compress import factorize as factorize
from compress import fine_tune as fine_tune
from compress import quantize as quantize
