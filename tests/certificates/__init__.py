"""Certificates, and a proxy that speaks TLS, for tests."""

from tests.certificates.authority import Authority, Identity
from tests.certificates.proxy import TlsProxy

__all__ = ["Authority", "Identity", "TlsProxy"]
