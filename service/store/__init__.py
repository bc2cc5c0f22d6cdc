"""Models that lie elsewhere: any address that fsspec can read, mirrored into a local folder.

    s3://bucket/models   gs://...   az://...   hf://...   https://...   file:///...

The service itself only ever serves a folder. `Mirror` keeps one in step with the address, and a
version appears in it by one rename, after every file has come with the size and the sha256 that
its manifest names. So a partial or corrupt download is never served, and what was served once is
served on while the store cannot be reached.

    address.py   what an address is, and how it is shown without its secrets
    access.py    listing, reading and writing there, each with a deadline
    cache.py     the folder, which several processes may share
    download.py  one version: streamed, bounded, checked
    mirror.py    which versions are fetched, kept and removed
"""
