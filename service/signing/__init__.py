"""Signatures of model versions, in the format of OpenSSF Model Signing v1.0.

    models/<name>/<version>/model.sig

The file is a Sigstore bundle (JSON) around a DSSE envelope around an in-toto statement, which lists
the sha256 of every other file of the version. It is signed by an elliptic-curve key, or by such a
key with a chain of certificates. `model_signing verify key` accepts what is signed here, and what
`model_signing sign key` signs is accepted here; keyless signatures, which need Sigstore's servers,
are not.

    names.py      what others need to know: the file's name, its bound, the exception
    envelope.py   the bundle and its envelope, bounded
    statement.py  what is signed: the digests of the files
    keys.py       who is trusted: public keys and root certificates, out of one file
    chains.py     from a signing certificate to a root that is trusted
    signing.py    the other side: a private key, and what it signs
    asked.py, command.py, sign_command.py   `foldserve verify-signature` and `foldserve sign`

Only keys, chains and signing import the package `cryptography`, which the extra [signing] brings.

Sources: OpenSSF Model Signing specification v1.0, github.com/ossf/model-signing-spec; DSSE v1.0.0,
github.com/secure-systems-lab/dsse; in-toto Statement v1, github.com/in-toto/attestation.
"""
