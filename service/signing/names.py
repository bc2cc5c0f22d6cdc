"""What readers of version folders need to know of signatures, without what reads them."""

SIGNATURE_FILE = "model.sig"
LONGEST_SIGNATURE_BYTES = 1024 * 1024


class Unverified(Exception):
    """The signature does not hold, or says too little; the text is a sentence without any path."""
