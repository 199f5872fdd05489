"""The artefact of a training run: read, checked, loaded into an engine, written whole."""
