"""One exporter a format: a torch ExportedProgram in, an Artifact out."""
