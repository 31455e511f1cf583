"""TLS to Redis and RabbitMQ: client options from the settings, and explanations of errors."""

from __future__ import annotations

import ssl
from typing import Any, Final
from urllib.parse import urlsplit

from agentapi.errors import ConfigurationError
from agentapi.faults import causes_of, text_of, why_unreachable
from agentapi.settings import Settings
from agentapi.urls import is_cluster

_ENCRYPTED: Final = {
    "redis": "rediss",
    "redis+cluster": "rediss+cluster",
    "sentinel": "sentinels",
    "amqp": "amqps",
}
"""The schemes of URLs without TLS, and those with it."""

_PLAIN: Final = {encrypted: plain for plain, encrypted in _ENCRYPTED.items()}


def is_encrypted(url: str) -> bool:
    """Whether connections to this URL use TLS."""
    return _scheme(url) in _PLAIN


def _scheme(url: str) -> str:
    return url.partition("://")[0].removeprefix("py")


def redis_options(settings: Settings) -> dict[str, Any]:
    """The options of redis-py and kombu for a connection to Redis with TLS.

    Raises:
        ConfigurationError: A file in the settings cannot be used; the text says which and why.
    """
    return {
        **_files(settings, "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"),
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": settings.tls_verify == "full",
    }


def rabbitmq_options(settings: Settings) -> dict[str, Any]:
    """The options of py-amqp for a connection to RabbitMQ with TLS.

    Raises:
        ConfigurationError: A file in the settings cannot be used; the text says which and why.
    """
    options: dict[str, Any] = _files(settings, "ca_certs", "certfile", "keyfile")
    if settings.tls_verify == "full":
        several = ";" in settings.broker_url
        # With several nodes, kombu fills in the first node's name. For a single node it would turn
        # "localhost" into an address, which does not match the certificate.
        options["server_hostname"] = None if several else urlsplit(settings.broker_url).hostname
    return {**options, "cert_reqs": ssl.CERT_REQUIRED}


def _files(settings: Settings, ca: str, cert: str, key: str) -> dict[str, Any]:
    """The files in the settings, checked, under a client's option names."""
    _check_files(settings)
    files = {ca: settings.tls_ca_file, cert: settings.tls_cert_file, key: settings.tls_key_file}
    return {name: file for name, file in files.items() if file}


def _check_files(settings: Settings) -> None:
    """Check the files. The clients would report a missing file as an unreachable server, and would
    ask for the password of an encrypted key on the terminal."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.tls_ca_file:
        try:
            context.load_verify_locations(settings.tls_ca_file)
        except OSError as error:
            raise _unusable("AGENTAPI_TLS_CA_FILE", settings.tls_ca_file, error) from error
    if settings.tls_key_file and not settings.tls_cert_file:
        raise ConfigurationError(
            "AGENTAPI_TLS_KEY_FILE is set without AGENTAPI_TLS_CERT_FILE: set both, or neither"
        )
    if settings.tls_cert_file:
        key = settings.tls_key_file
        try:
            context.load_cert_chain(settings.tls_cert_file, key, password=_refuse_encrypted_key)
        except OSError as error:
            variables = "AGENTAPI_TLS_CERT_FILE" + (" or AGENTAPI_TLS_KEY_FILE" if key else "")
            files = settings.tls_cert_file + (f" or {key}" if key else "")
            raise _unusable(variables, files, error) from error


def _refuse_encrypted_key() -> str:
    raise ConfigurationError(
        "the key of AGENTAPI_TLS_CERT_FILE is encrypted, and a process cannot ask for the "
        "password: decrypt the key (openssl pkey -in KEY -out NEW_KEY), and let only this user "
        "read the new file"
    )


def _unusable(variables: str, files: str, error: OSError) -> ConfigurationError:
    if isinstance(error, FileNotFoundError):
        why = "there is no such file"
    elif isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        why = "the key does not belong to the certificate"
    elif isinstance(error, ssl.SSLError):
        why = "expected PEM (-----BEGIN …), with a key that is not encrypted"
    else:
        why = error.strerror or type(error).__name__
    return ConfigurationError(f"{variables}: {files} cannot be used: {why}")


_FAULTS: Final = (
    (
        ("certificate has expired",),
        "its TLS certificate has expired",
        "renew it on the server, or correct this machine's clock",
    ),
    (
        ("certificate is not yet valid",),
        "its TLS certificate is not valid yet",
        "correct this machine's clock, or replace it",
    ),
    (
        ("ostname mismatch", "IP address mismatch"),
        "its TLS certificate is for another name",
        "use a name of the certificate in {variable}, or set AGENTAPI_TLS_VERIFY=ca",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "its TLS certificate is not signed by a CA that this process trusts",
        "set AGENTAPI_TLS_CA_FILE to the certificate of the server's CA",
    ),
    (
        (
            "CERTIFICATE_REQUIRED",
            "HANDSHAKE_FAILURE",
            "ALERT_UNKNOWN_CA",
            "BAD_CERTIFICATE",
            "CERTIFICATE_EXPIRED",
            "certificate required",
        ),
        "it refuses the TLS certificate of this process, or requires one",
        "set AGENTAPI_TLS_CERT_FILE and AGENTAPI_TLS_KEY_FILE to a certificate signed by the "
        "server's CA, and its key",
    ),
    (
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"),
        "it does not speak TLS on this port",
        "name its TLS port in {variable}, or write {plain}:// instead of {encrypted}://",
    ),
)
"""Parts of OpenSSL's error texts, what is wrong, and what to do."""

