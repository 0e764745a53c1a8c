"""Put on PYTHONPATH, this keeps a Python process (and a Jupyter kernel) off the network.

Loopback stays open: a kernel talks to its client over it.
"""
import socket

_connect, _getaddrinfo = socket.socket.connect, socket.getaddrinfo
LOOPBACK = ("127.", "::1", "localhost")


def _refuse(host):
    if not str(host).startswith(LOOPBACK): raise OSError(f"a lesson must not use the network, and this one asked for {host!r}")


def connect(self, address):
    if isinstance(address, tuple): _refuse(address[0])
    return _connect(self, address)


def getaddrinfo(host, *args, **kwargs):
    if host: _refuse(host.decode() if isinstance(host, bytes) else host)
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo
