"""Downloads, from one request up to many objects with mirrors, retries and resumption.

`fetch` is what the rest of the client uses; each other module is one part of it.
"""
