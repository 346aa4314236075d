"""A fuzz run over the stream's HTTP, WebSocket and RFB entry, guided by what it reaches."""
