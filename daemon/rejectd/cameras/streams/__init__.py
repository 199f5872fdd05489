"""Video files and streams: decoded, and told whether they are fresh."""
