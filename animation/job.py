"""What is to be made, and what was: the files of a video, and a summary of it."""

from dataclasses import dataclass, field
from pathlib import Path

from datasets.media.streams import FPS


@dataclass(frozen=True)
class Job:
    """The files of one video."""

    image: Path
    output: Path
    audio: Path | None = None  # may be absent only with `motion`
    motion: Path | None = None  # replaces the audio networks
    head_pose: Path | None = None  # replaces N_H
    frames_dir: Path | None = None
    save_motion: Path | None = None

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that are read."""
        return tuple(file for file in (self.image, self.audio, self.motion, self.head_pose) if file is not None)

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files that are written, the video first, and the folder for frames."""
        return tuple(file for file in (self.output, self.save_motion, self.frames_dir) if file is not None)


@dataclass
class Summary:
    """What was made and how long it took."""

    output: Path
    frames: int = 0
    fps: float = FPS
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    notices: list[str] = field(default_factory=list)  # what the user should know about the input