_CLUSTER_FAULTS: Final = (
    (
        ("ostname mismatch", "IP address mismatch"),
        "the TLS certificate of a node does not match the name that {variable} or the cluster uses "
        "for the node",
        "set cluster-announce-hostname to a name of the certificate and "
        "cluster-preferred-endpoint-type to hostname on every node, or set AGENTAPI_TLS_VERIFY=ca",
    ),
)
"""The same for a cluster, whose nodes announce their own names."""

_CLOSED: Final = ("closed", "reset by peer", "rotocol error", "Protocol Error", "EOF", "roken pipe")


def why_out_of_reach(error: BaseException, url: str, variable: str) -> str:
    """Why a server cannot be reached, and what to do.

    Args:
        error: What the client raised.
        url: The server's URL, with or without its password.
        variable: The variable that holds the URL.
    """
    if (fault := tls_fault(error, url, variable)) is not None:
        return ": ".join(fault)
    usual = f"{why_unreachable(error)}; is it running, and is {variable} correct?"
    guess = tls_guess(error, url, variable)
    return usual if guess is None else f"{usual} {guess[0]}"


def tls_fault(error: BaseException, url: str, variable: str) -> tuple[str, str] | None:
    """What is wrong with TLS to a server, and what to do; None if it is something else.

    Args: as `why_out_of_reach`.
    """
    if not is_encrypted(url):
        return None
    scheme, found = _scheme(url), _texts_of(error)
    names = {"variable": variable, "encrypted": scheme, "plain": _PLAIN[scheme]}
    for parts, what, remedy in (_CLUSTER_FAULTS if is_cluster(url) else ()) + _FAULTS:
        if any(part in found for part in parts):
            return what.format(**names), remedy.format(**names)
    return None


def tls_guess(error: BaseException, url: str, variable: str) -> tuple[str, str] | None:
    """A guess at what is wrong with TLS if a server does not answer or closes the connection: a
    sentence for the end of a message, and what to do. None if nothing points to TLS.

    Args: as `why_out_of_reach`.
    """
    scheme, found = _scheme(url), _texts_of(error)
    closed = any(part in found for part in _CLOSED)
    files = "set AGENTAPI_TLS_CERT_FILE and AGENTAPI_TLS_KEY_FILE"
    if is_encrypted(url) and ("timed out" in found or "Timeout" in found):
        # A Redis without TLS takes the handshake for a command and waits for the rest of it.
        return (
            "A port without TLS may not answer at all: does this one speak TLS?",
            f"name its TLS port in {variable}, or write {_PLAIN[scheme]}:// if it has none",
        )
    if is_encrypted(url) and closed:
        # With TLS 1.3 the server asks for a client certificate after the client considers the
        # connection established.
        return f"If the server asks for a certificate, {files}", f"{files} if it asks for them"
    if scheme in _ENCRYPTED and closed:
        use = f"write {_ENCRYPTED[scheme]}:// in"
        return f"If the port expects TLS, {use} the URL", f"{use} {variable} if it expects TLS"
    return None


def _texts_of(error: BaseException) -> str:
    # Texts, not types: an error about sentinels only quotes the errors that caused it.
    return " ".join(text_of(cause) for cause in causes_of(error))
