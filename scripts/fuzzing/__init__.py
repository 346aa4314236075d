"""Fuzzes the stream server's HTTP, WebSocket and RFB input, guided by line coverage."""
