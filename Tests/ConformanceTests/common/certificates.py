"""A certificate for 127.0.0.1 and localhost that signs itself, made with the `openssl` command."""

import pathlib
import ssl
import subprocess


class Certificate:
    def __init__(self, directory: pathlib.Path):
        self.certificate, self.key = directory / "cert.pem", directory / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", str(self.key), "-out", str(self.certificate), "-days", "2", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def context(self, *protocols: str) -> ssl.SSLContext:
        """A client's context that trusts this certificate alone and offers these protocols by ALPN."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context
