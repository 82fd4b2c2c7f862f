"""Pictures of what networks see: each is a function from data to a matplotlib figure."""

from typing import TYPE_CHECKING

from envs.lazy import import_at_first_use

if TYPE_CHECKING:
    from rlcnn.visualize.sheets import Sheet, track_gallery, write_gallery
else:
    __getattr__ = import_at_first_use(__name__)

__all__ = ["Sheet", "track_gallery", "write_gallery"]
