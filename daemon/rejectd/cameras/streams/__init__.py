"""Reads video files and streams: decodes their pictures, and tells whether these are fresh."""
