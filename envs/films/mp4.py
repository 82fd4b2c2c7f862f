"""Writes pictures to an H.264 MP4 for any browser, all or nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from envs.errors import UserError
from envs.machine.cores import usable_cores

# Players decode no larger pictures, and the codec allows hardly larger ones.
_MAX_SIDE = 4096


class Mp4Writer:
    """Context manager that writes a film.

    The film has a temporary name until the block ends. An error in the block removes it.

    Attributes:
        path: path of the film.
        fps: pictures per second.
        pictures: number of pictures so far.
    """

    def __init__(self, path: Path, fps: int, height: int) -> None:
        """Stores the arguments.

        Args:
            path: path of the MP4; missing directories are created and an old film is replaced.
            fps: pictures per second.
            height: approximate height in pixels: pictures are enlarged by the nearest whole factor.
                Pictures with a side of more than 4,096 pixels are reduced.
        """
        self.path = path
        self.fps = fps
        self.pictures = 0
        self._height = height
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.part").absolute()
        self._encoder: subprocess.Popen[bytes] | None = None
        self._shape: tuple[int, ...] | None = None

    def __enter__(self) -> Mp4Writer:
        """Creates the temporary file.

        Raises:
            UserError: the path cannot be written.
        """
        try:
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A file, since the encoder would block on a full pipe.
            self._messages = tempfile.TemporaryFile()
            self._partial.touch()
        except OSError as error:
            raise self._failure(error.strerror) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Completes the film, or removes it after an error in the block.

        Raises:
            UserError: the block had no error, but the film cannot be written.
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
        """Appends a picture, uint8 (height, width, 3), with the shape of the first one.

        Raises:
            UserError: the film cannot be written, for example because the disk is full.
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
        # Imported here, so that everything else works without ffmpeg.
        import imageio_ffmpeg

        # Wide pictures must not become wider than the codec allows.
        factor = float(min(round(self._height / height), 4 * self._height // width))
        if factor < 1:
            factor = min(1, _MAX_SIDE / max(height, width))
        wide, high = (max(1, round(side * factor)) for side in (width, height))
        how = "neighbor" if factor >= 1 else "area"
        # H.264 with 4:2:0 colour needs even sizes.
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
                # Only the training run answers Ctrl-C.
                start_new_session=True,
            )
        except (RuntimeError, OSError) as error:
            raise self._failure(f"no ffmpeg can be started: {error}") from None

    def _stop_encoder(self) -> bool:
        """Ends the encoder; whether the film is complete."""
        if self._encoder is None:
            return False
        assert self._encoder.stdin is not None
        # A dead encoder also has a bad exit status.
        with contextlib.suppress(OSError):
            self._encoder.stdin.close()
        return self._encoder.wait() == 0

    def _failure(self, reason: str | None = None) -> UserError:
        """The error with this reason, or with the encoder's last message."""
        if reason is None:
            self._messages.seek(0)
            words = self._messages.read().decode(errors="replace").split("\n")
            reason = next((line for line in reversed(words) if line.strip()), "it has no pictures")
        return UserError(f'cannot write the film "{self.path}": {reason.strip()}')
