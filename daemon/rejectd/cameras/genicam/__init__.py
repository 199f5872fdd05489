"""Cameras that speak GenICam: GigE Vision and USB3 Vision."""
