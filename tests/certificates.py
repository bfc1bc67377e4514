"""Throw-away certificates for signing tests, made by the openssl program; nothing of them is ever stored."""

import subprocess
from pathlib import Path

END_ENTITY = """
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, emailProtection
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def make_certificate(folder: Path) -> tuple[Path, Path, Path]:
    """(certificate chain, private key, root) as PEM files in the folder: P-256, as C2PA wants them."""

    def openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    root_key, root, key = folder / "root.key", folder / "root.pem", folder / "ee.key"
    request, certificate, extensions = folder / "ee.csr", folder / "ee.pem", folder / "ee.cnf"
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        *("req", "-x509", *new_key, "-keyout", root_key, "-out", root, "-days", 2, "-subj", "/O=Test root/CN=Root"),
        *("-addext", "keyUsage=critical,keyCertSign"),
    )
    openssl("req", *new_key, "-keyout", key, "-out", request, "-subj", "/O=Test signer/CN=Signer")
    extensions.write_text(END_ENTITY)
    openssl(
        *("x509", "-req", "-in", request, "-CA", root, "-CAkey", root_key, "-CAcreateserial", "-days", 1),
        *("-out", certificate, "-extfile", extensions),
    )
    chain = folder / "chain.pem"
    chain.write_bytes(certificate.read_bytes() + root.read_bytes())
    return chain, key, root
