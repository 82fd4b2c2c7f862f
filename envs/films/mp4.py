"""Writes pictures to an H.264 MP4 that any browser plays, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from envs.errors import UserError
from envs.machine.cores import usable_cores

# More than players decode, and near the most that the codec allows.
_MAX_SIDE = 4096


class Mp4Writer:
    """A film in the making, as a context manager.

    It grows under a name of its own beside its path and takes the path when the block ends well;
    otherwise nothing is left of it.

    Attributes:
        path: where the film will be.
        fps: pictures in a second.
        pictures: how many have been added.
    """

    def __init__(self, path: Path, fps: int, height: int) -> None:
        """Plan the film.

        Args:
            path: of the MP4; missing directories are made and an old film is replaced.
            fps: pictures in a second.
            height: in pixels, about: pictures are enlarged by the whole factor that comes nearest.
                Those with a side of more than 4,096 pixels are made smaller.
        """
        self.path = path
        self.fps = fps
        self.pictures = 0
        self._height = height
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.part").absolute()
        self._encoder: subprocess.Popen[bytes] | None = None
        self._shape: tuple[int, ...] | None = None

    def __enter__(self) -> Mp4Writer:
        """Make room for the film.

        Raises:
            UserError: the path cannot be written.
        """
        try:
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A file, for the encoder would stop for ever if nobody emptied a pipe full of messages.
            self._messages = tempfile.TemporaryFile()
            self._partial.touch()
        except OSError as error:
            raise self._failure(error.strerror) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish the film, or leave nothing of it if the block failed.

        Raises:
            UserError: the block ended well but the film cannot be written.
        """
        try:
            whole = self._stop_encoder()
            if kind is None:
                if not whole:
                    raise self._failure()
                try:
                    os.replace(self._partial, self.path)
                except OSError as failure:
                    raise self._failure(failure.strerror) from None
        finally:
            self._partial.unlink(missing_ok=True)
            self._messages.close()

    def add(self, picture: np.ndarray) -> None:
        """Append a picture, uint8 (height, width, 3); all are of the first one's shape.

        Raises:
            UserError: the film cannot be written any more, for example because the disk is full.
        """
        if self._encoder is None:
            self._shape = picture.shape
            self._encoder = self._start_encoder(*picture.shape[:2])
        if picture.shape != self._shape:
            raise ValueError(f"a picture of shape {picture.shape} in a film of {self._shape}")
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(np.ascontiguousarray(picture).data)
        except OSError:
            raise self._failure() from None
        self.pictures += 1

    def _start_encoder(self, height: int, width: int) -> subprocess.Popen[bytes]:
        # Only here: all else in the library works where no ffmpeg can be had.
        import imageio_ffmpeg

        # Wide and low pictures would become wider than the codec allows.
        factor = float(min(round(self._height / height), 4 * self._height // width))
        if factor < 1:
            factor = min(1, _MAX_SIDE / max(height, width))
        wide, high = (max(1, round(side * factor)) for side in (width, height))
        how = "neighbor" if factor >= 1 else "area"
        # H.264 with 4:2:0 colour wants even sizes.
        resize = f"scale={wide}:{high}:flags={how},pad=ceil(iw/2)*2:ceil(ih/2)*2"
        source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {self.fps} -i pipe:0"
        codec = "-c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv420p -movflags +faststart"
        options = ["-y", "-loglevel", "error", *source.split(), "-vf", resize, *codec.split()]
        options += ["-threads", str(usable_cores()), "-f", "mp4", str(self._partial)]
        try:
            return subprocess.Popen(
                [imageio_ffmpeg.get_ffmpeg_exe(), *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._messages,
                # Ctrl-C is for the training run to answer, not for the encoder.
                start_new_session=True,
            )
        except (RuntimeError, OSError) as error:
            raise self._failure(f"no ffmpeg can be started: {error}") from None

    def _stop_encoder(self) -> bool:
        """End the encoder; whether it wrote a whole film."""
        if self._encoder is None:
            return False
        assert self._encoder.stdin is not None
        # Where it has died already its exit status says so too.
        with contextlib.suppress(OSError):
            self._encoder.stdin.close()
        return self._encoder.wait() == 0

    def _failure(self, reason: str | None = None) -> UserError:
        """The error to raise, for the reason given or else the encoder's last words."""
        if reason is None:
            self._messages.seek(0)
            words = self._messages.read().decode(errors="replace").split("\n")
            reason = next((line for line in reversed(words) if line.strip()), "it has no pictures")
        return UserError(f'cannot write the film "{self.path}": {reason.strip()}')
