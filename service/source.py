"""Where the models come from: a folder, or a store that is mirrored into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from service.listen import CannotStart
from service.models import policy
from service.settings import Settings
from service.signing import names as signing

if TYPE_CHECKING:
    from service.models.repository import StoreMirror
    from service.models.signed import Trust


def _trusted(settings: Settings) -> Trust | None:
    """Whose signatures versions must have; None if they need none.

    Raises:
        CannotStart: the keys cannot be used, or lie where whoever writes models writes.
    """
    path, models = settings.require_signature, settings.models
    if path is None:
        return None
    if isinstance(models, Path) and models.resolve() in path.resolve().parents:
        raise CannotStart(
            f"--require-signature: {path} lies in the models folder, where whoever can write a "
            "model could put another key. Keep it elsewhere."
        )
    try:
        return signing.trusted(path, "--require-signature")
    except signing.TrustUnusable as error:
        raise CannotStart(str(error)) from None


class Source(NamedTuple):
    """The folder that is served, what keeps it in step with a store, and whose signatures count."""

    folder: Path
    mirror: StoreMirror | None
    trust: Trust | None


def check(settings: Settings) -> None:
    """As far as that can be told at once: a store is asked only by who serves of it.

    Raises:
        CannotStart: as `find`.
    """
    if isinstance(settings.models, Path):
        find(settings)
    else:
        _trusted(settings)


def find(settings: Settings) -> Source:
    """Where the models come from.

    Raises:
        CannotStart: there is no such folder, the store cannot be used, or the keys of signatures.
    """
    models, trust = settings.models, _trusted(settings)
    if isinstance(models, Path):
        if not models.is_dir():
            raise CannotStart(
                f"The models folder {str(models)!r} does not exist. Create it, or point "
                "--models to the folder that holds <name>/<version>/model.onnx."
            )
        try:
            next(models.iterdir(), None)
        except OSError as error:
            raise CannotStart(
                f"The models folder {str(models)!r} cannot be read: {error.strerror}. Let the user "
                "who runs the server list it."
            ) from None
        return Source(models, None, trust)
    from service.store.access import Store, StoreError, StoreUnusable
    from service.store.cache import folder_of
    from service.store.mirror import Mirror

    try:
        store = Store(models, settings.store_timeout_ms / 1000, settings.store_attempts)
    except StoreUnusable as error:
        raise CannotStart(f"The models cannot be fetched: {error}") from None
    wanted = policy.parse(settings.version_policy)
    folder = settings.model_cache or Path("~/.cache")
    try:
        folder = folder_of(models, settings.model_cache)
        mirror = Mirror(store, folder, wanted, settings.max_model_cache_bytes, trust)
        mirror.reach()
    except OSError as error:
        raise CannotStart(
            f"Models cannot be kept in {str(folder)!r}: {error.strerror}. Name a folder that can "
            "be written with --model-cache."
        ) from None
    except StoreError as error:
        raise CannotStart(
            f"The model store {store.address} cannot be read: {error}. Nothing was fetched from "
            "it before, so there is nothing to serve. Check the address and your access."
        ) from None
    return Source(folder, mirror, trust)
