"""The API's port: limits on connections and requests, applied before a request is served."""
