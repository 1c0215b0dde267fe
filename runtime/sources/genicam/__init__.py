"""Industrial cameras that speak GenICam, over GigE Vision and USB3 Vision, through the library Aravis."""
