"""The RFB protocol (RFC 6143), pure: bytes in, bytes out, no sockets."""
