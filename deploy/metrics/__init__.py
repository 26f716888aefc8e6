"""From raw text and JSON of a device to measurements. Parsers do no I/O."""
